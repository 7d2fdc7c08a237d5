"""Hooke's law of the anisotropic crystal, and cells that deform as docs/conventions.md says."""

import json
from pathlib import Path

import numpy as np
import pytest

from defraction.defects.strain import (
    COMPONENTS,
    biaxial_strain,
    build,
    cubic_stiffness,
    deform,
    strain_from_settings,
    strain_from_stress,
    strain_tensor,
    strain_with_one_component,
    stress_from_strain,
    voigt,
)
from defraction.hosts import read_hosts, unit_cell
from defraction.orientation import check_standard_orientation
from defraction.structures import read_structures, write_structures

HOSTS = read_hosts(Path(__file__).parents[2] / "resources" / "hosts.csv")
PLANES = [[0, 0, 1], [1, 1, 0], [1, 1, 1], [1, -1, 2], [3, 1, -2]]


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


def stiffness_of(name):
    return cubic_stiffness(HOSTS[name].c11, HOSTS[name].c12, HOSTS[name].c44)


@pytest.mark.parametrize("name", HOSTS)
def test_every_host_yields_to_a_stress_as_its_compliances_say(name):
    """s11, s12 and s44 of a cubic crystal in closed form, against six components of stress at once."""
    host = HOSTS[name]
    s11 = (host.c11 + host.c12) / ((host.c11 - host.c12) * (host.c11 + 2 * host.c12))
    s12 = -host.c12 / ((host.c11 - host.c12) * (host.c11 + 2 * host.c12))
    stress = np.array([0.4, -0.2, 0.1, 0.05, -0.03, 0.02]) * host.c44 / 30
    expected = [s11 * s + s12 * (stress[:3].sum() - s) for s in stress[:3]] + list(stress[3:] / host.c44)
    atoms = build(host, {"mode": "stress", "stress": dict(zip(COMPONENTS, stress.tolist(), strict=True))})
    assert voigt(atoms.info["deformation"]["strain"]) == pytest.approx(np.array(expected), rel=1e-9)
    xx, yy, zz, yz, xz, xy = stress
    assert np.allclose(atoms.info["deformation"]["stress"], [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], rtol=1e-9)


def test_pressure_compresses_by_the_bulk_modulus():
    host = HOSTS["Cu"]
    bulk_modulus = (host.c11 + 2 * host.c12) / 3
    pressed = build(host, {"mode": "stress", "pressure": 2.0})
    assert np.allclose(pressed.cell, np.eye(3) * host.lattice_parameter * (1 - 2.0 / (3 * bulk_modulus)))
    by_components = build(host, {"mode": "stress", "stress": {"xx": -2.0, "yy": -2.0, "zz": -2.0}})
    assert np.allclose(pressed.cell, by_components.cell)
    swollen = build(host, {"mode": "hydrostatic", "value": 0.01})
    assert np.allclose(swollen.cell, np.eye(3) * host.lattice_parameter * 1.01)
    assert np.allclose(swollen.info["deformation"]["stress"], 3 * bulk_modulus * 0.01 * np.eye(3))


@pytest.mark.parametrize("plane", PLANES)
def test_a_film_is_stretched_in_its_plane_and_free_on_it(stiffness, plane):
    strain = biaxial_strain(stiffness, 0.012, plane)
    normal = np.array(plane) / np.linalg.norm(plane)
    in_plane = np.linalg.svd(normal[None])[2][1:]
    assert np.allclose(in_plane @ strain @ in_plane.T, 0.012 * np.eye(2), atol=1e-15)
    traction = stress_from_strain(stiffness, strain) @ normal
    assert np.abs(traction).max() < 1e-12 * np.abs(stiffness).max()
    assert np.allclose(strain, strain.T)


@pytest.mark.parametrize("name", HOSTS)
def test_the_normal_strain_of_films_in_closed_form(name):
    host = HOSTS[name]
    c11, c12, c44 = host.c11, host.c12, host.c44
    closed = {
        (0, 0, 1): -2 * c12 / c11,
        (1, 1, 0): -(c11 + 3 * c12 - 2 * c44) / (c11 + c12 + 2 * c44),
        (1, 1, 1): -2 * (c11 + 2 * c12 - 2 * c44) / (c11 + 2 * c12 + 4 * c44),
    }
    for plane, ratio in closed.items():
        atoms = build(host, {"mode": "biaxial", "value": -0.01, "plane": list(plane)})
        normal = np.array(plane) / np.linalg.norm(plane)
        strain = np.array(atoms.info["deformation"]["strain"])
        assert normal @ strain @ normal == pytest.approx(-0.01 * ratio, rel=1e-9)
        assert np.allclose(strain @ normal, (normal @ strain @ normal) * normal)  # no shear on planes of symmetry
    tetragonal = build(host, {"mode": "biaxial", "value": 0.02}).cell
    assert tetragonal.lengths() == pytest.approx(host.lattice_parameter * np.array([1.02, 1.02, 1 - 0.04 * c12 / c11]))


