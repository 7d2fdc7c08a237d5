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
        "Patterns of crystals with point defects (the article's Fig. 7).",
        "The article shows Fe, with a vacancy and with Au in 3x3x3 cells; where this run lacks one, the nearest.",
        3,
        Sheet.of(run),
    )
