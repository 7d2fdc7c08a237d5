from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.answers import confusion
    from defraction.figures.style import Sheet

    confusion(
        run.input.confusion,
        run.input.labels,
        run.input.accuracy,
        run.input.models,
        Sheet.of(run),
    )
