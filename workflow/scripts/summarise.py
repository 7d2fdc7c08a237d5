from defraction.job import job

with job(snakemake) as run:
    from defraction.comparison import summarise_files
    from defraction.evaluation import TABLES

    summarise_files(
        {name: run.input[name] for name in TABLES},
        run.input.models,
        run.input.published,
        run.input.labels,
        vars(run.output),
        run.params.evaluation,
        run.params.patterns,
        run.params.reductions,
    )
