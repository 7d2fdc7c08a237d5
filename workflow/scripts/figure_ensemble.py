from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.answers import ensemble
    from defraction.figures.style import Sheet

    ensemble(
        run.input.ensembles,
        run.input.models,
        Sheet.of(run),
    )
