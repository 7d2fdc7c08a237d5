"""The profiles: the same reruns, memory, time and groups everywhere, and every rule that needs a line has one."""

import math
import re
from fnmatch import fnmatch

import pytest
import yte

from defraction import doctor

CLUSTERS = ("slurm", "generic")
RERUNS = ("rerun-triggers", "max-checksum-file-size", "rerun-incomplete")


def profile(root, name):
    with open(root / f"profiles/{name}/config.yaml") as file:
        return yte.process_yaml(file, require_use_yte=True)


@pytest.fixture(scope="module")
def bodies(root):
    found = {}
    for path in sorted((root / "workflow/rules").glob("*.smk")):
        for block in re.split(r"(?m)^rule ", path.read_text())[1:]:
            name, body = block.split(":", 1)
            found[name] = body
    return found


def test_every_profile_repeats_the_rerun_settings(root):
    default = profile(root, "default")
    names = [path.name for path in (root / "profiles").iterdir() if path.is_dir()]
    assert {"default", *CLUSTERS} <= set(names)
    for name in names:
        mine = profile(root, name)
        assert {key: mine[key] for key in RERUNS} == {key: default[key] for key in RERUNS}, name
        assert not {"keep-incomplete", "rerun-trigger", "ignore-incomplete"} & set(mine), name


def test_clusters_ask_for_the_same(root):
    slurm, generic = (profile(root, name) for name in CLUSTERS)
    for key in ("set-resources", "group-components", "resources", "set-resource-scopes", "retries", "keep-going"):
        assert slurm[key] == generic[key], key
    for key in ("mem_mb", "runtime", "turn"):
        assert slurm["default-resources"][key] == generic["default-resources"][key]


def test_memory_doubles_with_every_attempt(root):
    slurm = profile(root, "slurm")
    asked = [resources for resources in slurm["set-resources"].values() if "mem_mb" in resources]
    assert len(asked) > 10
    for resources in (slurm["default-resources"], *asked):
        values = [eval(resources["mem_mb"], {"attempt": attempt, "threads": 2}) for attempt in (1, 2, 3)]
        assert values[1] == 2 * values[0] and values[2] == 4 * values[0] and values[0] >= 2000


def test_lines_for_rules_name_rules(root, bodies):
    for name in CLUSTERS:
        assert set(profile(root, name)["set-resources"]) <= set(bodies), name


def test_every_rule_with_gpu_or_first_principles_has_its_memory(root, bodies):
    needy = {name for name, body in bodies.items() if re.search(r"gpu=GPU|\*\*GPAW", body)}
    assert len(needy) > 8
    needy -= {name for name in needy if "mem_mb=" in bodies[name]}  # it follows from the study
    for name in CLUSTERS:
        lines = profile(root, name)["set-resources"]
        assert {rule for rule in needy if "mem_mb" not in lines.get(rule, {})} == set(), name


def test_short_jobs_share_a_job_of_the_cluster(root, bodies):
    groups = {rule: re.search(r'(?m)^    group:\n        batch\("(\w+)"\)', body) for rule, body in bodies.items()}
    short = {
        rule for rule in bodies if re.match(r"figure_|simulate|structure_|clean_structure|predict$|predict_shown", rule)
    }
    assert {rule for rule in short if not groups[rule]} == set()
    for name in CLUSTERS:
        sizes = profile(root, name)["group-components"]
        assert {match[1] for match in groups.values() if match} == set(sizes), name


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_table_of_what_a_job_asks_for_is_that_of_profile_and_rules(root, bodies, name):
    """docs/running.md, "What a job asks for": each cell begins with what a first attempt asks for; words may follow."""
    text = (root / "docs/running.md").read_text().split("### What a job asks for")[1].split("\n\n")[1]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    rows = [(re.findall(r"`([\w*]+)`", row[0]), row[1:]) for row in cells[:-1]]
    assert cells[-1][0].startswith("all others")
    common = (root / "workflow/rules/common.smk").read_text()
    longest = re.search(r"math\.ceil\(\(settings\.runtime\.walltime or (\d+)\) / 60\) \+ (\d+)", common)
    chosen = profile(root, name)
    for rule, body in bodies.items():
        asked = chosen["default-resources"] | chosen["set-resources"].get(rule, {})
        threads = re.search(r'(?m)^    threads: config\["runtime"\]\["(\w+)"\]', body)
        cores = f"`{threads[1]}`" if threads else "1"
        one, two = (eval(str(asked["mem_mb"]), {"attempt": 1, "threads": n, "math": math}) for n in (1, 2))
        memory = f"{2 * one - two} + {two - one} per rank" if two > one else str(one)
        time = str(eval(str(asked["runtime"]), {"attempt": 1}))
        gpu = "1 with `device: gpu`" if "gpu=GPU," in body else ""
        if "**GPAW" in body:
            time = f"`walltime` + {longest[2]}; without one {math.ceil(int(longest[1]) / 60) + int(longest[2])}"
            gpu = "1 with `gpaw_gpu`"
        if "mem_mb=training_memory" in body:  # the images' part follows from the study
            memory = re.search(r"math\.ceil\((\d+) \+ ", common)[1]
            gpu = "`training_processes` with `device: gpu`"
        said = [row for patterns, row in rows if any(fnmatch(rule, pattern) for pattern in patterns)]
        assert len(said) < 2, f"{rule} stands in {len(said)} rows"
        for cell, value in zip(*(said or [cells[-1][1:]]), (cores, memory, time, gpu), strict=True):
            assert re.match(rf"{re.escape(value)}(?![\w])", cell) if value else not cell, (rule, cell, value)
    for patterns, row in rows:
        assert all(any(fnmatch(rule, pattern) for rule in bodies) for pattern in patterns), row


def test_long_jobs_are_in_no_group(bodies):
    for rule in ("relax", "relax_segment", "aimd", "aimd_segment", "train"):
        assert "group:" not in bodies[rule], rule


def test_jobs_share_a_card_and_training_has_it_alone(root, bodies, monkeypatch):
    """On one machine slots are counted, not GPUs: short jobs one after the other would wait for their own starts."""
    monkeypatch.delenv("SLURM_GPUS_ON_NODE", raising=False)
    resources = profile(root, "default")["resources"]
    slots = int(re.search(r"(?m)^CARD = (\d+)", (root / "workflow/rules/common.smk").read_text())[1])
    assert resources["card"] == slots == doctor.CARD > 1 and "gpu" not in resources
    for rule, body in bodies.items():
        if "gpu=GPU" in body:
            whole = "card=CARD * GPU * " in body
            assert whole == (rule == "train") and (whole or "card=GPU," in body), rule
    # a cluster's own process counts GPUs alone
    for name in CLUSTERS:
        assert "card" not in profile(root, name).get("resources", {}), name
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    assert profile(root, "default")["resources"]["card"] == 4 * slots
