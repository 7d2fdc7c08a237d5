"""Patterns of cells of thousands of atoms, such as the cross-section of a dislocation, by non-uniform FFTs.

The cell's amplitude on the Ewald sphere is a sum of products (diffraction by a thick object as a few thin ones):

    exp(2 pi i q.r) = exp(2 pi i q'.(x, y)) exp(2 pi i q_z z'),   q' = (q_x, q_y) + q_z (s, t),   z' = z - s x - t y
    exp(2 pi i q_z z') = sum_k U_k(q_z) V_k(z')                   a few terms: singular values of the kernel

so F_cell(q) = sum_k U_k(q_z) P_k(q') but for a phase that all terms share, and each P_k on a uniform grid of q' is one
two-dimensional non-uniform FFT (type 1) of the atoms with weights V_k. The shear (s, t) follows the cell where it is a
tilted plate or rod, and makes z' thin. |A|^2 on that grid, which is fine enough for the whole block, is then handed to
the pixels with the detector's response.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from numba import njit

from defraction.diffraction import sampling, scattering
from defraction.diffraction.geometry import Beam
from defraction.diffraction.laue import ATOM_DIAMETER, RULES, cubic, lattice_sum, lattice_tables
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import View

ERROR_BOUND = 1e-4  # of the largest intensity outside the direct beam, against the float64 sum over all atoms

SEPARATION_TOLERANCE = 1e-6  # singular values left out
TRANSFORM_TOLERANCE = 2e-5  # of the non-uniform FFT, in single precision
RESPONSE_NODES = 1024  # of the tabulated response, over one pixel
DEPTH_NODES = 2048  # of the tabulated U_k, over the range of q_z
SHEARS = (1.0, 2.0, 4.0)  # longest shears that are tried


@dataclass(frozen=True)
class Grid:
    """The uniform grid of q': ``half`` (2,) points on each side of the origin along x and y, ``step`` (2,) [1/Å].

    q_z runs from ``deepest`` to 0, the sheared z of the atoms over ``depth``.
    """

    half: tuple[int, int]
    step: np.ndarray
    shear: np.ndarray
    deepest: float
    depth: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (q'_y) and columns (q'_x)."""
        return 2 * self.half[1], 2 * self.half[0]

    @classmethod
    def plan(cls, view: View, beam: Beam, sigma: float) -> "Grid":
        """Return the cheapest grid: a shear makes the object thin, but needs finer steps."""
        grids = [cls._with_shear(view, beam, sigma, np.zeros(2))]
        if not beam.flat:
            shear = _fitted_shear(view.positions)
            length = max(float(np.linalg.norm(shear)), 1e-12)
            usable = 0.7 / sampling.largest_tangent(beam, sigma)  # beyond, some q' would have no point of the sphere
            grids += [
                cls._with_shear(view, beam, sigma, shear * min(1.0, longest / length))
                for longest in SHEARS
                if longest < usable and (longest == SHEARS[0] or length > 0.5 * longest)
            ]
        return min(grids, key=lambda grid: grid.cost())

    @classmethod
    def _with_shear(cls, view: View, beam: Beam, sigma: float, shear: np.ndarray) -> "Grid":
        tangent = sampling.largest_tangent(beam, sigma)
        corner = math.sqrt(1.0 + 2.0 * tangent**2)
        deepest = 0.0 if beam.flat else beam.k * (1.0 / corner - 1.0)
        slant = np.array([-shear[0], -shear[1], 1.0])
        sheared = view.positions @ slant
        thickness = np.ptp(sheared) + np.abs((view.edges - view.cell) @ slant).sum()
        slope = 0.0 if beam.flat else tangent
        # a pixel off the axis is narrower in q' than one on it: by the angle, and by the shear
        shrink = 1.0 - np.abs(shear).sum() * slope
        narrowest = beam.pixel / corner**3 * shrink
        step, half = np.empty(2), []
        for i in range(2):
            extent = view.extent()[i] + 0.5 * ATOM_DIAMETER + slope / shrink * thickness
            step[i] = 1.0 / (extent + sampling.guard(sigma) / narrowest)
            reach = beam.k * tangent / math.sqrt(1.0 + tangent**2) + abs(shear[i] * deepest)
            half.append(math.ceil(reach / step[i]) + 1)
        return cls(tuple(half), step, shear, deepest, (float(sheared.min()), float(sheared.max())))

    def terms(self) -> int:
        """Return roughly how many terms the separation in depth will have."""
        bandwidth = -self.deepest * (self.depth[1] - self.depth[0])
        return 1 if bandwidth == 0.0 else math.ceil(6.0 + 1.2 * bandwidth)

    def cost(self) -> float:
        """Return roughly the CPU seconds of one pattern of one species."""
        return self.shape[0] * self.shape[1] * (3.5e-8 * self.terms() + 8e-8)


