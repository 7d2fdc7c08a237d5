from defraction.job import job

with job(snakemake, state=True) as run:
    from defraction.defects.point import build
    from defraction.first_principles.calculator import settings_for
    from defraction.first_principles.relax import relax_file
    from defraction.hosts import Host

    host = Host(**run.params.host)
    start = {"defect": run.params.defect, "supercell": run.params.supercell, "repeat": [1, 1, 1]}
    atoms = build(host, start, lattice=run.input.lattice)
    settings = settings_for(
        host.name,
        run.params.first_principles["preset"],
        "relax",
        elements=sorted(set(atoms.symbols)),
        supercell=run.params.supercell,
    )
    relax_file(atoms, settings, run.output.relaxed, run.output.summary, run.output.log, run.restart_dir)
