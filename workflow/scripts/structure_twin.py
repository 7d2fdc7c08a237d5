from defraction.job import job

with job(snakemake) as run:
    from defraction.defects.twin import build, build_control
    from defraction.hosts import Host
    from defraction.structures import write_structures

    settings = dict(run.params.settings)
    if run.input.potential:
        settings["potential"] = run.input.potential
    make = build_control if settings.pop("perfect") else build
    atoms = make(Host(**run.params.host), settings)
    write_structures([atoms], run.output.cif, run.output.extxyz, run.origin)
