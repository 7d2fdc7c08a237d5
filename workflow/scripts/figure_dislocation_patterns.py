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
        "Patterns of the dislocation array (the article's Fig. 9).",
        "The article looks along line [11-2], plane normal [111] and Burgers vector [-110]; axes without label are "
        "left out. Below, the block without dislocations.",
        max(1, len(run.input.patterns) // 2),
        Sheet.of(run),
    )
