"""Is this machine fit for the coming run? One check per function, each saying what was found and what to do about it.

A check only looks: it removes nothing, and what it writes to try a folder it removes again.
"""

import csv
import io
import json
import os
import platform
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from defraction import digest, preflight

REPOSITORY = digest.SCRIPTS.parent.parent
OLDEST_CONDA = Version("24.7.1")
"""What Snakemake 9 asks for."""
NETWORK = (
    "nfs",
    "nfs4",
    "lustre",
    "gpfs",
    "beegfs",
    "cifs",
    "smb3",
    "smbfs",
    "ceph",
    "glusterfs",
    "orangefs",
    "afs",
    "9p",
)
"""File systems on which another machine sees a file only after a while."""
PATIENCE = 60.0  # [s] for a command
GIB = 2**30
MODEL_BYTES = GIB
"""Room for one model at most: weights, the best and the last ones, and the state of the optimiser (ResNet-152)."""
SNAPSHOTS = 6
"""Of a thermal condition, at most (preset paper)."""
CONDITION_BYTES = 2**21
"""Room for one condition beside its patterns: structures, logs, predictions, records."""
FILES_PER_CONDITION = 12
WORKING_MEMORY = 1.5 * GIB
"""Of a job beside its batch of patterns: interpreter, libraries, network, a GPAW cell of the default study."""
SUBMITTERS = ("qsub", "bsub", "sbatch", "condor_submit", "flux")
"""Commands that hand a job to a scheduler."""
LAUNCHERS = ("srun", "aprun", "jsrun", "lrun", "flux", "prun")
"""Commands that start MPI ranks through a scheduler, which outside a job first asks for one."""
CARD = 8
"""Jobs that share a card, as profiles/default says."""
CUDA_MEMORY = 1.0
"""Of a job on a card beside its batch of patterns [GiB]: CUDA's own and a network, assumed."""
DISTRIBUTIONS = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
"""Packages whose names on conda-forge and on PyPI differ."""
NOT_PYTHON = frozenset({"python", "pip", "libxc", "libblas", "cxx-compiler"})

FIRST_LOOK, FIRST_LOOKS = 40.0, 3
"""The plugin for Slurm first asks for states after so many seconds (its default), and trusts squeue if a job that ended
is kept for so many times that."""
JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
"""Set by schedulers in their jobs."""

State = Literal["ok", "warning", "failing"]


@dataclass(frozen=True)
class Finding:
    """What a check found of one subject; `remedy` says what to do where the state is not ok."""

    check: str
    subject: str
    state: State
    found: str
    remedy: str = ""


@dataclass
class Study:
    """The coming run.

    Attributes:
        folder: where it runs.
        settings: the checked configuration (`config.Config`), None if it cannot be used.
        profile: keys of the Snakemake profile.
        partitions: of the scheduler, named by the profile, each with its limits as the profile gives them.
        conditions, materials, models: numbers of them; `specimens`: of which patterns are computed; `elements`:
            symbols that GPAW has to know.
    """

    folder: Path
    settings: Any = None
    profile: dict[str, Any] = field(default_factory=dict)
    partitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    conditions: int = 0
    materials: int = 0
    models: int = 0
    specimens: int = 0
    elements: tuple[str, ...] = ()

    @property
    def conda(self) -> bool:
        """Whether jobs run in conda environments."""
        methods = self.profile.get("software-deployment-method") or self.profile.get("sdm") or ()
        return bool(self.profile.get("use-conda")) or "conda" in methods

    @property
    def executor(self) -> str:
        return self.profile.get("executor") or "local"

    def runtime(self, key: str, default: Any) -> Any:
        return default if self.settings is None else getattr(self.settings.runtime, key)


class Unanswered(RuntimeError):
    """A command is missing, failed or took too long; the message says which."""


