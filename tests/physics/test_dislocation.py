"""Dislocations: the elastic field obeys its laws, and the atoms hold the Burgers vectors they should."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from defraction.defects.dislocation import (
    ALONG_B,
    CHARACTERS,
    FRAMES,
    METHODS,
    MIXED,
    build,
    build_control,
    burgers_vector,
    energy_factor,
    line_displacement,
    neighbour_kinds,
    rotate_stiffness,
    total_burgers_vector,
)
from defraction.defects.strain import cubic_stiffness
from defraction.hosts import read_hosts
from defraction.orientation import check_standard_orientation

HOSTS = read_hosts(Path(__file__).parents[2] / "resources" / "hosts.csv")
SETTINGS = {"count": 4, "spacing": 32.0, "size": [160.0, 120.0], "line_repeat": 16}
CUBIC = [name for name, host in HOSTS.items() if host.crystal_structure in FRAMES]


def stiffness_in_frame(host):
    return rotate_stiffness(cubic_stiffness(host.c11, host.c12, host.c44), FRAMES[host.crystal_structure])


def points_around_the_line(seed, n=200):
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(-np.pi, np.pi, n), rng.uniform(2, 50, n)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def images_along_the_line(atoms):
    return np.concatenate([atoms.positions + np.array([0, 0, k * atoms.cell[2, 2]]) for k in (-1, 0, 1)])


@pytest.mark.parametrize("name", CUBIC)
@pytest.mark.parametrize("character", CHARACTERS)
def test_matscipy_solves_the_same_problem(name, character):
    """Another program of Stroh's formalism, with the same jump: displacements agree to rounding."""
    peer = pytest.importorskip("matscipy.dislocation")
    host = HOSTS[name]
    structure = host.crystal_structure
    vectors = (FRAMES if character == "edge" else ALONG_B)[structure]
    in_crystal = {"edge": vectors[0], "screw": vectors[2], "mixed": MIXED[structure]}[character]
    burgers = host.lattice_parameter * in_crystal
    points = points_around_the_line(3)
    other = peer.AnisotropicDislocation(vectors, vectors[1], vectors[2], burgers, host.c11, host.c12, host.c44)
    expected = other.displacement(np.column_stack([points, np.zeros(len(points))]))
    stiffness = rotate_stiffness(cubic_stiffness(host.c11, host.c12, host.c44), vectors)
    axes = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    found = line_displacement(points, axes @ burgers, stiffness)
    # 1.4e-13 at worst (W, all but isotropic, where roots lie near each other)
    assert np.abs(found - expected).max() < 1e-12 * np.linalg.norm(burgers)


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
    difference = line_displacement(points, [b, 0, 0], stiffness) - expected
    assert np.abs(difference - difference.mean(axis=0)).max() < 2e-4 * b

    screw = line_displacement(points, [0, 0, b], stiffness)
    assert np.abs(screw - np.outer(b / (2 * np.pi) * np.arctan2(y, x), [0, 0, 1])).max() < 2e-4 * b
    assert energy_factor([b, 0, 0], stiffness) == pytest.approx(mu / (1 - poisson), rel=1e-3)
    assert energy_factor([0, 0, b], stiffness) == pytest.approx(mu, rel=1e-3)


@pytest.mark.parametrize("name", CUBIC)
def test_the_energy_of_dislocations_is_positive_and_lies_between_the_moduli(name):
    """By anisotropic theory a screw costs less than an edge, both within the extreme shear moduli over 1 - nu."""
    host = HOSTS[name]
    stiffness = cubic_stiffness(host.c11, host.c12, host.c44)
    edge = energy_factor([1, 0, 0], rotate_stiffness(stiffness, FRAMES[host.crystal_structure]))
    screw = energy_factor([0, 0, 1], rotate_stiffness(stiffness, ALONG_B[host.crystal_structure]))
    shear = sorted([host.c44, (host.c11 - host.c12) / 2])
    assert shear[0] < screw < shear[1]
    assert shear[0] < edge < 2 * shear[1]


@pytest.mark.parametrize("name", ["Al", "Fe"])
@pytest.mark.parametrize("character", ["edge", "screw"])
def test_an_endless_row_is_the_sum_of_its_lines(name, character):
    """Summed symmetrically from -n to n, the field lacks terms of the order z^2 / (n period^2) b / pi."""
    host, period, n = HOSTS[name], 40.0, 200
    frame = (FRAMES if character == "edge" else ALONG_B)[host.crystal_structure]
    stiffness = rotate_stiffness(cubic_stiffness(host.c11, host.c12, host.c44), frame)
    burgers = np.array([2.8, 0, 0] if character == "edge" else [0, 0, 2.8])
    points = np.random.default_rng(5).uniform([1, -20], [39, 20], (50, 2))
    closed = line_displacement(points, burgers, stiffness, period)
    summed = sum(line_displacement(points - [k * period, 0], burgers, stiffness) for k in range(-n, n + 1))
    # Each term cuts the plane to its left: lines to the right leave b each above the row, and nothing below.
    difference = (
        closed - summed + np.outer(points[:, 1] > 0, n / 2 * burgers) - np.outer(points[:, 1] < 0, n / 2 * burgers)
    )
    assert np.abs(difference - difference.mean(axis=0)).max() < 0.01

    # exactly half a Burgers vector per period on either side, also where sin() itself would overflow
    for y in (-30000.0, -3.0, 3.0, 30000.0):
        step = line_displacement([[7 + period, y]], burgers, stiffness, period)
        step -= line_displacement([[7, y]], burgers, stiffness, period)
        assert step[0] == pytest.approx(-np.sign(y) * burgers / 2, abs=1e-9)


