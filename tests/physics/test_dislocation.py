"""Edge dislocations: the elastic field obeys its laws, and the atoms hold the Burgers vectors they should."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from defraction.defects.dislocation import (
    FRAMES,
    METHODS,
    build,
    build_control,
    burgers_vector,
    edge_displacement,
    rotate_stiffness,
)
from defraction.defects.strain import cubic_stiffness
from defraction.hosts import read_hosts
from defraction.structures import check_standard_orientation

HOSTS = read_hosts(Path(__file__).parents[2] / "resources" / "hosts.csv")
SETTINGS = {"count": 4, "spacing": 32.0, "size": [160.0, 120.0], "line_repeat": 16}


def stiffness_in_frame(host):
    return rotate_stiffness(cubic_stiffness(host.c11, host.c12, host.c44), FRAMES[host.crystal_structure])


def points_around_the_line(seed, n=200):
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(-np.pi, np.pi, n), rng.uniform(2, 50, n)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def images_along_the_line(atoms):
    return np.concatenate([atoms.positions + np.array([0, 0, k * atoms.cell[2, 2]]) for k in (-1, 0, 1)])


@pytest.mark.parametrize("poisson", [0.2, 0.345])
def test_isotropic_limit(poisson):
    """Hirth and Lothe (1982), eq. 3-45 and 3-46, up to a rigid shift.

    The solver itself moves the stiffness by 1e-4 to separate the roots, and the field answers in proportion.
    """
    mu, b = 30.0, 2.86
    lame = 2 * mu * poisson / (1 - 2 * poisson)
    stiffness = rotate_stiffness(cubic_stiffness(lame + 2 * mu, lame, mu), FRAMES["fcc"])
    points = points_around_the_line(0)
    x, y = points.T
    r2 = x**2 + y**2
    expected = np.zeros((len(points), 3))
    expected[:, 0] = b / (2 * np.pi) * (np.arctan2(y, x) + x * y / (2 * (1 - poisson) * r2))
    expected[:, 1] = -b / (8 * np.pi * (1 - poisson)) * ((1 - 2 * poisson) * np.log(r2) + (x**2 - y**2) / r2)
    difference = edge_displacement(points, [b, 0, 0], stiffness) - expected
    assert np.abs(difference - difference.mean(axis=0)).max() < 2e-4 * b


@pytest.mark.parametrize("name", ["Al", "Fe"])
def test_the_field_is_in_equilibrium_and_jumps_by_the_burgers_vector(name):
    stiffness = stiffness_in_frame(HOSTS[name])
    burgers = np.array([2.8, -0.3, 1.1])  # a mixed dislocation tests every component
    h = 1e-3

    def field(points):
        return edge_displacement(points, burgers, stiffness)

    points = points_around_the_line(1)
    points = points[np.abs(points[:, 1]) > 0.1]  # away from the cut
    steps = h * np.eye(2)
    second = np.zeros((len(points), 3, 2, 2))
    for i in range(2):
        for j in range(2):
            second[:, :, i, j] = (
                field(points + steps[i] + steps[j])
                - field(points + steps[i] - steps[j])
                - field(points - steps[i] + steps[j])
                + field(points - steps[i] - steps[j])
            ) / (4 * h**2)
    force = np.einsum("ijkl,nklj->ni", stiffness[:, :2, :, :2], second)
    # Single terms are of the order of stiffness * b / r^2; differences of step h leave rounding of 1e-16 / h^2.
    scale = stiffness.max() * np.linalg.norm(burgers) / (points**2).sum(axis=1)
    assert (np.linalg.norm(force, axis=1) < 1e-4 * scale + 1e-16 / h**2 * stiffness.max() * 100).all()

    left = np.column_stack([np.linspace(-40, -1, 20), np.full(20, 1e-9)])
    right = left * [-1, 1]
    below = [1, -1]
    assert np.allclose(field(left) - field(left * below), burgers, atol=1e-6)
    assert np.allclose(field(right) - field(right * below), 0, atol=1e-6)


def test_rotated_stiffness_is_the_same_crystal():
    host = HOSTS["Fe"]
    axes = FRAMES["bcc"]
    rotated = stiffness_in_frame(host)
    assert np.allclose(rotated, rotated.transpose(2, 3, 0, 1))
    assert np.einsum("iijj", rotated) == pytest.approx(3 * host.c11 + 6 * host.c12)
    # stiffness for stretching along [111], here x: (c11 + 2 c12 + 4 c44) / 3
    assert axes[0] == pytest.approx([0.5, 0.5, 0.5])
    assert rotated[0, 0, 0, 0] == pytest.approx((host.c11 + 2 * host.c12 + 4 * host.c44) / 3)


@pytest.fixture(scope="module", params=[(name, method) for name in ("Al", "Fe") for method in METHODS])
def block(request):
    name, method = request.param
    return HOSTS[name], build(HOSTS[name], {**SETTINGS, "method": method}), method


def test_circuits_through_the_atoms_find_every_burgers_vector(block):
    host, atoms, _ = block
    width, height, _ = atoms.cell.lengths()
    b = np.array([host.lattice_parameter * np.linalg.norm(FRAMES[host.crystal_structure][0]), 0, 0])
    assert np.allclose(atoms.info["burgers_vector"], b)
    assert len(atoms.info["dislocations"]) == 4
    around_all = (8, width - 8, 10, height - 10)
    assert np.allclose(burgers_vector(atoms, around_all), 4 * b, atol=1e-9)
    for x, y in atoms.info["dislocations"]:
        assert np.allclose(burgers_vector(atoms, (x - 15, x + 15, y - 20, y + 20)), b, atol=1e-9)
        assert np.allclose(burgers_vector(atoms, (x - 15, x + 15, y + 8, y + 45)), 0, atol=1e-9)
        assert np.allclose(burgers_vector(atoms, (x - 15, x + 15, y - 45, y - 8)), 0, atol=1e-9)
    control = build_control(host, SETTINGS)
    assert np.allclose(burgers_vector(control, around_all), 0, atol=1e-9)


def test_a_circuit_may_not_cross_a_core():
    atoms = build(HOSTS["Al"], SETTINGS)
    x, y = atoms.info["dislocations"][1]
    with pytest.raises(ValueError, match="core"):
        for shift in np.linspace(-3, 3, 7):
            burgers_vector(atoms, (x + shift, x + 15, y - 20, y + 20))


def test_the_block_is_a_sensible_piece_of_crystal(block):
    host, atoms, method = block
    control = build_control(host, SETTINGS)
    check_standard_orientation(atoms)
    assert np.allclose(atoms.cell, control.cell)
    assert np.allclose(atoms.info["reference_cell"], control.info["reference_cell"])
    assert atoms.info["repeat"] == control.info["repeat"] == [1, 1, 16]
    for piece in (atoms, control):
        fractions = piece.cell.scaled_positions(piece.positions)
        assert fractions.min() >= 0
        assert fractions.max() < 1
        assert piece.pbc.tolist() == [False, False, True]
        # no two atoms closer than 0.75 neighbour distances, even across the outline
        tree = cKDTree(piece.positions, boxsize=piece.cell.lengths())
        assert tree.query(piece.positions, k=2)[0][:, 1].min() > 0.75 * host.nearest_neighbour
        # the outline is filled: atoms within one plane's distance of each of its sides
        assert piece.positions[:, 0].min() < 2
        assert piece.positions[:, 0].max() > piece.cell[0, 0] - 3
        assert piece.positions[:, 1].min() < 3
        assert piece.positions[:, 1].max() > piece.cell[1, 1] - 3
    # Elasticity keeps the mean density; half planes only add: four columns of b over half the height.
    surplus = len(atoms) / len(control) - 1
    b, width = atoms.info["burgers_vector"][0], atoms.cell[0, 0]
    expected = 0.0 if method == "elastic" else 4 * b / width / 2
    assert surplus == pytest.approx(expected, abs=0.01)


def test_half_planes_stand_above_the_slip_plane():
    """Two more {220} planes above than below for each dislocation, one atom of each per layer and period."""
    atoms = build(HOSTS["Al"], {**SETTINGS, "method": "half-planes"})
    layer = np.round(atoms.positions[:, 1] / (HOSTS["Al"].lattice_parameter / np.sqrt(3)) - 0.5).astype(int)
    counts = np.bincount(layer)
    assert set(counts[:25]) == {112}
    assert set(counts[25:]) == {120}


def test_the_lines_lie_where_the_file_says():
    """Each line runs midway between two planes; the fields of the others would sink it by half a plane's distance."""
    atoms = build(HOSTS["Al"], SETTINGS)
    distance = HOSTS["Al"].lattice_parameter / np.sqrt(3)
    for line in atoms.info["dislocations"]:
        x, y = np.abs(atoms.positions[:, :2] - line).T
        assert y[x < 6].min() > distance / 4
        assert (y[x < 6] < 3 * distance / 4).sum() > 6


