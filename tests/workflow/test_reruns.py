"""After a change, exactly the right jobs: each test asserts the set of jobs of a dry run."""

import os
import shutil
import time
from pathlib import Path

import pytest

LATE = {"evaluate", "figure_accuracy", "figure_strain", "figure_ensemble", "figure_confusion", "report"}
"""What follows any new prediction."""
STRAIN = "al-strain-xx+3.5pct"


def rules(jobs):
    return set(jobs)


def names(jobs, rule):
    return [value.split(", ")[-1] for value in jobs.get(rule, [])]


@pytest.fixture
def edit(study):
    """Change a file of the study; put back afterwards, with its times."""
    saved = {}

    def change(name, old, new):
        path = study.folder / name
        if path not in saved:
            saved[path] = (path.read_text(), path.stat())
        text = path.read_text()
        assert old in text, f"{name} does not contain {old!r}"
        path.write_text(text.replace(old, new, 1))

    yield change
    for path, (text, stat) in saved.items():
        path.write_text(text)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_nothing(study):
    assert study.planned() == {}


def test_touch_everything(study):
    """Sources, code and results, one of them larger than 10 MB."""
    later = time.time() + 5
    for path in study.folder.rglob("*"):
        if path.is_file() and ".snakemake" not in path.parts:
            os.utime(path, (later, later))
    assert study.planned() == {}


def test_old_times(study):
    for folder in ("workflow", "config", "resources"):
        for path in (study.folder / folder).rglob("*"):
            os.utime(path, (1e9, 1e9))
    assert study.planned() == {}


def test_one_strain_value(study, pristine_config):
    def change(raw):
        strain = next(c for c in raw["conditions"] if c["kind"] == "strain" and c["component"] == "xx")
        strain["values"] = [0.04]

    study.edit_config(change)
    jobs = study.planned()
    new = "al-strain-xx+4pct"
    assert rules(jobs) == {"conditions_table", "structure_strain", "simulate", "predict", "figure_patterns"} | LATE
    for rule in ("structure_strain", "simulate", "predict"):
        assert names(jobs, rule) == [new]


def test_one_more_temperature(study, pristine_config):
    def change(raw):
        next(c for c in raw["conditions"] if c["kind"] == "thermal")["temperatures"].append(500)

    study.edit_config(change)
    jobs = study.planned()
    assert names(jobs, "aimd") == ["al-thermal-500K-2x1x1"]
    assert rules(jobs) == {
        "conditions_table", "aimd", "structure_thermal", "simulate", "predict", "figure_patterns",
    } | LATE  # fmt: skip


def test_a_colour(study, pristine_config):
    study.edit_config(lambda raw: raw.update(presentation={"colour": "#123456"}))
    assert rules(study.planned()) == {
        "figure_accuracy", "figure_strain", "figure_ensemble", "figure_patterns", "figure_confusion", "figure_learning",
        "report",
    }  # fmt: skip


def test_a_runtime_setting(study, pristine_config):
    study.edit_config(lambda raw: raw.update(runtime={"memory": 1.0}))
    assert study.planned() == {}


def test_order_of_keys(study, pristine_config):
    def change(raw):
        items = list(raw.items())[::-1]
        raw.clear()
        raw.update(items)
        raw["diffraction"] = dict(list(raw["diffraction"].items())[::-1])

    study.edit_config(change)
    assert study.planned() == {}


def test_a_learning_setting(study, pristine_config):
    study.edit_config(lambda raw: raw["learning"].update(weight_decay=0.01))
    jobs = study.planned()
    assert rules(jobs) == {"train", "predict", "predict_clean", "figure_learning"} | LATE


def test_a_bootstrap_setting(study, pristine_config):
    study.edit_config(lambda raw: raw["evaluation"].update(bootstrap=100))
    assert rules(study.planned()) == LATE


def test_a_diffraction_setting(study, pristine_config):
    study.edit_config(lambda raw: raw["diffraction"].update(camera_lengths=[0.7]))
    jobs = study.planned()
    assert rules(jobs) == {
        "simulate", "simulate_clean", "train", "predict", "predict_clean", "figure_learning", "figure_patterns",
    } | LATE  # fmt: skip


def test_comment_and_formatting_of_a_module(study, edit):
    edit("workflow/scripts/defraction/diffraction/scattering.py", "\nimport", "\n# a comment\nimport")
    edit("workflow/scripts/simulate.py", "with job", "\n# another\nwith job")
    assert study.planned() == {}


def test_the_scattering_module(study, edit):
    edit("workflow/scripts/defraction/diffraction/scattering.py", "\nimport", "\nCHANGED = 1\nimport")
    jobs = study.planned()
    assert {"simulate", "simulate_clean", "train", "predict", "evaluate", "report"} <= rules(jobs)
    assert not {"relax", "aimd", "lattice", "structure_strain", "structure_twin", "clean_structure"} & rules(jobs)


def test_the_twin_module(study, edit):
    edit("workflow/scripts/defraction/defects/twin.py", "\nimport", "\nCHANGED = 1\nimport")
    jobs = study.planned()
    assert names(jobs, "structure_twin") == ["al-twin", "al-twin-control"]
    assert names(jobs, "simulate") == ["al-twin", "al-twin-control"]
    assert not {"structure_strain", "structure_dislocation", "relax", "train"} & rules(jobs)


def test_a_single_target_needs_only_its_chain(study):
    shutil.move(study.folder / "results", study.folder / "away")
    try:
        jobs = study.planned("results/patterns/al-vacancy-2x1x1.nc")
    finally:
        shutil.rmtree(study.folder / "results", ignore_errors=True)
        shutil.move(study.folder / "away", study.folder / "results")
    assert rules(jobs) == {"lattice", "relax", "structure_point", "simulate"}
    assert names(jobs, "relax") == ["al-vacancy-2x1x1"]


def test_the_times_of_results_after_a_copy(study, tmp_path):
    """An archive unpacked elsewhere: everything is newer than it was, nothing is to be done."""
    copy = tmp_path / "copy"
    shutil.copytree(study.folder, copy, copy_function=shutil.copy)
    assert type(study)(Path(copy)).planned() == {}
