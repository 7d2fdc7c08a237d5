from pathlib import Path

from defraction.job import job

with job(snakemake) as run:
    from defraction.evaluation import evaluate_files

    evaluate_files(
        {Path(path).stem: path for path in run.input.predictions},
        run.input.conditions,
        run.input.labels,
        run.output.accuracy,
        run.output.ensembles,
        run.output.confusion,
        run.params.evaluation,
        run.params.seed,
        clean=run.input.clean,
        published=run.input.published,
    )
