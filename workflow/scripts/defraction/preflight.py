"""Before a run: is anything left over from a killed one?

After `kill -9` of Snakemake its jobs live on and go on writing, and its lock stays. A survivor must end first; what the
dead left behind is cleared.
"""

import json
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import psutil

logger = logging.getLogger(__name__)


class Survivor(RuntimeError):
    """A process of an earlier run still works in this folder; the message names it."""


def running(folder: Path) -> list[str]:
    """Descriptions of the Snakemake processes and jobs that work in this folder, this process's parents left out.

    A job on another machine counts as alive unless Slurm knows that it is not.

    Args:
        folder: the working directory of the study.
    """
    found = []
    own = {psutil.Process().pid, *(p.pid for p in psutil.Process().parents())}
    for process in psutil.process_iter(["pid", "cmdline"]):
        command = process.info["cmdline"] or []
        if process.pid in own or not any(Path(part).name == "snakemake" for part in command[:3]):
            continue
        try:
            if Path(process.cwd()) == folder.resolve():
                found.append(f"snakemake itself, process {process.pid}")
        except psutil.Error:
            continue
    queue = _queue()
    found += _in_slurm(queue, folder)
    for marker in sorted((folder / "results/.running").glob("*.json")):
        job = json.loads(marker.read_text() or "{}")
        if not job:
            continue
        if job["host"] != platform.node():
            number = job.get("slurm_job")
            if number is None or queue is None or marker.stat().st_uid != os.getuid():
                # only Slurm, asked for one's own jobs, can tell of another machine
                shown = marker.relative_to(folder)
                found.append(f"job {job['job']} on {job['host']}, unless it died there (then delete {shown})")
            elif any(number == other.number and Path(other.folder) != folder.resolve() for other in queue):
                found.append(f"job {job['job']} in Slurm job {number} (ends with: scancel {number})")
            continue
        if job["pid"] in own:
            continue
        try:
            alive = psutil.Process(job["pid"])
            if alive.create_time() <= job["started"] + 1 and alive.status() != psutil.STATUS_ZOMBIE:
                found.append(f"job {job['job']}, process {job['pid']}")
        except psutil.NoSuchProcess:
            continue
    return found


def slurm_jobs(folder: Path) -> list[str]:
    """Descriptions of this user's Slurm jobs, waiting or running, that work in this folder; none where Slurm is not.

    Snakemake started again does not know the jobs of a killed run and would submit them a second time.
    """
    return _in_slurm(_queue(), folder)


class _Queued(NamedTuple):
    """A job in Slurm: its number (of an array: of this member), name of the number, state, folder and comment."""

    number: str
    name: str
    state: str
    folder: str
    comment: str


def _queue() -> list[_Queued] | None:
    """This user's Slurm jobs, waiting or running; None where Slurm is not or does not answer."""
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%A|%i|%T|%Z|%k"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        done = None
    if done is None or done.returncode:
        logger.warning("squeue does not answer: whether jobs of an earlier run are left in Slurm cannot be seen")
        return None
    return [_Queued(*line.split("|", 4)) for line in done.stdout.splitlines() if line.count("|") >= 4]


def _in_slurm(queue: list[_Queued] | None, folder: Path) -> list[str]:
    own = os.environ.get("SLURM_JOB_ID")
    return [
        f"Slurm job {job.name}, {job.state.lower()} ({job.comment}; ends with: scancel {job.name})"
        for job in queue or []
        if job.number != own and Path(job.folder) == folder.resolve()
    ]


def clear(folder: Path, snakemake_arguments: list[str]) -> list[str]:
    """Refuse if something still runs here, else clear a stale lock, markers and partly written files.

    Returns:
        What was cleared, for the user.

    Raises:
        Survivor: a process still works here.
        RuntimeError: Snakemake does not remove the lock; says why.
    """
    alive = running(folder)
    if alive:
        listed = "\n  ".join(alive)
        raise Survivor(
            f"an earlier run still works in {folder.resolve()}:\n  {listed}\n"
            "Wait until it ends, or end it (kill PROCESS, scancel JOB), then start again; what it computed is kept."
        )
    cleared = []
    results = folder / "results"
    for marker in (results / ".running").glob("*.json"):
        marker.unlink()
    partial = [p for p in results.rglob(".*.tmp[0-9]*") if p.is_file() and ".restart" not in p.parts]
    for path in partial:
        path.unlink()
    if partial:
        cleared.append(f"removed {len(partial)} partly written file(s)")
    if any((folder / ".snakemake/locks").glob("*")):
        command = [sys.executable, "-m", "snakemake", "--unlock", *snakemake_arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(
                f"{folder.resolve()}: Snakemake does not remove the lock of a killed run: {complaint(done)}; mend that "
                f"and start again (all that it says: {shlex.join(command)})"
            )
        cleared.append("removed the lock of a run that was killed")
    return cleared


def complaint(done: subprocess.CompletedProcess) -> str:
    """Why a command failed: the last line that it wrote, on standard error if it wrote any there, else its status.

    Snakemake writes the place in the Snakefile (File ..., line ...) below its message; such lines are passed over.
    """
    lines = [line.strip("! ") for line in (done.stderr or done.stdout or "").splitlines()]
    said = [line for line in lines if line and not line.startswith('File "')]
    return said[-1] if said else f"status {done.returncode}"
