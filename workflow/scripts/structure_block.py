from defraction.job import job

with job(snakemake) as run:
    from defraction.defects.displacements import build_samples
    from defraction.hosts import Host
    from defraction.structures import write_structures

    samples = build_samples(Host(**run.params.host), run.params.settings, run.params.seed)
    write_structures(samples, run.output.cif, run.output.extxyz, run.origin)
