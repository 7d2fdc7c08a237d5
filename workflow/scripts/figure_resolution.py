from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.accuracies import resolution

    resolution(
        run.input.resolution,
        run.output.png,
        run.output.pdf,
        run.output.caption,
        run.params.presentation,
        run.params.reductions,
    )
