"""The shipped results of first-principles runs say what they are, and serve exactly what they were computed for."""

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from ase.io import read

from defraction.first_principles.library import Library
from defraction.first_principles.settings import settings_for
from defraction.hosts import read_hosts

PAPER = {"preset": "paper", "overrides": {}}
VACANCY = {"kind": "vacancy", "solute": None, "site": None}


@pytest.fixture(scope="module")
def library(root):
    return Library(root / "resources/structures")


@pytest.fixture(scope="module")
def rows(root):
    return {name: asdict(host) for name, host in read_hosts(root / "resources/hosts.csv").items()}


def test_every_entry_is_what_its_settings_ask_for(root, library):
    assert library.entries and library.lattices
    readme = (root / "resources/structures/README.md").read_text()
    for entry in library.entries:
        summary = json.loads(entry.file("json").read_text())
        frames = read(entry.file("extxyz"), index=":")
        record = json.loads(entry.file("record.json").read_text())
        assert record["code"]["commit"] and not record["code"]["dirty"], entry.stem.name
        assert re.search(rf"(?m)^\| {re.escape(entry.stem.name)}(, preset `\w+`)? \|", readme), entry.stem.name
        assert summary["energies_comparable"]
        if "aimd" in summary["settings"]:
            assert len(frames) == len(summary["snapshots"])
            continue
        largest = np.linalg.norm(frames[0].get_forces(), axis=1).max()
        assert summary["converged"]
        assert largest == pytest.approx(summary["largest_force"], abs=1e-6)
        assert largest <= summary["settings"]["relax"]["fmax"]
        assert frames[0].get_potential_energy() == pytest.approx(summary["energy"], abs=1e-6)


def test_every_cell_stands_on_a_lattice_constant_of_the_library(library):
    for entry in library.entries:
        (lattice,) = [e for e in library.lattices if e.output_digest("json") == entry.input_digest("lattice")]
        a = json.loads(lattice.file("json").read_text())["lattice_parameter"]
        cell = read(entry.file("extxyz"), index=0).cell
        np.testing.assert_allclose(cell.array, np.diag(a * np.array(entry.params["supercell"])), atol=1e-7)


def test_no_entry_names_a_machine_or_a_folder(root):
    for path in (root / "resources/structures").rglob("*.*"):
        text = path.read_text()
        assert not re.search(r"(?m)(^|[\s\"'])/(home|root|work|tmp|usr)/|^User:|^CWD:", text), path.name
        if path.name.endswith(".record.json"):
            assert "host" not in json.loads(text), path.name


def test_files_are_those_of_the_record(library):
    from defraction.provenance import sha256

    for entry in [*library.entries, *library.lattices]:
        for output in json.loads(entry.file("record.json").read_text())["outputs"]:
            suffix = output["path"].split("/")[-1].split(".", 1)[1]
            assert sha256(entry.file(suffix)) == output["sha256"], (entry.stem.name, suffix)


def test_the_library_fits_into_a_repository(root):
    total = sum(path.stat().st_size for path in (root / "resources/structures").rglob("*") if path.is_file())
    assert total < 20e6


def test_a_condition_finds_its_entry(library, rows):
    found = library.relaxation(rows["Al"], [2, 2, 2], VACANCY, PAPER, PAPER)
    assert found.stem.name == "al-vacancy-2x2x2"
    assert library.lattice(rows["Al"], PAPER).stem.name == "Al-paper"


@pytest.mark.parametrize(
    "change",
    [
        {"preset": "laptop"},
        {"overrides": {"relax": {"fmax": 0.02}}},
        {"overrides": {"electronic": {"cutoff": 251.0}}},
        {"supercell": [2, 2, 3]},
        {"defect": {**VACANCY, "kind": "substitution", "solute": "Si"}},
        {"host": {"lattice_parameter": 4.05}},
        {"host": {"name": "Cu"}},
    ],
)
def test_whoever_asks_for_anything_else_computes(library, rows, change):
    settings = {**PAPER, **{key: change[key] for key in ("preset", "overrides") if key in change}}
    host = {**rows["Al"], **change.get("host", {})}
    cell, defect = change.get("supercell", [2, 2, 2]), change.get("defect", VACANCY)
    found = library.relaxation(host, cell, defect, settings, settings)
    if "defect" in change:  # which the library holds too, of its own
        assert found.stem.name == "al-substitution-si-2x2x2"
    else:
        assert found is None


