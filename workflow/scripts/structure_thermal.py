from defraction.job import job

with job(snakemake) as run:
    from defraction.structures import read_structures, write_structures

    snapshots = read_structures(run.input.snapshots)
    for atoms in snapshots:
        atoms.info["repeat"] = run.params.settings["repeat"]
    write_structures(snapshots, run.output.cif, run.output.extxyz, run.origin)