def _fitted_shear(positions: np.ndarray) -> np.ndarray:
    """Return (s, t) for which z - s x - t y of the atoms varies least (least squares, damped by 1 Å^2)."""
    centred = positions - positions.mean(axis=0)
    normal = centred[:, :2].T @ centred[:, :2] + np.eye(2) * len(positions)
    return np.linalg.solve(normal, centred[:, :2].T @ centred[:, 2])


def cost(view: View, beam: Beam, sigma: float) -> float:
    """Return roughly the CPU seconds of one pattern, to choose between methods."""
    return Grid.plan(view, beam, sigma).cost() * len(view.elements)


def pattern_bytes(view: View, beam: Beam, sigma: float) -> int:
    """Return the memory [bytes] that one pattern needs while it is computed, mostly planes and the padded FFT."""
    grid = Grid.plan(view, beam, sigma)
    return 48 * grid.shape[0] * grid.shape[1] + 24 * len(view.positions) * (grid.terms() + 8)


def intensities(views: Sequence[View], beams: Sequence[Beam], sigma: float, factors: Factors) -> np.ndarray:
    """Return what :func:`laue.intensities` returns. Each pattern is one thread's work, in a fixed order."""
    with ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS) as pool:
        images = list(pool.map(lambda view, beam: intensity(view, beam, sigma, factors), views, beams))
    return np.stack(images)


def intensity(view: View, beam: Beam, sigma: float, factors: Factors) -> np.ndarray:
    """Return the mean of |A|^2 cos^3(2 theta) over every pixel [Å^2], float32 (y, x), of one pattern."""
    grid = Grid.plan(view, beam, sigma)
    depth_tables, v_atoms = separate(grid, view.positions @ np.array([-grid.shear[0], -grid.shear[1], 1.0]))
    q_max = math.hypot(grid.half[0] * grid.step[0], grid.half[1] * grid.step[1], grid.deepest) * 1.1
    f_tables = factors.tabulate(list(view.elements), q_max)
    sphere = (grid.step, grid.shear, beam.k, float(beam.flat))
    nodes = np.empty(grid.shape, dtype=np.float32)
    _depth_nodes(nodes, *sphere, DEPTH_NODES / max(-grid.deepest, 1e-30))
    amplitude = np.zeros(grid.shape, dtype=np.complex64)
    for species, planes in _planes(view, grid, v_atoms):
        cell_sum = np.zeros(grid.shape, dtype=np.complex64)
        for plane, depth_table in zip(planes, depth_tables, strict=True):
            _add_plane(cell_sum, plane, nodes, depth_table)
        _add_species(amplitude, cell_sum, *sphere, f_tables[species], 1.0 / scattering.STEP)
    image = np.zeros((beam.detector.pixels, beam.detector.pixels))
    pad = sampling.padding(sigma)
    fraction = np.arange(RESPONSE_NODES + 1) / RESPONSE_NODES - 0.5  # of the sample's position from the nearest pixel
    response = sampling.response(fraction[:, None] - np.arange(-pad, pad + 1)[None, :], sigma)
    _to_pixels(
        amplitude, *sphere, beam.detector.distance / beam.detector.pitch, view.cell, view.repeat, lattice_tables(view),
        response, pad, image,
    )  # fmt: skip
    return image.astype(np.float32)


