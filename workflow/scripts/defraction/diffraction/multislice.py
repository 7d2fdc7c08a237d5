"""Dynamical diffraction by the multislice algorithm, through abTEM: where one electron is scattered more than once.

The atoms of the whole block are cut into slices across the beam, whose projected potentials (from our own scattering
factors, by non-uniform FFTs) abTEM applies to a plane wave one after the other (Madsen & Susi, Open Research Europe 1,
24 (2021), 10.12688/openreseurope.13015.2). The block stands free in a box with vacuum around it.

What is recorded is the wave psi behind the specimen as from a beam that is wider than the specimen, over the projected
area of the specimen: the scattered wave psi - 1, which for a thin specimen is the kinematical pattern, and on top of it
the incident wave of that area. Its edges are softened, so that the incident wave has no streaks of its own. The direct
beam is then corrected so that every electron is counted once: by the optical theorem, area + 2 Re integral of psi - 1
is left in it and in its interference with the forward scattering. A pattern sums to 1 but for what leaves the detector
and the band of the calculation.
"""

import importlib.util
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from defraction.diffraction import sampling, scattering
from defraction.diffraction.geometry import (
    ELECTRON_MASS,
    ELEMENTARY_CHARGE,
    PLANCK,
    Beam,
    relativistic_factor,
    wavelength,
)
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import View

logger = logging.getLogger(__name__)

MEANING = "fraction of the incident electrons in the pixel, dynamical (sums to 1 over all directions)"

POTENTIAL = 1e20 * PLANCK**2 / (2.0 * math.pi * ELECTRON_MASS * ELEMENTARY_CHARGE)  # V Å^2: times f [Å] gives V Å^3
REACH_MIN = 3.5  # 1/Å, however small the detector: 80 Å of aluminium are within 0.2 % of the limit, with 2.5 1/Å 2 %
LOST = 0.005  # of the electrons scattered once beyond the reach, above which the sampling is pointed out
BAND = 0.32  # of 1 / step: what abTEM's antialiasing (to 2/3 of Nyquist, softened by 0.01 / step) leaves untouched
DEPTH_ERROR = 0.3  # rad: phase of the outermost electrons by which an atom's depth may be wrong within its slice
MARGIN = 5.0  # Å of vacuum around the atoms, beyond what the widest scattering reaches sideways
SOFTNESS = 3.0  # Å, standard deviation of the edges of the incident wave: it is nothing beyond 0.3 1/Å
TRANSFORM_TOLERANCE = 1e-5  # of the non-uniform FFT
LARGEST_GRID = 8192  # points along an axis of the box
MAX_ATOMS = 10_000_000

WAVE_BYTES, PADDED_BYTES, ATOM_BYTES = 100, 40, 100  # per point of the box, of the padded wave, and per atom; measured
SECONDS_POTENTIAL, SECONDS_WAVE = 0.6e-7, 0.6e-7  # CPU time per point of a slice and, for the wave, voltage; measured


@dataclass(frozen=True)
class Box:
    """The grid of one view and beam: ``points`` along x and y over ``size`` [Å].

    ``reach`` [1/Å]: the largest transverse spatial frequency that is kept exactly. ``spread`` [Å]: atoms nearer to each
    other along the beam than this may share a slice.
    """

    points: tuple[int, int]
    size: tuple[float, float]
    reach: float
    spread: float

    @classmethod
    def plan(cls, view: View, beam: Beam, sigma: float) -> "Box":
        """Return the box of the whole block with vacuum around it. Raises ValueError if it would be too large."""
        from scipy.fft import next_fast_len

        reach = max(REACH_MIN, _reach(beam, sigma))
        spread = 2.0 * DEPTH_ERROR * beam.k / (math.pi * reach * reach)
        extent = view.extent()
        points, size = [], []
        for axis in range(2):
            length = extent[axis] + 2.0 * MARGIN + extent[2] * reach / beam.k
            n = 2 * next_fast_len(math.ceil(0.5 * length * reach / BAND))
            points.append(n)
            size.append(n * BAND / reach)
        if max(points) > LARGEST_GRID:
            raise ValueError(
                f"method: multislice of a specimen of {extent[0]:.0f} x {extent[1]:.0f} Å across the beam needs "
                f"{max(points)} points along an axis to reach {reach:.2f} 1/Å; at most {LARGEST_GRID} are possible: "
                "repeat the cell less often, or take a longer camera length"
            )
        return cls(tuple(points), tuple(size), reach, spread)

    @property
    def area(self) -> int:
        """Number of points."""
        return self.points[0] * self.points[1]


