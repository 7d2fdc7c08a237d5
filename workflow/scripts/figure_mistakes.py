from defraction.job import job

with job(snakemake) as run:
    from defraction.conditions import read_table
    from defraction.figures.answers import mistakes
    from defraction.figures.style import Sheet

    mistakes(
        run.input.confusion,
        run.input.mistakes,
        run.input.accuracy,
        run.input.models,
        read_table(run.input.conditions),
        Sheet.of(run),
    )