def test_a_tensor_in_full_is_the_strain():
    tensor = strain_tensor([0.01, -0.02, 0.005, 0.004, -0.006, 0.03])
    components = dict(zip(COMPONENTS, voigt(tensor).tolist(), strict=True))
    atoms = build(HOSTS["Fe"], {"mode": "tensor", "tensor": components})
    assert np.allclose(atoms.info["deformation"]["strain"], tensor)
    assert np.allclose(atoms.cell, deform(unit_cell(HOSTS["Fe"]), tensor).cell)
    del components["yy"]
    partly = build(HOSTS["Fe"], {"mode": "tensor", "tensor": components})
    assert np.allclose(partly.info["deformation"]["strain"], tensor + np.diag([0, 0.02, 0]))


def test_computed_elastic_constants_take_the_place_of_the_measured_ones(tmp_path):
    """Poisson's ratio of a crystal under uniaxial stress is theirs, the lattice parameter is the table's."""
    constants = {"c11": 200.0, "c12": 50.0, "c44": 75.0}
    (tmp_path / "Al.json").write_text(json.dumps({**constants, "lattice_parameter": 9.9}))
    settings = {"component": "xx", "value": 0.02, "elastic": "gpaw"}
    atoms = build(HOSTS["Al"], settings, elastic=tmp_path / "Al.json")
    lengths = atoms.cell.lengths() / HOSTS["Al"].lattice_parameter - 1
    assert lengths == pytest.approx([0.02, -0.02 * 50 / 250, -0.02 * 50 / 250])
    assert atoms.info["deformation"]["constants"] == constants
    assert "constants" not in build(HOSTS["Al"], {"component": "xx", "value": 0.02}).info["deformation"]
    sheared = build(HOSTS["Al"], {**settings, "component": "xy"}, elastic=tmp_path / "Al.json")
    assert sheared.info["deformation"]["stress"][0][1] == pytest.approx(75.0 * 0.02)
    for wrong, file in ((settings, None), ({"component": "xx", "value": 0.02}, tmp_path / "Al.json")):
        with pytest.raises(ValueError, match="elastic: gpaw, and no other"):
            build(HOSTS["Al"], wrong, elastic=file)


def test_the_deformed_cell_goes_with_the_structure(tmp_path):
    atoms = build(HOSTS["Al"], {"component": "xy", "value": 0.02})
    state = atoms.info["deformation"]
    assert state["lengths"] == pytest.approx(atoms.cell.lengths())
    assert state["angles"] == pytest.approx(atoms.cell.angles())
    assert state["stress"][0][1] == pytest.approx(HOSTS["Al"].c44 * 0.02)
    write_structures([atoms], tmp_path / "x.cif", tmp_path / "x.extxyz", {"deformation": state})
    assert read_structures(tmp_path / "x.extxyz")[0].info["deformation"] == state
    for name in ("x.cif", "x.extxyz"):
        assert read_structures(tmp_path / name)[0].info["origin"] == {"deformation": state}


@pytest.mark.parametrize(("c11", "c12", "c44"), [(100, 120, 50), (100, -60, 50), (100, 50, 0)])
def test_unstable_elastic_constants_are_refused(c11, c12, c44):
    with pytest.raises(ValueError, match="not those of a stable crystal"):
        strain_from_settings(cubic_stiffness(c11, c12, c44), {"mode": "hydrostatic", "value": 0.01})


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"mode": "biaxal", "value": 0.01}, "did you mean biaxial"),
        ({"mode": "biaxial"}, "needs the setting value"),
        ({"mode": "biaxial", "value": 0.01, "plane": [0, 0, 0]}, "not all zero"),
        ({"mode": "biaxial", "value": 0.01, "plane": "001"}, "3 finite numbers"),
        ({"mode": "biaxial", "value": 0.01, "component": "xx"}, "takes value and plane, not component"),
        ({"mode": "biaxial", "value": 0.19}, "beyond 20%"),
        ({"mode": "hydrostatic", "value": 1}, "beyond 20%"),
        ({"mode": "stress"}, "either stress or pressure"),
        ({"mode": "stress", "stress": {"xx": 1}, "pressure": 1}, "either stress or pressure"),
        ({"mode": "stress", "stress": {"x": 1}}, "unknown strain component 'x'"),
        ({"mode": "stress", "stress": [1, 2, 3, 4, 5, 6]}, "needs the setting stress, components such as"),
        ({"mode": "stress", "stress": {"xx": 50}}, "beyond 20%"),
        ({"mode": "tensor"}, "needs the setting tensor"),
        ({"mode": "tensor", "tensor": {"xz": "much"}}, "must be a number"),
        ({"mode": "tensor", "tensor": {"zz": 0.3}}, "beyond 20%"),
        ({"component": "xx", "value": "much"}, "must be a number"),
        ({"component": "zx", "value": 0.01}, "unknown strain component 'zx'"),
        ({"component": "xx", "value": 2.0}, "beyond 20%"),
        ({"component": "xx", "value": float("nan")}, "finite number"),
        ({"component": "xx"}, "both component and value"),
        ({"component": "xx", "value": 0.01, "repeat": [4, 0, 2]}, "repeat"),
    ],
)
def test_impossible_settings_are_refused(settings, fault):
    with pytest.raises(ValueError, match=fault):
        build(HOSTS["Al"], settings)
