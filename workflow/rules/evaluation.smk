# Predictions to numbers, figures and the report. Plotting is apart from counting: a colour never recounts.
# In: results/predictions/. Out: results/accuracy.csv, results/ensembles.csv, results/confusion.csv, results/figures/,
# results/report.html.


rule evaluate:
    input:
        predictions=predictions,
        clean=f"results/predictions/{MODEL}/clean.nc",
        conditions="results/conditions.csv",
        labels="results/labels.csv",
        published="resources/paper/published.csv",
        code=code("evaluate.py"),
    output:
        accuracy="results/accuracy.csv",
        ensembles="results/ensembles.csv",
        confusion="results/confusion.csv",
        record="results/accuracy.record.json",
    log:
        "logs/evaluate.log",
    conda:
        "../envs/learning.yaml"
    params:
        code=code_digest("evaluate.py"),
        evaluation=config["evaluation"],
        seed=config["seed"],
    script:
        "../scripts/evaluate.py"


rule figure_accuracy:
    input:
        accuracy="results/accuracy.csv",
        code=code("figure_accuracy.py"),
    output:
        png="results/figures/accuracy.png",
        pdf="results/figures/accuracy.pdf",
        record="results/figures/accuracy.record.json",
    log:
        "logs/figure_accuracy.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_accuracy.py"),
        presentation=config["presentation"],
    script:
        "../scripts/figure_accuracy.py"


rule figure_strain:
    input:
        accuracy="results/accuracy.csv",
        conditions="results/conditions.csv",
        code=code("figure_strain.py"),
    output:
        png="results/figures/strain.png",
        pdf="results/figures/strain.pdf",
        record="results/figures/strain.record.json",
    log:
        "logs/figure_strain.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_strain.py"),
        presentation=config["presentation"],
    script:
        "../scripts/figure_strain.py"


rule figure_ensemble:
    input:
        ensembles="results/ensembles.csv",
        code=code("figure_ensemble.py"),
    output:
        png="results/figures/ensemble.png",
        pdf="results/figures/ensemble.pdf",
        record="results/figures/ensemble.record.json",
    log:
        "logs/figure_ensemble.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_ensemble.py"),
        presentation=config["presentation"],
    script:
        "../scripts/figure_ensemble.py"


rule figure_patterns:
    input:
        patterns=[f"results/patterns/{name}.nc" for name in SHOWN],
        code=code("figure_patterns.py"),
    output:
        png="results/figures/patterns.png",
        pdf="results/figures/patterns.pdf",
        record="results/figures/patterns.record.json",
    log:
        "logs/figure_patterns.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_patterns.py"),
        conditions=SHOWN,
        presentation=config["presentation"],
    script:
        "../scripts/figure_patterns.py"


rule figure_confusion:
    input:
        confusion="results/confusion.csv",
        code=code("figure_confusion.py"),
    output:
        png="results/figures/confusion.png",
        pdf="results/figures/confusion.pdf",
        record="results/figures/confusion.record.json",
    log:
        "logs/figure_confusion.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_confusion.py"),
        presentation=config["presentation"],
    script:
        "../scripts/figure_confusion.py"


rule figure_learning:
    input:
        history=f"results/models/{MODEL}/history.csv",
        code=code("figure_learning.py"),
    output:
        png="results/figures/learning.png",
        pdf="results/figures/learning.pdf",
        record="results/figures/learning.record.json",
    log:
        "logs/figure_learning.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("figure_learning.py"),
        presentation=config["presentation"],
    script:
        "../scripts/figure_learning.py"


rule report:
    input:
        accuracy="results/accuracy.csv",
        ensembles="results/ensembles.csv",
        conditions="results/conditions.csv",
        labels="results/labels.csv",
        split=f"results/models/{MODEL}/split.csv",
        relaxations=[
            f"results/first_principles/relax/{c.id}.json"
            for c in CONDITIONS.values()
            if c.relaxed
        ],
        dynamics=[
            f"results/first_principles/aimd/{c.id}.json"
            for c in CONDITIONS.values()
            if c.kind == "thermal"
        ],
        figures=expand("results/figures/{figure}.png", figure=FIGURES),
        template=TEMPLATE,
        code=code("report.py"),
    output:
        html="results/report.html",
        record="results/report.record.json",
    log:
        "logs/report.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("report.py"),
        reductions=config["reductions"],
        diffraction=config["diffraction"],
        learning=config["learning"],
        evaluation=config["evaluation"],
    script:
        "../scripts/report.py"
