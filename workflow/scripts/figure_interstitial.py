from defraction.job import job

with job(snakemake) as run:
    from defraction.figures.crystals import interstitial
    from defraction.figures.style import Sheet
    from defraction.panels import Panel

    interstitial(
        run.input.relaxed[0],
        run.params.hosts[0],
        run.input.patterns[0],
        Panel(*run.params.panels[0]),
        run.input.accuracy,
        run.input.models,
        run.params.seen,
        Sheet.of(run),
    )
