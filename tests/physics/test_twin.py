"""Twins: one mirror plane of atoms, Sigma 3, no other fault, and a control of the same outline."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from defraction.defects.twin import build, build_control
from defraction.hosts import BASIS, read_hosts
from defraction.structures import check_standard_orientation

HOSTS = read_hosts(Path(__file__).parents[2] / "resources" / "hosts.csv")
SETTINGS = {"size": [160.0, 120.0, 80.0]}
INDICES = {"Al": ([1, 1, 1], [1, 1, -2], [-1, 1, 0]), "Fe": ([1, -2, 1], [1, 1, 1], [-1, 0, 1])}


@pytest.fixture(params=["Al", "Fe"])
def host(request):
    return HOSTS[request.param]


def plane_numbers(atoms):
    heights = np.unique(np.round(atoms.positions[:, 1], 6))
    return np.abs(atoms.positions[:, 1][:, None] - heights[None]).argmin(axis=1), heights


def extended(atoms):
    """The atoms with three neighbouring periods on every side in the plane."""
    shifts = [[i * atoms.cell[0, 0], 0, k * atoms.cell[2, 2]] for i in range(-3, 4) for k in range(-3, 4)]
    return np.concatenate([atoms.positions + np.array(shift) for shift in shifts])


def bonds(atoms, index, reach):
    vectors = extended(atoms) - atoms.positions[index]
    lengths = np.linalg.norm(vectors, axis=1)
    return vectors[(lengths > 1e-6) & (lengths < reach)]


def same_set(first, second):
    return len(first) == len(second) and cKDTree(first).query(second)[0].max() < 1e-6


def test_the_frame_is_the_published_one(host):
    """Plane normal along y, twinning direction along x, the article's beam direction along z."""
    atoms = build(host, SETTINGS)
    check_standard_orientation(atoms)
    normal, direction, beam = (np.array(index) @ np.array(atoms.info["reference_cell"]) for index in INDICES[host.name])
    assert np.dot(INDICES[host.name][0], INDICES[host.name][1]) == 0
    assert direction / np.linalg.norm(direction) == pytest.approx([1, 0, 0], abs=1e-12)
    assert normal / np.linalg.norm(normal) == pytest.approx([0, 1, 0], abs=1e-12)
    assert np.abs(beam / np.linalg.norm(beam)) == pytest.approx([0, 0, 1], abs=1e-12)


