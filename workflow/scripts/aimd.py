from defraction.job import job

with job(snakemake, state=True) as run:
    run.reuse()
    from defraction.defects.point import build
    from defraction.first_principles import aimd
    from defraction.first_principles.ranks import calculators
    from defraction.first_principles.settings import settings_for
    from defraction.first_principles.trajectory import segment
    from defraction.hosts import Host

    perfect = {"defect": None, "supercell": run.params.supercell, "repeat": [1, 1, 1]}
    atoms = build(Host(**run.params.host), perfect, lattice=run.input.lattice)
    settings = settings_for(
        run.params.host,
        task="aimd",
        supercell=run.params.supercell,
        temperature=run.params.temperature,
        protocol=run.params.protocol,
        seed=run.params.seed,
        **run.params.first_principles,
    )
    with calculators(run.threads, run.runtime["mpi_launcher"], run.runtime["gpaw_gpu"]) as factory:
        limits = {"restart_dir": run.restart_dir, "calculator_factory": factory, "walltime": run.runtime["walltime"]}
        if hasattr(run.output, "segment"):
            segment(aimd.run, atoms, settings, run.output.segment, **limits)
        else:
            aimd.run_file(atoms, settings, run.output.snapshots, run.output.summary, run.output.log, **limits)
