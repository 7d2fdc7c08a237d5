"""Method nufft against the float64 sum over every atom, on crystals and on real specimens with defects."""

import dataclasses
import math
import tracemalloc

import gemmi
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from defraction.defects import dislocation, twin
from defraction.diffraction import direct, geometry, planes, sampling
from defraction.diffraction.geometry import Beam, Detector, scattering_vectors
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import Specimen, View, lattice_weights
from defraction.hosts import Host, read_hosts

FACTORS = Factors()
SIGMA = 0.5
# The method promises 1e-4; what is measured is 5e-6 and below, so that a loss of accuracy is seen before it matters.
BOUND = 3e-5


def electrons(voltage=200.0, camera_length=0.8, width=24.0, pixels=24, flat=False, direction=(0.0, 0.0)) -> Beam:
    return Beam(1.0 / geometry.wavelength(voltage), Detector(camera_length, width, pixels), flat, direction)


def fine(view: View, beam: Beam) -> tuple[int, int]:
    """Samples per pixel, two more than the method takes for a block of this extent: sampling is tested as well."""
    slope = 0.0 if beam.flat else sampling.largest_tangent(beam, SIGMA)
    extent = view.extent()
    return tuple(
        2 + sampling.samples_per_pixel(extent[i] + 3.0 + slope * extent[2], beam.pixel, SIGMA) for i in range(2)
    )


def truth(view: View, beam: Beam) -> np.ndarray:
    return direct.intensity(view, beam, SIGMA, FACTORS, fine(view, beam))


def outside(beam: Beam) -> np.ndarray:
    """Pixels that are not near the direct beam: more than 0.2 of the image or 12 pixels from its middle."""
    offset = np.abs(np.arange(beam.detector.pixels) - 0.5 * (beam.detector.pixels - 1))
    return np.maximum(offset[:, None], offset[None, :]) > min(0.2 * beam.detector.pixels, 12)


def assert_agree(found, expected, beam, bound=BOUND):
    """To ``bound`` of the largest intensity outside the direct beam, and the direct beam to 1e-5 of itself."""
    largest = expected[outside(beam)].max()
    assert largest > 0
    assert np.abs(found - expected)[outside(beam)].max() < bound * largest
    assert np.abs(found - expected).max() < bound * largest + 1e-5 * expected.max()


def window(view: View, beam: Beam, row: int, column: int) -> float:
    """One pixel by the sum over all atoms of the cell, times the sums over its repeats written out term by term."""
    detector, pad = beam.detector, sampling.padding(SIGMA)
    samples = fine(view, beam)
    axes = []
    for n, pixel in zip(samples, (column, row), strict=True):
        u = (np.arange(n * (2 * pad + 1)) + 0.5) / n - pad + pixel
        axes.append((u - 0.5 * detector.pixels) * detector.pitch)
    x, y = axes[0][None, :], axes[1][:, None]
    q = scattering_vectors(x, y, beam.k, detector.distance, beam.flat) - beam.origin
    cell = dataclasses.replace(view, repeat=np.ones(3, dtype=int), smooth=False)
    squared = np.abs(direct.amplitudes(cell, q, FACTORS)) ** 2
    for axis in range(3):
        repeat = int(view.repeat[axis])
        weights = lattice_weights(repeat) if view.smooth else np.ones(repeat)
        squared *= np.abs(np.exp(2j * np.pi * (q @ view.cell[axis])[..., None] * np.arange(repeat)) @ weights) ** 2
    cosine = detector.distance / np.sqrt(x**2 + y**2 + detector.distance**2)
    response_x, response_y = (sampling.response_weights(n, SIGMA) for n in samples)
    return float(response_y @ (squared * cosine**3) @ response_x)


