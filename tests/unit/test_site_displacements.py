"""Displacements from lattice sites: what is put in comes out."""

import csv

import numpy as np
import pytest
from ase.io import write

from defraction import hosts
from defraction import site_displacements as sites
from defraction.defects import point


@pytest.fixture(scope="module")
def aluminium(root):
    return hosts.read_hosts(root / "resources/hosts.csv")["Al"]


def cell(aluminium, **settings):
    return point.build(aluminium, {"supercell": [3, 3, 3], **settings})


def test_displacements_come_back_without_their_mean(aluminium):
    rng = np.random.default_rng(1)
    atoms = cell(aluminium)
    moved = rng.normal(0, 0.06, atoms.positions.shape)
    atoms.positions += moved + [0.3, -0.2, 0.1]  # a shift of the whole cell is no displacement
    order = rng.permutation(len(atoms))
    found = sites.sites_of(atoms[order], "fcc", "Al")
    np.testing.assert_allclose(found.displacement, (moved - moved.mean(axis=0))[order], atol=1e-9)
    assert len(found.vacant) == len(found.interstitial) == found.foreign.sum() == 0
    # a rotation of the axes among each other leaves the lengths and turns the components
    lengths = np.linalg.norm(moved - moved.mean(axis=0), axis=1)
    assert sites.measure("largest", found.displacement) == pytest.approx(lengths.max())
    assert sites.measure("atoms:0.05:0.1", found.displacement) == ((lengths >= 0.05) & (lengths < 0.1)).sum()
    assert sites.measure("x_rms", found.displacement) == pytest.approx(np.std(moved[:, 0]))


def test_sites_of_a_relaxed_cell_are_those_of_the_cell_as_it_is(aluminium):
    """Longer by 3 % along x and sheared by 2 %: nothing but that has moved."""
    atoms = cell(aluminium, defect={"kind": "vacancy"})
    strained = np.array([[1.03, 0.02, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.99]])
    atoms.set_cell(atoms.cell @ strained, scale_atoms=True)
    atoms.positions[5] += [0.05, 0, 0]
    found = sites.sites_of(atoms, "fcc", "Al")
    assert np.abs(found.displacement).max() == pytest.approx(0.05 * 106 / 107)
    shells = sites.shells(found)
    assert sum(shell.atoms for shell in shells) == 107 and shells[0].distance < 4.06 / np.sqrt(2) * 1.03


def test_defects_are_told_from_sites(aluminium):
    empty = sites.sites_of(cell(aluminium, defect={"kind": "vacancy"}), "fcc", "Al")
    assert empty.vacant.shape == (1, 3) and len(empty.site) == 107
    solute = sites.sites_of(cell(aluminium, defect={"kind": "substitution", "solute": "Si"}), "fcc", "Al")
    assert solute.foreign.sum() == 1 and len(solute.vacant) == 0
    between = {"kind": "interstitial", "solute": "C", "site": "tetrahedral"}
    carbon = sites.sites_of(cell(aluminium, defect=between), "fcc", "Al")
    assert carbon.interstitial.shape == (1, 3) and len(carbon.site) == 108 and not carbon.foreign.any()
    assert np.abs(carbon.displacement).max() < 1e-9


DEFECTS = [
    {"kind": "vacancy"},
    {"kind": "substitution", "solute": "Si"},
    {"kind": "interstitial", "solute": "C", "site": "octahedral"},
]


