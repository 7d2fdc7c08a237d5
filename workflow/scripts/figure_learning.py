from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.answers import learning
    from defraction.figures.style import Sheet

    learning(
        dict(zip(run.params.models, zip(run.input.histories, run.input.cards, strict=True), strict=True)),
        run.input.accuracy,
        Sheet.of(run),
    )
