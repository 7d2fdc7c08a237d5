from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.crystals import patterns
    from defraction.figures.style import Sheet
    from defraction.panels import Panel

    patterns(
        run.input.patterns,
        [Panel(*panel) for panel in run.params.panels],
        run.input.accuracy,
        run.input.models,
        run.params.seen,
        "Patterns of twins (the article's Fig. 10).",
        "Beam normal to twinning direction and twin plane normal; below, the same block without a boundary.",
        max(1, len(run.input.patterns) // 2),
        Sheet.of(run),
    )
