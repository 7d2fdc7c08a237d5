from defraction.job import job

with job(snakemake) as run:
    from defraction.conditions import read_table
    from defraction.figures.accuracies import strain
    from defraction.figures.style import Sheet
    from defraction.published import read_published

    strain(
        run.input.accuracy,
        run.input.models,
        read_table(run.input.conditions),
        read_published(run.input.published),
        Sheet.of(run),
    )
