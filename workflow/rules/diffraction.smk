# Structures to patterns: one job and one netCDF per clean crystal and per condition; zone axis, voltage, camera length
# and snapshot are dimensions inside it. In: results/structures/. Out: results/patterns/.


rule simulate_clean:
    input:
        structure=lambda wildcards: clean_structure_of(wildcards.material),
        code=code("simulate.py"),
    output:
        patterns="results/patterns/clean/{material}.nc",
        record="results/patterns/clean/{material}.record.json",
    log:
        "logs/simulate_clean/{material}.log",
    conda:
        "../envs/diffraction.yaml" if not NEEDS_ABTEM else "../envs/multislice.yaml"
    resources:
        gpu=GPU,
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
    conda:
        "../envs/diffraction.yaml" if not NEEDS_ABTEM else "../envs/multislice.yaml"
    resources:
        gpu=GPU,
    params:
        code=code_digest("simulate.py"),
        diffraction=config["diffraction"],
    script:
        "../scripts/simulate.py"
