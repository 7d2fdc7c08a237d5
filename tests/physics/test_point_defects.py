"""Point defects: compositions, interstitial sites, and displacements that are recovered from positions alone."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from defraction.defects.point import build, displacement, point_defect, supercell
from defraction.hosts import read_hosts, unit_cell

HOSTS = read_hosts(Path(__file__).parents[2] / "resources" / "hosts.csv")


def unit(name):
    return unit_cell(HOSTS[name])


@pytest.mark.parametrize(("name", "n", "sites"), [("Al", 2, 32), ("Al", 3, 108), ("Fe", 3, 54), ("Fe", 4, 128)])
def test_the_published_concentrations(name, n, sites):
    solute = {"Al": "Si", "Fe": "Au"}[name]
    perfect = supercell(unit(name), [n] * 3)
    vacancy = point_defect(unit(name), {"kind": "vacancy", "supercell": [n] * 3})
    substitution = point_defect(unit(name), {"kind": "substitution", "solute": solute, "supercell": [n] * 3})
    assert (len(perfect), len(vacancy), len(substitution)) == (sites, sites - 1, sites)
    assert substitution.get_chemical_symbols().count(solute) == 1
    assert np.allclose(substitution.positions, perfect.positions)
    for atoms in (perfect, vacancy, substitution):
        assert np.allclose(atoms.cell, np.eye(3) * n * HOSTS[name].lattice_parameter)
        assert np.allclose(atoms.info["reference_cell"], np.eye(3) * HOSTS[name].lattice_parameter)
        assert atoms.info["repeat"] == [1, 1, 1]


def test_only_host_atoms_of_iron_are_magnetic():
    atoms = point_defect(unit("Fe"), {"kind": "substitution", "solute": "Au", "supercell": [2, 2, 2]})
    moments = atoms.get_initial_magnetic_moments()
    assert moments[atoms.symbols == "Au"].tolist() == [0.0]
    assert (moments[atoms.symbols == "Fe"] == 2.2).all()
    atoms = point_defect(
        unit("Fe"), {"kind": "interstitial", "solute": "C", "site": "octahedral", "supercell": [2, 2, 2]}
    )
    assert atoms.get_initial_magnetic_moments()[-1] == 0.0


@pytest.mark.parametrize(
    ("name", "site", "neighbours", "distance"),
    [
        ("Al", "tetrahedral", 4, np.sqrt(3) / 4),
        ("Al", "octahedral", 6, 1 / 2),
        ("Fe", "tetrahedral", 4, np.sqrt(5) / 4),
        ("Fe", "octahedral", 2, 1 / 2),
    ],
)
@pytest.mark.parametrize("n", [[2, 2, 2], [3, 2, 4]])
def test_interstitial_sites(name, site, neighbours, distance, n):
    atoms = point_defect(unit(name), {"kind": "interstitial", "solute": "C", "site": site, "supercell": n})
    assert atoms.symbols[-1] == "C"
    assert len(atoms) == np.prod(n) * len(unit(name)) + 1
    distances = atoms.get_distances(len(atoms) - 1, range(len(atoms) - 1), mic=True) / HOSTS[name].lattice_parameter
    assert distances.min() == pytest.approx(distance)
    assert (np.abs(distances - distance) < 1e-6).sum() == neighbours


def test_a_condition_is_built_from_its_files(tmp_path):
    (tmp_path / "lattice.json").write_text('{"lattice_parameter": 4.04}')
    defect = {"kind": "substitution", "solute": "Si", "site": None}
    settings = {"family": "point", "relaxed": True, "defect": defect, "supercell": [2, 3, 2], "repeat": [10, 9, 8]}
    unrelaxed = build(HOSTS["Al"], settings, lattice=tmp_path / "lattice.json")
    assert unrelaxed.cell.lengths() == pytest.approx([8.08, 12.12, 8.08])
    assert unrelaxed.info["repeat"] == [10, 9, 8]

    relaxed = unrelaxed.copy()
    relaxed.rattle(0.02, seed=1)
    relaxed.write(tmp_path / "relaxed.extxyz", columns=["symbols", "positions"], write_info=False)
    atoms = build(HOSTS["Al"], settings, relaxed=tmp_path / "relaxed.extxyz")
    assert np.allclose(atoms.positions, relaxed.positions, atol=1e-8)
    assert np.allclose(atoms.info["reference_cell"], np.eye(3) * 4.04)
    assert atoms.info["repeat"] == [10, 9, 8]

    perfect = build(HOSTS["Al"], {**settings, "defect": None})
    assert set(perfect.symbols) == {"Al"}
    assert perfect.cell.lengths() == pytest.approx(np.array([2, 3, 2]) * HOSTS["Al"].lattice_parameter)
    with pytest.raises(ValueError, match="the settings mean Al48"):
        build(HOSTS["Al"], {**settings, "defect": None}, relaxed=tmp_path / "relaxed.extxyz")


@pytest.mark.parametrize("kind", ["vacancy", "substitution", "interstitial", "thermal"])
def test_displacements_come_back_whatever_the_order(kind):
    rng = np.random.default_rng(3)
    perfect = supercell(unit("Al"), [3, 3, 3])
    settings = {"kind": kind, "supercell": [3, 3, 3]}
    if kind != "vacancy":
        settings["solute"] = "C"
    if kind == "interstitial":
        settings["site"] = "tetrahedral"
    atoms = perfect.copy() if kind == "thermal" else point_defect(unit("Al"), settings)
    shifts = rng.normal(scale=0.1, size=(len(atoms), 3))
    shifts[-1] = [0.3, -0.2, 0.1]
    moved = atoms.copy()
    moved.positions += shifts + [0.2, -0.1, 0.15]  # with a drift of the whole crystal
    moved.wrap()
    order = rng.permutation(len(atoms))
    found = displacement(moved[order], perfect)
    on_sites = len(atoms) - (kind == "interstitial")
    expected = shifts - shifts[:on_sites].mean(axis=0)
    expected[on_sites:] = np.nan
    assert np.allclose(found, expected[order], atol=1e-12, equal_nan=True)
    assert np.isnan(found).any(axis=1).sum() == (kind == "interstitial")


def test_displacements_refuse_what_they_cannot_match():
    perfect = supercell(unit("Al"), [2, 2, 2])
    with pytest.raises(ValueError, match="same cell"):
        displacement(supercell(unit_cell(HOSTS["Al"], 4.1), [2, 2, 2]), perfect)
    moved = perfect.copy()
    moved.positions[5] += [2.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="atom 5"):
        displacement(moved, perfect)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"kind": "vacancy", "supercell": [0, 2, 2]}, "positive whole numbers"),
        ({"kind": "vacancy", "supercell": [2, -2, 2]}, "positive whole numbers"),
        ({"kind": "vacancy", "supercell": [2, 2.5, 2]}, "positive whole numbers"),
        ({"kind": "vacancy"}, "needs the setting supercell"),
        ({"kind": "hole", "supercell": [2, 2, 2]}, "unknown kind"),
        ({"kind": "vacancy", "solute": "Si", "supercell": [2, 2, 2]}, "takes no solute"),
        ({"kind": "substitution", "supercell": [2, 2, 2]}, "needs a solute"),
        ({"kind": "substitution", "solute": "Qq", "supercell": [2, 2, 2]}, "not a chemical element"),
        ({"kind": "substitution", "solute": "Al", "supercell": [2, 2, 2]}, "no defect"),
        ({"kind": "interstitial", "solute": "C", "supercell": [2, 2, 2]}, "needs a site"),
        (
            {"kind": "interstitial", "solute": "C", "site": "middle", "supercell": [2, 2, 2]},
            "unknown interstitial site",
        ),
    ],
)
def test_impossible_settings_are_refused(settings, fault):
    with pytest.raises(ValueError, match=fault):
        point_defect(unit("Al"), settings)


def test_interstitials_need_a_crystal_whose_sites_are_known():
    simple_cubic = Atoms("Po", positions=[[0, 0, 0]], cell=[3.3] * 3, pbc=True)
    settings = {"kind": "interstitial", "solute": "C", "site": "octahedral", "supercell": [2, 2, 2]}
    with pytest.raises(ValueError, match="fcc and bcc"):
        point_defect(simple_cubic, settings)
