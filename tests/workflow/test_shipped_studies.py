"""What the studies of config/ take from the library of computed structures, and what GPAW computes for them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from repository import copy_repository

from defraction import config, expansion
from defraction.hosts import read_hosts

STUDIES = ("config/config.yaml", "config/six-hours.yaml", "config/networks.yaml")
CALCULATIONS = {"lattice", "relax", "relax_segment", "aimd", "aimd_segment", "elastic", "vacancy_energy"}


@pytest.fixture(scope="module")
def read_by_jobs(root, tmp_path_factory) -> dict[str, dict[str, set[str]]]:
    """Input files of the jobs of each study that are no calculations themselves, by rule and wildcards."""
    folder = tmp_path_factory.mktemp("studies") / "defraction"
    copy_repository(root, folder, "tests", "docs", "benchmarks", "models")
    command = [sys.executable, str(Path(__file__).with_name("parameters.py"))]
    done = subprocess.run(command, cwd=folder, input="\n".join(STUDIES), capture_output=True, text=True, check=True)
    answers = dict(zip(STUDIES, map(json.loads, done.stdout.splitlines()), strict=True))
    return {
        study: {job: set(inputs) for job, (_, inputs) in jobs.items() if job.split()[0] not in CALCULATIONS}
        for study, jobs in answers.items()
    }


def structures(jobs: dict[str, set[str]], root: Path, study: str) -> dict[str, tuple[list[int], bool]]:
    """Of each condition from first principles: cells along a, b, c, and whether its structure is in the library."""
    conditions = expansion.expand(config.load(root / study), read_hosts(root / "resources/hosts.csv"))
    found = {}
    for condition in conditions.values():
        if condition.computed:
            (positions,) = [f for f in jobs[f"structure_{condition.family} {condition.id}"] if f.endswith(".extxyz")]
            assert positions.startswith(("resources/structures/", "results/first_principles/")), positions
            found[condition.id] = condition.settings["supercell"], positions.startswith("resources/")
    return found


def test_the_default_study_computes_its_small_cells_and_takes_all_others_from_the_library(read_by_jobs, root):
    study, small = STUDIES[0], [2, 2, 2]
    found = structures(read_by_jobs[study], root, study)
    assert {name for name, (_, shipped) in found.items() if not shipped} == {
        name for name, (cells, _) in found.items() if cells == small
    }
    assert all(min(cells) >= 2 for cells, _ in found.values())
    assert len({tuple(cells) for cells, _ in found.values()}) == 3, "2x2x2, 3x3x3 and 4x4x4"
    # The lattice constants are the library's too: nothing else that is computed is read.
    read = {file for files in read_by_jobs[study].values() for file in files if "first_principles" in file}
    assert {Path(file).stem for file in read} == {name for name, (_, shipped) in found.items() if not shipped}


@pytest.mark.parametrize("study", STUDIES[1:])
def test_the_longer_studies_compute_nothing_from_first_principles(read_by_jobs, root, study):
    assert len(structures(read_by_jobs[study], root, study)) > 10
    assert all(shipped for _, shipped in structures(read_by_jobs[study], root, study).values())
    for job, files in read_by_jobs[study].items():
        assert not [file for file in files if file.startswith("results/first_principles")], job
