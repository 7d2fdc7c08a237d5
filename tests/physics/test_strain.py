"""Hooke's law of the anisotropic crystal, and cells that deform as docs/conventions.md says."""

from pathlib import Path

import numpy as np
import pytest

from defraction.defects.strain import (
    COMPONENTS,
    build,
    cubic_stiffness,
    deform,
    strain_from_stress,
    strain_with_one_component,
)
from defraction.hosts import read_hosts, unit_cell
from defraction.structures import check_standard_orientation

HOSTS = read_hosts(Path(__file__).parents[2] / "resources" / "hosts.csv")


def voigt(strain):
    return np.array([*np.diag(strain), 2 * strain[1, 2], 2 * strain[0, 2], 2 * strain[0, 1]])


@pytest.fixture(params=["cubic", "triclinic"])
def stiffness(request):
    if request.param == "cubic":
        return cubic_stiffness(107.3, 60.8, 28.3)
    square = np.random.default_rng(0).normal(size=(6, 6))
    return square @ square.T + 5 * np.eye(6)  # any positive definite matrix is a possible crystal


@pytest.mark.parametrize("component", COMPONENTS)
def test_all_other_stresses_vanish(stiffness, component):
    strain = strain_with_one_component(stiffness, component, 0.013)
    stress = stiffness @ voigt(strain)
    index = COMPONENTS.index(component)
    assert voigt(strain)[index] == pytest.approx(0.013)
    assert stress[index] > 0
    assert np.abs(np.delete(stress, index)).max() < 1e-12 * np.abs(stiffness).max()
    assert np.allclose(strain_from_stress(stiffness, stress), strain)


@pytest.mark.parametrize(("name", "poisson", "young"), [("Al", 0.362, 63.0), ("Fe", 0.369, 132.0)])
def test_moduli_along_the_cube_axis(name, poisson, young):
    """nu = c12 / (c11 + c12) and E = (c11 - c12)(c11 + 2 c12) / (c11 + c12), to the digits known."""
    host = HOSTS[name]
    matrix = cubic_stiffness(host.c11, host.c12, host.c44)
    strain = strain_from_stress(matrix, [1, 0, 0, 0, 0, 0])
    assert 1 / strain[0, 0] == pytest.approx(young, abs=0.5)
    assert -strain[1, 1] / strain[0, 0] == pytest.approx(poisson, abs=5e-4)
    atoms = build(host, {"component": "xx", "value": 0.02})
    lengths = atoms.cell.lengths() / host.lattice_parameter - 1
    assert lengths[0] == pytest.approx(0.02)
    assert lengths[1:] == pytest.approx([-0.02 * poisson] * 2, abs=2e-5)
    assert atoms.cell.angles() == pytest.approx([90, 90, 90])


def test_hydrostatic_stress_gives_the_bulk_modulus():
    strain = strain_from_stress(cubic_stiffness(107.3, 60.8, 28.3), [1, 1, 1, 0, 0, 0])
    assert np.allclose(strain, np.eye(3) / (107.3 + 2 * 60.8))


@pytest.mark.parametrize(("component", "angle"), [("yz", 0), ("xz", 1), ("xy", 2)])
@pytest.mark.parametrize("value", [0.03, -0.03])
def test_positive_shear_closes_the_angle(component, angle, value):
    """Both vectors turn by atan(gamma/2) towards each other: 90 deg - gamma up to gamma^3/12."""
    atoms = build(HOSTS["Al"], {"component": component, "value": value})
    angles = np.radians(90 - atoms.cell.angles())
    assert angles[angle] == pytest.approx(2 * np.arctan(value / 2), abs=1e-12)
    assert np.delete(angles, angle) == pytest.approx([0, 0], abs=1e-12)
    reciprocal = atoms.cell.reciprocal().angles()
    assert (reciprocal[angle] > 90) == (value > 0)


def test_the_cell_deforms_by_one_plus_strain_and_is_turned_only():
    rng = np.random.default_rng(1)
    strain = rng.uniform(-0.05, 0.05, (3, 3))
    strain = (strain + strain.T) / 2
    unit = unit_cell(HOSTS["Fe"])
    atoms = deform(unit, strain)
    check_standard_orientation(atoms)
    metric = np.asarray(atoms.cell) @ np.asarray(atoms.cell).T / unit.cell[0, 0] ** 2
    stretch = np.eye(3) + strain
    assert np.allclose(metric, stretch @ stretch)
    assert np.allclose(atoms.info["reference_cell"], atoms.cell)
    assert np.allclose(atoms.get_scaled_positions(), unit.get_scaled_positions())


def test_no_strain_is_the_control():
    control = build(HOSTS["Fe"], {"repeat": [4, 3, 2]})
    zero = build(HOSTS["Fe"], {"component": "xy", "value": 0.0, "repeat": [4, 3, 2]})
    assert np.allclose(control.cell, zero.cell, atol=1e-14)
    assert np.allclose(control.positions, zero.positions, atol=1e-14)
    assert control.info["repeat"] == zero.info["repeat"] == [4, 3, 2]
    assert zero.get_initial_magnetic_moments().tolist() == [2.2, 2.2]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"component": "zx", "value": 0.01}, "unknown strain component 'zx'"),
        ({"component": "xx", "value": 2.0}, "beyond 20%"),
        ({"component": "xx", "value": float("nan")}, "beyond 20%"),
        ({"component": "xx"}, "both component and value"),
        ({"component": "xx", "value": 0.01, "repeat": [4, 0, 2]}, "repeat"),
    ],
)
def test_impossible_settings_are_refused(settings, fault):
    with pytest.raises(ValueError, match=fault):
        build(HOSTS["Al"], settings)
