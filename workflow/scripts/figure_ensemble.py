from defraction.job import job

with job(snakemake) as run:
    from defraction.plots import ensemble

    ensemble(run.input.ensembles, run.output.png, run.output.pdf, run.params.presentation)
