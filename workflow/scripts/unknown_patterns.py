from defraction.job import job

with job(snakemake) as run:
    from defraction.unknown import simulate_unknown

    simulate_unknown(
        run.input.table,
        run.input.structures,
        run.output.patterns,
        run.params.diffraction,
        run.params.repeat,
        run.params.seed,
        device=run.runtime["device"],
        memory=run.runtime["memory"],
    )
