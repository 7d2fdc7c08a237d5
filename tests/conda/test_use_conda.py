"""--use-conda from an environment file to a result: a real solver, real packages from a channel made here, and one rule
of this workflow, `labels`, with a file in place of workflow/envs/learning.yaml that names only what that rule imports.

It shows that environment files are read, solved, hash-checked, installed and activated, that jobs compute in them and
nowhere else, and that pins are used. It does not show that the files in workflow/envs can be solved and hold all that
their rules need: no channel that has those packages is reached. (That each file names what the scripts of its rules
import is compared in tests/rules.) The Python in the environment is the one that runs the tests.
"""

import csv
import json
import os
import shutil
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from channel import Channel
from repository import copy_repository

from defraction import digest, environment

rattler = pytest.importorskip("rattler", reason="needs py-rattler, the solver behind the `conda` of these tests")

FALLBACK = "Failed to install conda environment from pin file"
"""What Snakemake prints before it goes on without a pin that it could not use."""


class Site:
    """A copy of the workflow, a channel, a `conda` command and a place for environments."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.workflow = folder / "defraction"
        self.envs = folder / "envs"
        self.file = self.workflow / "workflow/envs/learning.yaml"
        copy_repository(root, self.workflow)
        self.binaries = folder / "conda/bin"
        self.binaries.mkdir(parents=True)
        here = Path(__file__).parent
        command = self.binaries / "conda"
        command.write_text(f"#!{sys.executable}\n{(here / 'conda_command.py').read_text()}")
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
        shutil.copy(here / "activate.sh", self.binaries / "activate")
        self.channel = Channel(folder / "channel", str(rattler.Subdir.current()))
        self.channel.add_python()
        self.environment = {
            **{k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "CONDA_PREFIX")},
            "PATH": f"{self.binaries}:{os.environ['PATH']}",
            "RATTLER_CACHE_DIR": str(folder / "cache"),
        }

    def depend(self, *specs: str) -> None:
        """Let the environment of the learning rules consist of these packages."""
        content = {"channels": [self.channel.url], "dependencies": ["python", *specs]}
        self.file.write_text(yaml.safe_dump(content))

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "snakemake", "--configfile", "config/smoke.yaml", "--cores", "1"]
        command += ["--use-conda", "--conda-prefix", str(self.envs), *arguments, "--", "results/labels.csv"]
        return subprocess.run(command, cwd=self.workflow, capture_output=True, text=True, env=self.environment)

    def conda(self, *arguments: str, **variables: str) -> str:
        command = [str(self.binaries / "conda"), *arguments]
        environment = {**self.environment, **variables}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.fixture(scope="module")
def packages(root):
    """Distributions that the rule `labels` imports, and their versions."""
    names = metadata.packages_distributions()
    needed = {names[module][0] for module in digest.imported_packages("labels.py") - environment.OPTIONAL}
    return {name: metadata.version(name) for name in sorted(needed)}


@pytest.fixture(scope="module")
def site(root, packages, tmp_path_factory):
    site = Site(root, tmp_path_factory.mktemp("conda"))
    for name in packages:
        site.channel.add_installed(name)
    for version in ("1.0", "1.1"):
        site.channel.add("marker", version, {f"share/marker-{version}": (b"", 0o644)})
    site.channel.write()
    return site


def test_a_rule_of_this_workflow_runs_in_its_environment(site, packages):
    pinned = [f"{name} =={version}" for name, version in packages.items()]
    site.depend(*pinned, "marker =1.0")
    done = site.run()
    assert done.returncode == 0, done.stdout + done.stderr
    with open(site.workflow / "results/labels.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) > 5
    (prefix,) = (path.parent for path in site.envs.glob("*/conda-meta"))
    installed = {json.loads(path.read_text())["name"]: path for path in (prefix / "conda-meta").glob("*.json")}
    assert set(installed) == {"python", "marker", *packages}
    assert (prefix / "share/marker-1.0").exists()
    record = json.loads((site.workflow / "results/labels.record.json").read_text())
    assert Path(record["environment"]["prefix"]).name == prefix.name
    assert set(record["environment"]["packages"]) >= set(packages)
    for name, package in record["environment"]["packages"].items():
        assert (prefix / package["location"]).is_relative_to(prefix), name
    assert "Nothing to be done" in site.run("--dry-run").stdout


def test_packages_of_the_launcher_do_not_leak_in(site, packages):
    lacking = "gemmi"  # the launcher has it: without the check the job would take it from there
    assert lacking in packages
    site.depend(*(f"{name} =={version}" for name, version in packages.items() if name != lacking))
    (site.workflow / "results/labels.csv").unlink(missing_ok=True)
    done = site.run()
    assert done.returncode != 0
    log = (site.workflow / "logs/labels.log").read_text()
    assert f"lacks {lacking}, which labels.py imports" in log
    assert "workflow/envs" in log
    assert not (site.workflow / "results/labels.csv").exists()


def test_pins_are_used_and_a_wrong_hash_shows_in_the_log(site):
    pins = site.file.with_name(f"learning.{rattler.Subdir.current()}.pin.txt")
    site.depend("marker")
    try:
        # the solver alone takes the newest; the pin holds the older one
        assert site.run("--conda-create-envs-only").returncode == 0
        newest = next(site.envs.glob("*/share/marker-1.1")).parent.parent
        lines = site.conda("list", "--explicit", "--md5", "-p", str(newest)).split()
        record = site.channel.records["marker-1.0-0.tar.bz2"]
        older = f"{site.channel.url}/{site.channel.subdir}/marker-1.0-0.tar.bz2#{record['md5']}"
        assert sum("marker-1.1" in line for line in lines) == 1
        pins.write_text("\n".join(older if "marker-1.1" in line else line for line in lines) + "\n")
        before = set(site.envs.glob("*/share/marker-1.0"))
        done = site.run("--conda-create-envs-only")
        text = done.stdout + done.stderr
        assert done.returncode == 0 and "Using pinnings from" in text and FALLBACK not in text
        assert len(set(site.envs.glob("*/share/marker-1.0")) - before) == 1

        pins.write_text(pins.read_text().replace(record["md5"], "0" * 32))
        done = site.run("--conda-create-envs-only")
        text = done.stdout + done.stderr
        assert FALLBACK in text and "is not the pinned" in text
        logs = sorted((site.workflow / ".snakemake/log").glob("*.log"))
        assert FALLBACK in logs[-1].read_text()
    finally:
        pins.unlink(missing_ok=True)


def test_a_package_that_differs_from_its_hash_is_refused(site):
    archive = site.channel.add("broken", "1.0", {"share/broken": (b"whole", 0o644)})
    site.channel.write()
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    site.depend("broken")
    done = site.run("--conda-create-envs-only")
    assert done.returncode != 0
    assert not list(site.envs.glob("*/share/broken"))


def test_the_cuda_build_is_chosen_by_hand_where_there_is_no_driver(site, tmp_path):
    # as on conda-forge: CUDA builds need the virtual package __cuda, and have the higher build number
    for build, depends in (("cpu_0", []), ("cuda_200", ["__cuda"])):
        site.channel.add("network", "1.0", {f"share/{build}": (b"", 0o644)}, depends=depends, build=build)
    site.channel.write()
    file = tmp_path / "environment.yaml"
    file.write_text(yaml.safe_dump({"channels": [site.channel.url], "dependencies": ["network =1.0"]}))
    for version, build in (("", "cpu_0"), ("12.9", "cuda_200")):
        prefix = tmp_path / build
        site.conda("env", "create", "--file", str(file), "--prefix", str(prefix), CONDA_OVERRIDE_CUDA=version)
        assert (prefix / "share" / build).exists()


def test_no_pin_file_stands_beside_an_environment_with_a_pip_section(root):
    # an explicit pin replaces the environment file as a whole: what pip should install would be left out
    for pins in (root / "workflow/envs").glob("*.pin.txt"):
        environment_file = pins.with_name(f"{pins.name.split('.')[0]}.yaml")
        entries = yaml.safe_load(environment_file.read_text())["dependencies"]
        assert all(isinstance(entry, str) for entry in entries), pins.name


def test_a_solver_understands_every_specification(root):
    for file in (root / "workflow/envs").glob("*.yaml"):
        for entry in yaml.safe_load(file.read_text())["dependencies"]:
            if isinstance(entry, str):
                spec = rattler.MatchSpec(entry)
                assert entry == "pip" or spec.version is not None or spec.build is not None, (file.name, entry)