def _reach(beam: Beam, sigma: float) -> float:
    """Return the transverse spatial frequency [1/Å] of the corner of the sampled area."""
    tangent = math.sqrt(2.0) * sampling.largest_tangent(beam, sigma)
    return beam.k * tangent / math.sqrt(1.0 + tangent * tangent)


def check(settings: dict) -> None:
    """Raise ValueError for settings that multislice cannot do, ModuleNotFoundError if abTEM is missing."""
    if settings["model"] != "physical":
        raise ValueError(f"model: multislice knows the model physical only, not {settings['model']}")
    if settings["convergence"]:
        raise ValueError("convergence: multislice is for a parallel beam; set it to 0")
    if importlib.util.find_spec("abtem") is None:
        raise ModuleNotFoundError(
            "method: multislice needs the package abtem (pip install abtem==1.0.11, or the environment "
            "workflow/envs/multislice.yaml)"
        )


def check_view(view: View) -> None:
    """Raise ValueError for a specimen of so many atoms that they should not be listed one by one."""
    if _atoms(view) > MAX_ATOMS:
        raise ValueError(
            f"method: multislice of {_atoms(view):.2e} atoms; at most {MAX_ATOMS:.0e} are possible: repeat the cell "
            "less often"
        )


def pattern_bytes(view: View, beam: Beam, sigma: float) -> int:
    """Return the memory [bytes] that one pattern needs while it is computed."""
    box = Box.plan(view, beam, sigma)
    padded = _padded(view, box, beam, sigma)
    return WAVE_BYTES * box.area + PADDED_BYTES * padded[0] * padded[1] + ATOM_BYTES * _atoms(view)


def cost(view: View, beams: Sequence[Beam], sigma: float) -> float:
    """Return roughly the CPU seconds of the patterns of one view."""
    boxes = [Box.plan(view, beam, sigma) for beam in beams]
    return sum(_seconds(box, min(view.extent()[2] / box.spread, _atoms(view)), 1) for box in boxes)


def _seconds(box: Box, slices: float, voltages: int) -> float:
    return slices * box.area * (SECONDS_POTENTIAL + voltages * SECONDS_WAVE)


def _atoms(view: View) -> int:
    return len(view.positions) * int(np.prod(view.repeat))


def describe(views: Sequence[View], beams: Sequence[Beam], sigma: float) -> dict:
    """Return how the patterns of ``views`` in ``beams`` are computed, as attributes of a file; the coarsest of them."""
    boxes = [Box.plan(view, beam, sigma) for view, beam in zip(views, beams, strict=True)]
    return {
        "multislice_sampling_angstrom": max(BAND / box.reach for box in boxes),
        "multislice_reach_per_angstrom": min(box.reach for box in boxes),
        "multislice_slice_thickness_angstrom": max(box.spread for box in boxes),
        "multislice_slice_thickness_meaning": "atoms nearer to each other along the beam share a slice at their mean "
        "depth; wider gaps between layers of atoms are one step of propagation",
        "multislice_projection": "infinite",
        "multislice_abtem": version("abtem"),
    }


