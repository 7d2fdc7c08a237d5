from defraction.job import job

with job(snakemake, state=True) as run:
    run.reuse()
    from defraction.first_principles.elastic import compute
    from defraction.first_principles.ranks import calculators
    from defraction.first_principles.settings import settings_for

    host, files = run.params.host, run.output
    settings = settings_for(host, task="elastic", **run.params.first_principles)
    limits = {"restart_dir": run.restart_dir, "walltime": run.runtime["walltime"]}
    with calculators(run.threads, run.runtime["mpi_launcher"], run.runtime["gpaw_gpu"]) as factory:
        compute(host, run.input.lattice, settings, files.json, files.log, calculator_factory=factory, **limits)
