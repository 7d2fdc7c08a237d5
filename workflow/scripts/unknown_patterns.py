from pathlib import Path

from defraction.job import job

with job(snakemake) as run:
    from defraction.unknown import simulate_unknown

    simulate_unknown(
        run.input.table,
        {Path(path).stem: path for path in run.input.structures},
        run.input.split,
        run.output.patterns,
        run.params.diffraction,
        run.params.repeat,
        run.params.seed,
        device=run.runtime["device"],
        memory=run.runtime["memory"],
    )
