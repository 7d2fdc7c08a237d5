from defraction.job import job

with job(snakemake) as run:
    from defraction.plots import confusion

    confusion(run.input.confusion, run.output.png, run.output.pdf, run.params.presentation)
