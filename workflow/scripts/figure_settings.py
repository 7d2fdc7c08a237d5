from defraction.job import job

with job(snakemake) as run:
    from defraction.conditions import read_table
    from defraction.figures.answers import settings
    from defraction.figures.style import Sheet

    settings(
        run.input.accuracy_by,
        run.input.models,
        read_table(run.input.conditions),
        Sheet.of(run),
    )
