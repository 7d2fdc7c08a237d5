"""Twins: one mirror plane of atoms, Sigma 3, no other fault, and a control of the same outline."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from defraction.defects.dislocation import neighbour_kinds
from defraction.defects.twin import FRAMES, build, build_control
from defraction.hosts import BASIS, read_hosts
from defraction.orientation import check_standard_orientation

HOSTS = read_hosts(Path(__file__).parents[2] / "resources" / "hosts.csv")
SETTINGS = {"size": [160.0, 120.0, 80.0]}
CUBIC = [name for name, host in HOSTS.items() if host.crystal_structure in FRAMES]
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
        spacing = heights[1] - heights[0]  # left out above and below, so that images face each other across a plane
        assert piece.positions[:, 1].min() == pytest.approx(spacing, abs=1e-5)
        assert piece.positions[:, 1].max() == pytest.approx(piece.cell[1, 1] - spacing, abs=1e-5)


def test_impossible_settings_are_refused():
    for size in (None, [100, 100], [100, 0, 100]):
        with pytest.raises(ValueError, match="three positive lengths"):
            build(HOSTS["Al"], {"size": size})
    with pytest.raises(ValueError, match="no plane beside the boundary"):
        build(HOSTS["Al"], {"size": [100, 2, 100]})
    with pytest.raises(ValueError, match="fcc and bcc hosts"):
        build(replace(HOSTS["Al"], crystal_structure="hcp"), SETTINGS)


@pytest.fixture(params=[(name, planes) for name in CUBIC for planes in (2, 8)], ids=lambda pair: f"{pair[0]}-{pair[1]}")
def stack(request):
    """A host, a stack of five lamellae, its control, planes from boundary to boundary, and the planes' distance."""
    name, planes = request.param
    host = HOSTS[name]
    vectors, per_period = FRAMES[host.crystal_structure]
    spacing = host.lattice_parameter * np.linalg.norm(vectors[1]) / per_period
    settings = {"size": [30.0, (5 * planes - 1) * spacing, 30.0], "thickness": planes * spacing}
    return host, build(host, settings), build_control(host, settings), planes, spacing


def test_a_stack_alternates_between_matrix_and_twin(stack):
    host, atoms, control, planes, spacing = stack
    check_standard_orientation(atoms)
    boundaries = np.array(atoms.info["boundaries"])
    assert len(boundaries) == 4
    assert np.allclose(np.diff(boundaries), planes * spacing)
    # the outermost lamellae are as thick as the others, their last plane left out at the faces
    assert boundaries[0] == pytest.approx(planes * spacing)
    assert atoms.cell[1, 1] - boundaries[-1] == pytest.approx(planes * spacing)
    plane, heights = plane_numbers(atoms)
    assert len(heights) == 5 * planes - 1
    assert np.allclose(np.diff(heights), spacing, atol=2e-6)
    assert len(set(np.bincount(plane))) == 1
    # the same cell, and the matrix's reference cell, as the single crystal of as many atoms
    assert len(control) == len(atoms)
    assert np.allclose(control.cell, atoms.cell)
    assert control.info["reference_cell"] == atoms.info["reference_cell"]
    assert control.info["repeat"] == atoms.info["repeat"]
    assert "boundaries" not in control.info
    # the step from plane to plane is that of the matrix, then reversed, and so on
    reach = 1.05 * host.lattice_parameter
    deep = planes // 2  # the middle of a lamella: its neighbours within reach see no more than two planes away
    if planes > 4:
        expected = bonds(control, np.flatnonzero(plane_numbers(control)[0] == 10)[0], reach)
        for number in range(5):
            index = np.flatnonzero(plane == number * planes + deep - 1)[0]
            assert same_set(bonds(atoms, index, reach), expected * [1, 1 if number % 2 == 0 else -1, 1])


def test_every_boundary_of_a_stack_is_a_mirror(stack):
    """The part of the stack that reaches equally far to both sides of a boundary is its own mirror image."""
    _, atoms, _, planes, _ = stack
    for boundary in atoms.info["boundaries"]:
        distance = atoms.positions[:, 1] - boundary
        reach = min(boundary, atoms.cell[1, 1] - boundary)
        near = atoms.positions[np.abs(distance) < reach - 1e-6]
        assert len(near) >= (2 * planes - 1) * (len(atoms) // (5 * planes - 1))
        assert same_set(near * [1, -1, 1] + [0, 2 * boundary, 0], near)


def test_boundaries_of_a_stack_are_coherent(stack):
    """No atoms too close; in fcc twelve neighbours everywhere, hcp-like in the boundary planes and there only."""
    host, atoms, _, _, spacing = stack
    distances = cKDTree(extended(atoms)).query(atoms.positions, k=2)[0][:, 1]
    shortest = {"fcc": host.nearest_neighbour, "bcc": 2 * host.lattice_parameter / np.sqrt(6)}[host.crystal_structure]
    assert distances.min() == pytest.approx(shortest)
    kinds = neighbour_kinds(atoms)
    y = atoms.positions[:, 1]
    inner = (y > 1.9 * spacing) & (y < atoms.cell[1, 1] - 1.9 * spacing)
    at_boundary = np.abs(y[:, None] - atoms.info["boundaries"]).min(axis=1) < 0.1 * spacing
    if host.crystal_structure == "fcc":
        assert (kinds[inner & at_boundary] == "hcp").all()
        assert (kinds[inner & ~at_boundary] == "fcc").all()
    else:
        assert (kinds[at_boundary] == "other").all()


@pytest.mark.parametrize("name", CUBIC)
def test_every_host_takes_a_single_boundary(name):
    """The bicrystal is the stack of two lamellae."""
    host = HOSTS[name]
    size = [30.0, 60.0, 30.0]
    atoms = build(host, {"size": size})
    vectors, per_period = FRAMES[host.crystal_structure]
    spacing = host.lattice_parameter * np.linalg.norm(vectors[1]) / per_period
    planes = round(atoms.cell[1, 1] / spacing) // 2
    two = build(host, {"size": size, "thickness": planes * spacing})
    assert two.info["boundaries"] == pytest.approx([atoms.cell[1, 1] / 2])
    assert same_set(two.positions, atoms.positions)
    distances = cKDTree(extended(atoms)).query(atoms.positions, k=2)[0][:, 1]
    assert distances.min() > 0.94 * host.nearest_neighbour


def test_lamellae_without_a_plane_between_boundaries_are_refused():
    with pytest.raises(ValueError, match="no plane between boundaries"):
        build(HOSTS["Al"], {"size": [30, 60, 30], "thickness": 2.5})
