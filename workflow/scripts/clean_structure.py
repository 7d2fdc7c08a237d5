from defraction.job import job

with job(snakemake) as run:
    from defraction.materials import Material, crystal
    from defraction.specimens import specimens
    from defraction.structures import write_structures

    row = {**run.params.material, "prototype_name": "", "reference": "", "source": run.input.source}
    atoms = crystal(Material.from_dict(row))
    images = specimens(atoms, run.params.repeat, run.params.specimens, run.params.seed)
    write_structures(images, run.output.cif, metadata=run.origin)
