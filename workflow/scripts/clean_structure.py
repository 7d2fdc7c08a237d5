from defraction.job import job

with job(snakemake) as run:
    from defraction.drawn_crystals import draw
    from defraction.materials import Material, crystal
    from defraction.specimens import specimens
    from defraction.structures import write_structures

    row = {**run.params.material, "prototype_name": "", "reference": "", "source": str(run.input.get("source", ""))}
    material, origin = Material.from_dict(row), run.origin
    if material.drawn:
        material = draw(material, run.params.seed)
        origin = {**origin, "drawn": {key: value for key, value in material.to_dict().items() if value != ""}}
    images = specimens(crystal(material), run.params.repeat, run.params.specimens, run.params.seed)
    write_structures(images, run.output.cif, metadata=origin)
