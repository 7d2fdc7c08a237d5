from defraction.job import job

with job(snakemake) as run:
    from defraction.conditions import read_table
    from defraction.report import Sources, write_report

    write_report(
        run.input.template,
        run.output.html,
        Sources(**{name: run.input[name] for name in Sources.__dataclass_fields__}),
        read_table(run.input.conditions),
        run.params.reductions,
        run.params.diffraction,
        run.params.learning,
        run.params.confidence,
        run.origin,
    )
