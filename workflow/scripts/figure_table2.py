from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.accuracies import table2
    from defraction.figures.style import Sheet
    from defraction.published import read_published

    table2(
        run.input.accuracy,
        run.input.comparison,
        run.input.models,
        read_published(run.input.published),
        Sheet.of(run),
    )
