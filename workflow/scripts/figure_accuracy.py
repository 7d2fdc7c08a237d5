from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.accuracies import overview

    overview(
        run.input.accuracy,
        run.input.models,
        run.output.png,
        run.output.pdf,
        run.output.caption,
        run.params.presentation,
        run.params.reductions,
    )
