"""Jobs that cannot end as planned: one that no rung of the ladder saves, one whose wall time is always over; and the
conditions beside them, which go on."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray
import yaml
from ase.io import read
from repository import copy_repository

from defraction.config import plain, validate
from defraction.first_principles.calculator import RUNGS

RELAXED = "results/first_principles/relax/al-vacancy-2x1x1.json"
MOVED = "results/first_principles/aimd/al-thermal-300K-1x1x1"
ENERGY = "results/first_principles/vacancy_energy/al-vacancy-2x1x1{}.json"
PATTERNS = "results/patterns/al-thermal-{}300K-1x1x1"
NEVER = {"max_iterations": 3, "convergence": {"density": 1e-12}}
THERMAL = {"kind": "thermal", "host": "Al", "supercell": [1, 1, 1], "temperatures": [300]}
SETTINGS = {
    "first_principles": {"preset": "smoke", "overrides": {"relax": NEVER}},
    "specimen": {"supercell_repeat": [6, 6, 6]},
    "diffraction": {"zone_axes": [[0, 0, 1]], "pixels": 32, "detector_width": 32},
    "conditions": [
        {"kind": "vacancy", "host": "Al", "supercell": [2, 1, 1]},
        THERMAL,
        {**THERMAL, "protocol": "equilibrated"},
    ],
}
DEFAULTS = plain(validate(SETTINGS).diffraction)


def run(folder: Path, settings: dict, *targets: str) -> subprocess.CompletedProcess:
    (folder / "config/own.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "snakemake", "--configfile", "config/own.yaml", "--cores", "1", *targets]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def failed(root, tmp_path_factory):
    """A copy of the workflow, impatient on every rung, in which a relaxation and runs of molecular dynamics with their
    patterns were asked for, and what was said."""
    folder = tmp_path_factory.mktemp("failing") / "defraction"
    copy_repository(root, folder)
    (folder / "results").mkdir()
    ladder = folder / "workflow/scripts/defraction/first_principles/calculator.py"
    text, changed = re.subn(r'"maxiter": \d+', '"maxiter": 3', ladder.read_text())
    assert changed == len(RUNGS) - 1
    ladder.write_text(text)
    return folder, run(folder, SETTINGS, RELAXED, *(f"{PATTERNS.format(p)}.nc" for p in ("", "equilibrated-")))


def test_a_density_that_no_rung_saves_says_what_to_change_and_the_others_go_on(failed):
    folder, done = failed
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert f"no self-consistent density on any of the {len(RUNGS)} rungs" in said and "electronic.width" in said
    log = (folder / "logs/relax/al-vacancy-2x1x1.log").read_text()
    assert all(f"self-consistency failed on rung {rung}" in log for rung in range(len(RUNGS)))
    assert not (folder / RELAXED).exists()
    assert (folder / f"{MOVED}.json").exists(), done.stderr[-3000:]


def test_snapshots_in_equilibrium_are_one_pattern_and_flights_a_pattern_each(failed):
    folder, done = failed
    for protocol, averaged in (("", 1), ("equilibrated-", 2)):
        name = PATTERNS.format(protocol)
        assert (folder / f"{name}.nc").exists(), done.stderr[-3000:]
        with xarray.open_dataset(folder / f"{name}.nc") as patterns:
            assert patterns.sizes["snapshot"] == 1
            assert patterns.attrs["snapshots_averaged"] == averaged
        asked = json.loads((folder / f"{name}.record.json").read_text())["params"]["diffraction"]
        assert asked == {**DEFAULTS, "average_snapshots": averaged > 1}


def test_the_formation_energy_of_an_unrelaxed_vacancy_is_nothing_that_can_be_asked_for(failed):
    """It stands in the file of the relaxed one: another relaxation would be planned for nothing."""
    folder, _ = failed
    possible, impossible = (run(folder, SETTINGS, "--dry-run", ENERGY.format(s)) for s in ("", "-unrelaxed"))
    assert possible.returncode == 0 and "rule vacancy_energy:" in possible.stdout + possible.stderr
    assert impossible.returncode != 0 and "rule relax:" not in impossible.stdout + impossible.stderr


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
    for runtime in ({}, {"segments": 2, "walltime": 3600.0}):
        planned = run(folder, {**SETTINGS, "runtime": runtime}, "--dry-run", f"{MOVED}.json")
        assert planned.returncode == 0 and "Nothing to be done" in planned.stdout + planned.stderr
