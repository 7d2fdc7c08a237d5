from defraction.job import job

with job(snakemake) as run:
    from defraction.conditions import read_table
    from defraction.figures.answers import calibration
    from defraction.figures.style import Sheet

    calibration(
        run.input.reliability,
        run.input.calibration,
        run.input.models,
        read_table(run.input.conditions),
        Sheet.of(run),
    )
