"""Laws that kinematical diffraction obeys, on crystals with and without symmetry."""

import cmath
import math

import gemmi
import gemmi_peer
import numpy as np
import pytest
from ase import Atoms
from ase.build import make_supercell

from defraction.diffraction import convergence, direct, geometry, laue, patterns, sampling
from defraction.diffraction.geometry import Beam, Detector
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import Specimen

FACTORS = Factors()
SIGMA = 0.5
TRICLINIC = np.array([[3.9, 0, 0], [0.7, 4.4, 0], [-0.5, 0.6, 5.1]])


def crystal(group: str, a: float, sites: dict[str, tuple], repeat=(1, 1, 1)) -> Atoms:
    """A cubic crystal: each site's images under the group, those that coincide counted once."""
    symbols, points = [], []
    for element, site in sites.items():
        images = []
        for operation in gemmi.SpaceGroup(group).operations():
            point = np.mod(operation.apply_to_xyz(list(site)), 1.0)
            if all(np.abs((point - other + 0.5) % 1.0 - 0.5).max() > 1e-3 for other in images):
                images.append(point)
        points += images
        symbols += [element] * len(images)
    atoms = Atoms(symbols, cell=[a] * 3, scaled_positions=points, pbc=True)
    atoms.info["repeat"] = list(repeat)
    return atoms


def beta_manganese(repeat=(1, 1, 1)) -> Atoms:
    """P4_1 32, 8c (x, x, x), x = 0.0636, and 12d (1/8, y, y + 1/4), y = 0.2022, a = 6.312 Å; Fe to tell the sites."""
    return crystal("P 41 3 2", 6.312, {"Mn": (0.0636,) * 3, "Fe": (0.125, 0.2022, 0.4522)}, repeat)


def random_crystal(repeat, atoms=5, cell=TRICLINIC, seed=1) -> Atoms:
    points = np.random.default_rng(seed).random((atoms, 3))
    symbols = [("Al", "Fe", "Au")[i % 3] for i in range(atoms)]
    result = Atoms(symbols, cell=cell, scaled_positions=points, pbc=True)
    result.info["repeat"] = list(repeat)
    return result


def strained(repeat) -> Atoms:
    atoms = crystal("F m -3 m", 4.05, {"Al": (0, 0, 0)})
    strain = np.array([[0.04, 0.015, 0.0], [0.015, -0.01, 0.02], [0.0, 0.02, -0.02]])
    atoms.set_cell(atoms.cell[:] @ (np.eye(3) + strain), scale_atoms=True)
    atoms.info["repeat"] = list(repeat)
    return atoms


def electrons(voltage, camera_length, width, pixels, flat=False, direction=(0.0, 0.0)) -> Beam:
    return Beam(1.0 / geometry.wavelength(voltage), Detector(camera_length, width, pixels), flat, direction)


def truth(view, beam):
    """The direct sum, with two more samples per pixel and axis than the engine takes."""
    axes = laue.plan(view, beam, SIGMA)
    return direct.intensity(view, beam, SIGMA, FACTORS, tuple(axis.per_pixel + 2 for axis in axes))


def assert_agree(found, expected, bound):
    """To ``bound`` of the largest intensity outside the direct beam, and the direct beam to 2e-6 of itself."""
    size = len(expected)
    offset = np.abs(np.arange(size) - 0.5 * (size - 1))
    outside = np.maximum(offset[:, None], offset[None, :]) > 0.2 * size
    largest = expected[outside].max()
    assert largest > 0
    assert np.abs(found - expected)[outside].max() < bound * largest
    assert np.abs(found - expected).max() < bound * largest + 2e-6 * expected.max()


CRYSTALS = {
    "triclinic": lambda: random_crystal((7, 5, 4)),
    "chiral": lambda: beta_manganese((3, 4, 2)),
    "strained": lambda: strained((9, 7, 5)),
}


@pytest.mark.parametrize("model", ["physical", "article"])
@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize(("axis", "beam"), [((0, 0, 1), (200.0, 0.8, 24.0, 24)), ((1, 1, 2), (300.0, 0.5, 40.0, 20))])
def test_laue_equals_the_sum_over_all_atoms(name, model, axis, beam):
    view = Specimen.from_atoms(CRYSTALS[name]()).view(axis, model)
    beam = electrons(*beam, flat=model == "article")
    assert_agree(laue.intensities([view], [beam], SIGMA, FACTORS)[0], truth(view, beam), laue.ERROR_BOUND)


