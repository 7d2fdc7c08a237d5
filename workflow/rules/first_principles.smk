# GPAW: lattice constants of the hosts, relaxed point defects, ab initio molecular dynamics.
# In: config, resources/hosts.csv. Out: results/first_principles/.


rule lattice:
    input:
        hosts=ancient("resources/hosts.csv"),
        code=code("lattice.py"),
    output:
        json="results/first_principles/lattice/{host}.json",
        log="results/first_principles/lattice/{host}.gpaw.txt",
        record="results/first_principles/lattice/{host}.record.json",
    log:
        "logs/lattice/{host}.log",
    priority: 10
    conda:
        "../envs/gpaw.yaml"
    params:
        code=code_digest("lattice.py"),
        host=host_of,
        first_principles=config["first_principles"],
    script:
        "../scripts/lattice.py"


rule relax:
    input:
        lattice=lattice_of,
        code=code("relax.py"),
    output:
        relaxed="results/first_principles/relax/{condition}.extxyz",
        summary="results/first_principles/relax/{condition}.json",
        log="results/first_principles/relax/{condition}.gpaw.txt",
        record="results/first_principles/relax/{condition}.record.json",
    log:
        "logs/relax/{condition}.log",
    wildcard_constraints:
        condition=FAMILIES["point"],
    priority: 10
    conda:
        "../envs/gpaw.yaml"
    params:
        code=code_digest("relax.py"),
        host=host_of,
        supercell=lambda wildcards: settings_of(wildcards)["supercell"],
        defect=lambda wildcards: settings_of(wildcards)["defect"],
        first_principles=config["first_principles"],
    script:
        "../scripts/relax.py"


rule aimd:
    input:
        lattice=lattice_of,
        code=code("aimd.py"),
    output:
        snapshots="results/first_principles/aimd/{condition}.extxyz",
        summary="results/first_principles/aimd/{condition}.json",
        log="results/first_principles/aimd/{condition}.gpaw.txt",
        record="results/first_principles/aimd/{condition}.record.json",
    log:
        "logs/aimd/{condition}.log",
    wildcard_constraints:
        condition=FAMILIES["thermal"],
    priority: 10
    conda:
        "../envs/gpaw.yaml"
    params:
        code=code_digest("aimd.py"),
        host=host_of,
        supercell=lambda wildcards: settings_of(wildcards)["supercell"],
        temperature=lambda wildcards: settings_of(wildcards)["temperature"],
        protocol=lambda wildcards: settings_of(wildcards)["protocol"],
        first_principles=config["first_principles"],
        seed=lambda wildcards: table.seed_of(config["seed"], wildcards.condition),
    script:
        "../scripts/aimd.py"
