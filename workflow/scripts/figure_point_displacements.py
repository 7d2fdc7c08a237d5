from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.crystals import point_displacements
    from defraction.figures.style import Sheet
    from defraction.published import read_displacements

    point_displacements(
        dict(zip(run.params.conditions, run.input.relaxed, strict=True)),
        run.params.hosts,
        read_displacements(run.input.published),
        Sheet.of(run),
    )
