from defraction.job import job

with job(snakemake) as run:
    from defraction.plots import accuracy

    accuracy(run.input.accuracy, run.output.png, run.output.pdf, run.params.presentation)
