"""Convergent illumination: directions and weights for the incoherent sum over a cone of incident beams.

The cone is uniform over the disc of the transverse components of its directions, as a beam-forming aperture makes it.
The intensity in a pixel is a band-limited function of the direction, because |A|^2 is one of q: moving the beam by one
pixel moves the pattern by one pixel, which the detector's response damps as it damps frequencies in the pattern, and
moves the sphere along the beam, whose effect the thickness bounds. So a Gauss rule over the disc that integrates every
plane wave up to that band limit integrates the pattern.
"""

import math
from functools import lru_cache

import numpy as np

from defraction.diffraction import sampling
from defraction.diffraction.geometry import Beam
from defraction.diffraction.laue import ATOM_DIAMETER
from defraction.diffraction.specimen import View

TOLERANCE = 1e-5  # of each plane wave, after the damping by the response
WAVES = 400  # plane waves that are tried between frequency 0 and the band limit


def directions(view: View, beam: Beam, sigma: float, semi_angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return x, y of unit vectors inside the cone of ``semi_angle`` [mrad], shape (n, 2), and weights (n,); sum 1.

    ``sigma`` [px] of the response. Frequencies are per pixel of the beam's shift on the detector.
    """
    if semi_angle == 0.0:
        return np.zeros((1, 2)), np.ones(1)
    detector = beam.detector
    radius = math.sin(1e-3 * semi_angle)
    shift = radius * detector.distance / detector.pitch  # px from the middle to the rim of the cone
    extent = view.extent()
    across = (math.hypot(extent[0], extent[1]) + ATOM_DIAMETER) * beam.pixel
    along = 0.0 if beam.flat else (math.sqrt(2.0) * sampling.largest_tangent(beam, sigma) + radius) * extent[2]
    points, weights = _rule(
        _up(shift, 1e-3), _up(across, 0.05), _up(along * beam.pixel, 0.05), math.floor(100.0 * sigma) / 100.0
    )
    return radius * points, weights


def _up(value: float, step: float) -> float:
    """Return ``value`` rounded up to a multiple of ``step``, so that like patterns share a rule."""
    return step * math.ceil(value / step)


@lru_cache(maxsize=256)
def _rule(shift: float, across: float, along: float, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return points on the unit disc, shape (n, 2), and weights for plane waves of up to across + along cycles per px.

    Rings at Gauss-Legendre nodes in the squared radius (equal areas), each with as many points as its circumference
    needs, every other ring turned by half a step. Rings and points are added until every wave is right.
    """
    from scipy.special import j0, j1, jv  # costs more to import than a pattern without convergence

    damped = min(across, math.sqrt(-math.log(1e-3 * TOLERANCE) / (2.0 * math.pi**2)) / sigma)
    frequency = np.linspace(0.0, damped + along, WAVES)
    damping = np.exp(-2.0 * (math.pi * sigma * np.maximum(0.0, frequency - along)) ** 2)
    phase = 2.0 * math.pi * shift * frequency
    exact = np.ones(WAVES)
    exact[1:] = 2.0 * j1(phase[1:]) / phase[1:]
    rings = 1
    while True:
        nodes, gauss = np.polynomial.legendre.leggauss(rings)
        radii, shares = np.sqrt(0.5 * (nodes + 1.0)), 0.5 * gauss
        if (damping * np.abs(j0(np.outer(phase, radii)) @ shares - exact)).max() < TOLERANCE:
            break
        rings += 1
    points, weights = [], []
    for ring, (r, share) in enumerate(zip(radii, shares, strict=True)):
        # n equal steps around a ring alias the Bessel functions of orders n, 2 n ...
        count = 2
        while (2.0 * damping * np.abs(jv(count, phase * r))).max() > TOLERANCE:
            count += 1
        angle = 2.0 * math.pi * (np.arange(count) + 0.5 * (ring % 2)) / count
        points.append(r * np.stack([np.cos(angle), np.sin(angle)], axis=1))
        weights.append(np.full(count, share / count))
    points, weights = np.concatenate(points), np.concatenate(weights)
    for array in (points, weights):
        array.setflags(write=False)
    return points, weights
