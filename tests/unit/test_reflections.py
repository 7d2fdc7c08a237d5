"""Tables of reflections. Structure factors against other programs are in tests/physics/test_peers.py."""

import csv
import itertools
import math

import numpy as np
import pytest
from ase import Atoms

from defraction.diffraction import geometry
from defraction.diffraction.geometry import Detector
from defraction.diffraction.reflections import COLUMNS, nodes_within, reflections, structure_factors, write_csv
from defraction.diffraction.scattering import Factors

CELL = np.array([[3.9, 0, 0], [0.7, 4.4, 0], [-0.5, 0.6, 5.1]])
DETECTOR = Detector(0.8, 64.0, 128)


@pytest.fixture
def atoms():
    points = np.random.default_rng(5).random((4, 3))
    return Atoms(["Al", "Au", "Al", "Fe"], cell=CELL, scaled_positions=points, pbc=True)


def test_structure_factor_is_the_sum_over_the_atoms(atoms):
    hkl = np.array([[0, 0, 0], [1, -2, 3], [-4, 0, 7], [0, 1, 0]])
    found = structure_factors(atoms, hkl, Factors("kirkland", {"Au": 0.6}))
    factors = Factors("kirkland", {"Au": 0.6})
    reciprocal = np.linalg.inv(CELL).T
    for (h, k, l), value in zip(hkl, found, strict=True):  # noqa: E741
        g = h * reciprocal[0] + k * reciprocal[1] + l * reciprocal[2]
        expected = 0.0
        for symbol, r in zip(atoms.get_chemical_symbols(), atoms.positions, strict=True):
            f = float(factors.of(symbol, np.linalg.norm(g)))
            expected += f * complex(math.cos(2 * math.pi * g @ r), math.sin(2 * math.pi * g @ r))
        assert value == pytest.approx(expected, abs=1e-12)


def test_many_atoms_and_a_supercell(atoms):
    # more atoms of a species than are kept at a time; a supercell lights only the nodes of its cell
    supercell = atoms * (5, 6, 7)
    assert np.bincount(supercell.numbers).max() > 256
    hkl = nodes_within(supercell.cell[:], 0.6)
    squared = np.abs(structure_factors(supercell, hkl, Factors())) ** 2
    fundamental = (hkl % [5, 6, 7] == 0).all(axis=1)
    assert squared[~fundamental].max() < 1e-20 * squared.max()
    cell = structure_factors(atoms, hkl[fundamental] // [5, 6, 7], Factors())
    assert squared[fundamental] == pytest.approx(210**2 * np.abs(cell) ** 2, rel=1e-9)


def test_every_node_inside_the_sphere_once():
    for cell in (CELL, np.diag([4.0, 4.0, 4.0]), np.array([[4.0, 0, 0], [3.0, 2.0, 0], [2.0, 1.5, 3.0]])):
        found = [tuple(h) for h in nodes_within(cell, 1.25)]
        reciprocal = np.linalg.inv(cell).T
        expected = [
            h for h in itertools.product(range(-15, 16), repeat=3) if np.linalg.norm(h @ reciprocal) <= 1.25 + 1e-12
        ]
        assert found == sorted(expected)
    assert (0, 0, 5) in map(tuple, nodes_within(np.diag([4.0] * 3), 1.25))  # on the surface


def test_table_without_a_zone_axis(atoms):
    table = reflections(atoms, 1.0, Factors())
    assert tuple(table) == COLUMNS[:7]
    assert [int(table[name][0]) for name in "hkl"] == [0, 0, 0]
    assert table["f_real_angstrom"][0] == pytest.approx(sum(Factors().of(s, 0.0) for s in atoms.get_chemical_symbols()))
    assert table["f_imag_angstrom"][0] == 0.0
    assert (np.diff(table["g_per_angstrom"]) > -1e-9).all()
    assert table["f_squared_angstrom2"] == pytest.approx(table["f_real_angstrom"] ** 2 + table["f_imag_angstrom"] ** 2)


def test_equal_lengths_are_sorted_by_indices():
    table = reflections(Atoms("Al", cell=[4.1] * 3, pbc=True), 0.5, Factors())
    family = [(h, k, l) for h, k, l in zip(*(table[i].tolist() for i in "hkl"), strict=True)][1:7]  # noqa: E741
    assert family == [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 1), (0, 1, 0), (1, 0, 0)]


