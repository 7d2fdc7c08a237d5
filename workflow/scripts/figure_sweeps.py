from defraction.job import job

with job(snakemake) as run:
    from defraction.conditions import read_table
    from defraction.figures.accuracies import sweeps

    sweeps(
        run.input.accuracy,
        run.input.models,
        read_table(run.input.conditions),
        run.output.png,
        run.output.pdf,
        run.output.caption,
        run.params.presentation,
        run.params.reductions,
    )
