from defraction.job import job

with job(snakemake) as run:
    from defraction import conditions, config, expansion, hosts

    table = expansion.expand(config.validate(snakemake.config), hosts.read_hosts(run.input.hosts))
    conditions.write_table(table, run.output.table)
