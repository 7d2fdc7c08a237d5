from defraction.job import job

with job(snakemake, state=True) as run:
    from defraction.first_principles.calculator import settings_for
    from defraction.first_principles.lattice import compute

    host = run.params.host
    settings = settings_for(host["name"], run.params.first_principles["preset"], "lattice")
    compute(host, settings, run.output.json, run.output.log, run.restart_dir)
