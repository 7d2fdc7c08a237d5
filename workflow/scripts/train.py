from pathlib import Path

from defraction.job import job

with job(snakemake, state=True) as run:
    from defraction.learning.train import train

    train(
        {Path(path).stem: path for path in run.input.patterns},
        run.input.split,
        run.input.labels,
        run.output.model,
        run.output.card,
        run.output.history,
        run.params.learning,
        run.params.seed,
        run.restart_dir,
        device=run.runtime["device"],
        threads=run.threads,
    )