def answer(*command: str, seconds: float = PATIENCE, **variables: str) -> str:
    """Standard output of a command with these environment variables set in addition. Raises Unanswered."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env={**os.environ, **variables}, check=False
        )
    except FileNotFoundError:
        raise Unanswered(f"{command[0]} is not in PATH") from None
    except subprocess.TimeoutExpired:
        raise Unanswered(f"{command[0]} did not answer within {seconds:g} s") from None
    except OSError as error:
        raise Unanswered(f"{command[0]} cannot be started ({error.strerror})") from None
    if done.returncode != 0:
        raise Unanswered(f"{command[0]} failed: {preflight.complaint(done)}")
    return done.stdout


def prepare(folder: Path, config: Path, profile: Path | None) -> tuple[Study, list[Finding]]:
    """Read what is to be run; findings for what cannot be read.

    Args:
        folder: where the study runs.
        config: its configuration, relative to `folder`.
        profile: folder of a Snakemake profile, or its name below profiles; None: default.
    """
    from defraction import config as schema
    from defraction import expansion, hosts, materials, models
    from defraction.defects import potentials
    from defraction.first_principles import library

    study, findings = Study(folder), []
    name = Path(profile or "default")
    place = folder / name if (folder / name / "config.yaml").is_file() else folder / "profiles" / name
    try:
        study.profile = yaml.safe_load((place / "config.yaml").read_text()) or {}
        study.partitions = _partitions(study.profile, place)
        findings.append(Finding("study", "profile", "ok", f"{place.name}, executor {study.executor}"))
    except (OSError, yaml.YAMLError) as error:
        problem = getattr(error, "strerror", None) or "is not YAML"
        remedy = "start in the study's folder, or give --profile"
        findings.append(Finding("study", "profile", "failing", f"{place}: {problem}", remedy))
    try:
        settings = schema.load(folder / config)
        table = hosts.read_hosts(folder / "resources/hosts.csv")
        conditions = expansion.expand(settings, table)
        potentials.check_conditions(conditions.values(), table)
        known = materials.catalogue(schema.plain(settings.materials))
    except (ValueError, OSError, ModuleNotFoundError) as error:
        findings.append(Finding("study", "configuration", "failing", str(error), "mend it; config/README.md says how"))
        return study, findings
    study.settings = settings
    study.conditions, study.materials = len(conditions), len(known)
    study.models = len(models.expand(settings))
    snapshots = (SNAPSHOTS if c.family == "thermal" else c.settings.get("samples", 1) for c in conditions.values())
    study.specimens = study.materials * (1 + settings.materials.specimens) + sum(snapshots)
    computed = [c for c in conditions.values() if c.relaxed or c.family == "thermal" or "supercell" in c.settings]
    foreign = (element for c in computed for element in library.solutes(c.settings.get("defect")))
    study.elements = tuple(sorted({*(c.host for c in computed), *foreign}))
    found = f"{study.conditions} conditions, {study.materials} crystals, {study.models} model(s)"
    findings.append(Finding("study", "configuration", "ok", found))
    return study, findings


def _partitions(profile: dict[str, Any], place: Path) -> dict[str, dict[str, Any]]:
    resources = profile.get("default-resources") or {}
    pairs = resources.items() if isinstance(resources, dict) else (str(r).partition("=")[::2] for r in resources)
    found: dict[str, dict[str, Any]] = {value: {} for key, value in pairs if key == "slurm_partition"}
    if table := profile.get("slurm-partition-config"):
        listed = yaml.safe_load((place / table).read_text()).get("partitions") or {}
        found |= {name: limits or {} for name, limits in listed.items()}
    return found


def executors(study: Study) -> Iterator[Finding]:
    """Snakemake, and the scheduler that the profile names."""
    pinned = pins()["snakemake"].lstrip("=")
    try:
        version = metadata.version("snakemake")
        if version == pinned:
            yield Finding("executors", "snakemake", "ok", version)
        else:
            remedy = f"install snakemake=={pinned}: exact reruns and profiles are tested with it"
            yield Finding("executors", "snakemake", "warning", f"{version}, tested with {pinned}", remedy)
    except metadata.PackageNotFoundError:
        yield Finding("executors", "snakemake", "failing", "not installed", "`make setup`, or install it with conda")
    if study.executor == "local":
        yield Finding("executors", "local", "ok", f"{os.cpu_count()} cores")
        return
    plugin = f"snakemake-executor-plugin-{study.executor}"
    tested = pins("requirements-cluster.txt").get(plugin, "")
    try:
        version = metadata.version(plugin)
        if satisfies(version, tested):
            yield Finding("executors", plugin, "ok", version)
        else:
            found = f"{version}, tested with {tested.lstrip('=')}"
            yield Finding("executors", plugin, "warning", found, "`make cluster` installs the tested version")
    except metadata.PackageNotFoundError:
        remedy = f"`make cluster`, or install {plugin} beside snakemake"
        yield Finding("executors", plugin, "failing", "not installed, and the profile asks for it", remedy)
    if study.executor == "slurm":
        for program in ("sbatch", "squeue", "scancel"):
            if place := shutil.which(program):
                yield Finding("executors", program, "ok", place)
            else:
                remedy = "run on a login node, or load the site's Slurm module"
                yield Finding("executors", program, "failing", "not in PATH", remedy)
        try:
            partitions = sorted(set(answer("sinfo", "--noheader", "--format=%R", seconds=20).split()))
        except Unanswered as error:
            remedy = "is the controller up (scontrol ping), is SLURM_CONF right? Ask the site's support"
            yield Finding("executors", "Slurm controller", "failing", str(error), remedy)
            return
        yield Finding("executors", "Slurm controller", "ok", f"partitions {', '.join(partitions)}")
        for wanted in sorted(study.partitions.keys() - set(partitions)):
            remedy = "edit the partitions of the profile"
            yield Finding("executors", "partition", "failing", f"{wanted}, which the profile names, is none", remedy)
        yield _states_of_jobs(study)
    elif submit := study.profile.get("cluster-generic-submit-cmd"):
        script = study.folder / submit.split()[0]
        text = script.read_text() if script.is_file() else submit
        known = [program for program in SUBMITTERS if re.search(rf"\b{program}\b", text)]
        there = [place for program in known if (place := shutil.which(program))]
        if there:
            yield Finding("executors", "scheduler", "ok", there[0])
        elif known:
            remedy = "run on a login node, or load the site's module of the scheduler"
            found = f"{', '.join(known)}: {'none of them is' if len(known) > 1 else 'not'} in PATH"
            yield Finding("executors", "scheduler", "failing", f"{found}, and the profile submits with it", remedy)
        else:
            remedy = "look whether it can be called here"
            found = f"{submit.split()[0]} submits by a command that is not known here"
            yield Finding("executors", "scheduler", "warning", found, remedy)


def _states_of_jobs(study: Study) -> Finding:
    """Whether Slurm tells what became of a job, by the command that the plugin will ask; where none answers, a run that
    is done waits for hours."""
    subject, chosen = "states of jobs", study.profile.get("slurm-status-command")
    age = FIRST_LOOKS * float(study.profile.get("slurm-init-seconds-before-status-checks") or FIRST_LOOK)
    try:
        known = re.search(r"(?m)^MinJobAge\s*=\s*(\d+)", answer("scontrol", "show", "config", seconds=20))
        kept = int(known[1]) if known else 0
    except Unanswered:
        kept = 0
    if kept >= age and (chosen == "squeue" or not shutil.which("sacct")):
        return Finding("executors", subject, "ok", f"squeue tells them for {kept} s (MinJobAge)")
    try:
        answer("sacct", "-X", "--noheader", "--clusters", "all", "--name", "defraction-doctor", seconds=20)
        return Finding("executors", subject, "ok", "sacct answers")
    except Unanswered as error:
        if kept >= age:
            remedy = "add slurm-status-command: squeue to the profile"
            return Finding("executors", subject, "failing", f"{error}: without accounting the run never ends", remedy)
        remedy = f"ask the site for accounting (slurmdbd), or for MinJobAge={age:g} and slurm-status-command: squeue"
        found = f"{error}, and squeue forgets a job {kept} s after its end (MinJobAge)"
        return Finding("executors", subject, "failing", found, remedy)


def environments(study: Study) -> Iterator[Finding]:
    """Conda, where jobs run in its environments; else the packages of every stage in this interpreter."""
    if study.conda:
        yield from _conda(study)
        return
    yield Finding("environments", "python", "ok", f"{platform.python_version()} in {sys.prefix}; conda is not used")
    pinned = pins()
    for file in sorted((REPOSITORY / "workflow/envs").glob("*.yaml")):
        if file.stem == "multislice" and not _multislice(study):
            continue
        missing, other = [], []
        listed = packages(file)
        for name, spec in listed.items():
            distribution = DISTRIBUTIONS.get(name, name)
            tested = pinned.get(distribution, spec)
            try:
                version = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                missing.append(name)
                continue
            if not satisfies(version, tested):
                other.append(f"{name} {version}, tested with {tested.lstrip('=')}")
        if missing:
            remedy = "`make setup`, or run with --use-conda"
            yield Finding("environments", file.stem, "failing", f"not installed: {', '.join(missing)}", remedy)
        if other:
            remedy = "`make setup` installs the tested versions"
            yield Finding("environments", file.stem, "warning", "; ".join(other), remedy)
        if not missing and not other:
            yield Finding("environments", file.stem, "ok", f"{len(listed)} packages as tested")


def pins(file: str = "requirements.txt") -> dict[str, str]:
    """Tested version of each package for this Python, from a file at the top of the repository: name and
    specification."""
    lines = (REPOSITORY / file).read_text().splitlines()
    listed = [Requirement(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return {r.name: str(r.specifier) for r in listed if r.marker is None or r.marker.evaluate()}


def packages(file: Path) -> dict[str, str]:
    """Python packages of an environment file, those of its pip section too: name and version specification."""
    entries = yaml.safe_load(file.read_text())["dependencies"]
    listed = [name for entry in entries for name in (entry["pip"] if isinstance(entry, dict) else [entry])]
    pairs = (re.match(r"([\w-]+)\s*(.*)", entry).groups() for entry in listed)
    return {name: spec for name, spec in pairs if name not in NOT_PYTHON}


def satisfies(version: str, spec: str) -> bool:
    """Whether a version meets conda's specification: `=2.4` is any 2.4, the rest as in Python."""
    parts = (f"={part}.*" if re.match(r"=[^=]", part) else part for part in spec.replace(" ", "").split(",") if part)
    return SpecifierSet(",".join(parts)).contains(version, prereleases=True)