def fractions(
    views: Sequence[View], beams: Sequence[Beam], voltages: Sequence[float], sigma: float, factors: Factors
) -> np.ndarray:
    """Return the fraction of the incident electrons that each pixel records, float32 (pattern, y, x).

    For lists of equal length; ``voltages`` [kV] are those of the beams. Patterns of one view on one grid share the
    slices' potentials, and those of one voltage the wave. The Debye-Waller factors of ``factors`` damp the potential;
    what they take from the Bragg spots is not put between them (there is neither absorption nor diffuse scattering):
    use snapshots for that.

    Raises ValueError for what :func:`check` refuses, for tilted beams and for a specimen too large, ModuleNotFoundError
    without abTEM.
    """
    check({"model": "article" if any(beam.flat for beam in beams) else "physical", "convergence": 0.0})
    if any(beam.direction != (0.0, 0.0) for beam in beams):
        raise ValueError("convergence: multislice is for a beam along the optic axis; tilt the specimen instead")
    images = np.empty((len(views), beams[0].detector.pixels, beams[0].detector.pixels), dtype=np.float32)
    groups: dict[tuple[int, Box], list[int]] = {}
    for number, (view, beam) in enumerate(zip(views, beams, strict=True)):
        groups.setdefault((id(view), Box.plan(view, beam, sigma)), []).append(number)
    for (_, box), numbers in groups.items():
        view = views[numbers[0]]
        chosen = sorted({voltages[n] for n in numbers})
        waves, illuminated = _exit_waves(view, box, chosen, factors), _illuminated(view, box)
        for n in numbers:
            images[n] = _image(view, box, beams[n], sigma, waves[chosen.index(voltages[n])], illuminated)
    return images


