from defraction.job import job

with job(snakemake) as run:
    from defraction.evaluation.columns import TABLES
    from defraction.evaluation.summary import summarise_files

    summarise_files(
        {name: run.input[name] for name in TABLES},
        run.input.splits,
        run.input.models,
        run.input.published,
        run.input.labels,
        vars(run.output),
        run.params.patterns,
        run.params.reductions,
    )