@pytest.mark.parametrize("period", [None, 60.0])
@pytest.mark.parametrize("name", ["Al", "Fe"])
def test_the_field_is_in_equilibrium_and_jumps_by_the_burgers_vector(name, period):
    stiffness = stiffness_in_frame(HOSTS[name])
    burgers = np.array([2.8, -0.3, 1.1])  # a mixed dislocation tests every component
    h = 1e-3

    def field(points):
        return line_displacement(points, burgers, stiffness, period)

    points = points_around_the_line(1) / (1 if period is None else 2)  # nearer to this line than to the next
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
    b = [np.linalg.norm(HOSTS["Al"].lattice_parameter * FRAMES["fcc"][0]), 0, 0]
    for shift in (-3, -2, -1):
        assert np.allclose(burgers_vector(atoms, (x + shift, x + 15, y - 20, y + 20)), b)
    with pytest.raises(ValueError, match="runs through a core"):
        burgers_vector(atoms, (x, x + 15, y - 20, y + 20))
    for shift in (1, 2, 3):
        assert np.allclose(burgers_vector(atoms, (x + shift, x + 15, y - 20, y + 20)), 0)


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


@pytest.mark.parametrize(
    ("name", "character", "size", "count"),
    [("W", "mixed", [110, 70], 2), ("Fe", "mixed", [160, 120], 4), ("Al", "edge", [160, 120], 3)],
)
def test_half_planes_of_an_endless_row_close_over_the_edge_of_the_cell(name, character, size, count):
    """Above the slip plane all atoms of a row are equally far apart but where it is squeezed, also through the side."""
    settings = {"count": count, "spacing": None, "size": size, "line_repeat": 2, "character": character,
                "method": "half-planes", "periodic": True}  # fmt: skip
    atoms, control = build(HOSTS[name], settings), build_control(HOSTS[name], settings)
    width, slip = atoms.cell[0, 0], atoms.info["dislocations"][0][1]
    assert len(atoms) == pytest.approx(
        len(control) * (1 + count * atoms.info["burgers_vector"][0] / width / 2), rel=0.002
    )
    upper = atoms.positions[atoms.positions[:, 1] > slip]
    for height in np.unique(np.round(upper[:, 1], 3)):
        row = np.unique(np.round(upper[np.abs(upper[:, 1] - height) < 1e-3, 0], 4))
        gaps = np.diff([*row, row[0] + width])
        assert gaps.max() < 1.01 * gaps.min(), height


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


def scaled(host, **changes):
    """A small block, of about the same number of atoms for every host."""
    d = host.nearest_neighbour
    return {"count": 2, "spacing": 12 * d, "size": [32 * d, 26 * d], "line_repeat": 4, **changes}


@pytest.mark.parametrize("name", CUBIC)
def test_every_host_takes_every_character_method_and_row(name):
    host = HOSTS[name]
    d = host.nearest_neighbour
    for character in CHARACTERS:
        axes = (FRAMES if character == "edge" else ALONG_B)[host.crystal_structure]
        crystal_b = {"edge": axes[0], "screw": axes[2], "mixed": MIXED[host.crystal_structure]}[character]
        b = host.lattice_parameter * axes @ crystal_b / np.linalg.norm(axes, axis=1)
        assert np.linalg.norm(b) == pytest.approx(d)  # a shortest lattice vector
        for method in METHODS:
            for periodic in (False, True):
                settings = scaled(host, character=character, method=method, periodic=periodic)
                atoms, control = build(host, settings), build_control(host, settings)
                check_standard_orientation(atoms)
                assert atoms.pbc.tolist() == control.pbc.tolist() == [periodic, False, True]
                assert np.allclose(atoms.cell, control.cell)
                assert atoms.info["burgers_vector"] == pytest.approx(b)
                surplus = 2 * b[0] / control.cell[0, 0] / 2 if method == "half-planes" else 0
                assert len(atoms) / len(control) - 1 == pytest.approx(surplus, abs=0.02)
                nearest = cKDTree(atoms.positions, boxsize=atoms.cell.lengths()).query(atoms.positions, k=2)[0][:, 1]
                assert nearest.min() > 0.75 * d
                assert np.allclose(total_burgers_vector(atoms), 2 * b, atol=1e-9)
                assert np.allclose(total_burgers_vector(control), 0, atol=1e-9)
                for x, y in atoms.info["dislocations"]:
                    box = (x - 5.5 * d, x + 5.5 * d, y - 7 * d, y + 7 * d)
                    assert np.allclose(burgers_vector(atoms, box), b, atol=1e-9)
                if periodic:
                    assert atoms.info["mismatch"] == pytest.approx(2 * b / atoms.cell[0, 0])


