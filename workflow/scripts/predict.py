from defraction.job import job

with job(snakemake) as run:
    from defraction.learning.infer import predict_condition

    predict_condition(
        run.input.patterns,
        run.params.space_group,
        run.input.model,
        run.input.card,
        run.output.predictions,
        copies=run.params.rotated_copies,
        device=run.runtime["device"],
        threads=run.threads,
        condition=run.wildcards.condition,
    )