@pytest.mark.parametrize("model", ["physical", "article"])
@pytest.mark.parametrize("name", CRYSTALS)
def test_laue_equals_the_sum_with_beam_and_specimen_tilted(name, model):
    # the cell's amplitude is interpolated, and |q| reaches further on the side from which the beam comes
    view = Specimen.from_atoms(CRYSTALS[name]()).view((1, 1, 2), model, rotation=31.0, tilt=(7.0, -12.0))
    beam = electrons(300.0, 0.5, 40.0, 20, flat=model == "article", direction=(0.006, -0.0045))
    assert_agree(laue.intensities([view], [beam], SIGMA, FACTORS)[0], truth(view, beam), laue.ERROR_BOUND)


@pytest.mark.parametrize("shape", ["cylinder", "sphere"])
def test_cut_specimens_equal_the_sum_over_their_atoms(shape):
    atoms = beta_manganese((4, 5, 4))
    cut = Specimen.from_atoms(atoms, shape=shape)
    assert 200 < cut.atom_count < len(atoms) * 80
    view = cut.view((1, 1, 2), tilt=(3.0, 2.0))
    beam = electrons(200.0, 0.8, 24.0, 16, direction=(0.001, 0.002))
    assert_agree(laue.intensities([view], [beam], SIGMA, FACTORS)[0], truth(view, beam), laue.ERROR_BOUND)


def test_direct_sum_is_that_of_numpy():
    # the compiled sine and cosine against the exponential, at phases of hundreds of turns
    view = Specimen.from_atoms(random_crystal((40, 3, 30))).view((1, 2, 3))
    q = np.random.default_rng(2).uniform(-2.0, 2.0, (5, 7, 3))
    positions, species, weights = view.block()
    expected = np.zeros((5, 7), dtype=complex)
    for r, s, w in zip(positions, species, weights, strict=True):
        expected += w * FACTORS.of(view.elements[s], np.linalg.norm(q, axis=-1)) * np.exp(2j * np.pi * (q @ r))
    assert np.abs(direct.amplitudes(view, q, FACTORS) - expected).max() < 1e-12 * len(positions)


def test_sampling_has_converged(monkeypatch):
    view = Specimen.from_atoms(beta_manganese((20, 15, 10))).view((0, 1, 2))
    beam = electrons(300.0, 0.5, 63.5, 48)
    once = laue.intensities([view], [beam], SIGMA, FACTORS)[0]
    enough = sampling.guard(SIGMA)
    monkeypatch.setattr(sampling, "guard", lambda sigma: enough + 3.0)
    finer = laue.intensities([view], [beam], SIGMA, FACTORS)[0].astype(float)
    assert_agree(once, finer, laue.ERROR_BOUND)


# --- structure factors


REFERENCE = {
    "Al": lambda: crystal("F m -3 m", 4.0495, {"Al": (0, 0, 0)}),
    "Fe": lambda: crystal("I m -3 m", 2.8665, {"Fe": (0, 0, 0)}),
    "Si": lambda: crystal("F d -3 m:2", 5.4310, {"Si": (0.125, 0.125, 0.125)}),
    "NaCl": lambda: crystal("F m -3 m", 5.6402, {"Na": (0, 0, 0), "Cl": (0.5, 0.5, 0.5)}),
    "beta-Mn": beta_manganese,
}


