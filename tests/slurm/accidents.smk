# Jobs that meet with an accident on their way. Rules are named after ours where the profile's lines for these are meant.

PYTHON = f"{sys.executable} accidents.py"


rule all:
    input:
        "memory",
        "time",
        "cancelled",
        expand("predictions/{i}", i=range(2)),
        expand("structures/{i}", i=range(4)),


rule memory:
    output:
        "memory",
    params:
        megabytes=2600,
    shell:
        PYTHON + " memory {output} {params.megabytes} {resources.mem_mb}"


rule time:
    output:
        "time",
    resources:
        runtime=1,
    shell:
        PYTHON + " time {output} 100"


rule cancelled:
    output:
        "cancelled",
    shell:
        PYTHON + " cancelled {output}"


rule steady:
    output:
        "steady/{i}",
    shell:
        PYTHON + " sleep {output} 60"


rule predict:
    output:
        "predictions/{i}",
    resources:
        gpu=1,
    shell:
        PYTHON + " sleep {output} 5"


rule clean_structure:
    output:
        "structures/{i}",
    group:
        "structures"
    shell:
        PYTHON + " sleep {output} 1"


rule member:
    output:
        "members/{i}",
    shell:
        PYTHON + " sleep {output} 1"
