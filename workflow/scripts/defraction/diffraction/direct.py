"""The float64 sum over every atom of the block: slow, and the truth that the fast methods are tested against."""

import math
from collections.abc import Sequence

import numpy as np
from numba import njit, prange

from defraction.diffraction import laue, sampling
from defraction.diffraction.geometry import Beam, scattering_vectors
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import View

ERROR_BOUND = 1e-6  # of the largest intensity outside the direct beam: stored in single precision

SECONDS_PER_PAIR = 1.5e-9  # of an atom and a sample, on one core with 512-bit vectors
BLOCK = 128  # samples whose sums are kept in the fastest cache while the atoms pass by
SAMPLES_AT_ONCE = 1 << 20  # points of the detector for which q is held at a time: about 100 MB

# Taylor coefficients in t^2 of sin(pi t) / t and cos(pi t); for t^2 <= 1/4 what is left out is below 1e-16.
SINE = tuple((-1.0) ** i * math.pi ** (2 * i + 1) / math.factorial(2 * i + 1) for i in range(11))
COSINE = tuple((-1.0) ** i * math.pi ** (2 * i) / math.factorial(2 * i) for i in range(12))


def intensities(views: Sequence[View], beams: Sequence[Beam], sigma: float, factors: Factors) -> np.ndarray:
    """Return what :func:`laue.intensities` returns, from the sum over every atom."""
    images = [
        intensity(view, beam, sigma, factors, _samples(view, beam, sigma))
        for view, beam in zip(views, beams, strict=True)
    ]
    return np.stack(images).astype(np.float32)


def _samples(view: View, beam: Beam, sigma: float) -> tuple[int, int]:
    """Return the samples per pixel along x and y: one more than the fast methods take."""
    x, y = laue.plan(view, beam, sigma)
    return x.per_pixel + 1, y.per_pixel + 1


def _sample_count(view: View, beam: Beam, sigma: float) -> int:
    x, y = _samples(view, beam, sigma)
    return x * y * (beam.detector.pixels + 2 * sampling.padding(sigma)) ** 2


def cost(view: View, beams: Sequence[Beam], sigma: float) -> float:
    """Return roughly the CPU seconds of the patterns of all ``beams``."""
    atoms = len(view.positions) * float(np.prod(view.repeat))
    return SECONDS_PER_PAIR * atoms * sum(_sample_count(view, beam, sigma) for beam in beams)


def pattern_bytes(view: View, beam: Beam, sigma: float) -> int:
    """Return the memory [bytes] that one pattern needs while it is computed."""
    samples = _sample_count(view, beam, sigma)
    return 16 * samples + 100 * min(samples, SAMPLES_AT_ONCE) + 50 * len(view.positions) * int(np.prod(view.repeat))


def amplitudes(view: View, q: np.ndarray, factors: Factors) -> np.ndarray:
    """Return A(q) [Å], complex, shape (...), of the whole block for q [1/Å] in the beam frame, shape (..., 3)."""
    return _Atoms.of(view).amplitudes(np.asarray(q, dtype=float), factors)


