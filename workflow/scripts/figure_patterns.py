from defraction.job import job

with job(snakemake) as run:
    from defraction.plots import patterns

    patterns(run.input.patterns, run.params.conditions, run.output.png, run.output.pdf, run.params.presentation)
