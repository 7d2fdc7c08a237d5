from pathlib import Path

from defraction.job import job

with job(snakemake) as run:
    from defraction.learning.infer import predict_clean

    predict_clean(
        {Path(path).stem: path for path in run.input.patterns},
        run.input.split,
        run.input.model,
        run.input.card,
        run.output.predictions,
        copies=run.params.rotated_copies,
        device=run.runtime["device"],
        threads=run.threads,
    )