def test_the_endless_row_goes_on_over_the_edge_of_its_cell():
    """Away from the slip plane and the surfaces every atom has its twelve neighbours, through the sides too."""
    host = HOSTS["Al"]
    atoms = build(host, scaled(host, periodic=True, spacing=None))
    kinds = neighbour_kinds(atoms)
    _, height, _ = atoms.cell.lengths()
    y = atoms.positions[:, 1]
    inner = (y > 8) & (y < height - 8) & (np.abs(y - height / 2) > 15)
    assert inner.sum() > 300
    assert (kinds[inner] == "fcc").all()
    # the two lines, half a period apart, cannot be told from each other
    shift = atoms.cell[0, 0] / 2
    moved = (atoms.positions + [shift, 0, 0])[inner] % [*atoms.cell.lengths()[:2] + [0, 9e9], atoms.cell[2, 2]]
    tree = cKDTree(atoms.positions, boxsize=atoms.cell.lengths())
    alike = [tree.query((moved + [0, 0, dz]) % atoms.cell.lengths())[0].max() for dz in (0, atoms.cell[2, 2] / 2)]
    assert min(alike) < 1e-5


@pytest.mark.parametrize("name", [name for name in CUBIC if HOSTS[name].crystal_structure == "bcc"])
def test_the_screw_in_bcc_has_its_easy_core(name):
    """The rows round the line rise by b/3 each in the crystal; the easy core reverses that, the hard one levels it."""
    host = HOSTS[name]
    settings = scaled(host, count=1, character="screw")
    b = host.nearest_neighbour
    for make, expected in ((build_control, b / 3), (build, 2 * b / 3)):
        atoms = make(host, settings)
        line = build(host, settings).info["dislocations"][0]
        near = np.argsort(np.linalg.norm(atoms.positions[:, :2] - line, axis=1))[:3]
        around = atoms.positions[near] - [*line, 0]
        assert np.ptp(np.linalg.norm(around[:, :2], axis=1)) < 0.1 * b
        heights = around[np.argsort(np.arctan2(around[:, 1], around[:, 0])), 2]
        rises = np.diff(heights, append=heights[0]) % b
        assert rises == pytest.approx(expected, abs=0.05 * b)


def test_the_screw_in_aluminium_keeps_the_twofold_axis_along_its_line():
    host = HOSTS["Al"]
    atoms = build(host, scaled(host, count=1, character="screw"))
    line = np.array(atoms.info["dislocations"][0])
    width, height, period = atoms.cell.lengths()
    inner = np.abs(atoms.positions[:, :2] - line).max(axis=1) < 0.3 * min(width, height)
    turned = atoms.positions[inner] * [-1, -1, 1] + [*2 * line, 0]
    tree = cKDTree(images_along_the_line(atoms))
    misfit = [tree.query(turned * [1, 1, 0] + [0, 0, 1] * ((turned + shift) % period))[0] for shift in (0, period / 2)]
    assert min(part.max() for part in misfit) < 1e-6


@pytest.mark.parametrize("name", ["Al", "Fe"])
def test_common_neighbours_know_the_perfect_crystal(name):
    host = HOSTS[name]
    control = build_control(host, scaled(host, size=[12 * host.nearest_neighbour] * 2, count=1, spacing=20))
    kinds = neighbour_kinds(control)
    deep = (np.minimum(control.positions, control.cell.lengths() - control.positions)[:, :2] > 5).all(axis=1)
    assert set(kinds[deep]) == {host.crystal_structure}
    assert set(kinds) == {host.crystal_structure, "other"}


def test_an_odd_endless_row_and_an_unknown_character_are_refused():
    with pytest.raises(ValueError, match="even count"):
        build(HOSTS["Al"], {**SETTINGS, "count": 3, "periodic": True})
    with pytest.raises(ValueError, match="edge, screw, mixed"):
        build(HOSTS["Al"], {**SETTINGS, "character": "twist"})


@pytest.mark.parametrize("count", [2, 4, 6])
@pytest.mark.parametrize("character", CHARACTERS)
@pytest.mark.parametrize("name", ["Al", "Fe"])
def test_an_endless_row_without_spacing_is_even(name, character, count):
    settings = {"count": count, "size": [100.0, 40.0], "line_repeat": 1, "periodic": True, "character": character}
    atoms = build(HOSTS[name], settings)
    width = atoms.cell[0, 0]
    gaps = np.diff([x for x, _ in atoms.info["dislocations"]])
    assert np.allclose(gaps, width / count)
    assert np.allclose(atoms.cell, build_control(HOSTS[name], settings).cell)
    with pytest.raises(ValueError, match="the settings spacing"):
        build(HOSTS[name], {**settings, "periodic": False})
