"""A job in a conda environment takes packages from there alone. The environment is a venv with conda's mark, the
packages are empty; tests/conda does the same with --use-conda and real packages."""

import json
import os
import subprocess
import sys
import venv

import pytest

from defraction import digest, environment

PROGRAM = """
import json, os, sys
sys.path.extend({launcher!r})  # as Snakemake does it
import snakemake
{before}
sys.path.insert(0, {scripts!r})
from defraction import environment
try:
    prefix = environment.close("labels.py")
    {body}
    environment.check(prefix, "labels.py")
    import importlib.util
    found = {{name: importlib.util.find_spec(name).origin for name in {needed!r}}}
    print(json.dumps({{"prefix": prefix and str(prefix), "found": found, "path": os.environ.get("PYTHONPATH")}}))
except RuntimeError as error:
    print(json.dumps({{"error": str(error)}}))
"""


@pytest.fixture(scope="module")
def needed():
    return sorted(digest.imported_packages("labels.py") - environment.OPTIONAL)


@pytest.fixture
def places(tmp_path, needed):
    """The launcher's folder of packages and the environment."""
    launcher, prefix = tmp_path / "launcher", tmp_path / "environment"
    for name in ("snakemake", *needed):
        (launcher / name).mkdir(parents=True)
        (launcher / name / "__init__.py").touch()
    venv.create(prefix, with_pip=False)
    (prefix / "conda-meta").mkdir()
    return launcher, prefix


def install(prefix, names):
    for name in names:
        folder = prefix / "lib/python{}.{}/site-packages".format(*sys.version_info) / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()


def run(root, places, needed, before="pass", body="pass"):
    launcher, prefix = places
    text = PROGRAM.format(
        launcher=[str(launcher)], scripts=str(root / "workflow/scripts"), before=before, body=body, needed=needed
    )
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(prefix / "bin/python"), "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean)
    return json.loads(done.stdout)


def test_packages_come_from_the_environment_though_the_launcher_has_them(root, places, needed):
    install(places[1], needed)
    answer = run(root, places, needed)
    assert answer["prefix"] == str(places[1].resolve())
    assert all(origin.startswith(str(places[1])) for origin in answer["found"].values())
    assert answer["path"] == str(root / "workflow/scripts")  # for the processes that a job starts


def test_a_package_that_only_the_launcher_has_is_refused_before_work(root, places, needed):
    install(places[1], needed[1:])
    assert f"lacks {needed[0]}, which labels.py imports" in run(root, places, needed)["error"]


def test_a_package_that_was_loaded_from_the_launcher_is_refused(root, places, needed):
    install(places[1], needed[1:])
    error = run(root, places, needed, before=f"import {needed[0]}")["error"]
    assert f"{needed[0]} from {places[0]}" in error
    install(places[1], needed[:1])
    late = f"sys.path.insert(0, {str(places[0])!r}); import {needed[0]}"
    assert f"{needed[0]} from {places[0]}" in run(root, places, needed, body=late)["error"]


def test_without_conda_nothing_changes(root, places, needed):
    (places[1] / "conda-meta").rmdir()
    answer = run(root, places, needed)
    assert answer["prefix"] is None and answer["path"] is None
    assert all(origin.startswith(str(places[0])) for origin in answer["found"].values())


def test_snakemake_in_the_same_conda_environment_changes_nothing(root, places, needed):
    install(places[1], ["snakemake", *needed])
    answer = run((root), (places[1] / "nowhere", places[1]), needed)
    assert answer["prefix"] is None
