"""A study that is finished in name only: every output of the workflow exists, holds its own name, and is recorded by
Snakemake as made (`--touch --forceall`). What a change would rerun is then a matter of seconds, not of GPAW."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where test_reruns.py is a program and not a test

from repository import copy_repository

HERE = Path(__file__).resolve().parent
CONFIG = "config/reruns.yaml"
MATERIALS = "resources/few_materials.csv"
POTENTIAL = "resources/own.eam.fs"
POTENTIAL_HEAD = "no\npotential\nat all\n1 Al\n10000 0.01 10000 0.0006 6.0\n"
CONDA = """#!/bin/sh
# As much of conda as a dry run asks for.
case "$1" in
  --version) echo conda 24.11.0 ;;
  info) echo '{"conda_prefix": "/nowhere", "platform": "linux-64", "conda_version": "24.11.0"}' ;;
  config) echo '{"success": true, "get": {"channel_priority": "strict"}}' ;;
esac
"""
CONDITIONS = [
    {"kind": "strain", "host": "Al", "component": "xx", "values": [0.02, 0.035]},
    {"kind": "strain", "host": "Fe", "component": "xy", "values": [0.03]},
    {"kind": "thermal", "host": "Al", "supercell": [2, 1, 1], "temperatures": [100, 300]},
    {"kind": "vacancy", "host": "Al", "supercell": [2, 1, 1]},
    {"kind": "vacancy", "host": "Fe", "supercell": [2, 1, 1]},
    {"kind": "substitution", "host": "Al", "solute": "Si", "supercell": [2, 1, 1]},
    {"kind": "interstitial", "host": "Al", "solute": "C", "site": "tetrahedral", "supercell": [2, 1, 1]},
    {"kind": "random_defects", "host": "Al", "concentrations": [0.1]},
    {"kind": "random_displacements", "host": "Al", "fractions": [0.03], "samples": 2},
    {"kind": "dislocation", "host": "Al", "count": 2, "spacing": 20, "size": [48, 32], "line_repeat": 3},
    {"kind": "twin", "host": "Al", "size": [24, 30, 20], "potential": POTENTIAL},
]


def planned_jobs(text: str) -> dict[str, list[str]]:
    """Jobs in what a dry run prints (those of a group indented): by rule, the values of the wildcards of each job."""
    jobs: dict[str, list[str]] = {}
    for block in re.split(r"\n(?= *(?:local)?rule )", text):
        if match := re.match(r" *(?:local)?rule (\w+):", block):
            wildcards = re.search(r"(?m)^ +wildcards: (.*)", block)
            jobs.setdefault(match[1], []).append(re.sub(r"\w+=", "", wildcards[1]) if wildcards else "")
    jobs.pop("all", None)
    return {rule: sorted(values) for rule, values in jobs.items()}


class Planner:
    """Snakemake's command, started in forks of one process (planner.py)."""

    def __init__(self, folder: Path):
        self.folder = folder
        conda = folder / "bin/conda"
        conda.parent.mkdir(parents=True)
        conda.write_text(CONDA)
        conda.chmod(0o755)
        environment = {**os.environ, "PATH": f"{conda.parent}:{os.environ['PATH']}"}
        command = [sys.executable, str(HERE / "planner.py")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
        )
        self.cpu = 0.0

    def run(self, folder: Path, *arguments: str) -> str:
        """Standard output of `snakemake ARGUMENTS`."""
        files = {name: str(self.folder / name) for name in ("stdout", "stderr")}
        self.process.stdin.write(json.dumps({"folder": str(folder), "arguments": arguments, **files}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.cpu += answer["cpu"]
        stdout, stderr = (Path(name).read_text() for name in files.values())
        assert answer["status"] == 0, stdout[-3000:] + stderr[-6000:]
        return stdout

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Finished:
    """A finished study in `folder`, and the jobs that a change of it would run."""

    def __init__(self, planner: Planner, folder: Path, *arguments: str):
        self.planner, self.folder = planner, folder
        self.arguments = ["--configfile", CONFIG, "--cores", "2", *arguments]

    def snakemake(self, *arguments: str) -> str:
        return self.planner.run(self.folder, *self.arguments, *arguments)

    def planned(self, *arguments: str) -> dict[str, list[str]]:
        """Jobs of a dry run: by rule, the values of the wildcards of each job."""
        return planned_jobs(self.snakemake("--dry-run", *arguments))

    def make(self) -> dict[str, list[str]]:
        """Make every output; returns all jobs."""
        text = self.snakemake("--dry-run")
        for line in re.findall(r"(?m)^ +output: (.*)", text):
            for name in line.split(", "):
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}" if path.suffix == ".json" else name)
        jobs = self.planned("--forceall")
        self.snakemake("--touch", "--forceall", "--quiet", "all")
        assert self.planned() == {}
        return jobs


def copy_workflow(root: Path, folder: Path) -> None:
    """The workflow without results, with a configuration that has every kind of condition on few crystals."""
    copy_repository(root, folder, "tests", "docs", "benchmarks")
    shutil.rmtree(folder / "resources/structures")
    lines = (folder / "resources/materials.csv").read_text().splitlines(keepends=True)
    groups: dict[str, list[str]] = {}
    for line in lines[1:]:
        groups.setdefault(re.search(r"^[^,]*-(\d+),", line)[1], []).append(line)
    (folder / MATERIALS).write_text("".join([lines[0], *(line for group in groups.values() for line in group[:4])]))
    (folder / POTENTIAL).write_text(POTENTIAL_HEAD)
    raw = yaml.safe_load((folder / "config/smoke.yaml").read_text())
    raw["materials"] = {"table": MATERIALS}
    raw["first_principles"] = {"preset": "smoke", "source": "compute"}
    raw["conditions"] = CONDITIONS
    (folder / CONFIG).write_text(yaml.safe_dump(raw, sort_keys=False))
