from defraction.job import job

with job(snakemake) as run:
    from defraction.defects.strain import build
    from defraction.hosts import Host
    from defraction.structures import write_structures

    atoms = build(Host(**run.params.host), run.params.settings, elastic=run.input.get("elastic"))
    write_structures([atoms], run.output.cif, run.output.extxyz, run.origin)
