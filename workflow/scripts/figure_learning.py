from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.answers import learning

    learning(
        dict(zip(run.params.models, run.input.histories, strict=True)),
        run.output.png,
        run.output.pdf,
        run.output.caption,
        run.params.presentation,
        run.params.reductions,
    )
