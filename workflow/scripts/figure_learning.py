from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.answers import learning
    from defraction.figures.style import Sheet

    learning(
        dict(zip(run.params.models, run.input.histories, strict=True)),
        Sheet.of(run),
    )