def test_table_with_a_zone_axis(atoms):
    atoms.info["reference_cell"] = np.diag([4.0, 4.0, 4.0]).tolist()  # to which the zone axis refers
    rotation, tilt = 17.0, (3.0, -2.0)
    table = reflections(atoms, 1.2, Factors(), (1, 1, 2), 120.0, DETECTOR, rotation, tilt)
    assert tuple(table) == COLUMNS
    k = 1.0 / geometry.wavelength(120.0)
    frame = geometry.zone_frame(np.diag([4.0] * 3), (1, 1, 2), rotation, tilt)
    g = np.stack([table[i] for i in "hkl"], axis=1) @ np.linalg.inv(CELL).T @ frame.T
    # the point of the detector, taken back to reciprocal space, is g moved by s along the beam
    x, y = ((table[name] - 63.5) * 0.5 for name in ("x_px", "y_px"))
    q = geometry.scattering_vectors(x, y, k, 800.0)
    assert q - g == pytest.approx(table["excitation_error_per_angstrom"][:, None] * [0.0, 0.0, 1.0], abs=1e-12)
    assert table["radius_mm"] == pytest.approx(np.hypot(x, y))
    assert (table["x_px"][0], table["y_px"][0], table["radius_mm"][0]) == (63.5, 63.5, 0.0)


def test_lines_that_miss_the_sphere_have_no_position(tmp_path):
    # 0.02 kV: k = 0.36 / Å
    table = reflections(Atoms("Al", cell=[4.0] * 3, pbc=True), 0.6, Factors(), (0, 0, 1), 0.02, DETECTOR)
    missed = np.hypot(table["h"], table["k"]) / 4.0 > 1.0 / geometry.wavelength(0.02)
    assert 0 < missed.sum() < len(missed)
    for name in COLUMNS[7:]:
        assert (np.isnan(table[name]) == missed).all()
    write_csv(tmp_path / "table.csv", table)
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[7:] == [""] * 4 for row in rows[1:]] == missed.tolist()


def test_file(tmp_path, atoms):
    table = reflections(atoms, 1.0, Factors("lobato"), (0, 0, 1), 200.0, DETECTOR)
    write_csv(tmp_path / "table.csv", table)
    text = (tmp_path / "table.csv").read_text()
    assert text.splitlines()[0] == (
        "h,k,l,g_per_angstrom,f_real_angstrom,f_imag_angstrom,f_squared_angstrom2,"
        "excitation_error_per_angstrom,x_px,y_px,radius_mm"
    )
    assert text.splitlines()[1].startswith("0,0,0,0,")
    assert "-0" not in text.replace("\n", ",").split(",")
    read = np.genfromtxt(tmp_path / "table.csv", delimiter=",", names=True)
    for name in COLUMNS:
        assert read[name] == pytest.approx(table[name], rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("g_max", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_g_max(atoms, g_max):
    with pytest.raises(ValueError, match="g_max"):
        reflections(atoms, g_max, Factors())


def test_too_many_reflections():
    with pytest.raises(ValueError, match=r"g_max: 20 1/Å reaches about .* give at most 2\.[0-9]+ 1/Å"):
        nodes_within(np.diag([45.0] * 3), 20.0)
    with pytest.raises(ValueError, match="g_max"):  # counted, not listed, before any memory is taken
        nodes_within(np.diag([1e4] * 3), 5.0)


def test_what_is_missing(atoms):
    with pytest.raises(ValueError, match="voltage and a detector"):
        reflections(atoms, 1.0, Factors(), (0, 0, 1), 200.0)
    with pytest.raises(ValueError, match="hkl"):
        structure_factors(atoms, np.array([[0.5, 0.0, 0.0]]), Factors())
    with pytest.raises(ValueError, match="no atoms"):
        reflections(Atoms(cell=CELL), 1.0, Factors())
