from defraction.job import job

with job(snakemake) as run:
    from defraction.conditions import read_table
    from defraction.figures.accuracies import sweeps
    from defraction.figures.style import Sheet

    sweeps(
        run.input.accuracy,
        run.input.models,
        read_table(run.input.conditions),
        Sheet.of(run),
    )
