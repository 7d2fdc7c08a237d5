"""The real GPAW at the settings of the smoke preset: seconds per test, laws and known numbers only."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from defraction.first_principles import lattice, relax
from defraction.first_principles.calculator import Ladder, calculator, settings_for
from defraction.first_principles.trajectory import WallTimeReached

AL = {"name": "Al", "crystal_structure": "fcc", "lattice_parameter": 4.0495}


def vacancy() -> Atoms:
    atoms = bulk("Al", cubic=True, a=4.045) * (2, 1, 1)
    del atoms[0]
    return atoms


def test_lattice_constant_of_aluminium(tmp_path):
    settings = settings_for("Al", "smoke", "lattice")
    lattice.compute(AL, settings, tmp_path / "Al.json", tmp_path / "Al.txt", tmp_path / "restart")
    result = json.loads((tmp_path / "Al.json").read_text())
    # All-electron PBE: 4.04 Å (Haas, Tran and Blaha 2009, 10.1103/PhysRevB.79.085104); the coarse mesh may cost 0.5 %.
    assert result["lattice_parameter"] == pytest.approx(4.040, rel=0.005)
    assert result["bulk_modulus"] == pytest.approx(77, rel=0.1)
    assert result["magnetic_moment_per_atom"] == 0
    log = (tmp_path / "Al.txt").read_text()
    assert log.count("SCF iterations") == 5, "the log holds all five volumes"


def test_vacancy_relaxes_by_symmetry_and_resumes(tmp_path):
    overrides = {"electronic": {"kpoints": [2, 4, 4]}}
    settings = settings_for("Al", "smoke", "relax", supercell=[2, 1, 1], overrides=overrides)
    with pytest.raises(WallTimeReached):
        relax.relax(vacancy(), settings, calculator, tmp_path / "resumed", walltime=0.0)
    resumed, _ = relax.relax(vacancy(), settings, calculator, tmp_path / "resumed")
    relaxed, summary = relax.relax(vacancy(), settings, calculator, tmp_path / "unbroken")

    start = vacancy().positions
    moved = relaxed.positions - start
    assert summary["history"][-1]["energy"] < summary["history"][0]["energy"]
    # Two mirror planes and the fourfold axis along x go through the vacancy: y and z are alike, and x is odd about it.
    assert np.abs(np.sort(np.abs(moved[:, 1])) - np.sort(np.abs(moved[:, 2]))).max() < 1e-6
    assert np.abs(moved[:, 0].sum()) < 1e-6
    # A chain of vacancies along y and z is a plane of them; the first-shell atoms off that plane close in on it.
    cell = relaxed.cell.lengths()
    vector = start - cell * np.round(start / cell)
    first = (np.abs(np.linalg.norm(vector, axis=1) - 4.045 / np.sqrt(2)) < 0.01) & (np.abs(vector[:, 0]) > 0.1)
    assert first.sum() == 4
    assert (moved[first, 0] * np.sign(vector[first, 0]) < -1e-3).all()
    # The resumed run starts each density from another guess: forces agree to the preset's 0.02 eV/Å, and a step is
    # force / curvature.
    assert np.abs(resumed.positions - relaxed.positions).max() < 0.02 / settings["relax"]["curvature"]


def test_the_ladder_saves_a_calculation_that_stops_too_early():
    settings = settings_for("Al", "smoke", "relax", overrides={"electronic": {"max_iterations": 4}})
    atoms = bulk("Al", cubic=True, a=4.045)
    atoms.calc = Ladder(calculator, settings, None)
    energy = atoms.get_potential_energy()
    assert atoms.calc.rung == 1
    patient = bulk("Al", cubic=True, a=4.045)
    patient.calc = Ladder(calculator, settings_for("Al", "smoke", "relax"), None)
    assert patient.calc.rung == 0
    # Energies are converged to 2 meV per valence electron, of which the cell has 12.
    assert energy == pytest.approx(patient.get_potential_energy(), abs=0.024)


def test_the_origin_of_the_calculation_changes_the_cost_not_the_result(tmp_path):
    """Carbon at a tetrahedral site: one k point about the carbon, two about the corner, the same forces."""
    settings = settings_for("Al", "smoke", "relax", elements=["C"], overrides={"electronic": {"kpoints": [2, 2, 2]}})
    atoms = bulk("Al", cubic=True, a=4.045) + Atoms("C", [np.full(3, 4.045 / 4)])
    points, forces = [], []
    for name in ("ladder", "plain"):
        with (tmp_path / name).open("w") as txt:
            atoms.calc = (Ladder if name == "ladder" else plain)(calculator, settings, txt)
            forces.append(atoms.get_forces())
        text = (tmp_path / name).read_text()
        points.append(int(text.split("Number of IBZ points:")[1].split()[0]))
    assert points == [1, 2]
    assert np.abs(forces[0][:4] - forces[1][:4]).max() < 0.05


def plain(factory, settings, txt):
    return factory(settings, None, txt)