def test_the_boundary_is_a_mirror_plane_of_atoms(host):
    atoms = build(host, SETTINGS)
    middle = atoms.cell[1, 1] / 2
    plane, heights = plane_numbers(atoms)
    assert len(heights) % 2 == 1
    assert heights[len(heights) // 2] == pytest.approx(middle, abs=1e-6)
    assert np.allclose(np.diff(heights), heights[1] - heights[0], atol=2e-6)
    mirrored = atoms.positions * [1, -1, 1] + [0, 2 * middle, 0]
    assert same_set(mirrored, atoms.positions)
    # planes hold the same number of atoms: the boundary plane is shared, not doubled
    assert len(set(np.bincount(plane))) == 1


def test_below_is_the_matrix_and_above_its_mirror_image(host):
    atoms = build(host, SETTINGS)
    reach = 1.05 * host.lattice_parameter
    cube = np.array(atoms.info["reference_cell"])
    corners = np.array(list(np.ndindex(5, 5, 5))) / 2 - 1
    whole = (corners % 1 == 0).all(axis=1)
    if host.crystal_structure == "bcc":
        lattice = corners[whole | (corners % 1 == 0.5).all(axis=1)] @ cube
    else:
        lattice = corners[(2 * corners).sum(axis=1) % 2 == 0] @ cube
    lengths = np.linalg.norm(lattice, axis=1)
    expected = lattice[(lengths > 0) & (lengths < reach)]
    plane, heights = plane_numbers(atoms)
    below, above = np.flatnonzero(plane == 10)[0], np.flatnonzero(plane == len(heights) - 11)[0]
    assert same_set(bonds(atoms, below, reach), expected)
    assert same_set(bonds(atoms, above, reach), expected * [1, -1, 1])
    assert not same_set(expected, expected * [1, -1, 1])


def test_every_third_lattice_point_is_common_to_both_grains(host):
    """Sigma 3: of the points of the matrix lattice near the origin, one in three is a point of the twin's lattice."""
    cube = np.array(build(host, SETTINGS).info["reference_cell"])
    twin = cube * [1, -1, 1]
    n = 12
    points = np.array(list(np.ndindex(2 * n, 2 * n, 2 * n))) - n
    points = np.concatenate([points + np.array(site) for site in BASIS[host.crystal_structure]])
    in_twin = np.round(2 * (points @ cube) @ np.linalg.inv(twin), 6)
    doubled = np.round(in_twin)
    whole = np.abs(in_twin - doubled).max(axis=1) < 1e-5
    if host.crystal_structure == "bcc":
        belongs = whole & ((doubled % 2 == 0).all(axis=1) | (doubled % 2 == 1).all(axis=1))
    else:
        belongs = whole & (doubled.sum(axis=1) % 2 == 0)
    assert belongs.mean() == pytest.approx(1 / 3, abs=0.01)  # the finite box cuts periods of three


def test_stacking_in_aluminium_has_one_twin_plane_and_no_fault():
    """A (111) plane is hcp-like where the planes above and below lie over each other: once, at the boundary."""
    atoms = build(HOSTS["Al"], SETTINGS)
    plane, heights = plane_numbers(atoms)
    stacking = []
    for number in range(len(heights)):
        x, z = atoms.positions[plane == number][0, [0, 2]] / atoms.cell.lengths()[[0, 2]]
        stacking.append(round(3 * (x - z)) % 3)  # the same for both atoms of the centred rectangle
    assert set(stacking) == {0, 1, 2}
    assert all(one != two for one, two in pairwise(stacking))
    hexagonal = [k for k in range(1, len(stacking) - 1) if stacking[k - 1] == stacking[k + 1]]
    assert hexagonal == [len(heights) // 2]


def test_no_atoms_are_too_close(host):
    """fcc: all twelve neighbours kept. bcc: the planes beside the boundary face each other at 2 a / sqrt(6)."""
    atoms = build(host, SETTINGS)
    distances = cKDTree(extended(atoms)).query(atoms.positions, k=2)[0][:, 1]
    shortest = {"fcc": host.nearest_neighbour, "bcc": 2 * host.lattice_parameter / np.sqrt(6)}[host.crystal_structure]
    assert distances.min() == pytest.approx(shortest)
    if host.crystal_structure == "fcc":
        plane, heights = plane_numbers(atoms)
        for index in np.flatnonzero(plane == len(heights) // 2):
            assert len(bonds(atoms, index, 1.2 * host.nearest_neighbour)) == 12


def test_the_control_has_the_same_outline_and_no_boundary(host):
    atoms, control = build(host, SETTINGS), build_control(host, SETTINGS)
    assert len(atoms) == len(control)
    assert np.allclose(atoms.cell, control.cell)
    assert atoms.info == control.info
    assert atoms.pbc.tolist() == [True, False, True]
    assert np.abs(atoms.cell.lengths() * atoms.info["repeat"] - SETTINGS["size"]).max() < 3
    assert atoms.info["repeat"][1] == 1
    # one and the same surroundings everywhere inside the control
    reach = 1.05 * host.lattice_parameter
    plane, heights = plane_numbers(control)
    inner = np.flatnonzero((plane > 5) & (plane < len(heights) - 6))
    first = bonds(control, inner[0], reach)
    assert all(same_set(bonds(control, index, reach), first) for index in inner)
    for piece in (atoms, control):
        assert piece.positions[:, 1].min() == pytest.approx((heights[1] - heights[0]) / 2, abs=1e-5)
        assert piece.positions[:, 1].max() == pytest.approx(piece.cell[1, 1] - (heights[1] - heights[0]) / 2, abs=1e-5)


def test_impossible_settings_are_refused():
    for size in (None, [100, 100], [100, 0, 100]):
        with pytest.raises(ValueError, match="three positive lengths"):
            build(HOSTS["Al"], {"size": size})
    with pytest.raises(ValueError, match="no plane beside the boundary"):
        build(HOSTS["Al"], {"size": [100, 2, 100]})
    with pytest.raises(ValueError, match="fcc and bcc hosts"):
        build(replace(HOSTS["Al"], crystal_structure="hcp"), SETTINGS)