def _slices(z: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group atoms by depth: their order, where each slice starts in it, and the slices' mean depths [Å].

    Atoms share a slice if they lie within ``spread`` [Å] of its first one: the layers of a crystal are slices.
    """
    order = np.argsort(z, kind="stable")
    ordered = z[order]
    first = [0]
    while True:
        after = int(np.searchsorted(ordered, ordered[first[-1]] + spread + 1e-6, side="right"))
        if after == len(ordered):
            break
        first.append(after)
    bounds = np.array([*first, len(ordered)])
    return order, bounds, np.add.reduceat(ordered, bounds[:-1]) / np.diff(bounds)


def _fractional(view: View, box: Box) -> np.ndarray:
    """Return x and y of all atoms in units of the box, (n, 2) from its middle, the block in the middle."""
    xy = view.block()[0][:, :2]
    return (xy - 0.5 * (xy.min(axis=0) + xy.max(axis=0))) / box.size


def _illuminated(view: View, box: Box) -> np.ndarray:
    """Return 1 where the specimen is, else 0, float32 (x, y): the points nearest to its atoms that make up its area."""
    from scipy.ndimage import distance_transform_edt

    step = [size / n for size, n in zip(box.size, box.points, strict=True)]
    empty = np.ones(box.points, dtype=bool)
    place = np.rint((_fractional(view, box) + 0.5) * box.points).astype(int) % box.points
    empty[place[:, 0], place[:, 1]] = False
    distance = distance_transform_edt(empty, sampling=step).ravel()
    count = min(round(view.area / (step[0] * step[1])), len(distance))
    inside = np.zeros(len(distance), dtype=np.float32)
    inside[np.argpartition(distance, count - 1)[:count]] = 1.0
    return inside.reshape(box.points)


def _exit_waves(view: View, box: Box, voltages: Sequence[float], factors: Factors) -> np.ndarray:
    """Return psi - 1 behind the specimen, complex64 (voltage, x, y)."""
    import abtem
    import finufft
    from abtem.antialias import AntialiasAperture
    from abtem.multislice import FresnelPropagator, conventional_multislice_step
    from abtem.potentials.iam import PotentialArray
    from scipy.fft import ifft2

    positions, species, _ = view.block()
    order, bounds, depths = _slices(positions[:, 2], box.spread)
    thickness = np.append(np.diff(depths), box.spread)
    fractional = _fractional(view, box)  # put half a turn from the edges, because the wave is padded with zeros later
    scaled = (2.0 * np.pi * (fractional - np.where(fractional >= 0.0, 0.5, -0.5))).astype(np.float32)
    filters = _filters(view, box, factors)
    _warn_of_lost_electrons(view, box, max(voltages), factors)
    plan = finufft.Plan(
        1, box.points, eps=TRANSFORM_TOLERANCE, isign=-1, dtype="complex64", nthreads=1, upsampfac=1.25, modeord=1,
        showwarn=0,
    )  # fmt: skip
    slices = len(depths)
    logger.info(
        "multislice: %d slices of %d x %d points for %d voltages, roughly %.0f CPU s",
        slices, *box.points, len(voltages), _seconds(box, slices, len(voltages)),
    )  # fmt: skip
    with abtem.config.set(
        {
            "device": "cpu",
            "precision": "float32",
            "fft": "fftw",
            "fftw.planning_effort": "FFTW_ESTIMATE",
            "fftw.threads": 1,
        }
    ):
        waves = [
            abtem.PlaneWave(energy=1e3 * voltage, gpts=box.points, extent=box.size).build(lazy=False)
            for voltage in voltages
        ]
        steps = [(FresnelPropagator(), AntialiasAperture()) for _ in voltages]
        reported = time.monotonic()
        for number in range(slices):
            atoms = order[bounds[number] : bounds[number + 1]]
            spectrum = np.zeros(box.points, dtype=np.complex64)
            for s in np.unique(species[atoms]):
                points = scaled[atoms[species[atoms] == s]]
                plan.setpts(np.ascontiguousarray(points[:, 0]), np.ascontiguousarray(points[:, 1]))
                spectrum += plan.execute(np.ones(len(points), dtype=np.complex64)) * filters[s]
            potential = np.ascontiguousarray(ifft2(spectrum, overwrite_x=True).real)
            potential_slice = PotentialArray(potential[None], slice_thickness=float(thickness[number]), extent=box.size)
            waves = [
                conventional_multislice_step(wave, potential_slice, *step, order=2)
                for wave, step in zip(waves, steps, strict=True)
            ]
            if time.monotonic() - reported > 10.0:
                reported = time.monotonic()
                logger.info("multislice: slice %d of %d", number + 1, slices)
    return np.stack([np.asarray(wave.array, dtype=np.complex64) - np.complex64(1.0) for wave in waves])


def _filters(view: View, box: Box, factors: Factors) -> list[np.ndarray]:
    """Return for each species f(|q|) in V Å per point of the box on its reciprocal grid, float32 (x, y), FFT order."""
    step = [size / n for size, n in zip(box.size, box.points, strict=True)]
    qx, qy = (np.fft.fftfreq(n, d) for n, d in zip(box.points, step, strict=True))
    node = (qx[:, None] ** 2 + qy[None, :] ** 2) / scattering.STEP + 1.0
    table = factors.tabulate(list(view.elements), math.hypot(np.abs(qx).max(), np.abs(qy).max()))
    scale = POTENTIAL / (step[0] * step[1])
    return [(scale * np.interp(node, np.arange(len(row)), row)).astype(np.float32) for row in table]


def _warn_of_lost_electrons(view: View, box: Box, voltage: float, factors: Factors) -> None:
    """Warn where so many electrons leave the band that the patterns depend on it, as in thick crystals of gold."""
    q = np.linspace(box.reach, 8.0 * box.reach, 2000)
    scale = (wavelength(voltage) * relativistic_factor(voltage)) ** 2
    lost = 0.0
    for number, element in enumerate(view.elements):
        atoms = (view.first[number + 1] - view.first[number]) * int(np.prod(view.repeat))
        lost += atoms / view.area * scale * float(np.trapezoid(2.0 * np.pi * q * factors.of(element, q) ** 2, q))
    if lost > LOST:
        logger.warning(
            "multislice: about %.1f %% of the electrons are scattered beyond %.1f 1/Å, where the calculation ends, and "
            "intensities may be wrong by many times that. Give Debye-Waller factors (atoms at rest scatter too far) "
            "or a thinner specimen",
            100.0 * lost, box.reach,
        )  # fmt: skip


def _padded(view: View, box: Box, beam: Beam, sigma: float) -> list[int]:
    """Return the points (x, y) over which the scattered wave is transformed, so that the response is sampled."""
    from scipy.fft import next_fast_len

    tangent = sampling.largest_tangent(beam, sigma)
    narrowest = beam.pixel / (1.0 + 2.0 * tangent**2) ** 1.5
    spread = 2.0 * MARGIN + tangent * view.extent()[2] + sampling.guard(sigma) / narrowest
    lengths = [view.extent()[axis] + spread for axis in range(2)]
    needed = [math.ceil(0.5 * lengths[i] / box.size[i] * box.points[i]) for i in range(2)]
    return [max(box.points[i], 2 * next_fast_len(needed[i])) for i in range(2)]


def _image(view: View, box: Box, beam: Beam, sigma: float, wave: np.ndarray, illuminated: np.ndarray) -> np.ndarray:
    """Return the fractions in the pixels, float32 (y, x), from psi - 1 and the illuminated area, both (x, y)."""
    from scipy.fft import fft2

    step = np.array(box.size) / box.points
    padded = _padded(view, box, beam, sigma)
    frequencies = [np.fft.fftfreq(padded[i], step[i]) for i in range(2)]
    reach = _reach(beam, sigma)
    kept = [np.flatnonzero(np.abs(f) <= reach) for f in frequencies]
    qx, qy = frequencies[0][kept[0]], frequencies[1][kept[1]]
    point = step[0] * step[1]
    cell = 1.0 / (padded[0] * padded[1] * point)  # [1/Å^2] of the reciprocal grid

    scattered = fft2(wave, s=padded)[np.ix_(*kept)] * point
    incident = fft2(illuminated, s=padded)[np.ix_(*kept)] * point
    incident *= np.exp(-2.0 * np.pi**2 * SOFTNESS**2 * (qx[:, None] ** 2 + qy[None, :] ** 2))
    squared = np.abs(scattered + incident).astype(float) ** 2
    alone = np.abs(scattered).astype(float) ** 2
    total = view.area + 2.0 * point * float(wave.real.sum(dtype=float)) + float(alone.sum()) * cell
    # what the soft edges miss of the incident electrons, or count twice, is a matter of the direct beam
    missing = total - float(squared.sum()) * cell
    direct = np.abs(incident).astype(float) ** 2
    if missing >= 0.0:
        squared += missing / (float(direct.sum()) * cell) * direct
    else:
        direct /= direct.max()
        squared *= 1.0 + max(-1.0, missing / (float((direct * squared).sum()) * cell)) * direct
        squared *= total / (float(squared.sum()) * cell)  # 1, unless the direct beam does not suffice
    return _to_pixels(squared * (cell / view.area), qx, qy, beam, sigma)


def _to_pixels(values: np.ndarray, qx: np.ndarray, qy: np.ndarray, beam: Beam, sigma: float) -> np.ndarray:
    """Hand every point (x, y) of transverse spatial frequency qx, qy [1/Å] to the pixels with the detector's response.

    sin(theta) = |q| / k gives the direction. Returns float32 (y, x), nowhere negative.
    """
    detector = beam.detector
    along = np.sqrt(np.maximum(beam.k**2 - qx[:, None] ** 2 - qy[None, :] ** 2, 1e-30))
    scale = detector.distance / detector.pitch
    column = (qx[:, None] / along * scale + 0.5 * (detector.pixels - 1)).ravel()
    row = (qy[None, :] / along * scale + 0.5 * (detector.pixels - 1)).ravel()
    pad = sampling.padding(sigma)
    inside = (np.abs(column - 0.5 * (detector.pixels - 1)) < 0.5 * detector.pixels + pad) & (
        np.abs(row - 0.5 * (detector.pixels - 1)) < 0.5 * detector.pixels + pad
    )
    column, row, values = column[inside], row[inside], values.ravel()[inside]
    x, y = np.rint(column).astype(int), np.rint(row).astype(int)
    offsets = np.arange(-pad, pad + 1)
    nodes = np.linspace(-0.5 - pad, 0.5 + pad, 2048 * (2 * pad + 1) + 1)
    response = sampling.response(nodes, sigma)
    width = detector.pixels + 4 * pad  # with a border, so that no index leaves it
    image = np.zeros(width * width)
    along_x = [np.interp(column - x - offset, nodes, response) for offset in offsets]
    for vertical in offsets:
        weight = values * np.interp(row - y - vertical, nodes, response)
        target = (y + vertical + 2 * pad) * width + x + 2 * pad
        for horizontal, factor in zip(offsets, along_x, strict=True):
            image += np.bincount(target + horizontal, weight * factor, width * width)
    border = slice(2 * pad, 2 * pad + detector.pixels)
    return np.maximum(image.reshape(width, width)[border, border], 0.0).astype(np.float32)
