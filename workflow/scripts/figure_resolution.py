from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.accuracies import resolution
    from defraction.figures.style import Sheet

    resolution(
        run.input.resolution,
        Sheet.of(run),
    )
