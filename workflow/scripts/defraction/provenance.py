"""Records: what made a file, from what, with which settings, code and packages.

Every rule writes one JSON record beside its main output (`<stem>.record.json`). `trace` walks the records from a file
back to the sources, `verify` hashes everything again.
"""

import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

SCHEMA = "defraction-record/1"
DISTRIBUTIONS = {
    "abtem": "abtem",
    "ase": "ase",
    "finufft": "finufft",
    "gemmi": "gemmi",
    "gpaw": "gpaw",
    "gpaw_data": "gpaw-data",
    "matplotlib": "matplotlib",
    "netCDF4": "netcdf4",
    "numba": "numba",
    "numpy": "numpy",
    "pymatgen": "pymatgen",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "spglib": "spglib",
    "torch": "torch",
    "torchvision": "torchvision",
    "xarray": "xarray",
}
"""Packages that shape results: module name and distribution name."""


def sha256(path: Path | str) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry(path: Path | str, role: str) -> dict:
    """Path, role, size [byte] and SHA-256 of one file."""
    return {"path": str(path), "role": role, "bytes": os.path.getsize(path), "sha256": sha256(path)}


def state_digest(params: dict, inputs: list[dict]) -> str:
    """Digest of what restart state depends on: settings, code digest (in `params`) and input contents."""
    text = json.dumps([params, [i["sha256"] for i in inputs if i["role"] != "code"]], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def code() -> dict:
    """Git commit of the working tree and whether tracked files differ from it; null outside a repository."""

    def git(*arguments):
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
        return result.stdout.strip() if result.returncode == 0 else None

    try:
        status = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}
    except FileNotFoundError:
        return {"commit": None, "dirty": None}


def packages() -> dict[str, dict]:
    """Version and location of each package of DISTRIBUTIONS that this process has imported."""
    out = {}
    for module, name in DISTRIBUTIONS.items():
        if module in sys.modules and getattr(sys.modules[module], "__file__", None):
            location = Path(sys.modules[module].__file__).parent
            out[name] = {"version": metadata.version(name), "location": _relative(location)}
    return out


def check_environment() -> None:
    """In a conda environment, refuse packages that leaked in from the environment that launched the workflow.

    Snakemake appends the launcher's packages to the search path of a script, so a package missing in the rule's
    environment would silently be taken from there.

    Raises:
        RuntimeError: naming the packages and the environment.
    """
    prefix = Path(sys.prefix).resolve()
    if not (prefix / "conda-meta").is_dir():
        return
    foreign = [
        f"{module} from {sys.modules[module].__file__}"
        for module in DISTRIBUTIONS
        if module in sys.modules
        and getattr(sys.modules[module], "__file__", None)
        and not Path(sys.modules[module].__file__).resolve().is_relative_to(prefix)
    ]
    if foreign:
        raise RuntimeError(
            f"not from the rule's conda environment {prefix}: {', '.join(foreign)}; add the package to the rule's "
            "file in workflow/envs"
        )


