"""Relaxation of the cell together with the atoms: where stress vanishes, resumed, and down to the CIF."""

import json

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT

from defraction import config, expansion
from defraction.defects.point import build
from defraction.defects.strain import deform
from defraction.first_principles import relax
from defraction.first_principles.settings import settings_for
from defraction.hosts import read_hosts
from defraction.structures import read_structures, write_structures

FIXED = {"relax": {"fmax": 0.002, "steps": 80}}
FREE = {"relax": {**FIXED["relax"], "cell": "relaxed"}}


def emt(settings, atoms, txt, rung=0):
    return EMT()


def settings(overrides=FREE):
    return settings_for("Al", "laptop", "relax", supercell=[2, 2, 2], overrides=overrides)


def sheared_vacancy():
    atoms = bulk("Al", cubic=True, a=4.03) * (2, 2, 2)
    del atoms[0]
    atoms.rattle(0.03, seed=2)
    return deform(atoms, np.array([[0.01, 0.02, 0], [0.02, -0.01, 0.005], [0, 0.005, 0.0]]))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return relax.relax(sheared_vacancy(), settings(), emt, tmp_path_factory.mktemp("unbroken"))


def test_settings_of_a_fixed_cell_are_those_of_older_results():
    assert settings(FIXED) == settings({"relax": {**FIXED["relax"], "cell": "fixed"}})
    assert "cell" not in settings(FIXED)["relax"]
    with pytest.raises(ValueError, match=r"relax\.cell: needs fixed or relaxed"):
        settings({"relax": {"cell": "primitive"}})


def test_no_force_and_no_stress_is_left(unbroken):
    atoms, summary = unbroken
    again = atoms.copy()
    again.calc = EMT()
    assert np.linalg.norm(again.get_forces(), axis=1).max() < 0.002
    # fmax bounds the virial per atom: 0.002 eV over 16.5 Å^3 are 0.02 GPa.
    assert np.abs(again.get_stress()).max() / units.GPa < 0.02
    assert summary["cell"]["largest_stress"] == pytest.approx(np.abs(again.get_stress()).max() / units.GPa, abs=1e-6)
    assert summary["largest_force"] < 0.002


def test_a_sheared_cell_with_a_cubic_defect_becomes_a_cube_smaller_than_the_perfect_one(unbroken, tmp_path):
    """One vacancy keeps the symmetry of the cube, and its surroundings draw in: the cell shrinks by less than the
    volume of the atom that is gone."""
    atoms, summary = unbroken
    np.testing.assert_allclose(summary["cell"]["angles"], 90, atol=0.05)  # the same over 28 GPa of shear modulus
    lengths = np.array(summary["cell"]["lengths"])
    assert np.ptp(lengths) < 5e-3  # 0.02 GPa of stress over 60 GPa of Young's modulus, of 8 Å, at either end
    perfect = bulk("Al", cubic=True, a=4.03) * (2, 2, 2)
    full, _ = relax.relax(perfect, settings(), emt, tmp_path)
    loss = full.get_volume() - atoms.get_volume()
    assert 0 < loss < full.get_volume() / 32


def test_interrupted_after_every_geometry_it_is_the_unbroken_one(unbroken, tmp_path):
    atoms, summary = unbroken
    count = 0

    class Once(EMT):
        computed = False

        def calculate(self, *args, **kwargs):
            if Once.computed:
                raise KeyboardInterrupt
            Once.computed = True
            super().calculate(*args, **kwargs)

    while True:
        Once.computed = False
        try:
            result, found = relax.relax(sheared_vacancy(), settings(), lambda *a, **k: Once(), tmp_path)
            break
        except KeyboardInterrupt:
            count += 1
    assert count >= summary["steps"] - 1
    assert found["steps"] == summary["steps"]
    np.testing.assert_allclose(result.positions, atoms.positions, atol=1e-9)
    np.testing.assert_allclose(result.cell.array, atoms.cell.array, atol=1e-9)


def test_a_finished_one_computes_nothing_again(unbroken, tmp_path):
    relax.relax(sheared_vacancy(), settings(), emt, tmp_path)
    lines = (tmp_path / "relax.jsonl").read_text()

    def never(*arguments, **keywords):
        raise AssertionError("computed again")

    result, _ = relax.relax(sheared_vacancy(), settings(), never, tmp_path)
    assert (tmp_path / "relax.jsonl").read_text() == lines
    np.testing.assert_allclose(result.cell.array, unbroken[0].cell.array, atol=1e-9)


def test_the_structure_of_a_condition_has_the_relaxed_cell_in_standard_orientation(root, tmp_path):
    hosts = read_hosts(root / "resources/hosts.csv")
    entry = {"kind": "vacancy", "host": "Al", "supercell": [2, 2, 2], "cell": "relaxed", "count": 2}
    table = expansion.expand(config.validate({"conditions": [entry]}), hosts)
    assert list(table) == ["al-perfect-2x2x2", "al-vacancy-x2-2x2x2-cell"]
    condition = table["al-vacancy-x2-2x2x2-cell"]
    start = build(hosts["Al"], {**condition.settings, "repeat": [1, 1, 1]})
    coarse = settings({"relax": {**FREE["relax"], "fmax": 0.02}})
    relax.relax_file(start, coarse, tmp_path / "x.extxyz", tmp_path / "x.json", None, tmp_path, emt)
    summary = json.loads((tmp_path / "x.json").read_text())
    atoms = build(hosts["Al"], condition.settings, relaxed=tmp_path / "x.extxyz")
    write_structures([atoms], tmp_path / "y.cif")  # refuses cells in any other orientation
    found = read_structures(tmp_path / "y.cif")[0]
    np.testing.assert_allclose(found.cell.lengths(), summary["cell"]["lengths"], atol=1e-6)
    np.testing.assert_allclose(found.cell.angles(), summary["cell"]["angles"], atol=1e-6)
    assert np.ptp(found.cell.lengths()) + np.ptp(found.cell.angles()) > 1e-3, "two vacancies break the cube"
    np.testing.assert_allclose(np.array(found.info["reference_cell"]) * 2, found.cell.array, atol=1e-6)


def test_defects_of_one_supercell_stand_at_the_same_sites_relaxed_and_unrelaxed(root):
    hosts = read_hosts(root / "resources/hosts.csv")
    entry = {"kind": "vacancy", "host": "Fe", "supercell": [3, 3, 3], "count": 3, "minimum_separation": 4}
    table = expansion.expand(config.validate({"conditions": [entry]}), hosts)
    relaxed, unrelaxed = table["fe-vacancy-x3-3x3x3"], table["fe-vacancy-x3-3x3x3-unrelaxed"]
    assert relaxed.settings["defect"] == unrelaxed.settings["defect"]
    atoms = build(hosts["Fe"], unrelaxed.settings)
    assert len(atoms) == 51
    other = expansion.expand(config.validate({"conditions": [entry], "seed": 5}), hosts)["fe-vacancy-x3-3x3x3"]
    assert other.settings["defect"]["seed"] != relaxed.settings["defect"]["seed"]
    with pytest.raises(config.ConfigError, match="both say how many"):
        config.validate({"conditions": [{**entry, "positions": [[0, 0, 0]]}]})
