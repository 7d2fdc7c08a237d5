from defraction.job import job

with job(snakemake) as run:
    from defraction.site_displacements import write_table

    write_table(
        dict(zip(run.params.conditions, run.input.structures, strict=True)),
        run.params.hosts,
        run.params.thermal,
        run.input.published,
        run.output.table,
    )
