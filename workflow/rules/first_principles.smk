# GPAW: lattice constants of the hosts, relaxed point defects, ab initio molecular dynamics, elastic constants, formation
# energies of vacancies. In: config, resources/hosts.csv. Out: results/first_principles/.


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
    wildcard_constraints:
        host=r"[A-Za-z]+(-(smoke|laptop|paper))?",
    priority: 10
    conda:
        "../envs/gpaw.yaml"
    threads: config["runtime"]["gpaw_ranks"]
    resources:
        **GPAW,
    params:
        code=code_digest("lattice.py"),
        host=host_of,
        first_principles=first_principles("lattice"),
    script:
        "../scripts/lattice.py"


rule relax:
    input:
        unpack(segment_before("relax")),
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
    threads: config["runtime"]["gpaw_ranks"]
    resources:
        **GPAW,
    params:
        code=code_digest("relax.py"),
        host=moving_host_of,
        supercell=lambda wildcards: settings_of(wildcards)["supercell"],
        defect=lambda wildcards: settings_of(wildcards)["defect"],
        first_principles=first_principles("relax"),
    script:
        "../scripts/relax.py"


rule relax_segment:
    input:
        unpack(segment_before("relax")),
        lattice=lattice_of,
        code=code("relax.py"),
    output:
        segment=temp("results/first_principles/segments/relax/{condition}/{left}.json"),
        record=temp(
            "results/first_principles/segments/relax/{condition}/{left}.record.json"
        ),
    log:
        "logs/relax/{condition}.{left}.log",
    wildcard_constraints:
        condition=FAMILIES["point"],
        left=r"\d+",
    priority: 10
    conda:
        "../envs/gpaw.yaml"
    threads: config["runtime"]["gpaw_ranks"]
    resources:
        **GPAW,
    params:
        code=code_digest("relax.py"),
        host=moving_host_of,
        supercell=lambda wildcards: settings_of(wildcards)["supercell"],
        defect=lambda wildcards: settings_of(wildcards)["defect"],
        first_principles=first_principles("relax"),
    script:
        "../scripts/relax.py"


rule aimd:
    input:
        unpack(segment_before("aimd")),
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
    threads: config["runtime"]["gpaw_ranks"]
    resources:
        **GPAW,
    params:
        code=code_digest("aimd.py"),
        host=moving_host_of,
        supercell=lambda wildcards: settings_of(wildcards)["supercell"],
        temperature=lambda wildcards: settings_of(wildcards)["temperature"],
        protocol=lambda wildcards: settings_of(wildcards)["protocol"],
        first_principles=first_principles("aimd"),
        seed=lambda wildcards: table.seed_of(config["seed"], wildcards.condition),
    script:
        "../scripts/aimd.py"


rule aimd_segment:
    input:
        unpack(segment_before("aimd")),
        lattice=lattice_of,
        code=code("aimd.py"),
    output:
        segment=temp("results/first_principles/segments/aimd/{condition}/{left}.json"),
        record=temp(
            "results/first_principles/segments/aimd/{condition}/{left}.record.json"
        ),
    log:
        "logs/aimd/{condition}.{left}.log",
    wildcard_constraints:
        condition=FAMILIES["thermal"],
        left=r"\d+",
    priority: 10
    conda:
        "../envs/gpaw.yaml"
    threads: config["runtime"]["gpaw_ranks"]
    resources:
        **GPAW,
    params:
        code=code_digest("aimd.py"),
        host=moving_host_of,
        supercell=lambda wildcards: settings_of(wildcards)["supercell"],
        temperature=lambda wildcards: settings_of(wildcards)["temperature"],
        protocol=lambda wildcards: settings_of(wildcards)["protocol"],
        first_principles=first_principles("aimd"),
        seed=lambda wildcards: table.seed_of(config["seed"], wildcards.condition),
    script:
        "../scripts/aimd.py"


rule elastic:
    input:
        lattice=lattice_of,
        code=code("elastic.py"),
    output:
        json="results/first_principles/elastic/{host}.json",
        log="results/first_principles/elastic/{host}.gpaw.txt",
        record="results/first_principles/elastic/{host}.record.json",
    log:
        "logs/elastic/{host}.log",
    wildcard_constraints:
        host=r"[A-Za-z]+(-(smoke|laptop|paper))?",
    priority: 10
    conda:
        "../envs/gpaw.yaml"
    threads: config["runtime"]["gpaw_ranks"]
    resources:
        **GPAW,
    params:
        code=code_digest("elastic.py"),
        host=moving_host_of,
        first_principles=first_principles("elastic"),
    script:
        "../scripts/elastic.py"


rule vacancy_energy:
    input:
        defect=lambda wildcards: summary_of("relax", wildcards.condition),
        perfect=lambda wildcards: summary_of("relax", condition_of(wildcards).control),
        code=code("vacancy_energy.py"),
    output:
        json="results/first_principles/vacancy_energy/{condition}.json",
        record="results/first_principles/vacancy_energy/{condition}.record.json",
    log:
        "logs/vacancy_energy/{condition}.log",
    wildcard_constraints:
        condition=r"[a-z]+-vacancy-.+(?<!-unrelaxed)",
    conda:
        "../envs/gpaw.yaml"
    params:
        code=code_digest("vacancy_energy.py"),
    script:
        "../scripts/vacancy_energy.py"
