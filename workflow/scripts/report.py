from defraction.job import job

with job(snakemake) as run:
    from defraction.conditions import read_table
    from defraction.report import Sources, write_report

    files = {name: run.input[name] for name in Sources.__dataclass_fields__}
    for name in ("relaxations", "dynamics"):
        files[name] = dict(zip(run.params[name], run.input[name], strict=True))
    write_report(
        run.input.template,
        run.output.html,
        Sources(**files),
        read_table(run.input.conditions),
        run.params.reductions,
        run.params.diffraction,
        run.params.learning,
        run.params.confidence,
        run.origin,
    )