@pytest.mark.parametrize("defect", DEFECTS)
def test_shells_are_told_by_distance_and_have_a_sign(aluminium, defect):
    """Atoms drawn towards the defect by a length that belongs to their distance, two shells by the same."""
    atoms = cell(aluminium, defect=defect)
    centre = np.zeros(3) if defect["kind"] != "interstitial" else atoms.positions[-1]
    a = aluminium.lattice_parameter
    vectors = atoms.positions - centre
    vectors -= 3 * a * np.rint(vectors / (3 * a))
    distances = np.linalg.norm(vectors, axis=1)
    near = (distances > 1e-6) & (distances < 1.45 * a)  # whole shells within half the cell: their displacements cancel
    inwards = np.where(distances < 0.9 * a, 0.05, 0.02)
    atoms.positions[near] -= (inwards / np.maximum(distances, 1e-6))[near, None] * vectors[near]
    found = sites.shells(sites.sites_of(atoms, "fcc", "Al"))
    assert sum(shell.atoms for shell in found) == len(atoms) - (defect["kind"] != "vacancy")
    assert [shell.distance for shell in found] == sorted(shell.distance for shell in found)
    expected = sorted({round(float(d), 6) for d in distances[near]})
    assert [shell.distance for shell in found[: len(expected)]] == pytest.approx(expected)
    for shell in found:
        wanted = (0.05 if shell.distance < 0.9 * a else 0.02) if shell.distance < 1.45 * a else 0.0
        assert shell.radial == pytest.approx(-wanted, abs=1e-9)
        assert shell.length == pytest.approx(wanted, abs=1e-9)


def test_shells_need_one_defect(aluminium):
    two = cell(aluminium, defect={"kind": "vacancy", "position": [[0, 0, 0], [1, 1, 1]]})
    for atoms in (two, cell(aluminium)):
        with pytest.raises(ValueError, match="one point defect"):
            sites.shells(sites.sites_of(atoms, "fcc", "Al"))


def test_the_readme_of_the_library_names_the_shells_of_its_vacancy(root):
    from ase.io import read

    found = sites.shells(sites.sites_of(read(root / "resources/structures/al-vacancy-3x3x3.extxyz"), "fcc", "Al"))
    text = (root / "resources/structures/README.md").read_text()
    assert ", ".join(f"{shell.atoms} {shell.radial:.4f}" for shell in found[:5]) in text


def test_the_table_stands_beside_the_article(tmp_path, root, aluminium):
    rng = np.random.default_rng(2)
    frames = []
    for _ in range(3):
        atoms = cell(aluminium)
        atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
        frames.append(atoms)
    write(tmp_path / "al.extxyz", frames)
    name = "al-thermal-100K-2x2x2"  # stands in for 3x3x3
    sites.write_table(
        {name: tmp_path / "al.extxyz"},
        {name: ("fcc", "Al")},
        {name: (100, 412.0)},
        root / "resources/paper/displacements.csv",
        tmp_path / "t.csv",
    )
    with (tmp_path / "t.csv").open() as handle:
        rows = {row["quantity"]: row for row in csv.DictReader(handle)}
    counted = rows["x_atoms:0:0.04"]
    assert (counted["published"], counted["atoms"], counted["snapshots"]) == ("85.000000", "108", "3")
    assert counted["measured_on"] == "instead of al-thermal-100K-3x3x3"
    assert float(counted["min"]) <= float(counted["mean"]) <= float(counted["max"])
    assert rows["rms"]["published"] == ""
    # the three components of a length; zero-point motion only adds (0.056 and 0.067 Å, docs/validation.md)
    classical, quantum = (float(rows["x_rms"][f"debye_{name}"]) for name in ("classical", "quantum"))
    assert (round(classical, 3), round(quantum, 3)) == (0.056, 0.067)
    assert float(rows["rms"]["debye_classical"]) == pytest.approx(np.sqrt(3) * classical, abs=2e-6)
    assert rows["largest"]["debye_classical"] == ""


@pytest.mark.parametrize("thermal", [{}, {"al": (300, None)}])
def test_without_a_debye_temperature_there_is_no_debye_model(tmp_path, root, aluminium, thermal):
    atoms = cell(aluminium)
    write(tmp_path / "al.extxyz", atoms)
    published = root / "resources/paper/displacements.csv"
    sites.write_table({"al": tmp_path / "al.extxyz"}, {"al": ("fcc", "Al")}, thermal, published, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open() as handle:
        assert {row["debye_classical"] + row["debye_quantum"] for row in csv.DictReader(handle)} == {""}


def test_bad_input_is_named(aluminium):
    atoms = cell(aluminium)
    atoms.info["reference_cell"] = np.diag([4.0, 4.0, 3.6])
    with pytest.raises(ValueError, match="not a supercell"):
        sites.sites_of(atoms, "fcc", "Al")
    with pytest.raises(ValueError, match="unknown quantity"):
        sites.measure("smallest", np.zeros((2, 3)))
