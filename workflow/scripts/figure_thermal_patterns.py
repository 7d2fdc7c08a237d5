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
        "Patterns at rest and with thermal motion (the article's Fig. 5).",
        "The article shows 0, 100 and 300 K.",
        min(6, len(run.input.patterns)),
        Sheet.of(run),
    )
