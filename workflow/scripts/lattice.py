from defraction.job import job

with job(snakemake, state=True) as run:
    run.reuse()
    from defraction.first_principles.lattice import compute
    from defraction.first_principles.ranks import calculators
    from defraction.first_principles.settings import settings_for

    host, files = run.params.host, run.output
    settings = settings_for(host, task="lattice", **run.params.first_principles)
    with calculators(run.threads, run.runtime["mpi_launcher"], run.runtime["gpaw_gpu"]) as factory:
        compute(host, settings, files.json, files.log, run.restart_dir, factory, run.runtime["walltime"])