def _multislice(study: Study) -> bool:
    if study.settings is None:
        return False
    sections = [study.settings.diffraction, *map(study.settings.diffraction_of, study.settings.pattern_sets)]
    return any(s.method == "multislice" or s.scattering_factors != "c4322" for s in sections)


def _conda(study: Study) -> Iterator[Finding]:
    prefix = study.folder / (study.profile.get("conda-prefix") or ".snakemake/conda")
    try:
        facts = json.loads(answer("conda", "info", "--json"))
        version = Version(answer("conda", "--version").split()[-1])
    except (Unanswered, ValueError) as error:
        remedy = "install Miniforge and put it into PATH (mamba and micromamba alone are not enough for Snakemake)"
        yield Finding("environments", "conda", "failing", str(error), remedy)
        return
    if version < OLDEST_CONDA:
        remedy = f"conda {OLDEST_CONDA} or newer: conda update --name base conda"
        yield Finding("environments", "conda", "failing", str(version), remedy)
    else:
        yield Finding("environments", "conda", "ok", f"{version} in {facts.get('conda_prefix')}")
    if fault := _unwritable(prefix):
        remedy = "give a writable --conda-prefix; a shared one needs the group's write permission"
        yield Finding("environments", "conda prefix", "failing", f"{prefix}: {fault}", remedy)
    else:
        made = len(list(prefix.glob("*.env_setup_done")))
        yield Finding("environments", "conda prefix", "ok", f"{prefix}, {made} environment(s) made so far")
    try:
        alias = json.loads(answer("conda", "config", "--show", "channel_alias", "--json"))["channel_alias"]
        request = urllib.request.Request(f"{alias.rstrip('/')}/conda-forge/noarch/repodata.json.zst", method="HEAD")
        with urllib.request.urlopen(request, timeout=10):
            yield Finding("environments", "channel", "ok", "conda-forge answers")
    except (Unanswered, ValueError, KeyError, OSError) as error:
        remedy = "make the environments where there is a network (--conda-create-envs-only); docs/running.md says how"
        yield Finding("environments", "channel", "warning", f"conda-forge does not answer ({error})", remedy)


