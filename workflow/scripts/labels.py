from defraction.job import job

with job(snakemake) as run:
    from defraction.learning.labels import write_labels

    write_labels(run.output.labels, run.params.space_groups, run.params.zone_axes)
