# Predictions to numbers and the report: each model by itself, then all together beside the article's numbers.
# In: results/predictions/, resources/paper/. Out: results/evaluation/, results/*.csv, results/report.html.


rule simulate_shown:
    input:
        structure="results/structures/{condition}.cif",
        code=code("simulate.py"),
    output:
        patterns="results/{folder}/shown/{condition}.nc",
        record="results/{folder}/shown/{condition}.record.json",
    log:
        "logs/simulate_shown/{folder}/{condition}.log",
    wildcard_constraints:
        folder=r"patterns|pattern_sets/[a-z0-9-]+",
    group:
        batch("patterns")
    conda:
        "../envs/diffraction.yaml" if not NEEDS_ABTEM else "../envs/multislice.yaml"
    resources:
        gpu=GPU,
        card=GPU,
    params:
        code=code_digest("simulate.py"),
        diffraction=diffraction_shown,
    script:
        "../scripts/simulate.py"


rule predict_shown:
    input:
        model="results/models/{model}/model.safetensors",
        card="results/models/{model}/card.json",
        patterns=lambda wildcards: shown_of(
            model_of(wildcards)["pattern_set"], wildcards.condition
        ),
        code=code("predict.py"),
    output:
        predictions="results/predictions/{model}/shown/{condition}.nc",
        record="results/predictions/{model}/shown/{condition}.record.json",
    log:
        "logs/predict_shown/{model}/{condition}.log",
    group:
        batch("predictions")
    conda:
        "../envs/learning.yaml"
    resources:
        gpu=GPU,
        card=GPU,
    params:
        code=code_digest("predict.py"),
        space_group=lambda wildcards: HOSTS[condition_of(wildcards).host].space_group,
        rotated_copies=config["evaluation"]["rotated_copies"],
    script:
        "../scripts/predict.py"


rule evaluate:
    input:
        predictions=lambda wildcards: predictions(wildcards.model),
        shown=expand(
            "results/predictions/{{model}}/shown/{condition}.nc", condition=SHOWN_AXES
        ),
        clean="results/predictions/{model}/clean.nc",
        split="results/models/{model}/split.csv",
        conditions="results/conditions.csv",
        labels="results/labels.csv",
        published="resources/paper/published.csv",
        code=code("evaluate.py"),
    output:
        accuracy="results/evaluation/{model}/accuracy.csv",
        accuracy_by="results/evaluation/{model}/accuracy_by.csv",
        ensembles="results/evaluation/{model}/ensembles.csv",
        confusion="results/evaluation/{model}/confusion.csv",
        confusion_labels="results/evaluation/{model}/confusion_labels.csv",
        mistakes="results/evaluation/{model}/mistakes.csv",
        calibration="results/evaluation/{model}/calibration.csv",
        reliability="results/evaluation/{model}/reliability.csv",
        record="results/evaluation/{model}/accuracy.record.json",
    log:
        "logs/evaluate/{model}.log",
    conda:
        "../envs/learning.yaml"
    params:
        code=code_digest("evaluate.py"),
        evaluation={
            k: v for k, v in config["evaluation"].items() if k != "rotated_copies"
        },
        seed=config["seed"],
        pattern_set=lambda wildcards: model_of(wildcards)["pattern_set"],
    script:
        "../scripts/evaluate.py"


rule summarise:
    input:
        accuracy=expand("results/evaluation/{model}/accuracy.csv", model=MODELS),
        accuracy_by=expand("results/evaluation/{model}/accuracy_by.csv", model=MODELS),
        ensembles=expand("results/evaluation/{model}/ensembles.csv", model=MODELS),
        confusion=expand("results/evaluation/{model}/confusion.csv", model=MODELS),
        confusion_labels=expand(
            "results/evaluation/{model}/confusion_labels.csv", model=MODELS
        ),
        mistakes=expand("results/evaluation/{model}/mistakes.csv", model=MODELS),
        calibration=expand("results/evaluation/{model}/calibration.csv", model=MODELS),
        reliability=expand("results/evaluation/{model}/reliability.csv", model=MODELS),
        splits=expand("results/models/{model}/split.csv", model=MODELS),
        models="results/models.csv",
        labels="results/labels.csv",
        published="resources/paper/published.csv",
        code=code("summarise.py"),
    output:
        accuracy=report(
            "results/accuracy.csv", caption="../report/accuracy.rst", category="Tables"
        ),
        comparison=report(
            "results/comparison.csv",
            caption="../report/comparison.rst",
            category="Tables",
        ),
        accuracy_by="results/accuracy_by.csv",
        ensembles="results/ensembles.csv",
        confusion="results/confusion.csv",
        confusion_labels="results/confusion_labels.csv",
        mistakes="results/mistakes.csv",
        calibration="results/calibration.csv",
        reliability="results/reliability.csv",
        spread="results/accuracy_spread.csv",
        resolution="results/resolution.csv",
        classes="results/extinction_classes.csv",
        record="results/accuracy.record.json",
    log:
        "logs/summarise.log",
    conda:
        "../envs/learning.yaml"
    params:
        code=code_digest("summarise.py"),
        patterns={
            name: {
                "pixels": section["pixels"],
                **{
                    key: len(section[key])
                    for key in ("zone_axes", "voltages", "camera_lengths")
                },
            }
            for name, section in PATTERN_SETS.items()
        },
        reductions=config["reductions"],
    script:
        "../scripts/summarise.py"


rule displacements:
    input:
        structures=[positions_of("aimd", name) for name in THERMAL]
        + [positions_of("relax", name) for name in POINT_DEFECTS],
        published="resources/paper/displacements.csv",
        code=code("displacements.py"),
    output:
        table="results/displacements.csv",
        record="results/displacements.record.json",
    log:
        "logs/displacements.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("displacements.py"),
        conditions=THERMAL + POINT_DEFECTS,
        hosts={name: crystal_of(name) for name in THERMAL + POINT_DEFECTS},
        thermal={
            name: [
                CONDITIONS[name].settings["temperature"],
                HOSTS[CONDITIONS[name].host].debye_temperature,
            ]
            for name in THERMAL
        },
    script:
        "../scripts/displacements.py"


rule report:
    input:
        accuracy="results/accuracy.csv",
        comparison="results/comparison.csv",
        spread="results/accuracy_spread.csv",
        calibration="results/calibration.csv",
        mistakes="results/mistakes.csv",
        ensembles="results/ensembles.csv",
        classes="results/extinction_classes.csv",
        models="results/models.csv",
        conditions="results/conditions.csv",
        labels="results/labels.csv",
        split=f"results/models/{HEADLINE}/split.csv",
        displacements=(
            ["results/displacements.csv"] if THERMAL or POINT_DEFECTS else []
        ),
        relaxations=[summary_of("relax", name) for name in RELAXED],
        dynamics=[summary_of("aimd", name) for name in MOVING],
        figures=expand("results/figures/{figure}.png", figure=FIGURES),
        captions=expand("results/figures/{figure}.rst", figure=FIGURES),
        template=TEMPLATE,
        code=code("report.py"),
    output:
        html="results/report.html",
        record="results/report.record.json",
    log:
        "logs/report.log",
    group:
        batch("figures")
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_digest("report.py"),
        reductions=config["reductions"],
        diffraction=config["diffraction"],
        learning=MODELS[HEADLINE]["learning"],
        relaxations=RELAXED,
        dynamics=MOVING,
        confidence=config["evaluation"]["confidence"],
    script:
        "../scripts/report.py"