def write_record(path: Path, facts: dict) -> None:
    """Complete `facts` with code, environment and cost, and write the record (atomically)."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cuda = "cupy" in sys.modules or ("torch" in sys.modules and sys.modules["torch"].cuda.is_initialized())
    record = {
        "schema": SCHEMA,
        **facts,
        "code": {"digest": facts["params"].get("code"), **code()},
        "environment": {
            "python": platform.python_version(),
            "prefix": _relative(Path(sys.prefix)),
            "packages": packages(),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
        },
        "host": {"name": platform.node(), "machine": platform.machine(), "system": platform.platform()},
        "device": "gpu" if cuda else "cpu",
        "cpu_seconds": round(sum(u.ru_utime + u.ru_stime for u in usage), 3),
        "max_rss_mib": round(max(u.ru_maxrss for u in usage) / 1024, 1),
    }
    partial = path.with_name(f".{path.name}.tmp{os.getpid()}")
    partial.write_text(json.dumps(record, indent=1, sort_keys=True, default=str) + "\n")
    os.replace(partial, path)


def read_records(results: Path = Path("results")) -> list[dict]:
    """All records below a results folder, sorted by path; each gets its own path as `record`."""
    out = []
    for path in sorted(results.rglob("*.record.json")):
        out.append({**json.loads(path.read_text()), "record": str(path)})
    return out


def makers(records: list[dict]) -> dict[str, dict]:
    """Which record made which file."""
    return {output["path"]: record for record in records for output in record["outputs"]}


def verify(records: list[dict]) -> list[str]:
    """Hash every recorded file again and check that each reader read what its maker wrote.

    Returns:
        One line per fault, empty if all is as recorded. Code files are not compared: their digest is.
    """
    made = {o["path"]: o["sha256"] for r in records for o in r["outputs"]}
    hashes: dict[str, str | None] = {}
    changed: dict[tuple[str, str], list[str]] = {}
    faults = []
    for record in records:
        for verb, items in (("written", record["outputs"]), ("read", record["inputs"])):
            for item in items:
                path = item["path"]
                if item["role"] == "code":
                    continue
                if path not in hashes:
                    hashes[path] = sha256(path) if Path(path).is_file() else None
                if hashes[path] != item["sha256"]:
                    changed.setdefault((path, verb), []).append(record["record"])
                if verb == "read" and made.get(path, item["sha256"]) != item["sha256"]:
                    faults.append(f"{record['record']}: read another version of {path} than the one its maker wrote")
    for (path, verb), names in changed.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        state = "is gone;" if hashes[path] is None else "differs from what"
        faults.append(f"{path}: {state} was {verb} by {names[0]}{more}")
    return faults


def cost(records: list[dict]) -> list[dict]:
    """What the recorded jobs cost, by rule, dearest first: jobs, CPU time [s], wall time [s], largest memory [MiB]."""
    rules: dict[str, dict] = {}
    for record in records:
        row = rules.setdefault(
            record["rule"], {"rule": record["rule"], "jobs": 0, "cpu_seconds": 0.0, "seconds": 0.0, "max_rss_mib": 0.0}
        )
        row["jobs"] += 1
        row["cpu_seconds"] += record["cpu_seconds"]
        row["seconds"] += record["seconds"]
        row["max_rss_mib"] = max(row["max_rss_mib"], record["max_rss_mib"])
    return sorted(rules.values(), key=lambda row: -row["cpu_seconds"])


def trace(records: list[dict], path: str) -> dict:
    """What made a file, recursively: nested {path, sha256, rule, settings, seconds, record, inputs}.

    A file that was met before is not unfolded again (`seen`: true). Code files are summed up by the digest.

    Raises:
        ValueError: no record made the file.
    """
    made = makers(records)
    path = os.path.relpath(path)
    if path not in made:
        raise ValueError(f"{path}: no record made this file; `defraction trace` takes a result of the workflow")
    seen: set[str] = set()

    def node(name: str, digest: str) -> dict:
        record = made.get(name)
        out = {"path": name, "sha256": digest}
        if record is None:
            return {**out, "source": True}
        out |= {"rule": record["rule"], "record": record["record"], "seconds": record["seconds"]}
        out |= {"cpu_seconds": record["cpu_seconds"], "code": record["code"], "started": record["started"]}
        if name in seen:
            return {**out, "seen": True}
        seen.add(name)
        inputs = [node(i["path"], i["sha256"]) for i in record["inputs"] if i["role"] != "code"]
        return {**out, "settings": record["params"], "inputs": inputs}

    output = next(o for o in made[path]["outputs"] if o["path"] == path)
    return node(path, output["sha256"])


def draw(tree: dict) -> list[str]:
    """The lines of a trace as a tree of text; many inputs made by one rule are summed up after the third."""
    cost = f"  {tree['rule']}, {tree['seconds']:.0f} s, code {tree['code']['digest']}" if "rule" in tree else "  source"
    lines = [f"{tree['path']}  sha256 {tree['sha256'][:12]}{cost}{'  (see above)' if tree.get('seen') else ''}"]
    children = tree.get("inputs", [])
    shown: list[dict | str] = []
    counts: dict[str, int] = {}
    for child in children:
        rule = child.get("rule", "source")
        counts[rule] = counts.get(rule, 0) + 1
        if counts[rule] <= 3:
            shown.append(child)
    shown += [f"... and {n - 3} more from {rule} (all in --json)" for rule, n in counts.items() if n > 3]
    for i, child in enumerate(shown):
        last = i == len(shown) - 1
        branch = draw(child) if isinstance(child, dict) else [child]
        lines += [f"{'└── ' if last else '├── '}{branch[0]}"]
        lines += [f"{'    ' if last else '│   '}{line}" for line in branch[1:]]
    return lines


def _relative(path: Path) -> str:
    """Below the working directory as a relative path, so that records carry no private folder names there."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