def separate(grid: Grid, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Separate exp(2 pi i q_z z) into sum_k U_k(q_z) V_k(z) over the ranges of the grid, up to a phase of q_z alone.

    Returns U, float32 (term, DEPTH_NODES + 4), at q_z = (node - 1) deepest / DEPTH_NODES, and V, complex (term, atom).
    About the middles of both ranges the kernel is a cosine, even in both, plus i times a sine, odd in both; each is a
    real matrix on Gauss-Legendre nodes, whose singular vectors are continued to every q_z and z by the kernel itself.
    """
    if grid.terms() == 1:
        return np.ones((1, DEPTH_NODES + 4), dtype=np.float32), np.ones((1, len(z)), dtype=complex)
    q_middle, q_half = 0.5 * grid.deepest, -0.5 * grid.deepest
    z_middle, z_half = 0.5 * sum(grid.depth), 0.5 * (grid.depth[1] - grid.depth[0])
    nodes, gauss = np.polynomial.legendre.leggauss(math.ceil(24 + 8.0 * q_half * z_half))
    root = np.sqrt(gauss)
    q = grid.deepest * (np.arange(DEPTH_NODES + 4) - 1) / DEPTH_NODES - q_middle
    z_nodes, q_nodes = z_half * nodes, q_half * nodes
    u_terms, v_terms = [], []
    for function, unit in ((np.cos, 1.0), (np.sin, 1j)):
        kernel = function(2.0 * np.pi * np.outer(q_nodes, z_nodes))
        left, values, right = np.linalg.svd(root[:, None] * kernel * root[None, :])
        keep = values > SEPARATION_TOLERANCE
        u_terms.append((right[keep] * root) @ function(2.0 * np.pi * np.outer(z_nodes, q)))
        v = (left.T[keep] * root / values[keep, None]) @ function(2.0 * np.pi * np.outer(q_nodes, z - z_middle))
        v_terms.append(unit * v * np.exp(2j * np.pi * q_middle * z))
    return np.concatenate(u_terms).astype(np.float32), np.concatenate(v_terms)


def _planes(view: View, grid: Grid, v_atoms: np.ndarray) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Yield for each species its index and its planes P_k on the grid, each computed when it is asked for."""
    import finufft  # only needed here: other specimens start faster without it

    scaled = (2.0 * np.pi * view.positions[:, :2] * grid.step).astype(np.float32)  # within (-pi, pi): step < 1 / extent
    plan = finufft.Plan(1, grid.shape, eps=TRANSFORM_TOLERANCE, isign=1, dtype="complex64", nthreads=1, upsampfac=1.25)
    weighted = (v_atoms * view.weights).astype(np.complex64)
    for species in range(len(view.elements)):
        part = slice(view.first[species], view.first[species + 1])
        plan.setpts(np.ascontiguousarray(scaled[part, 1]), np.ascontiguousarray(scaled[part, 0]))
        yield species, (plan.execute(np.ascontiguousarray(term[part])) for term in weighted)


_serial = njit(nogil=True, **RULES)


@njit(**RULES)
def _depth(qx, qy, shear_x, shear_y, k, flat):
    """q_z of the point of the Ewald sphere with q' = (qx, qy): the root near 0 of a quadratic equation."""
    square = qx * qx + qy * qy
    b = k - shear_x * qx - shear_y * qy
    a = 1.0 + shear_x * shear_x + shear_y * shear_y
    return (flat - 1.0) * square / (b + np.sqrt(max(b * b - a * square, 0.0)))


@_serial
def _depth_nodes(nodes, step, shear, k, flat, per_depth):
    """Fill ``nodes`` with the place of q_z in the tables of U_k."""
    rows, columns = nodes.shape
    step_x, shear_x, shear_y = step[0], shear[0], shear[1]
    for row in range(rows):
        qy = (row - rows // 2) * step[1]
        target = nodes[row]
        for column in range(columns):
            qz = _depth((column - columns // 2) * step_x, qy, shear_x, shear_y, k, flat)
            target[column] = min(-qz * per_depth, DEPTH_NODES)


@_serial
def _add_plane(cell_sum, plane, nodes, depth_table):
    """cell_sum += U_k(q_z) P_k on the whole grid; cubic interpolation of U_k."""
    t1, t2, t3 = depth_table[1:], depth_table[2:], depth_table[3:]
    half, sixth, one, two = np.float32(0.5), np.float32(1.0 / 6.0), np.float32(1.0), np.float32(2.0)
    for row in range(len(nodes)):
        node, target, source = nodes[row], cell_sum[row], plane[row]
        for column in range(len(node)):
            i = np.uint32(node[column])
            u = node[column] - np.float32(i)
            down, up = (u - one) * (u - two), (u + one) * u
            depth = (
                -u * down * sixth * depth_table[i]
                + (u + one) * down * half * t1[i]
                - up * (u - two) * half * t2[i]
                + up * (u - one) * sixth * t3[i]
            )
            target[column] += depth * source[column]


@_serial
def _add_species(amplitude, cell_sum, step, shear, k, flat, factors, per_step):
    """amplitude += f(|q|) cell_sum on the whole grid."""
    rows, columns = amplitude.shape
    step_x, shear_x, shear_y = step[0], shear[0], shear[1]
    for row in range(rows):
        qy = (row - rows // 2) * step[1]
        target, source = amplitude[row], cell_sum[row]
        for column in range(columns):
            qx = (column - columns // 2) * step_x
            qz = _depth(qx, qy, shear_x, shear_y, k, flat)
            px, py = qx - shear_x * qz, qy - shear_y * qz
            factor = cubic(factors, min((px * px + py * py + qz * qz) * per_step, len(factors) - 4.0))
            target[column] += np.float32(factor) * source[column]


@_serial
def _to_pixels(amplitude, step, shear, k, flat, pixels_per_tangent, cell, repeat, lattice, response, pad, image):
    """Add |A|^2 of every grid point, times its solid angle, to the pixels around it."""
    rows, columns = amplitude.shape
    pixels = len(image)
    squared, u, v = np.empty(columns), np.empty(columns), np.empty(columns)
    for row in range(rows):
        qy = (row - rows // 2) * step[1]
        for column in range(columns):
            qx = (column - columns // 2) * step[0]
            qz = _depth(qx, qy, shear[0], shear[1], k, flat)
            px, py = qx - shear[0] * qz, qy - shear[1] * qz
            # on the flat plane q has the same x and y as on the sphere, so the direction is the sphere's
            along = np.sqrt(max(k * k - px * px - py * py, 1e-30))
            x, y = px / along, py / along
            u[column] = x * pixels_per_tangent + 0.5 * (pixels - 1)
            v[column] = y * pixels_per_tangent + 0.5 * (pixels - 1)
            shrink = 1.0 - (1.0 - flat) * (shear[0] * x + shear[1] * y)
            solid_angle = step[0] * step[1] / (k * along * shrink)
            value = amplitude[row, column].real ** 2 + amplitude[row, column].imag ** 2
            squared[column] = value * solid_angle * pixels_per_tangent * pixels_per_tangent
            for axis in range(3):
                if repeat[axis] == 1:
                    continue
                h = px * cell[axis, 0] + py * cell[axis, 1] + qz * cell[axis, 2]
                if lattice.shape[1] == 0:
                    top, bottom = lattice_sum(h, np.float32(repeat[axis]))
                    squared[column] *= (top / bottom) ** 2
                else:
                    node = 2.0 * (lattice.shape[1] - 1) * abs(h - np.rint(h))
                    n = min(int(node), lattice.shape[1] - 2)
                    squared[column] *= lattice[axis, n] + (node - n) * (lattice[axis, n + 1] - lattice[axis, n])
        for column in range(columns):
            i, j = int(np.rint(u[column])), int(np.rint(v[column]))
            if i < -pad or j < -pad or i >= pixels + pad or j >= pixels + pad:
                continue
            node_x, node_y = (u[column] - i + 0.5) * RESPONSE_NODES, (v[column] - j + 0.5) * RESPONSE_NODES
            n_x, n_y = min(int(node_x), RESPONSE_NODES - 1), min(int(node_y), RESPONSE_NODES - 1)
            part_x, part_y = node_x - n_x, node_y - n_y
            for b in range(max(0, pad - j), min(2 * pad + 1, pixels + pad - j)):
                weight = squared[column] * (response[n_y, b] + part_y * (response[n_y + 1, b] - response[n_y, b]))
                for a in range(max(0, pad - i), min(2 * pad + 1, pixels + pad - i)):
                    image[j + b - pad, i + a - pad] += weight * (
                        response[n_x, a] + part_x * (response[n_x + 1, a] - response[n_x, a])
                    )
