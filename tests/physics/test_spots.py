"""Spots: the right number of electrons at the right places, against numerical integrals and against laue."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from defraction.diffraction import geometry, laue, spots
from defraction.diffraction.geometry import Beam, Detector
from defraction.diffraction.reflections import reflections, structure_factors
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import Specimen

FACTORS = Factors()
SIGMA = 0.5
TRICLINIC = np.array([[3.9, 0, 0], [0.7, 4.4, 0], [-0.5, 0.6, 5.1]])


def aluminium(*repeat) -> Atoms:
    atoms = bulk("Al", cubic=True, a=4.05)
    atoms.info["repeat"] = list(repeat)
    return atoms


def triclinic(*repeat) -> Atoms:
    points = np.random.default_rng(1).random((5, 3))
    atoms = Atoms("AlFeAuAlFe", cell=TRICLINIC, scaled_positions=points, pbc=True)
    atoms.info["repeat"] = list(repeat)
    return atoms


def electrons(voltage=200.0, camera_length=0.8, width=63.5, pixels=256, flat=False, direction=(0.0, 0.0)) -> Beam:
    return Beam(1.0 / geometry.wavelength(voltage), Detector(camera_length, width, pixels), flat, direction)


def window_sums(image, positions, reach=5):
    corner = np.rint(positions).astype(int) - reach
    return np.array([image[y : y + 2 * reach + 1, x : x + 2 * reach + 1].sum() for x, y in corner])


def isolated(listed, pixels, apart=11.0, spill=0.02):
    """Which spots are whole in the image, with less than ``spill`` of it in others closer than ``apart``."""
    distance = np.abs(listed.position[:, None] - listed.position[None]).max(axis=-1)
    near = (distance < apart) & ~np.eye(len(distance), dtype=bool)
    inside = (np.abs(listed.position - 0.5 * (pixels - 1)) < 0.5 * pixels - 6).all(axis=1)
    return inside & ((near * listed.intensity[None]).sum(axis=1) < spill * listed.intensity)


# --- intensity


@pytest.mark.parametrize(("axis", "voltage"), [((0, 0, 1), 200.0), ((1, 2, 3), 60.0), ((1, 0, 2), 300.0)])
def test_parseval(axis, voltage):
    """|F|^2 / V^2 times the integral of (sin(pi s t) / (pi s))^2 over the shadow, with t of rays through the block.

    A grid of 300 x 300 rays leaves 0.5 %: the edge of the shadow, and t where it changes by a ray's width.
    """
    atoms = triclinic(12, 9, 14)
    view = Specimen.from_atoms(atoms).view(axis)
    beam = electrons(voltage, 0.4, pixels=128)
    listed = spots.spot_list(view, beam, SIGMA, FACTORS)
    squared = np.abs(structure_factors(atoms, listed.hkl, FACTORS)) ** 2
    thickness = 1.0 / np.abs(geometry.reciprocal_cell(view.edges)[:, 2]).max()
    strong = np.flatnonzero(np.abs(listed.excitation_error) * thickness < 2.5)
    checked = strong[np.linspace(0, len(strong) - 1, 8).astype(int)]
    assert checked[0] == 0 and np.abs(listed.excitation_error[checked] * thickness).max() > 1.0
    inverse = geometry.reciprocal_cell(view.edges)
    corners = np.array(list(itertools.product([0.0, 1.0], repeat=3))) @ view.edges
    for n in checked:
        out = (listed.g[n] + [0.0, 0.0, listed.excitation_error[n] + beam.k]) / beam.k  # of the diffracted electrons
        assert np.linalg.norm(out) == pytest.approx(1.0, abs=1e-12)
        along = out / out[2]  # per Å of z
        shadow = corners - corners[:, 2:] * along
        low, high = shadow.min(axis=0), shadow.max(axis=0)
        size = 300
        x = low[0] + (np.arange(size) + 0.5) / size * (high[0] - low[0])
        y = low[1] + (np.arange(size) + 0.5) / size * (high[1] - low[1])
        start = inverse @ np.stack(np.meshgrid(x, y, [0.0], indexing="ij")).reshape(3, -1)
        step = (inverse @ along)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.sort(np.stack([-start / step, (1.0 - start) / step]), axis=0)
        t = np.clip(ends[1].min(axis=0) - ends[0].max(axis=0), 0.0, None)
        column = t * np.sinc(listed.excitation_error[n] * t)
        integral = (column**2).mean() * (high[0] - low[0]) * (high[1] - low[1]) / abs(np.linalg.det(view.cell)) ** 2
        assert listed.intensity[n] == pytest.approx(squared[n] * integral / beam.k**2 / out[2], rel=5e-3)


@pytest.mark.parametrize(
    ("axis", "direction", "repeat", "tolerance"),
    [
        # faces along the beam: 1 / (pi^2 N a 5.5 px) = 1 % of a spot lies in the streaks beyond the window along a,
        # 1.2 % along b, and a weak spot receives as much from those of its neighbours
        ((0, 0, 1), (0.0, 0.0), (40, 30, 20), 0.025),
        ((0, 0, 1), (0.004, -0.003), (40, 30, 20), 0.05),
        # faces oblique to the beam, whose streaks leave the sphere: they are weaker on it
        ((1, 1, 1), (0.0, 0.0), (40, 30, 20), 0.01),
        ((1, 1, 2), (0.002, 0.001), (20, 20, 20), 0.015),
    ],
)
def test_windows_hold_what_laue_finds(axis, direction, repeat, tolerance):
    view = Specimen.from_atoms(aluminium(*repeat)).view(axis)
    beam = electrons(direction=direction)
    listed = spots.spot_list(view, beam, SIGMA, FACTORS)
    thickness = 1.0 / np.abs(geometry.reciprocal_cell(view.edges)[:, 2]).max()
    chosen = isolated(listed, 256) & (np.abs(listed.excitation_error) * thickness < 0.9)
    chosen &= listed.intensity > 0.02 * listed.intensity[1]
    assert chosen[0] and chosen.sum() >= 5  # the direct beam and the zero-order Laue zone around it
    expected = window_sums(laue.intensities([view], [beam], SIGMA, FACTORS)[0].astype(float), listed.position[chosen])
    found = window_sums(spots.intensities([view], [beam], SIGMA, FACTORS)[0].astype(float), listed.position[chosen])
    assert found == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("axis", [(0, 0, 1), (1, 1, 1)])
def test_article_model(axis):
    # a smooth beam has no streaks, so spots agree with laue over the whole image
    view = Specimen.from_atoms(aluminium(40, 30, 20)).view(axis, "article")
    beam = electrons(flat=True)
    listed = spots.spot_list(view, beam, SIGMA, FACTORS)
    assert (np.abs(listed.excitation_error) < 1e-9).all()  # the zero-order Laue zone alone
    expected = laue.intensities([view], [beam], SIGMA, FACTORS)[0].astype(float)
    found = spots.intensities([view], [beam], SIGMA, FACTORS)[0].astype(float)
    chosen = isolated(listed, 256)
    assert chosen.sum() > 15
    # 0.3 % of the amplitude of the Gaussian beam is cut off by the faces
    assert window_sums(found, listed.position[chosen]) == pytest.approx(
        window_sums(expected, listed.position[chosen]), rel=5e-3
    )
    assert found.sum() == pytest.approx(expected.sum(), rel=5e-3)


def test_image_holds_the_listed_electrons():
    view = Specimen.from_atoms(triclinic(14, 13, 12)).view((1, 1, 2))
    beam = electrons(120.0, 1.2, 40.0, 96)
    image = spots.intensities([view], [beam], SIGMA, FACTORS)[0].astype(float)
    listed = spots.spot_list(view, beam, SIGMA, FACTORS)
    whole = (np.abs(listed.position - 47.5) < 47.5 - 4.5 * listed.width).all(axis=1)
    partly = (np.abs(listed.position - 47.5) < 48.0 + 4.5 * listed.width).all(axis=1) & ~whole
    scale = (beam.detector.distance / beam.detector.pitch) ** 2
    outside = listed.intensity[partly].sum()
    inside = listed.intensity[whole].sum()
    # the profile is followed to 4.5 standard deviations
    assert inside * (1 - 1e-4) <= image.sum() / scale <= (inside + outside) * (1 + 1e-6)
    assert outside < 0.2 * inside
    assert (np.diff(listed.intensity) <= 0.0).all()


def test_debye_waller_and_table():
    view = Specimen.from_atoms(aluminium(20, 20, 20)).view((0, 0, 1))
    beam = electrons()
    cold = spots.spot_list(view, beam, SIGMA, Factors("lobato"))
    warm = spots.spot_list(view, beam, SIGMA, Factors("lobato", {"Al": 0.8}))
    intensity = {tuple(h): i for h, i in zip(warm.hkl, warm.intensity, strict=True)}
    for h, g, value in zip(cold.hkl[:20], cold.g, cold.intensity, strict=False):
        assert intensity[tuple(h)] == pytest.approx(value * np.exp(-0.8 * (g @ g) / 2.0), rel=1e-9)


# --- which nodes, and where


@pytest.mark.parametrize("direction", [(0.0, 0.0), (0.02, -0.01)])
def test_every_node_near_the_sphere_is_listed(direction):
    """All nodes of a cube, by the definition of the sphere about -k n; higher-order Laue zones included."""
    atoms = triclinic(12, 9, 14)
    view = Specimen.from_atoms(atoms).view((1, 0, 2))
    beam = electrons(100.0, 0.4, 63.5, 128, direction=direction)
    listed = spots.spot_list(view, beam, SIGMA, FACTORS)
    hkl = np.array(list(itertools.product(range(-26, 27), repeat=3)))
    g = hkl @ geometry.reciprocal_cell(view.cell)
    n = np.array([*direction, np.sqrt(1.0 - np.dot(direction, direction))])
    centre = g + beam.k * n  # from the middle of the sphere to the node
    reached = np.hypot(centre[:, 0], centre[:, 1]) < beam.k
    along = np.sqrt(beam.k**2 - centre[reached, 0] ** 2 - centre[reached, 1] ** 2)
    s = np.full(len(g), np.inf)
    s[reached] = along - centre[reached, 2]
    position = np.full((len(g), 2), np.inf)
    position[reached] = beam.detector.pixel_of(beam.detector.distance * centre[reached, :2] / along[:, None])
    thickness = 1.0 / np.abs(geometry.reciprocal_cell(view.edges)[:, 2]).max()
    expected = (np.abs(s) <= spots.REACH / thickness) & (np.abs(position - 63.5) < 64.0).all(axis=1)
    strong = np.abs(structure_factors(atoms, hkl[expected], FACTORS)) > 0.5  # Å; the strongest has 20
    found = {tuple(h): i for i, h in enumerate(listed.hkl)}
    assert len(found) == len(listed.hkl)
    zones = set()
    for i in np.flatnonzero(expected)[strong]:
        assert tuple(hkl[i]) in found, hkl[i]
        place = found[tuple(hkl[i])]
        assert listed.excitation_error[place] == pytest.approx(s[i], abs=1e-12)
        zones.add(int(hkl[i] @ [1, 0, 2]))
    assert zones >= {0, -1}
    assert set(map(tuple, listed.hkl)) <= set(map(tuple, hkl[np.abs(s) <= spots.REACH / thickness * (1 + 1e-9)]))


def test_positions_are_those_of_the_table():
    # rel-rods along the beam: the spot is on the line through g along the beam, to 0.02 px
    atoms = aluminium(40, 40, 12)
    beam = electrons(300.0)
    listed = spots.spot_list(Specimen.from_atoms(atoms).view((0, 0, 1)), beam, SIGMA, FACTORS)
    table = reflections(atoms, 3.3, FACTORS, (0, 0, 1), 300.0, beam.detector)
    place = {tuple(h): i for i, h in enumerate(np.stack([table[i] for i in "hkl"], axis=1).tolist())}
    rows = np.array([place[tuple(h)] for h in listed.hkl.tolist()])
    assert listed.position[:, 0] == pytest.approx(table["x_px"][rows], abs=0.02)
    assert listed.position[:, 1] == pytest.approx(table["y_px"][rows], abs=0.02)
    assert listed.excitation_error == pytest.approx(table["excitation_error_per_angstrom"][rows], abs=1e-12)


def test_rel_rods_oblique_to_the_beam_move_the_spots():
    """A plate seen at 27 degrees to its normal: its spots lie where the rel-rods along the normal meet the sphere."""
    view = Specimen.from_atoms(aluminium(60, 60, 10)).view((0, 1, 2))
    beam = electrons()
    listed = spots.spot_list(view, beam, SIGMA, FACTORS)
    image = laue.intensities([view], [beam], SIGMA, FACTORS)[0].astype(float)
    normal = view.cell[2] / np.linalg.norm(view.cell[2])
    moved = 0
    # not where the rel-rod nears its zero: there its gradient across the width of the spot moves what is seen
    thickness = 1.0 / np.abs(geometry.reciprocal_cell(view.edges)[:, 2]).max()
    chosen = isolated(listed, 256) & (np.abs(listed.excitation_error) * thickness < 0.75)
    for n in np.flatnonzero(chosen):
        g = listed.g[n]
        # |g + u normal + k z| = k
        b, c = g @ normal + beam.k * normal[2], g @ g + 2.0 * beam.k * g[2]
        point = g + (-b + np.sqrt(b * b - c)) * normal + [0.0, 0.0, beam.k]
        position = beam.detector.pixel_of(beam.detector.distance * point[:2] / point[2])
        assert listed.position[n] == pytest.approx(position, abs=0.05)
        x, y = np.rint(listed.position[n]).astype(int)
        here = np.s_[y - 3 : y + 4, x - 3 : x + 4]
        rows, columns = np.mgrid[here]
        core = image[here] * (image[here] > 0.1 * image[here].max())
        centre = np.array([(core * columns).sum(), (core * rows).sum()]) / core.sum()
        # the centre of the core moves with its threshold by as much, for the streaks of the other edges
        assert centre == pytest.approx(listed.position[n], abs=0.15)
        straight = beam.detector.pixel_of(geometry.spot_position(g, beam.k, beam.detector.distance))
        moved += np.abs(straight - centre).max() > 0.3
    assert moved >= 4


# --- batches and bad input


def test_a_batch_equals_its_patterns():
    specimens = [Specimen.from_atoms(atoms) for atoms in (aluminium(20, 20, 20), triclinic(14, 13, 12))]
    views = [specimen.view(axis) for specimen in specimens for axis in ((0, 0, 1), (1, 2, 3))]
    beams = [electrons(v, length, pixels=64, width=20.0) for v in (120.0, 300.0) for length in (0.5, 1.2)]
    pairs = list(itertools.product(views, beams))
    together = spots.intensities([v for v, _ in pairs], [b for _, b in pairs], SIGMA, FACTORS)
    assert together.shape == (16, 64, 64) and together.dtype == np.float32
    for image, (view, beam) in zip(together, pairs, strict=True):
        alone = spots.intensities([view], [beam], SIGMA, FACTORS)[0]
        assert image == pytest.approx(alone, rel=1e-5, abs=1e-6 * float(alone.max()))


def test_what_it_cannot_do():
    thin = Specimen.from_atoms(aluminium(20, 20, 2)).view((0, 0, 1))
    with pytest.raises(ValueError, match="at least 3 cells along each edge, this one has 20 x 20 x 2"):
        spots.intensities([thin], [electrons()], SIGMA, FACTORS)
    with pytest.raises(ValueError, match="shape block only, not 'sphere'"):
        spots.check({"shape": "sphere"})
    spots.check({"shape": "block"})


def test_cost_and_memory_grow_with_the_cell():
    beam = electrons()
    small = Specimen.from_atoms(aluminium(12, 12, 12)).view((0, 0, 1))
    supercell = aluminium(1, 1, 1) * (3, 3, 3)
    supercell.info["repeat"] = [4, 4, 4]
    large = Specimen.from_atoms(supercell).view((0, 0, 1))
    assert spots.cost(large, [beam], SIGMA) > 3.0 * spots.cost(small, [beam], SIGMA)
    assert spots.pattern_bytes(large, beam, SIGMA) > spots.pattern_bytes(small, beam, SIGMA) > 256 * 256 * 4
