"""Exports: RO-Crate, judged by the public validator, and W3C PROV, read back by the library prov."""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import small_study
from repository import copy_repository

from defraction import cli, digest, provenance
from defraction import config as configuration
from defraction.lineage.crate import METADATA, write_crate
from defraction.lineage.study import Study, contents

pytestmark = pytest.mark.filterwarnings("ignore:Dataset.default_context:DeprecationWarning")
LICENCE = "https://spdx.org/licenses/CC-BY-4.0"


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study with files from outside of it, some by relative paths as where a clone is a module of another workflow, a
    name that a URI must escape and a result from the cache."""
    small_study.build(tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")
    outside = tmp_path / "private" / "my cell.cif"
    outside.parent.mkdir()
    outside.write_text("data_cell\n")
    small_study.write("../clone/resources/hosts.csv", "Al\n")
    small_study.write("../clone/workflow/scripts/structure.py", "import defraction.structures\n")
    small_study.write("results/structures/al-xx+2.5pct.cif", "strained\n")
    inputs = {
        "source": [str(outside)],
        "hosts": ["../clone/resources/hosts.csv"],
        "code": ["../clone/workflow/scripts/structure.py"],
    }
    outputs = {"cif": "results/structures/al-xx+2.5pct.cif"}
    params = {"strain": 0.025, "crystals": [{"source": str(outside)}], "potential": "../clone/x.eam.fs"}
    made = small_study.record("structure", inputs, outputs, params)
    del made["record"]
    small_study.record(
        "structure",
        inputs,
        outputs,
        params,
        cache={"key": "0" * 64, "record": {**made, "started": 1.6e9, "seconds": 1000.0}},
    )
    return Study.load()


@pytest.fixture
def crate(study, tmp_path):
    write_crate(study, tmp_path / "crate", "test", LICENCE)
    return tmp_path / "crate"


@pytest.fixture
def validate(root):
    python = root / ".tools/crate/bin/python"
    if not python.exists():
        pytest.skip("the RO-Crate validator is not installed: make crate-validator")

    def run(path: Path) -> dict:
        command = [str(python), str(root / "tests/crate/validate.py"), str(path)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    return run


def graph(path: Path) -> dict[str, dict]:
    return {entity["@id"]: entity for entity in json.loads((path / METADATA).read_text())["@graph"]}


def listed(value) -> list:
    return value if isinstance(value, list) else [value]


def test_public_validator_misses_nothing_required(crate, validate):
    verdict = validate(crate)
    assert verdict["checks"] > 80 and verdict["issues"] == [] and verdict["passed"]


def test_public_validator_sees_what_is_taken_away(crate, validate):
    """The check above can fail: a crate whose steps have no tools any more is refused."""
    metadata = json.loads((crate / METADATA).read_text())
    for entity in metadata["@graph"]:
        entity.pop("workExample", None)
    (crate / METADATA).write_text(json.dumps(metadata))
    verdict = validate(crate)
    assert any(issue["check"].startswith("provenance-run-crate-0.5") for issue in verdict["issues"])


def test_crate_holds_every_file_with_its_digest_and_no_loose_end(study, crate):
    entities = graph(crate)
    for entity in entities.values():
        if "File" in listed(entity["@type"]):
            data = (crate / unquote(entity["@id"])).read_bytes()
            assert hashlib.sha256(data).hexdigest() == entity["sha256"] and len(data) == int(entity["contentSize"])
    recorded = {item["path"] for r in study.records for item in (*r["outputs"], *contents(r))}
    names = {unquote(name) for name in entities}
    assert {name for name in recorded if not name.startswith(("/", ".."))} <= names
    external = {name.split("-", 1)[1] for name in names if name.startswith("external/")}
    assert external == {"my cell.cif", "hosts.csv", "structure.py"}
    assert {name for record in study.records for name in record["code"]["files"]} <= names
    own = {
        value["@id"]
        for entity in entities.values()
        for values in entity.values()
        for value in listed(values)
        if isinstance(value, dict) and not value["@id"].startswith("http")
    }
    assert own <= entities.keys()


def test_crate_holds_all_code_of_this_workflow(study, root, tmp_path):
    """The real files: each module that a rule's digest counts, the rules, and the packages they need."""
    shutil.copytree(root / "workflow", "workflow", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt"):
        shutil.copy(root / name, name)
    write_crate(study, tmp_path / "crate", "test", LICENCE)
    scripts = sorted(path.name for path in (root / "workflow/scripts").glob("*.py"))
    needed = {file for script in scripts for file in digest.file_digests(script)}
    needed |= {f"workflow/scripts/defraction/{name}.py" for name in digest.FRAME}
    needed |= {str(p.relative_to(root)) for folder in ("rules", "envs") for p in (root / "workflow" / folder).iterdir()}
    entities = graph(tmp_path / "crate")
    for name in sorted(needed | {"pyproject.toml", "requirements.txt"}):
        assert (tmp_path / "crate" / name).read_bytes() == (root / name).read_bytes()
        assert ("SoftwareSourceCode" in entities[name]["@type"]) == name.endswith((".py", ".smk")), name


def test_crate_tells_how_each_result_was_made(study, crate):
    entities = graph(crate)
    for record in study.records:
        (action,) = [
            e
            for e in entities.values()
            if e["@type"] == "CreateAction"
            and record["outputs"][0]["path"] in [unquote(r["@id"]) for r in listed(e["result"])]
            and e["@id"] != "#run"
        ]
        taken = [entities[o["@id"]] for o in listed(action["object"])]
        files = {unquote(e["@id"]) for e in taken if e["@type"] == "File"}
        assert {i["path"] for i in contents(record) if not i["path"].startswith(("/", ".."))} <= files
        values = {e["name"]: e["value"] for e in taken if e["@type"] == "PropertyValue"}
        assert values.keys() == record["params"].keys() - {"code"}
        cached = "cache" in record
        assert action["startTime"][:4] == ("2020" if cached else "2023")
        assert ("taken from a cache" in action["description"]) == cached
    versions = {e["name"]: e["softwareVersion"] for e in entities.values() if e["@type"] == "SoftwareApplication"}
    assert versions["Snakemake"] and versions["numpy"]


def test_crate_without_hosts_tells_no_host_and_no_private_folder(study, tmp_path, validate):
    write_crate(study, tmp_path / "crate.zip", "test", LICENCE, with_hosts=False)
    with zipfile.ZipFile(tmp_path / "crate.zip") as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
        archive.extractall(tmp_path / "out")
    assert not any(name.endswith(".gpaw.txt") for name in texts)
    for text in texts.values():
        assert str(tmp_path) not in text and platform.node() not in text.replace("-", " ").split()
        assert "private" not in text and "clone" not in text
    for name in texts:
        if name.endswith(".record.json"):
            provenance.read_record(tmp_path / "out" / name)
    assert validate(tmp_path / "crate.zip")["passed"]


def test_crate_in_place_adds_only_the_metadata(study, validate):
    before = {path for path in Path().rglob("*") if path.is_file()}
    write_crate(study, Path(), "test", LICENCE)
    assert {path for path in Path().rglob("*") if path.is_file()} - before == {Path(METADATA)}


def test_a_damaged_study_makes_no_crate(study, tmp_path):
    Path("results/patterns/al-1.nc").write_text("other")
    with pytest.raises(ValueError, match=r"not whole(?s:.*)results/patterns/al-1.nc: not what simulate wrote"):
        write_crate(study, tmp_path / "crate", "test", LICENCE)
    assert not (tmp_path / "crate").exists()


def test_nothing_is_overwritten(study, crate):
    with pytest.raises(ValueError, match="there already"):
        write_crate(study, crate, "test", LICENCE)


@pytest.mark.parametrize("suffix", [".json", ".ttl"])
def test_prov_is_read_back_and_tells_the_same(study, tmp_path, suffix):
    model = pytest.importorskip("prov.model", reason="the extra 'provenance' is not installed")
    from defraction.lineage.prov import prov_document

    target = tmp_path / f"study{suffix}"
    assert CliRunner().invoke(cli.app, ["export", "prov", str(target)]).exit_code == 0
    options = {"format": "rdf", "rdf_format": "turtle"} if suffix == ".ttl" else {}
    document = model.ProvDocument.deserialize(str(target), **options)
    assert document == prov_document(study)
    counts = {kind: len(list(document.get_records(kind))) for kind in (model.ProvUsage, model.ProvGeneration)}
    assert counts[model.ProvUsage] == sum(len(contents(r)) for r in study.records)
    assert counts[model.ProvGeneration] == sum(len(r["outputs"]) for r in study.records)
    assert len(list(document.get_records(model.ProvActivity))) == len(study.records)
    digests = {
        value for e in document.get_records(model.ProvEntity) for n, value in e.attributes if n.localpart == "sha256"
    }
    assert digests == {i["sha256"] for r in study.records for i in (*r["outputs"], *contents(r))}


def test_prov_without_hosts_and_as_prov_n(study, tmp_path):
    pytest.importorskip("prov", reason="the extra 'provenance' is not installed")
    run = CliRunner().invoke
    assert run(cli.app, ["export", "prov", str(tmp_path / "s.provn"), "--no-hosts"]).exit_code == 0
    text = (tmp_path / "s.provn").read_text()
    assert text.startswith("document") and text.rstrip().endswith("endDocument")
    assert f"on {platform.node()}," not in text and str(tmp_path) not in text and "clone" not in text
    assert isinstance(run(cli.app, ["export", "prov", "s.doc"]).exception, ValueError)


# --- the real workflow: the configuration that ran, and the jobs behind cells that were shipped -----------------------

SHIPPED = "resources/structures/al-vacancy-2x1x1"
TARGETS = ("results/structures/al-vacancy-2x1x1.cif", "results/conditions.csv")


def snakemake(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """Two cheap jobs of the workflow, one of which takes a shipped cell, run with a configuration outside of `config/`
    and a key on the command line."""
    folder = tmp_path_factory.mktemp("crates") / "defraction"
    copy_repository(root, folder, "tests", "docs", "benchmarks")
    raw = yaml.safe_load((root / "config/smoke.yaml").read_text())
    raw["first_principles"]["source"] = "library"
    raw["runtime"] = {"cache": str(folder.parent / "private/shelf")}
    (folder.parent / "own.yaml").write_text(yaml.safe_dump(raw))
    chosen = ["--configfile", "../own.yaml", "--config", "seed=7"]
    snakemake(folder, *chosen, "--", *TARGETS)
    return folder


@pytest.fixture(scope="module")
def exported(finished):
    write_crate(Study.load(finished), finished.parent / "crate", "test", LICENCE)
    return finished.parent / "crate"


def test_the_configuration_that_ran_is_kept_once_and_changes_no_plan(finished, exported):
    (kept,) = (finished / "results/configurations").iterdir()
    ran = json.loads(kept.read_text())
    assert ran["seed"] == 7 and ran["first_principles"]["source"] == "library"
    assert ran == configuration.plain(configuration.validate(ran)), "complete, and accepted as it stands"
    for record in Study.load(finished).records:
        assert record["configuration"]["path"] == str(kept.relative_to(finished))
        assert record["configuration"]["sha256"] == provenance.sha256(kept)
        assert "configuration" not in record["params"]
    run = ["--dry-run", "--config", "seed=7", "presentation={colour: '#000000'}"]
    assert "Nothing to be done" in snakemake(finished, "--configfile", "../own.yaml", *run, "--", *TARGETS)
    entities = graph(exported)
    name = f"results/configurations/{kept.name}"
    assert name in {reference["@id"] for reference in listed(entities["#run"]["object"])}
    assert (exported / name).read_bytes() == kept.read_bytes()


def test_the_workflow_runs_in_an_unpacked_crate(exported, tmp_path, validate):
    with zipfile.ZipFile(tmp_path / "crate.zip", "w") as archive:
        for path in sorted(exported.rglob("*")):
            archive.write(path, path.relative_to(exported))
    subprocess.run(
        [sys.executable, "-m", "zipfile", "-e", str(tmp_path / "crate.zip"), str(tmp_path / "out")], check=True
    )
    assert "structure_point" in snakemake(tmp_path / "out", "--dry-run")
    (kept,) = (exported / "results/configurations").iterdir()
    same = ["--configfile", str(kept.relative_to(exported))]
    assert "Nothing to be done" in snakemake(exported, "--dry-run", *same, "--", *TARGETS)
    assert "vacancy" in snakemake(tmp_path / "out", *same, "--forcerun", "structure_point", "--", TARGETS[0])
    assert (tmp_path / "out" / TARGETS[0]).read_bytes() == (exported / TARGETS[0]).read_bytes()
    assert validate(exported)["passed"]


def test_crate_leads_to_the_job_behind_a_shipped_cell(finished, exported):
    entities = graph(exported)
    record, lattice = (json.loads((finished / f"resources/structures/{n}.record.json").read_text())
                       for n in ("al-vacancy-2x1x1", "lattice/Al-smoke"))  # fmt: skip
    assert (exported / f"{SHIPPED}.record.json").read_bytes() == (finished / f"{SHIPPED}.record.json").read_bytes()
    (made,) = (e for e in entities.values() if {"@id": f"{SHIPPED}.extxyz"} in listed(e.get("result", [])))
    assert {r["@id"] for r in made["result"]} == {f"{SHIPPED}.{suffix}" for suffix in ("extxyz", "json", "gpaw.txt")}
    assert record["code"]["digest"] in made["description"] and "earlier study" in made["description"]
    assert entities[made["instrument"]["@id"]]["softwareVersion"] == record["code"]["digest"]
    packages = {entities[r["@id"]]["name"]: entities[r["@id"]]["softwareVersion"]
                for r in entities[made["instrument"]["@id"]]["softwareRequirements"]}  # fmt: skip
    assert packages["gpaw"] == record["environment"]["packages"]["gpaw"]["version"]
    values = {e["name"]: e["value"] for r in made["object"] if (e := entities[r["@id"]])["@type"] == "PropertyValue"}
    assert json.loads(values["supercell"]) == record["params"]["supercell"]
    costs = [entities[r["@id"]] for r in made["resourceUsage"]]
    assert str(record["cpu_seconds"]) in {e["value"] for e in costs}
    # and on, to the lattice constant that this job read
    (constant,) = (r["@id"] for r in made["object"] if r["@id"].endswith(".json"))
    (before,) = (e for e in entities.values() if {"@id": constant} in listed(e.get("result", [])))
    assert constant == "resources/structures/lattice/Al-smoke.json"
    assert lattice["code"]["digest"] in before["description"]
    assert {made["@id"], before["@id"]} <= {r["@id"] for r in entities["./"]["mentions"]}
    # jobs of another study are no steps of this run
    for control in (e for e in entities.values() if e["@type"] == "ControlAction"):
        assert not {made["@id"], before["@id"]} & {r["@id"] for r in listed(control["object"])}


def test_prov_leads_to_the_job_behind_a_shipped_cell(finished):
    model = pytest.importorskip("prov.model", reason="the package prov is not installed: pip install 'prov[rdf]'")
    from defraction.lineage.prov import prov_document

    document = prov_document(Study.load(finished))
    names = {e.identifier.localpart: e for e in document.get_records(model.ProvEntity)}
    maker = {}
    for made in document.get_records(model.ProvGeneration):
        file, job = (value.localpart for _, value in made.formal_attributes[:2])
        maker[file] = job
    read: dict[str, set[str]] = {}
    for used in document.get_records(model.ProvUsage):
        job, file = (value.localpart for _, value in used.formal_attributes[:2])
        read.setdefault(job, set()).add(file)
    assert {"resources/structures/al-vacancy-2x1x1.extxyz", "results/conditions.csv"} <= names.keys()
    assert maker[f"{SHIPPED}.extxyz"] == f"relax/{SHIPPED}"
    assert (
        maker[next(f for f in read[f"relax/{SHIPPED}"] if "lattice" in f)]
        == "lattice/resources/structures/lattice/Al-smoke"
    )
    assert any(name.startswith("results/configurations/") for name in read["conditions_table/results/conditions"])


def test_without_hosts_configurations_and_shipped_records_lose_folders_too(finished, tmp_path, validate):
    with open(finished / "config/smoke.yaml", "a") as file:
        file.write(f"# {tmp_path}/notes/here\n")
    write_crate(Study.load(finished), tmp_path / "crate", "test", LICENCE, with_hosts=False)
    for path in (tmp_path / "crate").rglob("*"):
        text = "" if path.is_dir() else path.read_text(errors="replace")
        assert "private/shelf" not in text and str(tmp_path) not in text and str(finished) not in text, path
    assert not (tmp_path / "crate/config/smoke.yaml").exists() and (tmp_path / "crate/config/config.yaml").exists()
    (kept,) = (tmp_path / "crate/results/configurations").iterdir()
    assert json.loads(kept.read_text())["runtime"]["cache"] == "shelf"
    for record in Study.load(tmp_path / "crate").records:
        assert record["configuration"]["sha256"] == provenance.sha256(kept)
    provenance.read_record(tmp_path / "crate" / f"{SHIPPED}.record.json")
    assert validate(tmp_path / "crate")["passed"]
