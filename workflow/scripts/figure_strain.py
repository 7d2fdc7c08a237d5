from defraction.job import job

with job(snakemake) as run:
    from defraction.conditions import read_table
    from defraction.plots import strain

    conditions = read_table(run.input.conditions)
    strain(run.input.accuracy, conditions, run.output.png, run.output.pdf, run.params.presentation)
