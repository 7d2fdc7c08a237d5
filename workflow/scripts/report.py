from defraction.job import job

with job(snakemake) as run:
    from defraction.conditions import read_table
    from defraction.report import write_report

    write_report(
        run.input.template,
        run.output.html,
        run.input.accuracy,
        run.input.ensembles,
        read_table(run.input.conditions),
        run.input.labels,
        run.input.split,
        run.input.relaxations,
        run.input.dynamics,
        run.input.figures,
        run.params.reductions,
        run.params.diffraction,
        run.params.learning,
        run.params.evaluation,
    )
