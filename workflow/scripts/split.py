from defraction.job import job

with job(snakemake) as run:
    from defraction.dataset import split_table, write_split

    rows = split_table(
        run.params.materials,
        **run.params.split,
        seed=run.params.seed,
        host_crystals=run.params.hosts,
        grid=run.params.grid,
    )
    write_split(run.output.split, rows)