TORCH = "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.device_count())"
CUPY = "import cupy; print(cupy.__version__, cupy.cuda.runtime.getDeviceCount())"


def gpu(study: Study) -> Iterator[Finding]:
    """Cards and their memory, and whether PyTorch, CuPy and GPAW can use them; on a cluster, whether a job gets one."""
    asked = study.runtime("device", "auto") == "gpu" or study.runtime("gpaw_gpu", False)
    if study.executor != "local":
        yield from _gpu_of_the_cluster(study, asked)
        return
    query = "--query-gpu=name,memory.total,memory.free,driver_version"
    try:
        cards = list(csv.reader(io.StringIO(answer("nvidia-smi", query, "--format=csv,noheader,nounits", seconds=20))))
    except Unanswered as error:
        if asked:
            remedy = "run where there is a GPU, or set runtime.device to auto and runtime.gpaw_gpu to false"
            yield Finding("gpu", "driver", "failing", f"{error}, and the configuration asks for a GPU", remedy)
        else:
            yield Finding("gpu", "driver", "ok", "no GPU: patterns, networks and GPAW compute on the CPU")
        return
    for number, (name, total, free, driver) in enumerate([word.strip() for word in card] for card in cards):
        if not (total.isdigit() and free.isdigit()):
            yield Finding("gpu", f"card {number}", "ok", f"{name}, driver {driver}; its memory is not told ({free})")
            continue
        text = f"{name}, {int(free) / 1024:.0f} of {int(total) / 1024:.0f} GiB free, driver {driver}"
        if int(free) < 2048:
            yield Finding("gpu", f"card {number}", "warning", text, "another program fills it; wait or end that one")
        else:
            yield Finding("gpu", f"card {number}", "ok", text)
    if cards and cards[0][1].strip().isdigit() and study.runtime("device", "auto") != "cpu":
        need = study.runtime("memory", 2.0) + CUDA_MEMORY
        if (fit := max(1, int(float(cards[0][1]) / 1024 // need))) < CARD:
            remedy = f"start with --resources card={fit} turn=1, or lower runtime.memory"
            found = f"room for {fit} of {CARD} jobs at once, {need:g} GiB each"
            yield Finding("gpu", "side by side", "warning", found, remedy)
    if study.conda:
        yield Finding("gpu", "libraries", "ok", "in conda environments; CONDA_OVERRIDE_CUDA chooses their CUDA")
        return
    state: State = "failing" if asked else "warning"
    advice = {
        "PyTorch": "install the PyTorch build whose CUDA the driver supports (nvidia-smi prints the newest it does)",
        "CuPy": "patterns compute on the CPU; install cupy-cuda13x or cupy-cuda12x, by the driver's CUDA",
    }
    for name, program in (("PyTorch", TORCH), ("CuPy", CUPY)):
        try:
            words = answer(sys.executable, "-c", program).split()
        except Unanswered as error:
            yield Finding("gpu", name, state, str(error), advice[name])
            continue
        if int(words[-1]) > 0:
            yield Finding("gpu", name, "ok", f"{words[0]}, sees {words[-1]} GPU(s)")
        else:
            yield Finding("gpu", name, state, f"{' '.join(words[:-1])} sees no GPU", advice[name])
    if study.runtime("gpaw_gpu", False):
        from defraction.first_principles import ranks

        try:
            ranks.check_build(1, gpu=True)
            yield Finding("gpu", "GPAW", "ok", "built for GPUs")
        except (ValueError, ModuleNotFoundError) as error:
            remedy = "build GPAW with gpu = True (docs/first-principles.md), or set runtime.gpaw_gpu to false"
            yield Finding("gpu", "GPAW", "failing", str(error), remedy)


def _gpu_of_the_cluster(study: Study, asked: bool) -> Iterator[Finding]:
    """Jobs run elsewhere: the cards of this machine say nothing about theirs, what the profile asks for does."""
    from defraction import config as schema

    if not asked:
        if study.settings is not None and schema.gpus_per_job(study.settings.runtime):
            found = "device: auto goes by this machine, which has a GPU, and the jobs run elsewhere"
            yield Finding("gpu", "jobs", "warning", found, "say runtime.device: gpu or cpu")
        else:
            found = "none asked for (runtime.device: gpu does): patterns, networks and GPAW compute on the CPU"
            yield Finding("gpu", "jobs", "ok", found)
        return
    where = "cards and libraries are those of the nodes: try `defraction doctor` without --profile in a job there"
    if study.executor != "slurm" or not study.profile.get("slurm-partition-config"):
        yield Finding("gpu", "jobs", "ok", where)
    elif with_cards := sorted(name for name, limits in study.partitions.items() if limits.get("max_gpu")):
        yield Finding("gpu", "jobs", "ok", f"partition {', '.join(with_cards)}; {where}")
    else:
        found = "the configuration asks for one, and no partition of the profile has max_gpu"
        remedy = "give a partition max_gpu in the profile's partitions.yaml, or set runtime.device to cpu"
        yield Finding("gpu", "jobs", "failing", found, remedy)


def paw_data(study: Study) -> Iterator[Finding]:
    """PAW data sets of GPAW for the elements of the study."""
    if not study.elements or study.conda:
        why = "in the conda environment of GPAW" if study.conda else "no condition needs them"
        yield Finding("PAW data", "data sets", "ok", why)
        return
    from importlib.util import find_spec

    if find_spec("gpaw") is None:
        yield Finding("PAW data", "gpaw", "failing", "GPAW is not installed", "`make setup`, or run with --use-conda")
        return
    import gpaw

    from defraction.first_principles import datasets

    known = datasets.elements()
    missing = [element for element in study.elements if element not in known]
    folders = ", ".join(map(str, gpaw.setup_paths)) or "no folder"
    if missing:
        remedy = "install gpaw-data, or put the data sets into a folder and name it in GPAW_SETUP_PATH"
        yield Finding("PAW data", "data sets", "failing", f"none for {', '.join(missing)} in {folders}", remedy)
    else:
        found = f"PBE for {', '.join(study.elements)}; {len(known)} elements in {folders}"
        yield Finding("PAW data", "data sets", "ok", found)


HELLO = "from gpaw.mpi import world; n = world.sum_scalar(world.rank + 1); print(n) if world.rank == 0 else None"
"""A sum over the ranks: 3 if two of them talk to each other, 1 if each is alone."""


def mpi(study: Study) -> Iterator[Finding]:
    """Two ranks of GPAW started by the configuration's launcher, where that submits nothing."""
    if study.conda:
        yield Finding("MPI", "launcher", "ok", "MPICH in the conda environment of GPAW; not tried from here")
        return
    from defraction.first_principles import ranks

    state: State = "failing" if study.runtime("gpaw_ranks", 1) > 1 else "warning"
    remedy = "runtime.gpaw_ranks: 1 needs no MPI; else use the launcher of the MPI library that GPAW was built with"
    try:
        launcher = ranks.launcher_command(study.runtime("mpi_launcher", "mpiexec"))
        in_a_job = any(variable in os.environ for variable in JOB_VARIABLES)
        if study.executor != "local" or (Path(launcher[0]).name in LAUNCHERS and not in_a_job):
            where = "here it may submit a job: try `defraction doctor` without --profile in one"
            yield Finding("MPI", "launcher", "ok", f"{shlex.join(launcher)} is there and not tried; {where}")
            return
        command = [*launcher, "-n", "2", sys.executable, "-c", HELLO]
        said = answer(*command, GPAW_MPI_BACKEND="cgpaw", OMP_NUM_THREADS="1")
    except (Unanswered, ValueError) as error:
        yield Finding("MPI", "launcher", state, str(error), remedy)
        return
    if said.split() == ["3"]:
        yield Finding("MPI", "launcher", "ok", f"{shlex.join(launcher)}: two ranks of GPAW talk to each other")
    else:
        found = f"{shlex.join(launcher)} does not make one group of two ranks"
        yield Finding("MPI", "launcher", state, found, remedy)


def needed_bytes(study: Study) -> int:
    """Room [byte] that the results take at most: patterns as if not compressed (Al: 0.8 of that), models, the rest."""
    settings = study.settings
    patterns = 0
    for name in ("main", *settings.pattern_sets):
        section = settings.diffraction_of(name)
        images = len(section.zone_axes) * len(section.voltages) * len(section.camera_lengths)
        patterns += images * section.pixels**2 * 4
    others = (study.conditions + study.materials) * CONDITION_BYTES
    return study.specimens * patterns + others + study.models * MODEL_BYTES


def disk(study: Study) -> Iterator[Finding]:
    """Room and inodes in the study's folder against the need of the configuration, and room for temporary files."""
    free = psutil.disk_usage(str(study.folder)).free
    if study.settings is not None:
        need = needed_bytes(study)
        text = f"{free / GIB:.0f} GiB free, results take at most {need / GIB:.1f}"
        if free < need:
            remedy = "move the study to a larger file system, or store fewer pixels, axes or conditions"
            yield Finding("disk", "results", "failing", text, remedy)
        elif free < 2 * need:
            yield Finding("disk", "results", "warning", text, "keep an eye on it: little is left for restart state")
        else:
            yield Finding("disk", "results", "ok", text)
        facts = os.statvfs(study.folder)
        files = (study.conditions + study.materials) * FILES_PER_CONDITION * (1 + study.models)
        if facts.f_files and facts.f_favail < files:
            text = f"{facts.f_favail} inodes free, about {files} files to come"
            yield Finding("disk", "inodes", "failing", text, "ask for a larger quota of files, or move the study")
    scratch = Path(tempfile.gettempdir())
    room = psutil.disk_usage(str(scratch)).free
    if room < GIB:
        remedy = "clean it, or set TMPDIR to a folder with more room"
        yield Finding("disk", "scratch", "warning", f"{room / GIB:.1f} GiB free in {scratch}", remedy)
    else:
        yield Finding("disk", "scratch", "ok", f"{room / GIB:.0f} GiB free in {scratch}")


def memory(study: Study) -> Iterator[Finding]:
    """Memory of this machine against one job's need; on a cluster the profile asks the scheduler for it."""
    facts = psutil.virtual_memory()
    need = study.runtime("memory", 2.0) * GIB + WORKING_MEMORY
    text = f"{facts.available / GIB:.1f} of {facts.total / GIB:.1f} GiB available, a job takes up to {need / GIB:.1f}"
    if study.executor != "local":
        yield Finding("memory", "here", "ok", f"{text}; jobs run elsewhere, with what the profile asks for")
    elif facts.total < need:
        yield Finding("memory", "here", "failing", text, "lower runtime.memory, or take a larger machine")
    elif facts.available < need:
        yield Finding("memory", "here", "warning", text, "end other programs, or lower runtime.memory")
    else:
        yield Finding("memory", "here", "ok", text)
    if study.executor == "local" and (jobs := int(facts.available // need)) < (os.cpu_count() or 1):
        remedy = f"start with --cores {max(jobs, 1)}, or lower runtime.memory"
        yield Finding("memory", "side by side", "warning", f"room for {jobs} of {os.cpu_count()} jobs at once", remedy)


def clock(study: Study) -> Iterator[Finding]:
    """Times of new files against the clock of this machine: Snakemake compares times of files."""
    before = time.time()
    try:
        with tempfile.NamedTemporaryFile(dir=study.folder, prefix=".doctor-") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
            written = os.stat(file.name).st_mtime
    except OSError as error:
        yield Finding("clock", "file times", "failing", f"no file can be written: {error.strerror}", "mend that first")
        return
    after = time.time()
    # a file system may store whole seconds
    skew = min(0.0, written - before + 1.0) or max(0.0, written - after)
    if abs(skew) > 10:
        remedy = "set the clocks by NTP on the file server and here: outputs would look older than their inputs"
        yield Finding("clock", "file times", "failing", f"{skew:+.0f} s against this machine", remedy)
    elif abs(skew) > 1:
        remedy = "set the clocks by NTP; until then keep latency-wait above the difference"
        yield Finding("clock", "file times", "warning", f"{skew:+.1f} s against this machine", remedy)
    else:
        yield Finding("clock", "file times", "ok", "agree with this machine's clock")


def leftovers(study: Study) -> Iterator[Finding]:
    """What an earlier run left: processes, a lock, partly written files, restart state."""
    results = study.folder / "results"
    alive = preflight.running(study.folder)
    if alive:
        remedy = "wait until it ends, or end it; two runs in one folder write the same files"
        yield Finding("leftovers", "run", "warning", f"at work here: {'; '.join(alive)}", remedy)
    elif any((study.folder / ".snakemake/locks").glob("*")):
        remedy = "`make run` clears it, or snakemake --unlock"
        yield Finding("leftovers", "lock", "warning", "of a run that was killed", remedy)
    partial = [p for p in results.rglob(".*.tmp[0-9]*") if p.is_file() and ".restart" not in p.parts]
    if partial and not alive:
        found = f"{len(partial)} partly written file(s)"
        yield Finding("leftovers", "files", "warning", found, "`defraction preflight --config CONFIG` removes them")
    state = [p for p in (results / ".restart").rglob("*") if p.is_file()]
    if state:
        size = sum(p.stat().st_size for p in state) / 2**20
        found = f"{len({p.parent for p in state})} job(s), {size:.0f} MiB; the same jobs go on from there"
        yield Finding("leftovers", "restart state", "ok", found)
    if not (alive or partial or state) and not any((study.folder / ".snakemake/locks").glob("*")):
        yield Finding("leftovers", "nothing", "ok", "no lock, no partly written file")


def limits(study: Study) -> Iterator[Finding]:
    """Limits of this shell that long runs meet: open files, processes, memory."""
    for subject, kind, least, flag in (
        ("open files", resource.RLIMIT_NOFILE, 1024, "n"),
        ("processes", resource.RLIMIT_NPROC, 256, "u"),
    ):
        soft, hard = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY and soft < least:
            most = "unlimited" if hard == resource.RLIM_INFINITY else hard
            remedy = f"ulimit -{flag} {least} (the hard limit is {most})"
            yield Finding("limits", subject, "warning", f"{soft}, {least} or more are advised", remedy)
        else:
            found = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
            yield Finding("limits", subject, "ok", found)
    room, _ = resource.getrlimit(resource.RLIMIT_AS)
    need = study.runtime("memory", 2.0) * GIB + 8 * GIB
    if room != resource.RLIM_INFINITY and room < need:
        remedy = "ulimit -v unlimited: CUDA and numba reserve address space that they do not fill"
        yield Finding("limits", "address space", "warning", f"{room / GIB:.0f} GiB", remedy)


def file_system(study: Study) -> Iterator[Finding]:
    """Type of the study's file system, the time of one small file, write permission."""
    kind = file_system_type(study.folder)
    for name in (".", "results", "logs", ".snakemake"):
        if fault := _unwritable(study.folder / name):
            remedy = "give yourself write permission, or start in a folder of your own"
            yield Finding("file system", name, "failing", fault, remedy)
            return
    started = time.perf_counter()
    with tempfile.NamedTemporaryFile(dir=study.folder, prefix=".doctor-") as file:
        file.write(b"x")
        os.fsync(file.fileno())
    delay = 1000 * (time.perf_counter() - started)
    found = f"{kind}, {delay:.0f} ms for a small file"
    if study.executor == "local" or not (kind in NETWORK or kind.startswith("fuse")):
        if study.executor == "local" or kind in ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay"):
            yield Finding("file system", "type", "ok", found)
        else:
            yield Finding("file system", "type", "ok", f"{found}; every node has to see this folder")
        return
    wait = study.profile.get("latency-wait", 5)
    if wait < 30:
        remedy = "latency-wait: 30 or more in the profile: results of other nodes appear late"
        yield Finding("file system", "type", "warning", f"{found}, latency-wait is {wait} s", remedy)
    else:
        yield Finding("file system", "type", "ok", f"{found}, latency-wait is {wait} s")


def file_system_type(folder: Path) -> str:
    """Name of the file system that holds a folder, as the kernel calls it (ext4, nfs4); "unknown" where it hides."""
    folder = folder.resolve()
    mounts = [m for m in psutil.disk_partitions(all=True) if folder.is_relative_to(m.mountpoint)]
    return max(mounts, key=lambda m: len(m.mountpoint)).fstype if mounts else "unknown"


def _unwritable(folder: Path) -> str:
    """Why no file can be made in a folder, which need not exist; empty if one can."""
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-"):
            return ""
    except OSError as error:
        return f"{folder} is not writable ({error.strerror})"


CHECKS: tuple[Callable[[Study], Iterator[Finding]], ...] = (
    executors, environments, gpu, paw_data, mpi, disk, memory, clock, leftovers, limits, file_system,
)  # fmt: skip


def examine(study: Study) -> list[Finding]:
    """All findings; a check that breaks down is a failing finding of its own."""
    findings = []
    for check in CHECKS:
        try:
            findings += check(study)
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            found = f"could not be checked: {type(error).__name__}: {error}"
            findings.append(Finding(check.__name__, "check", "failing", found, "mend what it says, or report it"))
    return findings
