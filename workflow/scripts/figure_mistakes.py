from defraction.job import job

with job(snakemake) as run:
    from defraction.conditions import read_table
    from defraction.figures.answers import mistakes

    mistakes(
        run.input.confusion,
        run.input.mistakes,
        run.input.models,
        read_table(run.input.conditions),
        run.output.png,
        run.output.pdf,
        run.output.caption,
        run.params.presentation,
        run.params.reductions,
    )