def nodes(limit=5):
    h = np.stack(np.meshgrid(*[np.arange(-limit, limit + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return h[h.any(axis=1)]


def structure_factors(atoms: Atoms, hkl: np.ndarray) -> np.ndarray:
    """F at exact nodes through the view along [001], its origin moved back to the cell's."""
    view = Specimen.from_atoms(atoms).view((0, 0, 1))
    q = hkl @ geometry.reciprocal_cell(view.cell)
    origin = 0.5 * (atoms.positions.min(axis=0) + atoms.positions.max(axis=0))
    return direct.amplitudes(view, q, FACTORS) * np.exp(2j * np.pi * q @ origin)


@pytest.mark.parametrize("name", REFERENCE)
def test_structure_factors_equal_those_of_gemmi(name):
    atoms = REFERENCE[name]()
    hkl = nodes(4)
    theirs = gemmi_peer.structure_factors(atoms, hkl)
    ours = structure_factors(atoms, hkl)
    strongest = (np.abs(theirs) ** 2).max()
    assert np.abs(np.abs(ours) ** 2 - np.abs(theirs) ** 2).max() < 1e-6 * strongest
    present = np.abs(theirs) ** 2 > 1e-3 * strongest
    assert np.abs(ours[present]) ** 2 == pytest.approx(np.abs(theirs[present]) ** 2, rel=1e-6)
    assert ours[present] == pytest.approx(theirs[present], rel=1e-5)  # the phase too: the sign of q.r


@pytest.mark.parametrize("group", ["P 41 3 2", "P m -3 m", "F m -3 m", "F d -3 m:2", "I m -3 m"])
def test_extinctions(group):
    # a general position leaves only the extinctions of the group itself
    atoms = crystal(group, 9.0, {"Fe": (0.0713, 0.1571, 0.3119)})
    hkl = nodes(5)
    operations = gemmi.SpaceGroup(group).operations()
    absent = np.array([operations.is_systematically_absent(h.tolist()) for h in hkl])
    squared = np.abs(structure_factors(atoms, hkl)) ** 2
    assert absent.any() == (group != "P m -3 m")
    assert (squared[absent] < 1e-10 * squared.max()).all()
    assert np.median(squared[~absent]) > 1e-4 * squared.max()


def test_friedel():
    hkl = nodes(3)
    f = structure_factors(beta_manganese(), hkl)
    assert f == pytest.approx(structure_factors(beta_manganese(), -hkl).conj(), abs=1e-9)
    # the phases themselves are not trivial: the crystal has no centre
    assert np.abs(f.imag).max() > 0.1 * np.abs(f).max()


def test_flat_plane_is_symmetric_and_the_sphere_is_not():
    atoms = random_crystal((2, 2, 5))
    images = {}
    for model in ("article", "physical"):
        view = Specimen.from_atoms(atoms).view((1, 1, 1), model)
        beam = electrons(120.0, 0.3, 40.0, 32, flat=model == "article")
        images[model] = laue.intensities([view], [beam], SIGMA, FACTORS)[0]
    flat, sphere = images["article"], images["physical"]
    assert np.abs(flat - flat[::-1, ::-1]).max() < 1e-6 * flat.max()
    outside = np.s_[:8]
    assert np.abs(sphere - sphere[::-1, ::-1])[outside].max() > 0.05 * sphere[outside].max()


# --- positions and orientation


@pytest.mark.parametrize(
    "rows", [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, -1], [0, 1, 1]], [[1, -1, 0], [1, 1, -2], [1, 1, 1]]]
)
def test_spots_are_where_geometry_puts_them(rows):
    # a thin plate across the beam, whose rel-rods are parallel to it: spots lie on the lines through g along the beam
    unit = crystal("F m -3 m", 4.05, {"Al": (0, 0, 0)})
    plate = make_supercell(unit, rows)
    plate.info.update(repeat=[24, 20, 3], reference_cell=unit.cell[:].tolist())
    view = Specimen.from_atoms(plate).view(tuple(rows[2]))
    beam = electrons(300.0, 1.0, 63.5, 256)
    image = laue.intensities([view], [beam], SIGMA, FACTORS)[0].astype(float)
    cubic = unit.cell[:] @ geometry.zone_frame(unit.cell[:], tuple(rows[2])).T
    g = nodes(4) @ geometry.reciprocal_cell(cubic)
    zero_order = np.abs(g[:, 2]) < 1e-9
    allowed = np.abs(structure_factors(unit, nodes(4))) > 1.0
    positions = beam.detector.pixel_of(geometry.spot_position(g[zero_order & allowed], beam.k, 1000.0))
    positions = positions[((positions > 8) & (positions < 247)).all(axis=1)]
    assert len(positions) >= 6
    for x, y in positions:
        column, row = round(x), round(y)
        here = np.s_[row - 3 : row + 4, column - 3 : column + 4]
        rows_here, columns_here = np.mgrid[here]
        core = image[here] * (image[here] > 0.02 * image[here].max())
        assert (core * columns_here).sum() / core.sum() == pytest.approx(x, abs=0.05)
        assert (core * rows_here).sum() / core.sum() == pytest.approx(y, abs=0.05)


def test_image_is_the_one_of_the_conventions_page():
    """Three atoms without symmetry, by hand from docs/conventions.md; every mirror image and turn fails."""
    cell = [[5.0, 0.0, 0.0], [1.2, 6.0, 0.0], [-0.8, 0.9, 7.0]]
    atoms = Atoms("AuFeAl", cell=cell, positions=[[0.0, 0.0, 0.0], [1.9, 0.4, 0.3], [4.5, 14.0, 14.9]], pbc=True)
    settings = {
        "model": "physical",
        "scattering_factors": "c4322",
        "zone_axes": [[1, 2, 3]],
        "voltages": [20.0],  # a strongly curved sphere: the image has no centre of symmetry
        "camera_lengths": [0.18],
        "detector_width": 16.0,
        "pixels": 33,
        "response_sigma": 0.3,
    }
    image = patterns.simulate([atoms], settings).intensity.values[0, 0, 0, 0]

    def dot(p, q):
        return sum(a * b for a, b in zip(p, q, strict=True))

    z = [sum(n * row[i] for n, row in zip((1, 2, 3), cell, strict=True)) for i in range(3)]
    length = math.sqrt(dot(z, z))
    z = [c / length for c in z]
    x = [a - dot(cell[0], z) * c for a, c in zip(cell[0], z, strict=True)]
    length = math.sqrt(dot(x, x))
    x = [c / length for c in x]
    y = [z[1] * x[2] - z[2] * x[1], z[2] * x[0] - z[0] * x[2], z[0] * x[1] - z[1] * x[0]]  # z cross x
    k = math.sqrt(20e3 * (1 + 0.978476e-6 * 20e3)) / 12.26426  # 1/Å, V in volts
    by_hand = np.empty((33, 33))
    for row in range(33):
        for column in range(33):
            detector_x, detector_y = (column - 16) * 16.0 / 33, (row - 16) * 16.0 / 33
            n = math.sqrt(detector_x**2 + detector_y**2 + 180.0**2)
            q = [k * detector_x / n, k * detector_y / n, k * (180.0 / n - 1.0)]
            total = 0.0
            for symbol, r in zip(atoms.get_chemical_symbols(), atoms.positions, strict=True):
                coefficients = gemmi.Element(symbol).c4322
                f = sum(a * math.exp(-b * dot(q, q) / 4) for a, b in zip(coefficients.a, coefficients.b, strict=True))
                total += f * cmath.exp(2j * math.pi * dot(q, [dot(x, r), dot(y, r), dot(z, r)]))
            by_hand[row, column] = abs(total) ** 2 * (180.0 / n) ** 3
    inner = np.hypot(*(np.mgrid[:33, :33] - 16)) > 3  # where |A|^2 is nearly linear over a pixel
    scale = image[inner].sum() / by_hand[inner].sum()

    def misfit(candidate):
        return np.abs(candidate * scale - image)[inner].max() / image[inner].max()

    assert misfit(by_hand) < 0.03
    turns = [np.rot90(by_hand, i) for i in range(4)]
    wrong = turns[1:] + [turn.T for turn in turns]
    assert min(map(misfit, wrong)) > 0.15


def test_pattern_turns_with_the_crystal():
    atoms = random_crystal((4, 3, 3))
    atoms.info["reference_cell"] = np.diag([4.0, 4.0, 4.0]).tolist()
    turn = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # rows: images of x, y, z; x goes to y
    turned = atoms.copy()
    turned.set_cell(atoms.cell[:] @ turn)
    turned.positions = atoms.positions @ turn
    beam = electrons(200.0, 0.8, 24.0, 24)
    views = [Specimen.from_atoms(a).view((0, 0, 1)) for a in (atoms, turned)]
    image, other = laue.intensities(views, [beam, beam], SIGMA, FACTORS)
    # (X, Y) goes to (-Y, X): pixel [row, column] to [column, 23 - row], clockwise as drawn
    assert_agree(other, np.rot90(image, -1).astype(float), laue.ERROR_BOUND)
    # and with its reference cell turned too, nothing changes
    turned.info["reference_cell"] = (np.diag([4.0, 4.0, 4.0]) @ turn).tolist()
    again = laue.intensities([Specimen.from_atoms(turned).view((0, 0, 1))], [beam], SIGMA, FACTORS)[0]
    assert_agree(again, image.astype(float), laue.ERROR_BOUND)


def test_rotation_turns_the_pattern():
    specimen = Specimen.from_atoms(random_crystal((4, 3, 3)))
    beam = electrons(200.0, 0.8, 24.0, 24)
    images = laue.intensities([specimen.view((1, 2, 3), rotation=r) for r in (17.0, 107.0)], [beam] * 2, SIGMA, FACTORS)
    assert_agree(images[1], np.rot90(images[0], -1).astype(float), laue.ERROR_BOUND)


@pytest.mark.parametrize(("rotation", "tilt"), [(0.0, (9.0, 0.0)), (0.0, (0.0, 9.0)), (40.0, (-6.0, 8.0))])
def test_tilt_is_a_turn_of_the_crystal(rotation, tilt):
    # the reference cell stays where it is, so the frame does, and the atoms are turned by hand, vector by vector
    atoms = random_crystal((4, 3, 3))
    atoms.info["reference_cell"] = np.diag([4.0, 4.0, 4.0]).tolist()

    def turned(vectors):
        for axis, angle in (
            ([0, 0, 1], math.radians(rotation)),
            ([1, 0, 0], 1e-3 * tilt[0]),
            ([0, 1, 0], 1e-3 * tilt[1]),
        ):
            along = np.outer(vectors @ axis, axis)
            vectors = along + (vectors - along) * math.cos(angle) + np.cross(axis, vectors) * math.sin(angle)
        return vectors

    by_hand = atoms.copy()
    by_hand.set_cell(turned(atoms.cell[:]))
    by_hand.positions = turned(atoms.positions)
    views = [
        Specimen.from_atoms(by_hand).view((0, 0, 1)),
        Specimen.from_atoms(atoms).view((0, 0, 1), "physical", rotation, tilt),
    ]
    assert views[1].area == pytest.approx(views[0].area, rel=1e-12)
    beam = electrons(200.0, 0.8, 24.0, 24)
    image, other = laue.intensities(views, [beam, beam], SIGMA, FACTORS)
    assert_agree(other, image.astype(float), laue.ERROR_BOUND)
    untilted = laue.intensities([Specimen.from_atoms(atoms).view((0, 0, 1))], [beam], SIGMA, FACTORS)[0]
    assert np.abs(untilted - image)[:8].max() > 0.02 * image[:8].max()  # 2000 times what the methods miss


def test_tilt_puts_the_laue_circle_where_the_conventions_page_says():
    # zero-order nodes on the sphere lie on the circle through the origin about k (t_y, -t_x)
    k, t_x, t_y = 40.0, 4.0, -7.0
    frame = geometry.zone_frame(np.eye(3), (0, 0, 1), 0.0, (t_x, t_y))
    centre = k * 1e-3 * np.array([t_y, -t_x])
    for angle in (0.3, 2.0, 4.4):
        point = centre + np.linalg.norm(centre) * np.array([math.cos(angle), math.sin(angle)])
        g = frame @ np.array([*np.linalg.inv(frame[:2, :2]) @ point, 0.0])  # in the crystal's plane z = 0
        assert g[:2] == pytest.approx(point)
        sag = point @ point / (2 * k)
        assert abs(geometry.excitation_error(g, k)) < 1e-3 * sag + 1e-12


def test_equivalent_axes_of_a_cubic_crystal():
    # the threefold axis of a crystal with group 213 takes [012] to [201], and a x b x c with it
    atoms = beta_manganese((4, 4, 4))
    beam = electrons(200.0, 0.8, 24.0, 24)
    cycled = atoms.copy()
    cycled.positions = np.roll(atoms.positions, 1, axis=1)
    views = [Specimen.from_atoms(a).view((0, 1, 2)) for a in (atoms, cycled)]
    same = laue.intensities(views, [beam, beam], SIGMA, FACTORS)
    assert_agree(same[1], same[0].astype(float), laue.ERROR_BOUND)


# --- convergence


def convergent(view, beam, alpha, points=None, weights=None):
    if points is None:
        points, weights = convergence.directions(view, beam, SIGMA, alpha)
    beams = [Beam(beam.k, beam.detector, beam.flat, tuple(point)) for point in points]
    images = laue.intensities([view] * len(beams), beams, SIGMA, FACTORS).astype(float)
    return np.tensordot(weights, images, 1)


@pytest.mark.parametrize("alpha", [0.1, 0.6])
@pytest.mark.parametrize("model", ["physical", "article"])
def test_more_directions_change_nothing(monkeypatch, alpha, model):
    view = Specimen.from_atoms(strained((30, 20, 40))).view((1, 1, 2), model)
    beam = electrons(200.0, 0.6, 12.0, 48, flat=model == "article")
    points, weights = convergence.directions(view, beam, SIGMA, alpha)
    assert weights.sum() == pytest.approx(1.0, abs=1e-12) and (weights > 0).all()
    assert (np.hypot(*points.T) < 1e-3 * alpha).all()
    image = convergent(view, beam, alpha, points, weights)
    convergence._rule.cache_clear()
    monkeypatch.setattr(convergence, "TOLERANCE", 1e-10)
    finer = convergence.directions(view, beam, SIGMA, alpha)
    convergence._rule.cache_clear()
    assert len(finer[0]) > 1.4 * len(points)
    assert_agree(image, convergent(view, beam, alpha, *finer), 1e-5)


def test_convergence_is_the_sum_over_the_cone():
    view = Specimen.from_atoms(random_crystal((6, 5, 9))).view((0, 0, 1))
    beam = electrons(200.0, 0.5, 8.0, 16)
    # the cone as 10 rings of equal area, midpoints; the error falls as the square of their number
    radius = np.repeat(np.sqrt((np.arange(10) + 0.5) / 10), 24) * 0.8e-3
    angle = np.tile(2 * np.pi * np.arange(24) / 24, 10)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    expected = convergent(view, beam, 0.8, points, np.full(240, 1 / 240))
    parallel = laue.intensities([view], [beam], SIGMA, FACTORS)[0]
    found = convergent(view, beam, 0.8)
    assert np.abs(found - expected).max() < 2e-3 * expected.max()
    assert np.abs(parallel - expected).max() > 0.1 * expected.max()


def test_convergence_widens_a_spot_by_the_radius_of_its_disc():
    # on a plane the pattern only moves with the beam, so variances add: a disc of radius R has R^2 / 4 along an axis;
    # the smooth beam has no tails that a window would cut
    view = Specimen.from_atoms(crystal("F m -3 m", 4.05, {"Al": (0, 0, 0)}, (60, 60, 1))).view((0, 0, 1), "article")
    beam = electrons(200.0, 1.0, 8.0, 64, flat=True)
    rows, columns = np.mgrid[:64, :64] - 31.5
    images = [convergent(view, beam, alpha) * (np.hypot(rows, columns) < 20) for alpha in (0.0, 1.0)]
    variances = [(image * columns**2).sum() / image.sum() for image in images]
    assert variances[1] - variances[0] == pytest.approx((1.0 / 0.125) ** 2 / 4, rel=2e-3)  # 1 m x 1 mrad; 0.125 mm


# --- displacements


def test_debye_waller_factors_damp_each_element():
    hkl = nodes(4)
    atoms = REFERENCE["NaCl"]()
    b = {"Na": 1.7, "Cl": 1.2}
    view = Specimen.from_atoms(atoms).view((0, 0, 1))
    q = hkl @ geometry.reciprocal_cell(view.cell)
    square = (q**2).sum(axis=1)
    parts = {}
    for element in b:
        alone = Specimen.from_atoms(atoms[[symbol == element for symbol in atoms.get_chemical_symbols()]])
        shift = np.exp(2j * np.pi * q @ (0.5 * (alone.positions.min(axis=0) + alone.positions.max(axis=0))))
        parts[element] = direct.amplitudes(alone.view((0, 0, 1)), q, FACTORS) * shift
    expected = sum(parts[element] * np.exp(-b[element] * square / 4) for element in b)
    whole = np.exp(2j * np.pi * q @ (0.5 * (atoms.positions.min(axis=0) + atoms.positions.max(axis=0))))
    found = direct.amplitudes(view, q, Factors(debye_waller=b)) * whole
    assert np.abs(found - expected).max() < 1e-10 * np.abs(expected).max()


def test_debye_waller_factor_of_one_element_damps_the_image():
    # between nearby |q| the factor hardly changes: pixel by pixel exp(-B q^2 / 2)
    atoms = crystal("F m -3 m", 4.05, {"Al": (0, 0, 0)}, (6, 6, 3))
    settings = {"zone_axes": [[0, 0, 1]], "voltages": [200.0], "camera_lengths": [0.8], "pixels": 64}
    still, hot = (patterns.simulate(atoms, settings, debye_waller=b) for b in ({}, {"Al": 0.86}))
    ratio = (hot.intensity / still.intensity).values[0, 0, 0, 0]
    x, y = np.meshgrid(still.x.values, still.y.values)
    q = geometry.scattering_vectors(x, y, 1.0 / geometry.wavelength(200.0), 800.0)
    expected = np.exp(-0.86 * (q**2).sum(axis=-1) / 2)
    strong = still.intensity.values[0, 0, 0, 0] > 1e-3 * still.intensity.values[0, 0, 0, 0, :24].max()
    # a pixel is 0.05 / A wide: across it and the response the exponent B q^2 / 2 changes by up to 0.1
    assert ratio[strong] == pytest.approx(expected[strong], rel=0.1)
    assert ratio[strong].min() < 0.4


# --- conservation


@pytest.mark.parametrize("repeat", [3, 7])
def test_parseval_over_a_reciprocal_cell(repeat):
    # a cell with atoms on points of a 4 x 4 x 4 grid: |A|^2 without f averages, over 4 x 4 x 4 reciprocal cells, to the
    # number of atoms in the block
    h = (np.arange(8 * repeat) + 0.3) / (2 * repeat)  # 4 periods, more than twice the highest frequency
    points = np.array([[0, 0, 0], [1, 2, 0], [3, 1, 2]]) / 4.0
    grid = np.stack(np.meshgrid(h, h, h, indexing="ij"), axis=-1)
    cell = np.abs(np.exp(2j * np.pi * grid @ points.T).sum(axis=-1)) ** 2
    lattice = np.ones_like(cell)
    for axis in range(3):
        sums = [laue.lattice_sum(value, np.float32(repeat)) for value in grid[..., axis].ravel()]
        top, bottom = np.array(sums, dtype=float).T
        lattice *= (top / bottom).reshape(cell.shape) ** 2
    assert (cell * lattice).mean() == pytest.approx(3 * repeat**3, rel=1e-5)


def test_direct_beam_holds_what_it_must():
    """Over the central spot of [001]: gamma^2 / area |F(0)|^2 N3^2 (N1 / a) (N2 / b) / k^2, less the tails beyond."""
    atoms = crystal("F m -3 m", 4.05, {"Al": (0, 0, 0)}, (40, 30, 5))
    settings = {
        "model": "physical",
        "scattering_factors": "c4322",
        "zone_axes": [[0, 0, 1]],
        "voltages": [200.0],
        "camera_lengths": [1.2],
        "detector_width": 16.0,
        "pixels": 128,
        "response_sigma": 0.5,
    }
    data = patterns.simulate([atoms], settings)
    k, a = 1.0 / geometry.wavelength(200.0), 4.05
    f = 4 * sum(gemmi.Element("Al").c4322.a)
    area = 40 * 30 * a * a
    expected = geometry.relativistic_factor(200.0) ** 2 / area * f**2 * 5**2 * 40 * 30 / (a * k) ** 2
    # the window reaches to |q| = 0.27 of a*: sinc^2 leaves 1 / (pi^2 N 0.27) = 0.9 % and 1.3 % beyond it along a and b
    assert float(data.intensity.sum()) == pytest.approx(expected, rel=0.02)


def test_wider_response_keeps_the_electrons():
    view = Specimen.from_atoms(strained((20, 20, 8))).view((0, 0, 1))
    beam = electrons(200.0, 1.2, 20.0, 96)
    narrow, wide = (laue.intensities([view], [beam], sigma, FACTORS)[0].astype(float) for sigma in (0.4, 0.9))
    assert wide.max() < 0.8 * narrow.max()
    assert wide.sum() == pytest.approx(narrow.sum(), rel=2e-3)  # only what crosses the edge of the detector
