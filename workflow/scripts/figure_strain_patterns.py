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
        "Patterns of strained crystals (the article's Fig. 3).",
        "The article shows 2.0 and 5.0 %, 0.015 and 0.035 rad; where this run lacks one, the nearest.",
        min(5, len(run.input.patterns)),
        Sheet.of(run),
    )
