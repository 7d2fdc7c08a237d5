from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.crystals import overview
    from defraction.figures.style import Sheet

    overview(
        run.input.patterns,
        run.params.conditions,
        Sheet.of(run),
    )
