"""What planning costs: CPU time and peak memory of a dry run against the number of conditions.

    python benchmarks/planning.py [--conditions 100 1000 10000] [--finished] [--json FILE]

Beside the workflow, a plain Snakefile with the same chain of rules and nothing else (no code digests, params, records
or environments) is planned: what Snakemake itself costs. Times are CPU seconds of user and system, so that other work
on the machine hardly counts. With --finished, every output is made (empty of meaning) and the plan of a finished study
is measured too; 10,000 conditions then take ten minutes and 80,000 small files.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
START = 4.0  # CPU s that a dry run may take before its first job
PER_JOB = 2.0  # CPU ms that it may take for each
PARSING = 1.5  # CPU s that reading the Snakefile may take above an empty one
MEMORY = 2.0  # GB
PLAIN = """
N = [f"c{{i}}" for i in range({conditions})]
M = [f"m{{i}}" for i in range({crystals})]
rule all:
    input: "results/report.html"
rule structure:
    output: "results/structures/{{c}}.cif", "results/structures/{{c}}.extxyz"
    log: "logs/structure/{{c}}.log"
    script: "s.py"
rule clean:
    output: "results/clean/{{m}}.nc"
    log: "logs/clean/{{m}}.log"
    script: "s.py"
rule simulate:
    input: "results/structures/{{c}}.cif"
    output: "results/patterns/{{c}}.nc"
    log: "logs/simulate/{{c}}.log"
    script: "s.py"
rule train:
    input: expand("results/clean/{{m}}.nc", m=M)
    output: "results/model"
    log: "logs/train.log"
    script: "s.py"
rule predict:
    input: "results/model", "results/patterns/{{c}}.nc"
    output: "results/predictions/{{c}}.nc"
    log: "logs/predict/{{c}}.log"
    script: "s.py"
rule evaluate:
    input: expand("results/predictions/{{c}}.nc", c=N)
    output: "results/report.html"
    log: "logs/evaluate.log"
    script: "s.py"
"""


# The peak of `wait4` would be that of this process if it is larger: a child starts as its copy.
WATCHED = """
import atexit, pathlib, runpy
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: pathlib.Path("peak.txt").write_text(status.read_text().split("VmHWM:")[1].split()[0]))
runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conditions", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--finished", action="store_true", help="plan a finished study too")
    parser.add_argument("--json", type=Path, help="write the rows there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="planning-") as folder:
        rows = measure(Path(folder), options.conditions, options.finished)
    if options.json:
        machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


def measure(folder: Path, sizes: list[int], finished: bool, plain: bool = True) -> list[dict]:
    """Measure in a copy of the workflow below `folder`; prints and returns the rows."""
    copy = folder / "defraction"
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/", "resources/structures/")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    rows = []

    def add(what: str, conditions: int, spent: dict) -> None:
        base = next((r["cpu"] for r in rows if r["what"] == "empty Snakefile"), 0.0)
        spent = {"what": what, "conditions": conditions, **spent}
        spent["per_job"] = 1000 * (spent["cpu"] - base) / spent["jobs"] if conditions else None
        rows.append(spent)
        per_job = f"{spent['per_job']:8.2f}" if conditions else " " * 8
        cells = f"{what:22}{conditions:11}{spent['jobs']:8}{spent['cpu']:9.1f}{per_job}{spent['memory']:9.2f}"
        print(cells, flush=True)

    print(f"{'':22}{'conditions':>11}{'jobs':>8}{'CPU [s]':>9}{'ms/job':>8}{'mem [GB]':>9}")
    empty = folder / "empty"
    empty.mkdir()
    (empty / "Snakefile").write_text("rule all:\n    default_target: True\n")
    (empty / "s.py").touch()
    add("empty Snakefile", 0, dry_run(empty))
    write_config(copy, 100)
    add("workflow, one job", 0, dry_run(copy, "results/conditions.csv"))
    for size in sizes:
        write_config(copy, size)
        spent = dry_run(copy)
        add("workflow", size, spent)
        if plain:
            crystals = len((copy / "resources/materials.csv").read_text().splitlines()) - 1
            (empty / "Snakefile").write_text(PLAIN.format(conditions=size, crystals=crystals))
            add("plain Snakefile", size, dry_run(empty))
        if finished:
            make(copy)
            add("workflow, finished", size, {**dry_run(copy), "jobs": spent["jobs"]})
            shutil.rmtree(copy / "results")
            shutil.rmtree(copy / ".snakemake")
    return rows


def write_config(folder: Path, conditions: int) -> None:
    """The default study with so many conditions: four in five strained crystals, the rest random defects and thermal
    motion in equal parts (molecular dynamics, a further job each)."""

    def sweep(largest: float, count: int) -> list[float]:
        return [round(largest * (i + 1) / count, 8) for i in range(count)]

    raw = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    tenth = conditions // 10
    raw["conditions"] = [
        *(
            {"kind": "strain", "host": host, "component": "xx", "values": sweep(0.1, 2 * tenth)}
            for host in ("Al", "Fe", "Cu", "Ni")
        ),
        {"kind": "random_defects", "host": "Al", "concentrations": sweep(0.2, tenth)},
        {"kind": "thermal", "host": "Al", "supercell": [2, 2, 2], "temperatures": [100 + i for i in range(tenth)]},
    ]
    (folder / "config/config.yaml").write_text(yaml.safe_dump(raw))


def dry_run(folder: Path, *targets: str) -> dict:
    """CPU seconds, peak memory [GB] and number of jobs of one dry run, as a user would start it."""
    command = [sys.executable, "-c", WATCHED, "--dry-run", "--cores", "2", *targets]
    with open(folder / "plan.txt", "w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    text = (folder / "plan.txt").read_text()
    if process.returncode:
        raise SystemExit(text[-3000:])
    total = [line.split()[1] for line in text.splitlines() if line.startswith("total ")]
    return {
        "jobs": int(total[0]) if total else 0,
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": int((folder / "peak.txt").read_text()) * 1024 / 1e9,
    }


def make(folder: Path) -> None:
    """Every output of the last dry run, recorded by Snakemake as made."""
    for line in (folder / "plan.txt").read_text().splitlines():
        if line.strip().startswith("output: "):
            for name in line.strip().removeprefix("output: ").split(", "):
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}")
    command = [sys.executable, "-m", "snakemake", "--touch", "--forceall", "--cores", "2", "--quiet", "all"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


if __name__ == "__main__":
    main()
