"""The float64 sum over every atom of the block: slow, and the truth that the fast methods are tested against."""

import numpy as np

from defraction.diffraction import sampling
from defraction.diffraction.geometry import Beam, scattering_vectors
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import View

CHUNK = 1 << 21  # atom-sample pairs at a time


def amplitudes(view: View, q: np.ndarray, factors: Factors) -> np.ndarray:
    """Return A(q) [Å], complex, shape (...), of the whole block for q [1/Å] in the beam frame, shape (..., 3)."""
    positions, species, weights = view.block()
    points = np.asarray(q, dtype=float).reshape(-1, 3)
    length = np.linalg.norm(points, axis=1)
    result = np.zeros(len(points), dtype=complex)
    for s, element in enumerate(view.elements):
        r, w = positions[species == s], weights[species == s]
        chunk = max(1, CHUNK // len(r))
        for start in range(0, len(points), chunk):
            part = slice(start, start + chunk)
            phases = np.exp(2j * np.pi * (points[part] @ r.T)) @ w
            result[part] += factors.of(element, length[part]) * phases
    return result.reshape(np.shape(q)[:-1])


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
    q = scattering_vectors(axes[0][None, :], axes[1][:, None], beam.k, detector.distance, beam.flat)
    radius_squared = axes[0][None, :] ** 2 + axes[1][:, None] ** 2
    cosine = detector.distance / np.sqrt(radius_squared + detector.distance**2)
    squared = np.abs(amplitudes(view, q, factors)) ** 2 * cosine**3
    for n in samples:  # the response along x, then along y
        weights = sampling.response_weights(n, sigma)
        windows = np.lib.stride_tricks.sliding_window_view(squared, len(weights), axis=-1)[..., ::n, :]
        squared = (windows @ weights).T
    return squared
