# Crystals: the table of conditions; clean crystals from the table of materials or the user's sources; hosts with
# defects by condition. In: config, resources/. Out: results/conditions.csv, results/structures/.


rule conditions_table:
    input:
        hosts=ancient("resources/hosts.csv"),
        code=code("conditions_table.py"),
    output:
        table="results/conditions.csv",
        record="results/conditions.record.json",
    log:
        "logs/conditions_table.log",
    group:
        batch("tables")
    conda:
        "../envs/structures.yaml"
    params:
        code=code_digest("conditions_table.py"),
        conditions=CONDITIONS_DIGEST,
    script:
        "../scripts/conditions_table.py"


rule clean_structure:
    input:
        source=source_of,
        code=code("clean_structure.py"),
    output:
        cif="results/structures/clean/{space_group}/{material}.cif",
        record="results/structures/clean/{space_group}/{material}.record.json",
    log:
        "logs/clean_structure/{space_group}/{material}.log",
    group:
        batch("structures")
    conda:
        "../envs/structures.yaml"
    params:
        code=code_digest("clean_structure.py"),
        material=material_of,
        repeat=config["specimen"]["repeat"],
        specimens=config["materials"]["specimens"],
        seed=lambda wildcards: table.seed_of(config["seed"], wildcards.material),
    script:
        "../scripts/clean_structure.py"


rule structure_strain:
    input:
        unpack(elastic_source),
        hosts=ancient("resources/hosts.csv"),
        code=code("structure_strain.py"),
    output:
        cif="results/structures/{condition}.cif",
        extxyz="results/structures/{condition}.extxyz",
        record="results/structures/{condition}.record.json",
    log:
        "logs/structure/{condition}.log",
    wildcard_constraints:
        condition=FAMILIES["strain"],
    group:
        batch("structures")
    conda:
        "../envs/structures.yaml"
    params:
        code=code_digest("structure_strain.py"),
        host=strained_host_of,
        settings=settings_of,
    script:
        "../scripts/structure_strain.py"


rule structure_point:
    input:
        unpack(point_source),
        hosts=ancient("resources/hosts.csv"),
        code=code("structure_point.py"),
    output:
        cif="results/structures/{condition}.cif",
        extxyz="results/structures/{condition}.extxyz",
        record="results/structures/{condition}.record.json",
    log:
        "logs/structure/{condition}.log",
    wildcard_constraints:
        condition=FAMILIES["point"],
    group:
        batch("points")
    conda:
        "../envs/structures.yaml"
    params:
        code=code_digest("structure_point.py"),
        host=host_of,
        settings=settings_of,
    script:
        "../scripts/structure_point.py"


rule structure_block:
    input:
        hosts=ancient("resources/hosts.csv"),
        code=code("structure_block.py"),
    output:
        cif="results/structures/{condition}.cif",
        extxyz="results/structures/{condition}.extxyz",
        record="results/structures/{condition}.record.json",
    log:
        "logs/structure/{condition}.log",
    wildcard_constraints:
        condition=FAMILIES["block"],
    group:
        batch("structures")
    conda:
        "../envs/structures.yaml"
    params:
        code=code_digest("structure_block.py"),
        host=host_of,
        settings=settings_of,
        seed=lambda wildcards: table.seed_of(config["seed"], wildcards.condition),
    script:
        "../scripts/structure_block.py"


rule structure_thermal:
    input:
        unpack(thermal_source),
        code=code("structure_thermal.py"),
    output:
        cif="results/structures/{condition}.cif",
        extxyz="results/structures/{condition}.extxyz",
        record="results/structures/{condition}.record.json",
    log:
        "logs/structure/{condition}.log",
    wildcard_constraints:
        condition=FAMILIES["thermal"],
    group:
        batch("points")
    conda:
        "../envs/structures.yaml"
    params:
        code=code_digest("structure_thermal.py"),
        settings=settings_of,
    script:
        "../scripts/structure_thermal.py"


rule structure_dislocation:
    input:
        hosts=ancient("resources/hosts.csv"),
        potential=potential_of,
        code=code("structure_dislocation.py"),
    output:
        cif="results/structures/{condition}.cif",
        extxyz="results/structures/{condition}.extxyz",
        record="results/structures/{condition}.record.json",
    log:
        "logs/structure/{condition}.log",
    wildcard_constraints:
        condition=FAMILIES["dislocation"],
    group:
        batch("structures")
    conda:
        "../envs/structures.yaml"
    params:
        code=code_digest("structure_dislocation.py"),
        host=elastic_host_of,
        settings=settings_without_folders,
    script:
        "../scripts/structure_dislocation.py"


rule structure_twin:
    input:
        hosts=ancient("resources/hosts.csv"),
        potential=potential_of,
        code=code("structure_twin.py"),
    output:
        cif="results/structures/{condition}.cif",
        extxyz="results/structures/{condition}.extxyz",
        record="results/structures/{condition}.record.json",
    log:
        "logs/structure/{condition}.log",
    wildcard_constraints:
        condition=FAMILIES["twin"],
    group:
        batch("structures")
    conda:
        "../envs/structures.yaml"
    params:
        code=code_digest("structure_twin.py"),
        host=host_of,
        settings=settings_without_folders,
    script:
        "../scripts/structure_twin.py"
