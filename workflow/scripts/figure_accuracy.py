from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.accuracies import overview
    from defraction.figures.style import Sheet

    overview(
        run.input.accuracy,
        run.input.models,
        Sheet.of(run),
    )
