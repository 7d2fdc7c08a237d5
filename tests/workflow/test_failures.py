"""Jobs that cannot end as planned: one whose forces never become small enough, one whose wall time is always over."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.io import read

LEFT_OUT = shutil.ignore_patterns(".venv", ".tools", ".git", ".snakemake", "results", "logs", "__pycache__", ".*_cache")
RELAXED = "results/first_principles/relax/al-vacancy-2x1x1.json"
MOVED = "results/first_principles/aimd/al-thermal-300K-1x1x1"
NEVER = {"fmax": 1e-9, "steps": 1, "allow_unconverged": False}
SETTINGS = {
    "first_principles": {"preset": "smoke", "overrides": {"relax": NEVER}},
    "conditions": [
        {"kind": "vacancy", "host": "Al", "supercell": [2, 1, 1]},
        {"kind": "thermal", "host": "Al", "supercell": [1, 1, 1], "temperatures": [300]},
    ],
}


def run(folder: Path, settings: dict, *targets: str) -> subprocess.CompletedProcess:
    (folder / "config/own.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "snakemake", "--configfile", "config/own.yaml", "--cores", "1", "--", *targets]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def failed(root, tmp_path_factory):
    """A copy of the workflow in which a relaxation and a molecular dynamics run were asked for, and what was said."""
    folder = tmp_path_factory.mktemp("failing") / "defraction"
    shutil.copytree(root, folder, ignore=LEFT_OUT)
    (folder / "results").mkdir()
    return folder, run(folder, SETTINGS, RELAXED, f"{MOVED}.json")


def test_a_relaxation_that_fails_says_why_and_the_others_go_on(failed):
    """The same way out as that of a density that converges on no rung of the ladder: an exception of the job."""
    folder, done = failed
    assert done.returncode != 0
    assert "Raise relax.steps or relax.fmax" in done.stdout + done.stderr
    assert not (folder / RELAXED).exists()
    assert (folder / f"{MOVED}.json").exists(), done.stderr[-3000:]


def test_dynamics_in_segments_are_those_of_one_job(failed):
    """With a wall time that is always over every job computes one geometry and the next goes on from there.

    A resumed density starts from atoms, so forces may differ by what self-consistency leaves in them: 0.02 eV/Å over
    20 fs moves an aluminium atom by 0.0014 Å.
    """
    folder, _ = failed
    whole = read(folder / f"{MOVED}.extxyz")
    (folder / "results/first_principles/aimd").rename(folder / "whole")
    done = run(folder, {**SETTINGS, "runtime": {"walltime": 0.001, "segments": 5}}, f"{MOVED}.json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(re.findall(r"rule aimd_segment:", done.stdout + done.stderr)) == 4
    assert json.loads((folder / f"{MOVED}.record.json").read_text())["segments"] == 5
    assert not list((folder / "results/.restart").glob("aimd*/*")), "the last one clears the restart state"
    np.testing.assert_allclose(read(folder / f"{MOVED}.extxyz").positions, whole.positions, atol=0.003)
