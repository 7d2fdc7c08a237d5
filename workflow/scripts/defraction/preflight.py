"""Before a run: is anything left over from a killed one?

After `kill -9` of Snakemake its jobs live on and go on writing, and its lock stays. A survivor must end first; what the
dead left behind is cleared.
"""

import json
import logging
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

logger = logging.getLogger(__name__)


class Survivor(RuntimeError):
    """A process of an earlier run still works in this folder; the message names it."""


def running(folder: Path) -> list[str]:
    """Descriptions of the Snakemake processes and jobs that work in this folder, this process's parents left out.

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
    found += slurm_jobs(folder)
    for marker in sorted((folder / "results/.running").glob("*.json")):
        job = json.loads(marker.read_text() or "{}")
        if not job or job["pid"] in own:
            continue
        if job["host"] != platform.node():
            logger.warning("%s: started on %s; whether it still runs cannot be seen from here", job["job"], job["host"])
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
    if shutil.which("squeue") is None:
        return []
    command = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i|%T|%Z|%k"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        done = None
    if done is None or done.returncode:
        logger.warning("squeue does not answer: whether jobs of an earlier run are left in Slurm cannot be seen")
        return []
    found = []
    for line in done.stdout.splitlines():
        number, state, place, comment = line.split("|", 3)
        if number != os.environ.get("SLURM_JOB_ID") and Path(place) == folder.resolve():
            found.append(f"Slurm job {number}, {state.lower()} ({comment}; ends with: scancel {number})")
    return found


def clear(folder: Path, snakemake_arguments: list[str]) -> list[str]:
    """Refuse if something still runs here, else clear a stale lock, markers and partly written files.

    Returns:
        What was cleared, for the user.

    Raises:
        Survivor: a process still works here.
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
        command = [sys.executable, "-m", "snakemake", "--unlock", "--quiet", "all", *snakemake_arguments]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        cleared.append("removed the lock of a run that was killed")
    return cleared