def intensity(view: View, beam: Beam, sigma: float, factors: Factors, samples: tuple[int, int]) -> np.ndarray:
    """Return what :func:`laue.intensities` gives for one pattern, float64 (y, x).

    ``samples`` per pixel along x and y: more than :func:`sampling.samples_per_pixel` asks for.
    """
    pad = sampling.padding(sigma)
    detector = beam.detector
    axes = []
    for n in samples:
        count = n * (detector.pixels + 2 * pad)
        axes.append(((np.arange(count) + 0.5) / n - pad - 0.5 * detector.pixels) * detector.pitch)
    x, y = axes
    atoms = _Atoms.of(view)
    squared = np.empty((len(y), len(x)))
    rows = max(1, SAMPLES_AT_ONCE // len(x))
    for start in range(0, len(y), rows):
        part = slice(start, start + rows)
        q = scattering_vectors(x[None, :], y[part, None], beam.k, detector.distance, beam.flat) - beam.origin
        cosine = detector.distance / np.sqrt(x[None, :] ** 2 + y[part, None] ** 2 + detector.distance**2)
        squared[part] = np.abs(atoms.amplitudes(q, factors)) ** 2 * cosine**3
    for n in samples:  # the response along x, then along y
        weights = sampling.response_weights(n, sigma)
        windows = np.lib.stride_tricks.sliding_window_view(squared, len(weights), axis=-1)[..., ::n, :]
        squared = (windows @ weights).T
    return squared


class _Atoms:
    """All atoms of a block by element: positions, shape (3, n), and amplitude weights, shape (n,)."""

    def __init__(self, groups: list[tuple[str, np.ndarray, np.ndarray]]):
        self.groups = groups

    @classmethod
    def of(cls, view: View) -> "_Atoms":
        positions, species, weights = view.block()
        chosen = [species == s for s in range(len(view.elements))]
        return cls(
            [
                (element, np.ascontiguousarray(positions[part].T), weights[part].astype(float))
                for element, part in zip(view.elements, chosen, strict=True)
            ]
        )

    def amplitudes(self, q: np.ndarray, factors: Factors) -> np.ndarray:
        """Return A(q) [Å], complex, shape (...), for q [1/Å], shape (..., 3)."""
        points = np.ascontiguousarray(q.reshape(-1, 3).T)
        length = np.sqrt((points**2).sum(axis=0))
        result = np.zeros(len(length), dtype=complex)
        sums = np.empty((2, len(length)))
        for element, positions, weights in self.groups:
            _sums(points, positions, weights, sums)
            result += factors.of(element, length) * (sums[0] + 1j * sums[1])
        return result.reshape(q.shape[:-1])


@njit(fastmath={"contract", "nsz"}, error_model="numpy", cache=True)
def _sine(t2):
    """sin(pi t) / t for t^2 <= 1/4."""
    s = SINE
    high = s[6] + t2 * (s[7] + t2 * (s[8] + t2 * (s[9] + t2 * s[10])))
    return s[0] + t2 * (s[1] + t2 * (s[2] + t2 * (s[3] + t2 * (s[4] + t2 * (s[5] + t2 * high)))))


@njit(fastmath={"contract", "nsz"}, error_model="numpy", cache=True)
def _cosine(t2):
    """cos(pi t) for t^2 <= 1/4."""
    c = COSINE
    high = c[6] + t2 * (c[7] + t2 * (c[8] + t2 * (c[9] + t2 * (c[10] + t2 * c[11]))))
    return c[0] + t2 * (c[1] + t2 * (c[2] + t2 * (c[3] + t2 * (c[4] + t2 * (c[5] + t2 * high)))))


@njit(parallel=True, fastmath={"contract", "nsz"}, error_model="numpy", cache=True)
def _sums(points, positions, weights, sums):
    """Fill ``sums`` (2, point) with the sum over the atoms, in their order, of weight exp(2 pi i q.r).

    A block of points stays in the cache while all atoms pass; the sums of neighbouring points are vectorised, the
    order of each point's sum is that of the atoms.
    """
    count = points.shape[1]
    for block in prange((count + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        n = min(BLOCK, count - start)
        qx, qy, qz = points[0, start : start + n], points[1, start : start + n], points[2, start : start + n]
        real, imaginary = np.zeros(n), np.zeros(n)
        for atom in range(len(weights)):
            rx, ry, rz, weight = positions[0, atom], positions[1, atom], positions[2, atom], weights[atom]
            for i in range(n):
                turns = qx[i] * rx + qy[i] * ry + qz[i] * rz
                t = turns - np.rint(turns)
                t2 = t * t
                sine = t * _sine(t2)  # of half the angle
                real[i] += weight * (1.0 - 2.0 * sine * sine)
                imaginary[i] += weight * 2.0 * sine * _cosine(t2)
        sums[0, start : start + n] = real
        sums[1, start : start + n] = imaginary
