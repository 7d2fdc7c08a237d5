from defraction.job import job

with job(snakemake) as run:
    from defraction.models import write_table

    write_table(run.output.table, run.params.models)
