from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.answers import confusion

    confusion(
        run.input.confusion,
        run.input.labels,
        run.input.models,
        run.output.png,
        run.output.pdf,
        run.output.caption,
        run.params.presentation,
        run.params.reductions,
    )
