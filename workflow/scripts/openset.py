from pathlib import Path

from defraction.job import job

with job(snakemake) as run:
    from defraction.learning.openset import measure

    measure(
        {Path(path).stem: path for path in run.input.patterns},
        run.input.split,
        run.input.model,
        run.input.card,
        run.input.unknown,
        run.output.openset,
        run.output.statistics,
        seed=run.params.seed,
        device=run.runtime["device"],
        threads=run.threads,
    )
