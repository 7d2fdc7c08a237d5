from defraction.job import job

with job(snakemake) as run:
    from defraction.diffraction.patterns import simulate_file

    simulate_file(
        run.input.structure,
        run.output.patterns,
        run.params.diffraction,
        device=run.runtime["device"],
        memory=run.runtime["memory"],
        origin=run.origin,
    )
