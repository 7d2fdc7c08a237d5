from defraction.job import job

with job(snakemake, state=True) as run:
    run.reuse()
    from defraction.defects.point import build
    from defraction.first_principles.ranks import calculators
    from defraction.first_principles.relax import relax, relax_file
    from defraction.first_principles.settings import settings_for
    from defraction.first_principles.trajectory import segment
    from defraction.hosts import Host

    start = {"defect": run.params.defect, "supercell": run.params.supercell, "repeat": [1, 1, 1]}
    atoms = build(Host(**run.params.host), start, lattice=run.input.lattice)
    settings = settings_for(
        run.params.host,
        task="relax",
        elements=sorted(set(atoms.symbols)),
        supercell=run.params.supercell,
        **run.params.first_principles,
    )
    with calculators(run.threads, run.runtime["mpi_launcher"], run.runtime["gpaw_gpu"]) as factory:
        limits = {"restart_dir": run.restart_dir, "calculator_factory": factory, "walltime": run.runtime["walltime"]}
        if hasattr(run.output, "segment"):
            segment(relax, atoms, settings, run.output.segment, **limits)
        else:
            relax_file(atoms, settings, run.output.relaxed, run.output.summary, run.output.log, **limits)
