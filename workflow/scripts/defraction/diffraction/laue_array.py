"""The same pattern as laue.py as whole-array operations over NumPy or CuPy: the way to a GPU, and a second opinion.

Every fine sample sums the atoms of the cell itself, in double precision; nothing is interpolated.
"""

from collections.abc import Sequence

import numpy as np

from defraction.diffraction import sampling
from defraction.diffraction.backend import Backend
from defraction.diffraction.geometry import Beam
from defraction.diffraction.laue import LATTICE_NODES, lattice_tables, plan
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import View

BYTES_PER_SAMPLE = 160  # of the temporary arrays


def intensities(
    views: Sequence[View], beams: Sequence[Beam], sigma: float, factors: Factors, backend: Backend, memory: float
) -> np.ndarray:
    """Return what :func:`laue.intensities` returns, computed on ``backend`` within ``memory`` [GiB]."""
    return np.stack([_intensity(v, b, sigma, factors, backend, memory) for v, b in zip(views, beams, strict=True)])


def _intensity(view: View, beam: Beam, sigma: float, factors: Factors, backend: Backend, memory: float) -> np.ndarray:
    xp = backend.xp
    pad, detector = sampling.padding(sigma), beam.detector
    axis_x, axis_y = plan(view, beam, sigma)
    tangents, responses = [], []
    for axis in (axis_x, axis_y):
        pixel = (np.arange(axis.fine) + 0.5) / axis.per_pixel - pad - 0.5 * detector.pixels
        tangents.append(xp.asarray(pixel * detector.pitch / detector.distance))
        weights = sampling.response_weights(axis.per_pixel, sigma)
        matrix = np.zeros((axis.fine, detector.pixels))
        for column in range(detector.pixels):
            matrix[column * axis.per_pixel : column * axis.per_pixel + len(weights), column] = weights
        responses.append(xp.asarray(matrix))
    positions, weights = xp.asarray(view.positions), view.weights
    lattice = xp.asarray(lattice_tables(view))
    image = xp.zeros((detector.pixels, detector.pixels))
    rows = max(1, int(memory * 2**30 / (BYTES_PER_SAMPLE * axis_x.fine)))
    for first in range(0, axis_y.fine, rows):
        x, y = tangents[0][None, :], tangents[1][first : first + rows, None]
        cosine = 1.0 / xp.sqrt(1.0 + x * x + y * y)
        q = [beam.k * x * cosine, beam.k * y * cosine, beam.k * (cosine - 1.0) * (0.0 if beam.flat else 1.0)]
        length = xp.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2)
        amplitude = xp.zeros(length.shape, dtype=complex)
        for species, element in enumerate(view.elements):
            phases = xp.zeros(length.shape, dtype=complex)
            for atom in range(view.first[species], view.first[species + 1]):
                r = positions[atom]
                phases += weights[atom] * xp.exp(2j * xp.pi * (q[0] * r[0] + q[1] * r[1] + q[2] * r[2]))
            amplitude += phases * xp.asarray(factors.of(element, backend.to_host(length)))
        squared = (amplitude.real**2 + amplitude.imag**2) * cosine**3
        for axis in range(3):
            h = sum(q[i] * view.cell[axis, i] for i in range(3))
            t = xp.abs(h - xp.rint(h))
            if view.smooth:
                squared *= xp.interp(t, xp.linspace(0.0, 0.5, LATTICE_NODES + 1), lattice[axis])
            else:
                t = xp.maximum(t, 1e-9)
                squared *= (xp.sin(xp.pi * int(view.repeat[axis]) * t) / xp.sin(xp.pi * t)) ** 2
        image += responses[1][first : first + rows].T @ (squared @ responses[0])
    return backend.to_host(image).astype(np.float32)
