# One job for each figure: PNG, PDF and a caption with the numbers of this run, made from the result tables, so that a
# colour never counts again. Which figures a study has, and which conditions they show: defraction/panels.py.
# In: results/*.csv, results/patterns/, results/first_principles/. Out: results/figures/.
# Captions of patterns state accuracies, so these figures follow results/accuracy.csv as well.

# Decades of intensity that the headline network is shown.
SEEN = MODELS[HEADLINE]["learning"]["display"]["decades"]


rule figure_accuracy:
    input:
        accuracy="results/accuracy.csv",
        models="results/models.csv",
        code=code("figure_accuracy.py"),
    output:
        png=report(
            "results/figures/accuracy.png",
            caption=caption("accuracy"),
            category="Accuracies",
        ),
        pdf="results/figures/accuracy.pdf",
        caption="results/figures/accuracy.rst",
        record="results/figures/accuracy.record.json",
    log:
        "logs/figure_accuracy.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_accuracy.py"),
        presentation=presentation("colour"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_accuracy.py"


rule figure_strain:
    input:
        accuracy="results/accuracy.csv",
        models="results/models.csv",
        conditions="results/conditions.csv",
        published="resources/paper/published.csv",
        code=code("figure_strain.py"),
    output:
        png=report(
            "results/figures/strain.png",
            caption=caption("strain"),
            category="The article beside us",
        ),
        pdf="results/figures/strain.pdf",
        caption="results/figures/strain.rst",
        record="results/figures/strain.record.json",
    log:
        "logs/figure_strain.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_strain.py"),
        presentation=presentation("colour"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_strain.py"


rule figure_table2:
    input:
        accuracy="results/accuracy.csv",
        comparison="results/comparison.csv",
        models="results/models.csv",
        published="resources/paper/published.csv",
        code=code("figure_table2.py"),
    output:
        png=report(
            "results/figures/table2.png",
            caption=caption("table2"),
            category="The article beside us",
        ),
        pdf="results/figures/table2.pdf",
        caption="results/figures/table2.rst",
        record="results/figures/table2.record.json",
    log:
        "logs/figure_table2.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_table2.py"),
        presentation=presentation("colour"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_table2.py"


rule figure_sweeps:
    input:
        accuracy="results/accuracy.csv",
        models="results/models.csv",
        conditions="results/conditions.csv",
        code=code("figure_sweeps.py"),
    output:
        png=report(
            "results/figures/sweeps.png",
            caption=caption("sweeps"),
            category="Accuracies",
        ),
        pdf="results/figures/sweeps.pdf",
        caption="results/figures/sweeps.rst",
        record="results/figures/sweeps.record.json",
    log:
        "logs/figure_sweeps.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_sweeps.py"),
        presentation=presentation("colour"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_sweeps.py"


rule figure_resolution:
    input:
        resolution="results/resolution.csv",
        code=code("figure_resolution.py"),
    output:
        png=report(
            "results/figures/resolution.png",
            caption=caption("resolution"),
            category="Accuracies",
        ),
        pdf="results/figures/resolution.pdf",
        caption="results/figures/resolution.rst",
        record="results/figures/resolution.record.json",
    log:
        "logs/figure_resolution.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_resolution.py"),
        presentation=presentation("colour"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_resolution.py"


rule figure_ensemble:
    input:
        ensembles="results/ensembles.csv",
        models="results/models.csv",
        code=code("figure_ensemble.py"),
    output:
        png=report(
            "results/figures/ensemble.png",
            caption=caption("ensemble"),
            category="Answers",
        ),
        pdf="results/figures/ensemble.pdf",
        caption="results/figures/ensemble.rst",
        record="results/figures/ensemble.record.json",
    log:
        "logs/figure_ensemble.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_ensemble.py"),
        presentation=presentation("colour"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_ensemble.py"


rule figure_confusion:
    input:
        confusion="results/confusion.csv",
        labels="results/confusion_labels.csv",
        accuracy="results/accuracy.csv",
        models="results/models.csv",
        code=code("figure_confusion.py"),
    output:
        png=report(
            "results/figures/confusion.png",
            caption=caption("confusion"),
            category="Answers",
        ),
        pdf="results/figures/confusion.pdf",
        caption="results/figures/confusion.rst",
        record="results/figures/confusion.record.json",
    log:
        "logs/figure_confusion.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_confusion.py"),
        presentation=presentation("colour"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_confusion.py"


rule figure_calibration:
    input:
        reliability="results/reliability.csv",
        calibration="results/calibration.csv",
        models="results/models.csv",
        conditions="results/conditions.csv",
        code=code("figure_calibration.py"),
    output:
        png=report(
            "results/figures/calibration.png",
            caption=caption("calibration"),
            category="Answers",
        ),
        pdf="results/figures/calibration.pdf",
        caption="results/figures/calibration.rst",
        record="results/figures/calibration.record.json",
    log:
        "logs/figure_calibration.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_calibration.py"),
        presentation=presentation("colour"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_calibration.py"


rule figure_mistakes:
    input:
        confusion="results/confusion.csv",
        mistakes="results/mistakes.csv",
        accuracy="results/accuracy.csv",
        models="results/models.csv",
        conditions="results/conditions.csv",
        code=code("figure_mistakes.py"),
    output:
        png=report(
            "results/figures/mistakes.png",
            caption=caption("mistakes"),
            category="Answers",
        ),
        pdf="results/figures/mistakes.pdf",
        caption="results/figures/mistakes.rst",
        record="results/figures/mistakes.record.json",
    log:
        "logs/figure_mistakes.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_mistakes.py"),
        presentation=presentation("colour"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_mistakes.py"


rule figure_settings:
    input:
        accuracy_by="results/accuracy_by.csv",
        models="results/models.csv",
        conditions="results/conditions.csv",
        code=code("figure_settings.py"),
    output:
        png=report(
            "results/figures/settings.png",
            caption=caption("settings"),
            category="Answers",
        ),
        pdf="results/figures/settings.pdf",
        caption="results/figures/settings.rst",
        record="results/figures/settings.record.json",
    log:
        "logs/figure_settings.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_settings.py"),
        presentation=presentation("colour"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_settings.py"


rule figure_learning:
    input:
        histories=expand("results/models/{model}/history.csv", model=MODELS),
        cards=expand("results/models/{model}/card.json", model=MODELS),
        accuracy="results/accuracy.csv",
        code=code("figure_learning.py"),
    output:
        png=report(
            "results/figures/learning.png",
            caption=caption("learning"),
            category="Answers",
        ),
        pdf="results/figures/learning.pdf",
        caption="results/figures/learning.rst",
        record="results/figures/learning.record.json",
    log:
        "logs/figure_learning.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_learning.py"),
        models=list(MODELS),
        presentation=presentation("colour"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_learning.py"


rule figure_patterns:
    input:
        patterns=[patterns_in("main", name) for name in SHOWN],
        code=code("figure_patterns.py"),
    output:
        png=report(
            "results/figures/patterns.png",
            caption=caption("patterns"),
            category="Patterns",
        ),
        pdf="results/figures/patterns.pdf",
        caption="results/figures/patterns.rst",
        record="results/figures/patterns.record.json",
    log:
        "logs/figure_patterns.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_patterns.py"),
        conditions=SHOWN,
        presentation=presentation("pattern_decades"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_patterns.py"


rule figure_strain_patterns:
    input:
        patterns=pictures_of("strain_patterns"),
        accuracy="results/accuracy.csv",
        models="results/models.csv",
        code=code("figure_strain_patterns.py"),
    output:
        png=report(
            "results/figures/strain_patterns.png",
            caption=caption("strain_patterns"),
            category="The article beside us",
        ),
        pdf="results/figures/strain_patterns.pdf",
        caption="results/figures/strain_patterns.rst",
        record="results/figures/strain_patterns.record.json",
    log:
        "logs/figure_strain_patterns.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_strain_patterns.py"),
        panels=[list(panel) for panel in PANELS.get("strain_patterns", [])],
        seen=SEEN,
        presentation=presentation("pattern_decades"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_strain_patterns.py"


rule figure_thermal_patterns:
    input:
        patterns=pictures_of("thermal_patterns"),
        accuracy="results/accuracy.csv",
        models="results/models.csv",
        code=code("figure_thermal_patterns.py"),
    output:
        png=report(
            "results/figures/thermal_patterns.png",
            caption=caption("thermal_patterns"),
            category="The article beside us",
        ),
        pdf="results/figures/thermal_patterns.pdf",
        caption="results/figures/thermal_patterns.rst",
        record="results/figures/thermal_patterns.record.json",
    log:
        "logs/figure_thermal_patterns.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_thermal_patterns.py"),
        panels=[list(panel) for panel in PANELS.get("thermal_patterns", [])],
        seen=SEEN,
        presentation=presentation("pattern_decades"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_thermal_patterns.py"


rule figure_point_patterns:
    input:
        patterns=pictures_of("point_patterns"),
        accuracy="results/accuracy.csv",
        models="results/models.csv",
        code=code("figure_point_patterns.py"),
    output:
        png=report(
            "results/figures/point_patterns.png",
            caption=caption("point_patterns"),
            category="The article beside us",
        ),
        pdf="results/figures/point_patterns.pdf",
        caption="results/figures/point_patterns.rst",
        record="results/figures/point_patterns.record.json",
    log:
        "logs/figure_point_patterns.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_point_patterns.py"),
        panels=[list(panel) for panel in PANELS.get("point_patterns", [])],
        seen=SEEN,
        presentation=presentation("pattern_decades"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_point_patterns.py"


rule figure_dislocation_patterns:
    input:
        patterns=pictures_of("dislocation_patterns"),
        accuracy="results/accuracy.csv",
        models="results/models.csv",
        code=code("figure_dislocation_patterns.py"),
    output:
        png=report(
            "results/figures/dislocation_patterns.png",
            caption=caption("dislocation_patterns"),
            category="The article beside us",
        ),
        pdf="results/figures/dislocation_patterns.pdf",
        caption="results/figures/dislocation_patterns.rst",
        record="results/figures/dislocation_patterns.record.json",
    log:
        "logs/figure_dislocation_patterns.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_dislocation_patterns.py"),
        panels=[list(panel) for panel in PANELS.get("dislocation_patterns", [])],
        seen=SEEN,
        presentation=presentation("pattern_decades"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_dislocation_patterns.py"


rule figure_twin_patterns:
    input:
        patterns=pictures_of("twin_patterns"),
        accuracy="results/accuracy.csv",
        models="results/models.csv",
        code=code("figure_twin_patterns.py"),
    output:
        png=report(
            "results/figures/twin_patterns.png",
            caption=caption("twin_patterns"),
            category="The article beside us",
        ),
        pdf="results/figures/twin_patterns.pdf",
        caption="results/figures/twin_patterns.rst",
        record="results/figures/twin_patterns.record.json",
    log:
        "logs/figure_twin_patterns.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_twin_patterns.py"),
        panels=[list(panel) for panel in PANELS.get("twin_patterns", [])],
        seen=SEEN,
        presentation=presentation("pattern_decades"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_twin_patterns.py"


rule figure_thermal_displacements:
    input:
        snapshots=[positions_of("aimd", name) for name in THERMAL],
        table="results/displacements.csv",
        code=code("figure_thermal_displacements.py"),
    output:
        png=report(
            "results/figures/thermal_displacements.png",
            caption=caption("thermal_displacements"),
            category="The article beside us",
        ),
        pdf="results/figures/thermal_displacements.pdf",
        caption="results/figures/thermal_displacements.rst",
        record="results/figures/thermal_displacements.record.json",
    log:
        "logs/figure_thermal_displacements.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_thermal_displacements.py"),
        conditions=THERMAL,
        titles={
            name: f"{CONDITIONS[name].host}, {CONDITIONS[name].parameter}"
            for name in THERMAL
        },
        hosts={name: crystal_of(name) for name in THERMAL},
        presentation=presentation("colour"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_thermal_displacements.py"


rule figure_point_displacements:
    input:
        relaxed=[positions_of("relax", name) for name in POINT_DEFECTS],
        published="resources/paper/displacements.csv",
        code=code("figure_point_displacements.py"),
    output:
        png=report(
            "results/figures/point_displacements.png",
            caption=caption("point_displacements"),
            category="The article beside us",
        ),
        pdf="results/figures/point_displacements.pdf",
        caption="results/figures/point_displacements.rst",
        record="results/figures/point_displacements.record.json",
    log:
        "logs/figure_point_displacements.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_point_displacements.py"),
        conditions=POINT_DEFECTS,
        hosts={name: crystal_of(name) for name in POINT_DEFECTS},
        presentation=presentation("colour"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_point_displacements.py"


rule figure_interstitial:
    input:
        relaxed=[
            positions_of("relax", panel.condition)
            for panel in PANELS.get("interstitial", [])
        ],
        patterns=pictures_of("interstitial"),
        accuracy="results/accuracy.csv",
        models="results/models.csv",
        code=code("figure_interstitial.py"),
    output:
        png=report(
            "results/figures/interstitial.png",
            caption=caption("interstitial"),
            category="The article beside us",
        ),
        pdf="results/figures/interstitial.pdf",
        caption="results/figures/interstitial.rst",
        record="results/figures/interstitial.record.json",
    log:
        "logs/figure_interstitial.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_interstitial.py"),
        panels=[list(panel) for panel in PANELS.get("interstitial", [])],
        hosts=[crystal_of(panel.condition) for panel in PANELS.get("interstitial", [])],
        seen=SEEN,
        presentation=presentation("colour", "pattern_decades"),
        reductions=config["reductions"],
    script:
        "../scripts/figure_interstitial.py"
