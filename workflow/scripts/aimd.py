from defraction.job import job

with job(snakemake, state=True) as run:
    from defraction.defects.point import build
    from defraction.first_principles.aimd import run_file
    from defraction.first_principles.calculator import settings_for
    from defraction.hosts import Host

    host = Host(**run.params.host)
    perfect = {"defect": None, "supercell": run.params.supercell, "repeat": [1, 1, 1]}
    atoms = build(host, perfect, lattice=run.input.lattice)
    settings = settings_for(
        host.name,
        run.params.first_principles["preset"],
        "aimd",
        supercell=run.params.supercell,
        temperature=run.params.temperature,
        protocol=run.params.protocol,
        seed=run.params.seed,
    )
    run_file(atoms, settings, run.output.snapshots, run.output.summary, run.output.log, run.restart_dir)
