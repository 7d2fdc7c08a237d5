"""How finely a pattern must be sampled, and the two linear filters that follow from it.

|A|^2 is band-limited: along a detector axis its highest frequency is the extent of the specimen along that axis.
Sampled finer than the pixel and weighted with a Gaussian response, its integral over a pixel converges exponentially;
the bare value at the pixel centre is wrong by factors, because the spots are narrower than a pixel.
"""

import math

import numpy as np

from defraction.diffraction.geometry import Beam

TAPS = 10  # of the interpolation of the cell's amplitude, which is sampled more coarsely than |A|^2
OVERSAMPLING = 3.0  # of that coarse sampling against the band limit; with TAPS = 10 the worst error is 3e-6
RESPONSE_REACH = 5.0  # the response is followed this many standard deviations beyond the edge of the pixel


def guard(sigma: float) -> float:
    """Return the samples per pixel needed beyond the band limit: 1.5 for sigma = 0.5 px, more for a narrower response.

    What is aliased is damped by exp(-2 pi^2 sigma^2 guard^2), by the square pixel, and by the spectrum of |A|^2 that
    vanishes at its edge: 1.5 and 2.0 differ by less than single precision.
    """
    return max(1.5, 0.75 / sigma)


def samples_per_pixel(extent: float, pixel: float, sigma: float) -> int:
    """Return the samples needed in a ``pixel`` [1/Å] for a specimen's ``extent`` [Å] and a response ``sigma`` [px]."""
    return math.ceil(extent * pixel + guard(sigma))


def padding(sigma: float) -> int:
    """Return by how many pixels the sampled area reaches beyond the image on each side."""
    return math.ceil(RESPONSE_REACH * sigma)


def largest_tangent(beam: Beam, sigma: float) -> float:
    """Return the tangent of the largest angle to the optic axis that is sampled along one detector axis."""
    return (0.5 * beam.detector.pixels + padding(sigma)) * beam.detector.pitch / beam.detector.distance


def response_weights(samples: int, sigma: float) -> np.ndarray:
    """Return the weight in one pixel of the samples in it and in ``padding`` pixels on both sides; their sum is 1.

    The response is the square pixel convolved with a Gaussian of ``sigma`` [px]. Shape ((2 padding + 1) samples,).
    """
    pad = padding(sigma)
    u = (np.arange((2 * pad + 1) * samples) + 0.5) / samples - pad - 0.5
    weights = response(u, sigma)
    return weights / weights.sum()


def response(u: np.ndarray, sigma: float) -> np.ndarray:
    """Return the fraction that a pixel records of electrons at distance ``u`` [px] from its centre along one axis."""
    scale = 1.0 / (math.sqrt(2.0) * sigma)
    return 0.5 * np.array([math.erf(scale * (v + 0.5)) - math.erf(scale * (v - 0.5)) for v in u.ravel()]).reshape(
        u.shape
    )


def interpolation_weights(ratio: int) -> np.ndarray:
    """Return weights, shape (ratio, TAPS), of coarse samples for the points at 0, 1 / ratio ... between two of them.

    Least squares over the band |frequency| <= 1 / (2 OVERSAMPLING) per coarse sample; the point lies between the taps
    TAPS / 2 - 1 and TAPS / 2.
    """
    if ratio == 1:
        return np.eye(1, TAPS)
    nodes, gauss = np.polynomial.legendre.leggauss(4 * TAPS)
    phase = np.pi / OVERSAMPLING * nodes
    root = np.sqrt(gauss)[:, None]
    offset = np.arange(TAPS) - (TAPS // 2 - 1)
    design = np.vstack([root * np.cos(np.outer(phase, offset)), root * np.sin(np.outer(phase, offset))])
    fraction = np.arange(ratio) / ratio
    target = np.vstack([root * np.cos(np.outer(phase, fraction)), root * np.sin(np.outer(phase, fraction))])
    return np.linalg.lstsq(design, target, rcond=1e-13)[0].T