@pytest.mark.parametrize("spacing", [32.0, 33.0])
def test_the_array_in_aluminium_keeps_the_mirror_normal_to_its_burgers_vector(spacing):
    """The lattice has that mirror through {220} planes of atoms and, half a period up the line, between them."""
    atoms = build(HOSTS["Al"], {**SETTINGS, "spacing": spacing})
    width, height, period = atoms.cell.lengths()
    middle = np.mean([x for x, _ in atoms.info["dislocations"]])
    x, y, _ = atoms.positions.T
    inner = atoms.positions[(np.abs(x - middle) < width / 2 - 8) & (np.abs(y - height / 2) < height / 2 - 4)]
    tree = cKDTree(images_along_the_line(atoms))
    misfit = [
        tree.query(np.column_stack([2 * middle - inner[:, 0], inner[:, 1], (inner[:, 2] + shift) % period]))[0].max()
        for shift in (0, period / 2)
    ]
    assert min(misfit) < 1e-6


def test_the_lattice_far_from_a_single_line_is_hardly_strained():
    """At distance r from a line the strain is of the order of b / (2 pi r)."""
    host = HOSTS["Al"]
    atoms = build(host, {**SETTINGS, "count": 1, "size": [240.0, 200.0]})
    place = np.array(atoms.info["dislocations"][0])
    radius = np.linalg.norm(atoms.positions[:, :2] - place, axis=1)
    inner = np.all((atoms.positions[:, :2] > 6) & (atoms.positions[:, :2] < atoms.cell.lengths()[:2] - 6), axis=1)
    far = np.flatnonzero((radius > 80) & inner)
    distances = cKDTree(images_along_the_line(atoms)).query(atoms.positions[far], k=13)[0][:, 1:]
    assert np.abs(distances / host.nearest_neighbour - 1).max() < 2 * host.nearest_neighbour / (2 * np.pi * 80)


