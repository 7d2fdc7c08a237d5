from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.crystals import thermal_displacements

    thermal_displacements(
        dict(zip(run.params.conditions, run.input.snapshots, strict=True)),
        run.params.titles,
        run.params.hosts,
        run.input.table,
        run.output.png,
        run.output.pdf,
        run.output.caption,
        run.params.presentation,
        run.params.reductions,
    )
