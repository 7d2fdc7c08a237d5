from defraction.job import job

with job(snakemake) as run:
    from defraction.materials import Material, crystal
    from defraction.structures import write_structures

    atoms = crystal(Material.from_dict(run.params.material))
    atoms.info["repeat"] = list(run.params.repeat)
    write_structures([atoms], run.output.cif, metadata=run.origin)
