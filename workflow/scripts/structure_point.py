from defraction.job import job

with job(snakemake) as run:
    from defraction.defects.point import build
    from defraction.hosts import Host
    from defraction.structures import write_structures

    atoms = build(
        Host(**run.params.host),
        run.params.settings,
        lattice=run.input.get("lattice"),
        relaxed=run.input.get("relaxed"),
    )
    write_structures([atoms], run.output.cif, run.output.extxyz, run.origin)
