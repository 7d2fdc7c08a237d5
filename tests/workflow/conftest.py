"""One smoke study, made once in a copy of the repository, killed twice on its way; the tests look at what came out.

It is the real workflow: GPAW on tiny cells and ResNet-101 on small images (config/smoke.yaml).
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml
from finished import planned_jobs
from repository import copy_repository


@dataclass
class Study:
    """A folder with the workflow in it."""

    folder: Path
    config: str = "config/smoke.yaml"
    notes: dict = field(default_factory=dict)

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "snakemake", "--configfile", self.config, "--cores", "2", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return done

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "snakemake", "--configfile", self.config, "--cores", "2"]
        log = open(self.folder / "run.log", "a")  # noqa: SIM115 (belongs to the process)
        return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)

    def defraction(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "defraction.cli", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "workflow/scripts")}
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, env=environment)

    def planned(self, *arguments: str) -> dict[str, list[str]]:
        """Jobs of a dry run: wildcard values by rule."""
        return planned_jobs(self.snakemake("--dry-run", *arguments).stdout)

    def edit_config(self, change) -> None:
        """Apply `change` to the YAML; undo with `restore_config`."""
        path = self.folder / self.config
        raw = yaml.safe_load(path.read_text())
        change(raw)
        path.write_text(yaml.safe_dump(raw, sort_keys=False))


def wait_for(condition, process: subprocess.Popen, seconds: float = 600):
    """The first true value of `condition()` while the process runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        if process.poll() is not None:
            raise AssertionError(f"the run ended ({process.returncode}) before it could be killed")
        time.sleep(0.02)
    raise AssertionError("nothing happened in time")


def kill(process: subprocess.Popen, jobs: bool) -> list[int]:
    """Kill -9 Snakemake, and its jobs too or not; returns the pids of the jobs, which then stand still (a relaxation of
    seven atoms would be over before anybody looked at it)."""
    children = psutil.Process(process.pid).children(recursive=True)
    if not jobs:
        for child in children:
            child.suspend()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    if jobs:
        for child in children:
            child.kill()
        psutil.wait_procs(children)
    return [child.pid for child in children]


@pytest.fixture(scope="session")
def study(tmp_path_factory, root) -> Study:
    # with a space in its path, at which no shell or launcher may break
    study = Study(tmp_path_factory.mktemp("a study") / "defraction")
    copy_repository(root, study.folder)
    started = time.monotonic()
    results = study.folder / "results"
    results.mkdir()

    # First death: Snakemake alone, in the middle of a GPAW relaxation; the job survives it.
    process = study.start()
    state = wait_for(
        lambda: next((p for p in results.glob(".restart/relax-*/*/relax.jsonl") if p.stat().st_size > 500), None),
        process,
    )
    survivors = kill(process, jobs=False)
    study.notes["refusal"] = study.defraction("preflight", "--config", study.config)
    for pid in survivors:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    study.notes["relax_state"] = (str(state.relative_to(study.folder)), state.read_text())
    study.notes["cleared"] = study.defraction("preflight", "--config", study.config)

    # Second death: everything, in the middle of training.
    process = study.start()
    checkpoint = wait_for(lambda: next(results.glob(".restart/train-*/*/checkpoint.pt"), None), process)
    kill(process, jobs=True)
    study.notes["checkpoint"] = str(checkpoint.relative_to(study.folder))
    study.notes["cleared_again"] = study.defraction("preflight", "--config", study.config)

    study.notes["last"] = study.snakemake()
    study.notes["seconds"] = time.monotonic() - started
    print(json.dumps({"smoke study, seconds": round(study.notes["seconds"])}))
    return study


@pytest.fixture
def pristine_config(study):
    """Puts the configuration back after a test."""
    path = study.folder / study.config
    text = path.read_text()
    yield
    path.write_text(text)
