from defraction.job import job

with job(snakemake) as run:
    from defraction.plots import learning

    learning(run.input.history, run.output.png, run.output.pdf, run.params.presentation)
