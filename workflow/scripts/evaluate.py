from pathlib import Path

from defraction.job import job

with job(snakemake) as run:
    from defraction.evaluation.columns import TABLES
    from defraction.evaluation.evaluate import evaluate_files

    evaluate_files(
        {Path(path).stem: path for path in run.input.predictions},
        run.input.conditions,
        run.input.labels,
        {name: getattr(run.output, name) for name in TABLES},
        run.params.evaluation,
        run.params.seed,
        clean=run.input.clean,
        published=run.input.published,
        shown={Path(path).stem: path for path in run.input.shown},
        split=run.input.split,
        model=run.wildcards.model,
        pattern_set=run.params.pattern_set,
    )