def test_spacing_is_rounded_so_that_all_cores_are_alike():
    atoms = build(HOSTS["Al"], {**SETTINGS, "spacing": 30.0})
    b = atoms.info["burgers_vector"][0]
    gaps = np.diff([x for x, _ in atoms.info["dislocations"]])
    assert np.allclose(gaps, gaps[0])
    assert abs(gaps[0] - 30.0) <= b / 4
    assert gaps[0] / (b / 2) == pytest.approx(round(gaps[0] / (b / 2)))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"count": 0}, "positive whole numbers"),
        ({"line_repeat": 0}, "positive whole numbers"),
        ({"spacing": 3.0}, "no lattice between"),
        ({"size": [100.0, 120.0]}, "too small for 4 dislocations"),
        ({"size": [160.0, 5.0]}, "too small"),
        ({"method": "magic"}, "unknown method"),
    ],
)
def test_impossible_settings_are_refused(changes, fault):
    with pytest.raises(ValueError, match=fault):
        build(HOSTS["Al"], {**SETTINGS, **changes})


def test_missing_settings_and_unknown_structures_are_refused():
    with pytest.raises(ValueError, match="line_repeat, spacing"):
        build(HOSTS["Al"], {"count": 1, "size": [50, 50]})
    with pytest.raises(ValueError, match="fcc and bcc hosts"):
        build_control(replace(HOSTS["Al"], crystal_structure="hcp"), SETTINGS)
