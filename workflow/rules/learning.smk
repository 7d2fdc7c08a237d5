# Labels by appearance; for each model of the configuration the split of the clean crystals, training on clean patterns
# only, predictions. In: results/patterns/, results/pattern_sets/. Out: results/labels.csv, results/models.csv,
# results/models/, results/predictions/.


rule labels:
    input:
        code=code("labels.py"),
    output:
        labels="results/labels.csv",
        record="results/labels.record.json",
    log:
        "logs/labels.log",
    group:
        batch("tables")
    conda:
        "../envs/learning.yaml"
    params:
        code=code_digest("labels.py"),
        space_groups=config["materials"]["space_groups"],
        zone_axes=config["diffraction"]["zone_axes"],
    script:
        "../scripts/labels.py"


rule models_table:
    input:
        code=code("models_table.py"),
    output:
        table="results/models.csv",
        record="results/models.record.json",
    log:
        "logs/models_table.log",
    group:
        batch("tables")
    conda:
        "../envs/learning.yaml"
    params:
        code=code_digest("models_table.py"),
        models=model_table.rows(settings),
    script:
        "../scripts/models_table.py"


rule split:
    input:
        code=code("split.py"),
    output:
        split="results/models/{model}/split.csv",
        record="results/models/{model}/split.record.json",
    log:
        "logs/split/{model}.log",
    group:
        batch("tables")
    conda:
        "../envs/learning.yaml"
    params:
        code=code_digest("split.py"),
        materials=rows_to_split,
        hosts={name: HOSTS[name].space_group for name in used_hosts()},
        split=lambda wildcards: model_of(wildcards)["split"],
        grid=patterns_grid,
        seed=config["seed"],
    script:
        "../scripts/split.py"


rule train:
    input:
        patterns=clean_patterns,
        split="results/models/{model}/split.csv",
        labels="results/labels.csv",
        code=code("train.py"),
    output:
        model="results/models/{model}/model.safetensors",
        best="results/models/{model}/best.safetensors",
        last="results/models/{model}/last.safetensors",
        card="results/models/{model}/card.json",
        history="results/models/{model}/history.csv",
        record="results/models/{model}/model.record.json",
    log:
        "logs/train/{model}.log",
    conda:
        "../envs/learning.yaml"
    threads: config["runtime"]["training_threads"]
    resources:
        gpu=GPU * config["runtime"]["training_processes"],
        card=CARD * GPU * config["runtime"]["training_processes"],
        mem_mb=training_memory,
    params:
        code=code_digest("train.py"),
        learning=lambda wildcards: model_of(wildcards)["learning"],
        seed=lambda wildcards: model_of(wildcards)["seed"],
    script:
        "../scripts/train.py"


rule predict:
    input:
        model="results/models/{model}/model.safetensors",
        card="results/models/{model}/card.json",
        patterns=lambda wildcards: patterns_in(
            model_of(wildcards)["pattern_set"], wildcards.condition
        ),
        code=code("predict.py"),
    output:
        predictions="results/predictions/{model}/{condition}.nc",
        record="results/predictions/{model}/{condition}.record.json",
    log:
        "logs/predict/{model}/{condition}.log",
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


rule predict_clean:
    input:
        model="results/models/{model}/model.safetensors",
        card="results/models/{model}/card.json",
        split="results/models/{model}/split.csv",
        patterns=clean_patterns,
        code=code("predict_clean.py"),
    output:
        predictions="results/predictions/{model}/clean.nc",
        record="results/predictions/{model}/clean.record.json",
    log:
        "logs/predict_clean/{model}.log",
    conda:
        "../envs/learning.yaml"
    threads: config["runtime"]["training_threads"]
    resources:
        gpu=GPU,
        card=GPU,
    params:
        code=code_digest("predict_clean.py"),
        rotated_copies=config["evaluation"]["rotated_copies"],
    script:
        "../scripts/predict_clean.py"


ruleorder: predict_clean > predict


# The rest is not in `all`: it is asked for by name, before a model is shipped (docs/classify.md).
rule unknown_patterns:
    input:
        table="resources/unknown_crystals.csv",
        structures=clean_structures,
        split="results/models/{model}/split.csv",
        code=code("unknown_patterns.py"),
    output:
        patterns="results/unknown/{model}.nc",
        record="results/unknown/{model}.record.json",
    log:
        "logs/unknown_patterns/{model}.log",
    conda:
        "../envs/diffraction.yaml" if not NEEDS_ABTEM else "../envs/multislice.yaml"
    resources:
        gpu=GPU,
        card=GPU,
    params:
        code=code_digest("unknown_patterns.py"),
        diffraction=lambda wildcards: diffraction_of(model_of(wildcards)["pattern_set"]),
        repeat=config["specimen"]["repeat"],
        seed=config["seed"],
    script:
        "../scripts/unknown_patterns.py"


rule openset:
    input:
        model="results/models/{model}/model.safetensors",
        card="results/models/{model}/card.json",
        split="results/models/{model}/split.csv",
        patterns=clean_patterns,
        unknown="results/unknown/{model}.nc",
        code=code("openset.py"),
    output:
        openset="results/models/{model}/openset.json",
        statistics="results/models/{model}/openset.safetensors",
        record="results/models/{model}/openset.record.json",
    log:
        "logs/openset/{model}.log",
    conda:
        "../envs/learning.yaml"
    threads: config["runtime"]["training_threads"]
    resources:
        gpu=GPU,
        card=GPU,
    params:
        code=code_digest("openset.py"),
        seed=config["seed"],
    script:
        "../scripts/openset.py"
