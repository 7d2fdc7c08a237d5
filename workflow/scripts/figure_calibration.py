from defraction.job import job

with job(snakemake) as run:
    from defraction.conditions import read_table
    from defraction.figures.answers import calibration

    calibration(
        run.input.reliability,
        run.input.calibration,
        run.input.models,
        read_table(run.input.conditions),
        run.output.png,
        run.output.pdf,
        run.output.caption,
        run.params.presentation,
        run.params.reductions,
    )
