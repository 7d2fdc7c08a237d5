from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.crystals import overview

    overview(
        run.input.patterns,
        run.params.conditions,
        run.output.png,
        run.output.pdf,
        run.output.caption,
        run.params.presentation,
        run.params.reductions,
    )
