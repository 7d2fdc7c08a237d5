from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.crystals import thermal_displacements
    from defraction.figures.style import Sheet

    thermal_displacements(
        dict(zip(run.params.conditions, run.input.snapshots, strict=True)),
        run.params.titles,
        run.params.hosts,
        run.input.table,
        Sheet.of(run),
    )
