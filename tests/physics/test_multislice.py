"""Multislice against kinematics where one event of scattering is all there is, and against what only dynamics shows."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell

from defraction.diffraction import geometry, laue, multislice
from defraction.diffraction.geometry import Beam, Detector
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import Specimen

pytest.importorskip("abtem")

SIGMA = 0.5
LATTICE = 4.05
ALUMINIUM = bulk("Al", "fcc", a=LATTICE, cubic=True)


def view_of(atoms, repeat, axis, tilt=(0.0, 0.0)):
    atoms = atoms.copy()
    atoms.info["repeat"] = list(repeat)
    return Specimen.from_atoms(atoms).view(axis, tilt=tilt)


def electrons(voltage, camera_length, width, pixels):
    return Beam(1.0 / geometry.wavelength(voltage), Detector(camera_length, width, pixels))


def dynamical(view, beam, voltage, factors):
    return multislice.fractions([view], [beam], [voltage], SIGMA, factors)[0]


def kinematical(view, beam, voltage, factors):
    """Fractions of the incident beam, as the other methods are stored."""
    gamma = geometry.relativistic_factor(voltage)
    to_fraction = gamma**2 * (beam.detector.pitch / beam.detector.distance) ** 2 / view.area
    return laue.intensities([view], [beam], SIGMA, factors)[0].astype(float) * to_fraction


def away_from_direct_beam(image, radius=8):
    offset = np.arange(len(image)) - 0.5 * (len(image) - 1)
    return np.hypot(offset[:, None], offset[None, :]) > radius


def window(image, beam, g, reach):
    """Sum of the image over (2 reach + 1)^2 pixels around the spot of g [1/Å], x and y."""
    position = geometry.spot_position(np.array([*g[:2], 0.0]), beam.k, beam.detector.distance)
    x, y = np.rint(beam.detector.pixel_of(position)).astype(int)
    return float(image[y - reach : y + reach + 1, x - reach : x + reach + 1].sum())


@pytest.mark.parametrize("table", ["c4322", "lobato", "peng"])
def test_thin_crystal_is_kinematical(table):
    # one cell of Al: the phase behind an atom is up to some 0.1 rad, and its square is what dynamics changes
    view, beam, factors = view_of(ALUMINIUM, (8, 8, 1), (0, 0, 1)), electrons(300.0, 0.8, 32.0, 64), Factors(table)
    found, expected = dynamical(view, beam, 300.0, factors), kinematical(view, beam, 300.0, factors)
    outside = away_from_direct_beam(found)
    assert np.abs(found - expected)[outside].max() < 0.01 * expected[outside].max()
    ratios = [
        window(found, beam, g, 4) / window(expected, beam, g, 4)
        for g in np.array([[2, 0], [0, -2], [2, 2], [-2, 2]]) / LATTICE
    ]
    assert ratios == pytest.approx(np.ones(4), abs=0.01)


def asymmetric_rod():
    """Hydrogen without symmetry, 150 Å long: it scatters weakly, and is so long that the Ewald sphere is not flat."""
    points = np.random.default_rng(5).random((14, 3))
    return Atoms("H14", cell=[[6.0, 0, 0], [1.0, 7.0, 0], [0.5, -0.6, 30.0]], scaled_positions=points, pbc=True)


@pytest.mark.parametrize("tilt", [(0.0, 0.0), (40.0, -25.0)])
def test_image_has_the_orientation_of_the_conventions(tilt):
    view, beam = view_of(asymmetric_rod(), (2, 2, 4), (0, 0, 1), tilt), electrons(60.0, 0.25, 24.0, 40)
    found, expected = dynamical(view, beam, 60.0, Factors()), kinematical(view, beam, 60.0, Factors())
    outside = away_from_direct_beam(found)

    def misfit(candidate):
        return np.abs(found - candidate)[outside].max() / expected[outside].max()

    assert misfit(expected) < 0.05  # a few % of the electrons are scattered, and that share of them again
    turned = [np.rot90(expected, i) for i in range(4)]
    assert min(misfit(wrong) for wrong in [*turned[1:], *(image.T for image in turned)]) > 0.2


def test_debye_waller_factors_damp_the_potential():
    view, beam = view_of(ALUMINIUM, (8, 8, 1), (0, 0, 1)), electrons(300.0, 0.8, 32.0, 64)
    b = 2.0
    rest, damped = (dynamical(view, beam, 300.0, Factors("lobato", {"Al": value})) for value in (0.0, b))
    for g in np.array([[2, 0], [2, 2]]) / LATTICE:
        assert window(damped, beam, g, 4) / window(rest, beam, g, 4) == pytest.approx(
            np.exp(-0.5 * b * g @ g), rel=0.01
        )


def test_thick_crystal_equals_abtem_for_an_infinite_one():
    import abtem

    # 80 Å of Al at 200 kV: the direct beam is more than halved
    view, beam = view_of(ALUMINIUM, (10, 10, 20), (0, 0, 1)), electrons(200.0, 0.8, 40.0, 96)
    found = dynamical(view, beam, 200.0, Factors("lobato"))
    assert found.min() >= 0.0
    assert 0.95 < found.sum() < 1.0
    spots = [window(found, beam, np.array(g) / LATTICE, 12) for g in ((0, 0), (2, 0), (0, 2), (-2, 0), (2, 2))]
    assert 0.4 < spots[0] < 0.55
    assert spots[1:4] == pytest.approx([np.mean(spots[1:4])] * 3, rel=1e-3)  # fourfold symmetry

    points = 160
    potential = abtem.Potential(
        ALUMINIUM.repeat((1, 1, 20)), gpts=(points, points), slice_thickness=0.5 * LATTICE, parametrization="lobato"
    )
    wave = abtem.PlaneWave(energy=200e3).multislice(potential, lazy=False)
    theirs = np.abs(np.fft.fft2(wave.array) / points**2) ** 2
    expected = [theirs[0, 0], theirs[2, 0], theirs[0, 2], theirs[-2, 0], theirs[2, 2]]
    # a finite block: its spots reach beyond the windows, and its outermost columns have no neighbours
    assert spots == pytest.approx(expected, rel=0.03)


def test_every_electron_is_counted_once_where_the_direct_beam_has_nearly_gone():
    # a needle of 160 Å: interference with the forward scattering takes more from the incident wave than is left of it
    view, beam = view_of(ALUMINIUM, (4, 4, 40), (0, 0, 1)), electrons(200.0, 0.8, 40.0, 64)
    found = dynamical(view, beam, 200.0, Factors("lobato", {"Al": 0.8}))
    assert found.min() >= 0.0
    assert 0.97 < found.sum() <= 1.0
    assert window(found, beam, np.zeros(2), 4) < 0.3


def test_forbidden_reflection_appears_by_multiple_scattering():
    # Si 002 is forbidden, but 1 -1 1 + -1 1 1 = 0 0 2 in the zone [110]; faces along and across the beam
    silicon = bulk("Si", "diamond", a=5.431, cubic=True)
    block = make_supercell(silicon, [[1, -1, 0], [0, 0, 1], [1, 1, 0]])
    block.info["reference_cell"] = silicon.cell[:].tolist()
    beam = electrons(200.0, 0.8, 40.0, 128)
    frame = geometry.zone_frame(silicon.cell[:], (1, 1, 0))
    forbidden, allowed = (frame @ np.array(hkl) / 5.431 for hkl in ((0, 0, 2), (1, -1, 1)))
    factors = Factors("lobato", {"Si": 0.5})
    shares = {dynamical: [], kinematical: []}
    for thickness in (1, 10):  # 8 and 77 Å
        view = view_of(block, (4, 5, thickness), (1, 1, 0))
        for method in (dynamical, kinematical):
            image = method(view, beam, 200.0, factors)
            shares[method].append(window(image, beam, forbidden, 3) / window(image, beam, allowed, 3))
    # what the tails of the allowed spots leave at 002 does not depend on the thickness: 0.6 % for this narrow block
    thin, thick = shares[kinematical]
    assert thick == pytest.approx(thin, rel=0.05)
    assert shares[dynamical][0] == pytest.approx(thin, rel=0.05)
    assert shares[dynamical][1] - thick > 0.005


def test_patterns_do_not_depend_on_their_company():
    views = [view_of(ALUMINIUM, (4, 4, 3), axis) for axis in ((0, 0, 1), (0, 1, 1))]
    beams = [electrons(voltage, length, 40.0, 32) for voltage in (100.0, 300.0) for length in (0.8, 1.2)]
    jobs = [
        (view, beam, voltage)
        for view in views
        for beam, voltage in zip(beams, (100.0, 100.0, 300.0, 300.0), strict=True)
    ]
    together = multislice.fractions(*zip(*jobs, strict=True), SIGMA, Factors())
    for image, (view, beam, voltage) in zip(together, jobs, strict=True):
        assert (image == dynamical(view, beam, voltage, Factors())).all()


def test_sampling_of_the_response_has_converged(monkeypatch):
    view, beam = view_of(ALUMINIUM, (6, 5, 8), (0, 1, 1)), electrons(200.0, 0.5, 63.5, 64)
    once = dynamical(view, beam, 200.0, Factors())
    enough = multislice.sampling.guard(SIGMA)
    monkeypatch.setattr(multislice.sampling, "guard", lambda sigma: enough + 3.0)
    finer = dynamical(view, beam, 200.0, Factors())
    outside = away_from_direct_beam(once)
    assert np.abs(once - finer)[outside].max() < 1e-3 * finer[outside].max()


def test_what_cannot_be_done_is_refused(monkeypatch, caplog):
    view, beam = view_of(ALUMINIUM, (3, 3, 1), (0, 0, 1)), electrons(200.0, 0.8, 32.0, 16)
    with pytest.raises(ValueError, match="model: multislice knows the model physical only"):
        dynamical(view, Beam(beam.k, beam.detector, flat=True), 200.0, Factors())
    with pytest.raises(ValueError, match="convergence: multislice"):
        dynamical(view, Beam(beam.k, beam.detector, direction=(1e-3, 0.0)), 200.0, Factors())
    with pytest.raises(ValueError, match="convergence: multislice"):
        multislice.check({"model": "physical", "convergence": 0.5})
    with pytest.raises(ValueError, match="at most 8192 are possible"):
        dynamical(view_of(ALUMINIUM, (400, 400, 1), (0, 0, 1)), beam, 200.0, Factors())
    with pytest.raises(ValueError, match="repeat the cell less often"):
        multislice.check_view(view_of(ALUMINIUM, (400, 400, 100), (0, 0, 1)))
    gold = bulk("Au", "fcc", a=4.08, cubic=True)
    dynamical(view_of(gold, (2, 2, 8), (0, 0, 1)), beam, 200.0, Factors())
    assert "scattered beyond 3.5 1/Å" in caplog.text
    monkeypatch.setattr(multislice.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"abtem==1\.0\.11.*workflow/envs/multislice\.yaml"):
        multislice.check({"model": "physical", "convergence": 0.0})
