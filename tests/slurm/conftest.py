"""A Slurm for the session, and the repository's Slurm profile on small workflows and on the smoke study.

Skipped, with the reason as the last line of the run, where Slurm cannot be started or its executor is not installed.
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from cluster import Cluster, missing
from repository import copy_repository

HERE = Path(__file__).parent
# The profile asks for states after 40 s and then every 10 s at most: right for a cluster, long for jobs of seconds.
IMPATIENT = ("--slurm-init-seconds-before-status-checks", "3", "--max-status-checks-per-second", "0.5")
NOTES = pytest.StashKey[list[str]]()


def reason_to_skip() -> str | None:
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return "snakemake-executor-plugin-slurm is not installed (make cluster)"
    return missing()


def pytest_configure(config) -> None:
    config.stash[NOTES] = []


def pytest_terminal_summary(terminalreporter, config) -> None:
    reason = reason_to_skip()
    for line in config.stash[NOTES] or ([f"not tested: {reason}; make test-slurm does it as root"] if reason else []):
        terminalreporter.write_line(f"Slurm: {line}")


@pytest.fixture(scope="session")
def note(request):
    """Takes lines for the end of the run: what happened, with numbers."""
    return request.config.stash[NOTES].append


@pytest.fixture(scope="session")
def slurm(tmp_path_factory, note):
    if reason := reason_to_skip():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm") / "cluster")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
    states = [job.state for job in cluster.finished().values()]
    note(f"{len(states)} Slurm jobs in all: " + ", ".join(f"{states.count(s)} {s}" for s in sorted(set(states))))


@dataclass
class Workflow:
    """A folder with a Snakefile and the repository's profiles, run through the Slurm profile."""

    folder: Path
    cluster: Cluster
    arguments: tuple[str, ...] = ()
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.folder / "run.log"

    def start(self, *arguments: str) -> subprocess.Popen:
        """Snakemake on its own, its output added to `log`."""
        command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm", *IMPATIENT]
        # The repository comes into jobs by the Snakefile, as for a user, not from here.
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}
        environment["PATH"] = f"{self.cluster.folder}/bin:{os.environ['PATH']}"
        with open(self.log, "a") as stream:
            return subprocess.Popen(
                [*command, *self.arguments, *arguments],
                cwd=self.folder,
                env=environment,
                stdout=stream,
                stderr=stream,
                stdin=subprocess.DEVNULL,
                # A shell's jobs in the background ignore Ctrl-C, and so does all that they start.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )

    def run(self, *arguments: str, seconds: float = 1800) -> None:
        process = self.start(*arguments)
        self.wait(process, seconds)
        assert process.returncode == 0, self.log.read_text()[-6000:]

    def wait(self, process: subprocess.Popen, seconds: float) -> None:
        """Until the run has ended; one that hangs is ended."""
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"still running after {seconds:.0f} s\n{self.log.read_text()[-6000:]}") from None

    def submitted(self) -> dict[str, list[str]]:
        """Numbers of the Slurm jobs by rule or group and wildcards ("rule_x", "rule_x/1", "group_g_x"), in order."""
        found: dict[str, list[str]] = {}
        for number, name in re.findall(
            r"with SLURM jobid (\d+) \(log: \S*/slurm_logs/(\S+)/\d+\.log\)", self.log.read_text()
        ):
            found.setdefault(name, []).append(number)
        return found


@pytest.fixture
def accident(slurm, root, tmp_path):
    """A workflow of one file beside the repository's profiles."""
    shutil.copytree(root / "profiles", tmp_path / "profiles")
    shutil.copyfile(HERE / "accidents.smk", tmp_path / "Snakefile")
    (tmp_path / "accidents.py").symlink_to(HERE / "accidents.py")
    yield Workflow(tmp_path, slurm)
    slurm.cancel()


@pytest.fixture(scope="session")
def study(slurm, root, tmp_path_factory):
    """A copy of the repository with the smoke study."""
    folder = tmp_path_factory.mktemp("study") / "defraction"
    copy_repository(root, folder)
    (folder / "results").mkdir()
    return Workflow(folder, slurm)
