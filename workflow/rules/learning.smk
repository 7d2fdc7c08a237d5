# Labels by appearance, the split of the clean crystals, training on clean patterns only, predictions.
# In: results/patterns/. Out: results/labels.csv, results/models/, results/predictions/.


rule labels:
    input:
        code=code("labels.py"),
    output:
        labels="results/labels.csv",
        record="results/labels.record.json",
    log:
        "logs/labels.log",
    conda:
        "../envs/learning.yaml"
    params:
        code=code_digest("labels.py"),
        space_groups=config["materials"]["space_groups"],
        zone_axes=config["diffraction"]["zone_axes"],
    script:
        "../scripts/labels.py"


rule split:
    input:
        code=code("split.py"),
    output:
        split="results/models/{model}/split.csv",
        record="results/models/{model}/split.record.json",
    log:
        "logs/split/{model}.log",
    conda:
        "../envs/learning.yaml"
    params:
        code=code_digest("split.py"),
        materials=[
            {
                "material": name,
                "space_group": material.space_group,
                "prototype": material.prototype,
                "formula": material.formula,
            }
            for name, material in sorted(MATERIALS.items())
        ],
        hosts={name: HOSTS[name].space_group for name in used_hosts()},
        split=config["learning"]["split"],
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
        card="results/models/{model}/card.json",
        history="results/models/{model}/history.csv",
        record="results/models/{model}/model.record.json",
    log:
        "logs/train/{model}.log",
    conda:
        "../envs/learning.yaml"
    threads: config["runtime"]["training_threads"]
    resources:
        gpu=GPU,
    params:
        code=code_digest("train.py"),
        learning={k: v for k, v in config["learning"].items() if k != "split"},
        seed=config["seed"],
    script:
        "../scripts/train.py"


rule predict:
    input:
        model="results/models/{model}/model.safetensors",
        card="results/models/{model}/card.json",
        patterns="results/patterns/{condition}.nc",
        code=code("predict.py"),
    output:
        predictions="results/predictions/{model}/{condition}.nc",
        record="results/predictions/{model}/{condition}.record.json",
    log:
        "logs/predict/{model}/{condition}.log",
    conda:
        "../envs/learning.yaml"
    resources:
        gpu=GPU,
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
    params:
        code=code_digest("predict_clean.py"),
        rotated_copies=config["evaluation"]["rotated_copies"],
    script:
        "../scripts/predict_clean.py"


ruleorder: predict_clean > predict
