from pathlib import Path

from defraction.job import job

with job(snakemake, state=True) as run:
    from defraction.learning.parallel import train_in_processes

    train_in_processes(
        run.runtime["training_processes"],
        patterns={Path(path).stem: path for path in run.input.patterns},
        split=run.input.split,
        labels=run.input.labels,
        weights=run.output.model,
        best=run.output.best,
        last=run.output.last,
        card=run.output.card,
        history=run.output.history,
        settings=run.params.learning,
        seed=run.params.seed,
        restart_dir=run.restart_dir,
        device=run.runtime["device"],
        threads=run.threads,
        deterministic=run.runtime["deterministic"],
        tensorboard=Path("logs/tensorboard", run.wildcards.model),
        name=run.wildcards.model,
    )