def assert_windows_agree(image, view: View, beam: Beam, count=4, bound=BOUND):
    """The brightest pixel outside the direct beam, bright ones and any ones, each against :func:`window`."""
    masked = np.where(outside(beam), image, 0.0)
    order = np.argsort(masked, axis=None)[::-1]
    generator = np.random.default_rng(0)
    chosen = [order[0], *generator.choice(order[: len(order) // 50], count - 2, replace=False), generator.choice(order)]
    for pixel in chosen:
        row, column = divmod(int(pixel), beam.detector.pixels)
        assert image[row, column] == pytest.approx(
            window(view, beam, row, column), rel=0, abs=bound * float(masked.max())
        )


# --- small crystals, every pixel


def plate(repeat=(1, 1, 5)) -> Atoms:
    """33 x 24 Å of three elements without order, triclinic, repeated along its thickness of 5 Å."""
    points = np.random.default_rng(1).random((120, 3))
    atoms = Atoms(
        ["Al", "Fe", "Au"] * 40, cell=[[33.9, 0, 0], [4.7, 24.4, 0], [-0.5, 0.6, 5.1]], scaled_positions=points
    )
    atoms.info.update(repeat=list(repeat), reference_cell=np.diag([4.05] * 3).tolist())
    return atoms


def chiral() -> Atoms:
    """Two cells of space group 213 each way, as one cell: 160 atoms on a general and a special position."""
    points, symbols = [], []
    for element, site in (("Mn", (0.0636,) * 3), ("Fe", (0.125, 0.2022, 0.4522))):
        images = []
        for operation in gemmi.SpaceGroup("P 41 3 2").operations():
            point = np.mod(operation.apply_to_xyz(list(site)), 1.0)
            if all(np.abs((point - other + 0.5) % 1.0 - 0.5).max() > 1e-3 for other in images):
                images.append(point)
        points += images
        symbols += [element] * len(images)
    return Atoms(symbols, cell=[6.312] * 3, scaled_positions=points, pbc=True).repeat(2)


def strained() -> Atoms:
    atoms = bulk("Al", cubic=True, a=4.05).repeat((5, 4, 3))
    strain = np.array([[0.04, 0.015, 0.0], [0.015, -0.01, 0.02], [0.0, 0.02, -0.02]])
    atoms.set_cell(atoms.cell[:] @ (np.eye(3) + strain), scale_atoms=True)
    atoms.info.update(repeat=[2, 1, 1], reference_cell=np.diag([4.05] * 3).tolist())
    return atoms


CRYSTALS = {"triclinic": plate, "chiral": chiral, "strained": strained}


@pytest.mark.parametrize("model", ["physical", "article"])
@pytest.mark.parametrize("name", CRYSTALS)
def test_nufft_equals_the_sum_over_all_atoms(name, model):
    # several axes, voltages and camera lengths in one call; beams tilted by up to 6 mrad
    specimen = Specimen.from_atoms(CRYSTALS[name]())
    views = [specimen.view(axis, model) for axis in ((0, 0, 1), (2, 3, 3), (0, 1, 0))]
    flat = model == "article"
    beams = [
        electrons(300.0, 0.5, 40.0, 16, flat),
        electrons(120.0, 0.8, 24.0, 16, flat, (0.004, -0.0045)),
        electrons(300.0, 1.2, 32.0, 16, flat),
    ]
    pairs = [(view, beam) for view in views[: 1 if flat else 3] for beam in beams]
    images = planes.intensities(*zip(*pairs, strict=True), SIGMA, FACTORS)
    for image, (view, beam) in zip(images, pairs, strict=True):
        assert_agree(image, truth(view, beam), beam)


def test_wide_angles_and_low_voltage():
    # 20 kV and up to 14 degrees at the corner: a strongly curved sphere
    view = Specimen.from_atoms(plate((1, 1, 1))).view((1, 1, 1))
    beam = electrons(20.0, 0.16, 50.0, 18)
    assert_agree(planes.intensities([view], [beam], SIGMA, FACTORS)[0], truth(view, beam), beam)


def test_rare_species_are_summed_directly(monkeypatch):
    atoms = bulk("Al", cubic=True, a=4.05).repeat((6, 6, 5))
    atoms.symbols[[7, 400]] = "Au"
    view = Specimen.from_atoms(atoms).view((1, 1, 2))
    beam = electrons(300.0, 0.5, 50.0, 20)
    seen = []
    summed = planes._add_directly
    monkeypatch.setattr(planes, "_add_directly", lambda *a: (seen.append(len(a[5])), summed(*a)))
    image = planes.intensities([view], [beam], SIGMA, FACTORS)[0]
    assert set(seen) == {2}  # the gold, not the aluminium
    assert_agree(image, truth(view, beam), beam)


@pytest.mark.parametrize("repeat", [(1, 1, 1), (1, 1, 9)])
def test_narrow_response(repeat):
    view = Specimen.from_atoms(plate(repeat)).view((0, 0, 1))
    beam = electrons(200.0, 0.5, 24.0, 16)
    n = [k + 3 for k in fine(view, beam)]
    expected = direct.intensity(view, beam, 0.3, FACTORS, tuple(n))
    assert_agree(planes.intensities([view], [beam], 0.3, FACTORS)[0], expected, beam)


# --- specimens as the study builds them


@pytest.fixture(scope="module")
def host(root) -> Host:
    return read_hosts(root / "resources/hosts.csv")["Al"]


@pytest.mark.parametrize("model", ["physical", "article"])
@pytest.mark.parametrize("axis", [(0, 0, 1), (1, 1, 2)])
def test_small_specimens_with_defects(host, model, axis):
    specimens = [
        dislocation.build(host, {"count": 1, "spacing": 20.0, "size": (40.0, 34.0), "line_repeat": 4}),
        twin.build(host, {"size": (24.0, 40.0, 18.0)}),
    ]
    beam = electrons(200.0, 0.5, 32.0, 20, model == "article")
    for atoms in specimens:
        view = Specimen.from_atoms(atoms).view(axis, model)
        assert_agree(planes.intensities([view], [beam], SIGMA, FACTORS)[0], truth(view, beam), beam)


@pytest.mark.parametrize("kind", ["dislocation", "twin"])
def test_specimens_of_full_size(host, kind):
    settings = {"count": 4, "spacing": 32.0, "size": (160.0, 120.0), "line_repeat": 16}
    atoms = dislocation.build(host, settings) if kind == "dislocation" else twin.build(host, {"size": (160, 120, 80)})
    assert len(atoms) * math.prod(atoms.info["repeat"]) > 90_000
    view = Specimen.from_atoms(atoms).view((1, 1, 1))
    beams = [electrons(120.0, 1.2, 63.5, 256), electrons(300.0, 0.5, 63.5, 256, direction=(0.0008, 0.0006))]
    for image, beam in zip(planes.intensities([view, view], beams, SIGMA, FACTORS), beams, strict=True):
        assert_windows_agree(image, view, beam)


def test_block_without_period():
    atoms = bulk("Al", cubic=True, a=4.05).repeat((24, 20, 12))
    atoms.positions += np.random.default_rng(2).normal(scale=0.1, size=atoms.positions.shape)
    atoms.info["reference_cell"] = np.diag([4.05] * 3).tolist()
    view = Specimen.from_atoms(atoms).view((0, 1, 2))
    beam = electrons(200.0, 0.8, 63.5, 256)
    image = planes.intensities([view], [beam], SIGMA, FACTORS)[0]
    assert_windows_agree(image, view, beam)


# --- what is shared, and in what order


def test_shared_transforms_equal_those_of_one_beam():
    atoms = bulk("Al", cubic=True, a=4.05).repeat((12, 10, 8))
    atoms.positions += np.random.default_rng(3).normal(scale=0.1, size=atoms.positions.shape)
    view = Specimen.from_atoms(atoms).view((0, 1, 1))
    beams = [electrons(v, length, 63.5, 64) for v in (120.0, 200.0, 300.0) for length in (0.5, 0.8, 1.2)]
    beams += [electrons(200.0, 0.8, 63.5, 64, direction=(0.001 * x, -0.0005)) for x in range(-2, 3)]
    plan = planes.Plan.build(view, beams, SIGMA)
    assert len(plan.spheres) == 8  # three voltages, whatever the camera length, and five directions
    assert any(len(group.spheres) > 1 for tile in plan.tiles for group in tile.groups)
    together = planes.intensities([view] * len(beams), beams, SIGMA, FACTORS)
    for image, beam in zip(together, beams, strict=True):
        assert_agree(planes.intensities([view], [beam], SIGMA, FACTORS)[0], image.astype(float), beam)


def test_result_depends_neither_on_memory_nor_on_order_nor_on_threads(monkeypatch):
    views = [Specimen.from_atoms(plate()).view(axis) for axis in ((1, 1, 2), (0, 0, 1))]
    beams = [electrons(v, length, 40.0, 24) for v in (120.0, 300.0) for length in (0.5, 0.9)]
    pairs = [(view, beam) for view in views for beam in beams]
    once = planes.intensities(*zip(*pairs, strict=True), SIGMA, FACTORS)
    # one sphere at a time
    assert np.array_equal(planes.intensities(*zip(*pairs, strict=True), SIGMA, FACTORS, memory=1.0), once)
    shuffled = planes.intensities(*zip(*pairs[::-1], strict=True), SIGMA, FACTORS)
    assert np.abs(shuffled[::-1] - once).max() < 1e-6 * once.max()
    for threads in (1, 3):
        monkeypatch.setattr(planes.numba.config, "NUMBA_NUM_THREADS", threads)
        assert np.array_equal(planes.intensities(*zip(*pairs, strict=True), SIGMA, FACTORS), once)


def test_memory_that_is_announced():
    """What numpy allocates at once stays near what batch_bytes says, and less memory means less."""
    atoms = bulk("Al", cubic=True, a=4.05).repeat((12, 12, 8))
    atoms.positions += np.random.default_rng(3).normal(scale=0.1, size=atoms.positions.shape)
    view = Specimen.from_atoms(atoms).view((0, 1, 1))
    beams = [electrons(v, 0.5, 63.5, 64) for v in (120.0, 200.0, 300.0)]
    planes.intensities([view], beams[:1], SIGMA, FACTORS)  # compiled
    peaks = []
    for memory in (None, 1.0):
        tracemalloc.start()
        planes.intensities([view] * 3, beams, SIGMA, FACTORS, memory=memory)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    announced = planes.batch_bytes(view, beams, SIGMA)
    assert 0.3 * announced < peaks[0] < 1.15 * announced
    assert peaks[1] < peaks[0]


def test_cost_grows_with_the_work():
    view = Specimen.from_atoms(plate()).view((0, 0, 1))
    beams = [electrons(v, 0.8, 40.0, 64) for v in (120.0, 200.0, 300.0)]
    one, three = planes.cost(view, beams[:1], SIGMA), planes.cost(view, beams, SIGMA)
    assert 0.0 < one < three < 10.0
