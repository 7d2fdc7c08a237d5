from defraction.job import job

with job(snakemake) as run:
    from defraction.materials import Material, crystal
    from defraction.specimens import specimens
    from defraction.structures import write_structures

    atoms = crystal(Material.from_dict(run.params.material))
    images = specimens(atoms, run.params.repeat, run.params.specimens, run.params.seed)
    write_structures(images, run.output.cif, metadata=run.origin)
