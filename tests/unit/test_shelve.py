"""defraction export library: a result of a study becomes an entry that serves, and names nobody."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from defraction import cli, provenance
from defraction.first_principles.library import Library
from defraction.hosts import read_hosts
from defraction.lineage.study import parted

SMOKE = {"preset": "smoke", "overrides": {}}
VACANCY = {"kind": "vacancy", "solute": None, "site": None}
NAME = "al-vacancy-2x1x1"
RELAXED = f"results/first_principles/relax/{NAME}"
LATTICE = "results/first_principles/lattice/Al"
SHIPPED = "resources/structures/lattice/Al-smoke"
PERSONAL = "User:   someone@machine-7\nCWD:    /home/someone/study\nPAW: /home/someone/study/data/Al.PBE on machine-7\n"


def edit(stem: str, change=lambda record: None) -> None:
    """Change a record as its job would have written it."""
    path = Path(f"{stem}.record.json")
    record = json.loads(path.read_text())
    change(record)
    path.write_text(provenance.sealed(record))


def result(source: Path, stem: str) -> None:
    """A shipped entry as the job left it: with names of user, machine and folders."""
    Path(stem).parent.mkdir(parents=True, exist_ok=True)
    for path in source.parent.glob(f"{source.name}.*"):
        shutil.copyfile(path, f"{stem}.{path.name.removeprefix(f'{source.name}.')}")
    log = Path(f"{stem}.gpaw.txt")
    log.write_text(PERSONAL + log.read_text())

    def personal(record):
        record["host"] = {"name": "machine-7", "machine": "x86_64", "system": "Linux"}
        record["environment"] |= {"prefix": "/home/someone/study/.venv", "slurm_job": "12"}
        for output in record["outputs"]:
            output["path"] = f"{stem}.{parted(output['path'])[1]}"
            output |= {"bytes": Path(output["path"]).stat().st_size, "sha256": provenance.sha256(output["path"])}
        for item in record["inputs"]:
            if item["role"] == "lattice":
                item["path"] = f"{LATTICE}.json"

    edit(stem, personal)


@pytest.fixture
def study(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    result(root / "resources/structures" / NAME, RELAXED)
    result(root / "resources/structures/lattice/Al-smoke", LATTICE)
    return tmp_path


def export(*arguments):
    return CliRunner().invoke(cli.app, ["export", "library", *arguments])


def said(outcome) -> str:
    return str(outcome.exception)


def test_an_entry_serves_what_it_was_computed_for_and_names_nobody(study, root):
    outcome = export(f"{RELAXED}.extxyz", "--to", "shelf")
    assert outcome.exit_code == 0, outcome.output
    host = asdict(read_hosts(root / "resources/hosts.csv")["Al"])
    found = Library(Path("shelf")).relaxation(host, [2, 1, 1], VACANCY, SMOKE, SMOKE)
    assert found.stem == Path("shelf") / NAME
    written = sorted(path for path in Path("shelf").rglob("*") if path.is_file())
    assert sorted(outcome.output.split()) == [str(path) for path in written]
    assert {parted(path)[0] for path in written} == {NAME, "Al-smoke"}
    for path in written:
        for word in ("someone", "machine-7", "User:", "CWD:", "/home"):
            assert word not in path.read_text(), (path, word)
    for beside in (path for path in written if path.name.endswith(".record.json")):
        record = provenance.read_record(beside)
        assert "host" not in record
        for output in record["outputs"]:
            suffix = parted(output["path"])[1]
            assert provenance.sha256(beside.with_name(beside.name.replace("record.json", suffix))) == output["sha256"]


@pytest.fixture
def supplied(study, root):
    """The study, its lattice constant taken from the library of the repository."""
    shutil.rmtree("results/first_principles/lattice")
    Path(SHIPPED).parent.mkdir(parents=True)
    for path in (root / SHIPPED).parent.glob("Al-smoke.*"):
        shutil.copy(path, Path(SHIPPED).parent)
    edit(RELAXED, lambda record: [i.update(path=f"{SHIPPED}.json") for i in record["inputs"] if i["role"] == "lattice"])
    return study


def test_a_lattice_constant_of_the_repository_goes_along_as_it_is(supplied, root):
    outcome = export(f"{RELAXED}.extxyz", "--to", "shelf")
    assert outcome.exit_code == 0, outcome.output + said(outcome)
    for suffix in ("json", "gpaw.txt", "record.json"):
        assert Path(f"shelf/lattice/Al-smoke.{suffix}").read_bytes() == Path(f"{SHIPPED}.{suffix}").read_bytes()
    host = asdict(read_hosts(root / "resources/hosts.csv")["Al"])
    assert Library(Path("shelf")).relaxation(host, [2, 1, 1], VACANCY, SMOKE, SMOKE).stem == Path("shelf") / NAME


@pytest.mark.parametrize("suffix", ["json", "gpaw.txt"])
def test_a_lattice_constant_of_the_repository_that_was_edited_is_refused(supplied, suffix):
    with open(f"{SHIPPED}.{suffix}", "a") as file:
        file.write("\n")
    outcome = export(f"{RELAXED}.extxyz", "--to", "shelf")
    assert f"{SHIPPED}.{suffix}: not the file that the job wrote" in said(outcome)
    assert not Path("shelf").exists()


def test_an_id_may_have_dots(study):
    """As of al-thermal-312.5K-2x2x2."""
    dotted = f"results/first_principles/relax/{NAME}-312.5K"
    result(Path(RELAXED), dotted)
    edit(dotted, lambda record: record["wildcards"].update(condition=f"{NAME}-312.5K"))
    for path in Path(RELAXED).parent.glob(f"{NAME}.*"):
        path.unlink()
    outcome = export(f"{dotted}.gpaw.txt", "--to", "shelf")
    assert outcome.exit_code == 0, outcome.output + said(outcome)
    names = {path.name for path in Path("shelf").glob("*.*")}
    assert names == {f"{NAME}-312.5K.{suffix}" for suffix in ("extxyz", "json", "gpaw.txt", "record.json")}


def test_an_entry_that_is_there_is_left_as_it_is(study):
    export(f"{RELAXED}.extxyz", "--to", "shelf")
    before = {path: path.stat().st_mtime_ns for path in Path("shelf").rglob("*")}
    outcome = export(f"{RELAXED}.json", "--to", "shelf")
    assert "holds it already" in outcome.output
    assert {path: path.stat().st_mtime_ns for path in Path("shelf").rglob("*")} == before


def test_another_result_of_that_name_wants_a_name_of_its_own(study):
    export(f"{RELAXED}.extxyz", "--to", "shelf")
    with open(f"{RELAXED}.extxyz", "a") as file:
        file.write("\n")
    digest = provenance.sha256(f"{RELAXED}.extxyz")
    edit(RELAXED, lambda record: record["outputs"][0].update(sha256=digest))
    outcome = export(f"{RELAXED}.extxyz", "--to", "shelf")
    assert "another result has this name" in said(outcome)
    assert export(f"{RELAXED}.extxyz", "--to", "shelf", "--name", "second").exit_code == 0
    assert Path("shelf/second.record.json").is_file()


@pytest.mark.parametrize("shipped", [False, True])
def test_another_lattice_constant_of_that_name_wants_a_name_of_its_own(request, shipped):
    request.getfixturevalue("supplied" if shipped else "study")
    lattice = f"{SHIPPED if shipped else LATTICE}.json"
    other = Path("shelf/lattice/Al-smoke.record.json")
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps({"outputs": [{"role": "json", "sha256": "0"}], "inputs": [], "params": {}}))
    outcome = export(f"{RELAXED}.extxyz", "--to", "shelf", "--name", "second")
    assert f"{other}: another result has this name; export {lattice} by itself first, with --name" in said(outcome)
    assert list(Path("shelf").glob("*.*")) == []
    assert export(lattice, "--to", "shelf", "--name", "Al-second").exit_code == 0
    assert export(f"{RELAXED}.extxyz", "--to", "shelf", "--name", "second").exit_code == 0
    assert Path("shelf/lattice/Al-second.record.json").is_file() and Path("shelf/second.record.json").is_file()


@pytest.mark.parametrize("name", ["a/b", "../x", "..", ".hidden", "", "two words", "x.record"])
def test_a_name_is_that_of_a_condition(study, name):
    outcome = export(f"{RELAXED}.extxyz", "--to", "shelf", "--name", name)
    assert f"--name {name}: no name of an entry" in said(outcome)
    assert {path.name for path in study.iterdir()} == {"results"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record["code"].update(dirty=True), "no commit"),
        (lambda record: record["code"].update(commit=None, dirty=None), "no commit"),
        (lambda record: record["outputs"][0].update(sha256=64 * "0"), "not the file that the job wrote"),
        (lambda record: record.update(rule="simulate"), "made by simulate"),
    ],
)
def test_what_nobody_could_repeat_is_refused(study, change, message):
    edit(RELAXED, change)
    outcome = export(f"{RELAXED}.extxyz", "--to", "shelf")
    assert message in said(outcome)
    assert not Path("shelf").exists()


@pytest.mark.parametrize("key", ["converged", "energies_comparable"])
def test_what_did_not_end_well_is_refused(study, key):
    path = Path(f"{RELAXED}.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), key: False}))
    edit(RELAXED, lambda record: [o.update(sha256=provenance.sha256(o["path"])) for o in record["outputs"]])
    outcome = export(f"{RELAXED}.extxyz", "--to", "shelf")
    assert "a library holds none such" in said(outcome)
    assert not Path("shelf").exists()


def test_a_cell_goes_nowhere_without_its_lattice_constant(study):
    shutil.rmtree("results/first_principles/lattice")
    outcome = export(f"{RELAXED}.extxyz", "--to", "shelf")
    assert "stands on the lattice constant" in said(outcome)
    assert not Path("shelf").exists()
