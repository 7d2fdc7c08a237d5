# Structures to patterns: one job and one netCDF per clean crystal and per condition; zone axis, voltage, camera length
# and snapshot are dimensions inside it. Further sets of patterns (other settings, same structures) have a folder each.
# In: results/structures/. Out: results/patterns/, results/pattern_sets/.


rule simulate_clean:
    input:
        structure=lambda wildcards: clean_structure_of(wildcards.material),
        code=code("simulate.py"),
    output:
        patterns="results/patterns/clean/{material}.nc",
        record="results/patterns/clean/{material}.record.json",
    log:
        "logs/simulate_clean/{material}.log",
    group:
        batch("clean_patterns")
    conda:
        "../envs/diffraction.yaml" if not NEEDS_ABTEM else "../envs/multislice.yaml"
    resources:
        gpu=GPU,
        card=GPU,
    params:
        code=code_digest("simulate.py"),
        diffraction=config["diffraction"],
    script:
        "../scripts/simulate.py"


rule simulate:
    input:
        structure="results/structures/{condition}.cif",
        code=code("simulate.py"),
    output:
        patterns="results/patterns/{condition}.nc",
        record="results/patterns/{condition}.record.json",
    log:
        "logs/simulate/{condition}.log",
    group:
        batch("patterns")
    conda:
        "../envs/diffraction.yaml" if not NEEDS_ABTEM else "../envs/multislice.yaml"
    resources:
        gpu=GPU,
        card=GPU,
    params:
        code=code_digest("simulate.py"),
        diffraction=diffraction_of_condition,
    script:
        "../scripts/simulate.py"


rule simulate_set_clean:
    input:
        structure=lambda wildcards: clean_structure_of(wildcards.material),
        code=code("simulate.py"),
    output:
        patterns="results/pattern_sets/{pattern_set}/clean/{material}.nc",
        record="results/pattern_sets/{pattern_set}/clean/{material}.record.json",
    log:
        "logs/simulate_set_clean/{pattern_set}/{material}.log",
    group:
        batch("clean_patterns")
    conda:
        "../envs/diffraction.yaml" if not NEEDS_ABTEM else "../envs/multislice.yaml"
    resources:
        gpu=GPU,
        card=GPU,
    params:
        code=code_digest("simulate.py"),
        diffraction=lambda wildcards: diffraction_of(wildcards.pattern_set),
    script:
        "../scripts/simulate.py"


rule simulate_set:
    input:
        structure="results/structures/{condition}.cif",
        code=code("simulate.py"),
    output:
        patterns="results/pattern_sets/{pattern_set}/{condition}.nc",
        record="results/pattern_sets/{pattern_set}/{condition}.record.json",
    log:
        "logs/simulate_set/{pattern_set}/{condition}.log",
    group:
        batch("patterns")
    conda:
        "../envs/diffraction.yaml" if not NEEDS_ABTEM else "../envs/multislice.yaml"
    resources:
        gpu=GPU,
        card=GPU,
    params:
        code=code_digest("simulate.py"),
        diffraction=diffraction_of_condition,
    script:
        "../scripts/simulate.py"