def test_a_change_of_the_lattice_constant_alone_serves_no_longer(library, rows):
    finer = {**PAPER, "overrides": {"lattice": {"points": 7}}}
    assert library.relaxation(rows["Al"], [2, 2, 2], VACANCY, finer, PAPER) is None


def test_a_list_of_defects_is_another_structure_and_takes_the_cutoff_of_its_elements(library, rows, tmp_path, root):
    pair = {"defects": [VACANCY, {"kind": "interstitial", "solute": "C", "site": "octahedral"}]}
    assert library.relaxation(rows["Al"], [2, 2, 2], pair, PAPER, PAPER) is None
    folder = tmp_path / "structures"
    (folder / "lattice").mkdir(parents=True)
    for path in (root / "resources/structures/lattice").glob("Al-paper.*"):
        (folder / "lattice" / path.name).write_bytes(path.read_bytes())
    digest = Library(folder).lattices[0].output_digest("json")
    settings = settings_for(rows["Al"], task="relax", elements=["Al", "C"], supercell=[2, 2, 2], **PAPER)
    assert settings["electronic"]["cutoff"] == 350.0
    params = {"host": rows["Al"], "supercell": [2, 2, 2], "defect": pair}
    record = {"params": params, "inputs": [{"role": "lattice", "sha256": digest}]}
    (folder / "pair.record.json").write_text(json.dumps(record))
    (folder / "pair.json").write_text(json.dumps({"settings": settings}))
    assert Library(folder).relaxation(rows["Al"], [2, 2, 2], pair, PAPER, PAPER).stem.name == "pair"


def test_an_empty_library_serves_nothing(rows):
    assert Library(None).relaxation(rows["Al"], [2, 2, 2], VACANCY, PAPER, PAPER) is None
    assert Library(None).lattice(rows["Al"], PAPER) is None


def test_dynamics_are_found_whatever_the_seed(tmp_path, rows, root):
    """Another seed is another sample of the same distribution; any other setting is another distribution."""
    folder = tmp_path / "structures"
    (folder / "lattice").mkdir(parents=True)
    for path in (root / "resources/structures/lattice").glob("Al-paper.*"):
        (folder / "lattice" / path.name).write_bytes(path.read_bytes())
    lattice = Library(folder).lattices[0].output_digest("json")
    asked = {"supercell": [3, 3, 3], "temperature": 300.0, "protocol": "published"}
    settings = settings_for(rows["Al"], task="aimd", seed=5, **asked, **PAPER)
    # as a version wrote them whose job read the Debye temperature
    inputs = [{"role": "lattice", "sha256": lattice}, {"role": "hosts", "sha256": 64 * "0"}]
    record = {"params": {"host": rows["Al"], **asked}, "inputs": inputs}
    debye = {"debye_temperature": 412.0, "rms": {"quantum": 0.1, "classical": 0.098}}
    (folder / "x.record.json").write_text(json.dumps(record))
    (folder / "x.json").write_text(json.dumps({"settings": settings, "debye": debye}))
    library = Library(folder)
    arguments = rows["Al"], [3, 3, 3], 300.0, "published", PAPER
    assert library.dynamics(*arguments, PAPER).stem.name == "x"
    assert library.dynamics(*arguments, {**PAPER, "overrides": {"aimd": {"timestep": 1.0}}}) is None
    assert library.dynamics(*arguments, {**PAPER, "overrides": {"aimd": {"flights": 3}}}) is None
    assert library.dynamics(*arguments, {**PAPER, "overrides": {"aimd": {"flights": 4}}}).stem.name == "x"
    assert library.dynamics(rows["Al"], [3, 3, 3], 100.0, "published", PAPER, PAPER) is None
    assert library.dynamics(rows["Al"], [3, 3, 3], 300.0, "equilibrated", PAPER, PAPER) is None
