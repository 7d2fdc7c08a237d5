"""Patterns of specimens without a small period: dislocations, twins, amorphous or displaced blocks, by fast transforms.

1. The amplitude F of the cell on the Ewald sphere is band-limited in (q_x, q_y) by the cell's own projected extent, so
   it is computed on one coarse grid of (q_x, q_y) per view. The grid knows no voltage, camera length or beam direction:
   beams of the same sphere (wave number and direction) share its amplitudes, and nearby spheres share transforms.
2. The grid is cut into tiles. In a tile, spheres are nearly one plane, q_z = c + s . (q_x, q_y) + d with a small d, so

       q . r = (q_x, q_y) . (x + s_x z, y + s_y z) + c z + d z,       exp(2 pi i d z) = sum_k U_k(d) V_k(z)

   with few terms (singular values of the kernel), and F = sum_k U_k P_k. Each P_k is a non-uniform FFT (type 1) of the
   atoms projected along the tile's own direction: they are spread on a grid, transformed, and the transform of the
   spreading function is divided out. The wider a tile the more terms it needs, the smaller the more often the atoms are
   passed over; :class:`Plan` takes the cheapest. Species of a few atoms are summed directly.
3. For every beam, F is interpolated along q_y and then along q_x to uniform samples inside the detector's pixels. |F|^2
   times the lattice sums of the repeated axes is integrated over pixels as in laue.py.

Every sum has a fixed order, whatever the number of threads: two runs give the same bits.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
from numba import njit

from defraction.diffraction import sampling, scattering
from defraction.diffraction.geometry import Beam
from defraction.diffraction.laue import ATOM_DIAMETER, RULES, cubic, lattice_sum, lattice_tables
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import View

ERROR_BOUND = 1e-4  # of the largest intensity outside the direct beam, against the float64 sum over all atoms

OVERSAMPLING = 2.0  # of the grid against the band limit of the cell's amplitude
TAPS = 14  # of the interpolation from the grid, with an error of 6e-6 at the edge of the band, 8e-7 r.m.s.
TAP_DEGREE = 4  # of the polynomials, even and odd, that give their weights
ROWS = 64  # of samples at a time
SEPARATION_TOLERANCE = 3e-6  # singular values left out, relative to the largest
DEPTH_NODES = 4096  # of the tabulated U_k and V_k
SPREAD = 8  # grid points per axis on which an atom is spread
UPSAMPLING = 1.5  # of the transforms against the points of a tile
SPREAD_NODES = 1024  # of the tabulated spreading function, between two grid points
SIDE_SAMPLES = 5  # per axis, at which the spheres are compared with the plane of a tile
SMALLEST_TILE = 80  # grid points along a side
STRIP = 6.0  # Å, in which atoms are spread from left to right
TILES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 40, 48, 64)  # along the longer side: the cheapest is used

# CPU seconds, measured on one core; only their ratios matter, for the choice of tiles and of the method
PER_ATOM, PER_ATOM_TERM = 6e-8, 1.1e-8
PER_POINT_TERM, PER_POINT, PER_POINT_TERM_SPHERE = 7e-9, 8e-9, 1.5e-9
PER_ATOM_POINT = 2e-9  # of a direct sum
PER_TILE = 4e-4
PER_SAMPLE = 1.4e-8


@dataclass(frozen=True)
class Sphere:
    """An Ewald sphere in the frame of a view: centre ``-k n_beam``; ``tangent`` how far from the axis it is sampled.

    ``low`` and ``high`` (2,): the first and last-but-one index of the grid along x and y that its beams need.
    """

    k: float
    direction: tuple[float, float, float]
    flat: bool
    tangent: float
    low: tuple[int, int]
    high: tuple[int, int]

    @property
    def parameters(self) -> np.ndarray:
        """k, k n_beam (3), flat, and the largest perpendicular (Q_x, Q_y)^2 for which q_z is asked, shape (6,)."""
        t2 = self.tangent**2
        farthest = min(0.999, 2.05 * t2 / (1.0 + 2.0 * t2) + 1e-3)
        return np.array([self.k, *(self.k * c for c in self.direction), float(self.flat), farthest * self.k**2])

    def depth(self, qx: np.ndarray, qy: np.ndarray) -> np.ndarray:
        """Return q_z [1/Å] of the point of the sphere above (qx, qy) [1/Å]."""
        k, kx, ky, kz, flat, farthest = self.parameters
        square = np.minimum((qx + kx) ** 2 + (qy + ky) ** 2, farthest)
        return (1.0 - flat) * (np.sqrt(k * k - square) - kz)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of its part of the grid."""
        return self.high[1] - self.low[1], self.high[0] - self.low[0]


@dataclass(frozen=True)
class Group:
    """Spheres (their indices) that share the transforms of a tile: q_z = c + slope . q + d, |d| <= half [1/Å]."""

    spheres: tuple[int, ...]
    constant: float
    slope: np.ndarray
    half: float
    level: int  # of the separation, see separate()


@dataclass(frozen=True)
class Tile:
    """Grid points ``low`` <= index < ``high`` (2,) along x and y, and the groups of spheres that need them."""

    low: tuple[int, int]
    high: tuple[int, int]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Plan:
    """What is computed for one view: the grid's ``step`` (2,) [1/Å], spheres, tiles, and the sphere of each beam."""

    step: np.ndarray
    spheres: tuple[Sphere, ...]
    sphere_of: tuple[int, ...]
    tiles: tuple[Tile, ...]
    seconds: float

    @classmethod
    def build(cls, view: View, beams: Sequence[Beam], sigma: float) -> "Plan":
        """Return the cheapest plan, by estimate, over the sizes of tiles and the ways to group spheres in a tile."""
        keys = [(beam.k, beam.direction, beam.flat) for beam in beams]
        distinct = list(dict.fromkeys(keys))
        tangents = [
            max(sampling.largest_tangent(b, sigma) for b, own in zip(beams, keys, strict=True) if own == key)
            for key in distinct
        ]
        slope = max((t for t, key in zip(tangents, distinct, strict=True) if not key[2]), default=0.0)
        reach = np.abs(view.positions)
        extent = [2.0 * float((reach[:, i] + slope * reach[:, 2]).max()) + ATOM_DIAMETER for i in range(2)]
        step = 1.0 / (OVERSAMPLING * np.array(extent))
        spheres = []
        for (k, direction, flat), tangent in zip(distinct, tangents, strict=True):
            along = math.sqrt(max(0.0, 1.0 - direction[0] ** 2 - direction[1] ** 2))
            half = k * tangent / math.sqrt(1.0 + tangent**2)
            low = [math.floor((-half - k * direction[i]) / step[i]) - TAPS // 2 for i in range(2)]
            high = [math.ceil((half - k * direction[i]) / step[i]) + TAPS // 2 + 2 for i in range(2)]
            spheres.append(Sphere(k, (*direction, along), flat, tangent, tuple(low), tuple(high)))
        points = max(max(np.subtract(sphere.high, sphere.low)) for sphere in spheres)
        fits = [_fit(view, step, spheres, count) for count in TILES if count == 1 or count * SMALLEST_TILE <= points]
        best = min(fits, key=lambda fit: fit[0])
        tiles = _tiles(view, step, spheres, *best[1:])
        return cls(step, tuple(spheres), tuple(distinct.index(key) for key in keys), tiles, best[0])


def _fit(view: View, step: np.ndarray, spheres: list[Sphere], count: int) -> tuple:
    """Cut the grid into about square tiles, ``count`` along its longer side, and group the spheres in each.

    Returns CPU seconds, the lower and upper corners of the tiles, shape (tile, 2), and for each partition of the
    spheres that was tried: the list of its sets of spheres and, for each set, the plane's constant and slopes and the
    largest distance from it, shape (tile, 4); last the partition chosen for each tile.
    """
    low = np.min([sphere.low for sphere in spheres], axis=0)
    high = np.max([sphere.high for sphere in spheres], axis=0)
    side = (step * (high - low)).max() / count
    edges = []
    for i in range(2):
        pieces = max(1, min(round(step[i] * (high[i] - low[i]) / side), (high[i] - low[i]) // SMALLEST_TILE))
        edges.append(np.rint(np.linspace(low[i], high[i], pieces + 1)).astype(int))
    lows = np.stack(np.meshgrid(edges[0][:-1], edges[1][:-1]), axis=-1).reshape(-1, 2)
    highs = np.stack(np.meshgrid(edges[0][1:], edges[1][1:]), axis=-1).reshape(-1, 2)
    sphere_low, sphere_high = np.array([s.low for s in spheres]), np.array([s.high for s in spheres])
    inside = ((sphere_low < highs[:, None]) & (sphere_high > lows[:, None])).all(axis=2)
    used = inside.any(axis=1)
    lows, highs, inside = lows[used], highs[used], inside[used]

    unit = np.linspace(-1.0, 1.0, SIDE_SAMPLES)
    u, v = (a.ravel() for a in np.meshgrid(unit, unit))
    fit = np.linalg.pinv(np.column_stack([np.ones_like(u), u, v]))
    middle, half = 0.5 * (lows + highs) * step, 0.5 * (highs - lows) * step
    qx, qy = middle[:, :1] + half[:, :1] * u, middle[:, 1:] + half[:, 1:] * v
    depth = np.stack([sphere.depth(qx, qy) for sphere in spheres], axis=1)
    numbers = np.arange(len(spheres))
    voltage = np.array([sphere.k for sphere in spheres])
    partitions = [[numbers], [numbers[voltage == k] for k in np.unique(voltage)], list(numbers[:, None])]
    partitions = partitions[: 1 if len(spheres) == 1 else 2 if len(partitions[1]) == len(spheres) else 3]
    points = (highs - lows).prod(axis=1)
    atoms, thickness = np.diff(view.first), _thickness(view)
    planes, costs = [], []
    for partition in partitions:
        cost, fitted = np.zeros(len(lows)), []
        for members in partition:
            here = inside[:, members]
            present = here.sum(axis=1)
            mean = (depth[:, members] * here[:, :, None]).sum(axis=1) / np.maximum(present, 1)[:, None]
            a, b, c = fit @ mean.T
            rest = depth[:, members] - (a[:, None] + b[:, None] * u + c[:, None] * v)[:, None, :]
            top = np.where(here, rest.max(axis=2), -np.inf).max(axis=1)
            bottom = np.where(here, rest.min(axis=2), np.inf).min(axis=1)
            top, bottom = (np.where(present > 0, edge, 0.0) for edge in (top, bottom))
            bound = 0.51 * (top - bottom)
            slope = np.stack([b, c], axis=1) / half
            constant = a + 0.5 * (top + bottom) - (slope * middle).sum(axis=1)
            fitted.append(np.column_stack([constant, slope, bound]))
            bandwidth = bound * thickness
            terms = np.where(bandwidth < 1e-9, 1.0, 4.0 + 5.5 * bandwidth)
            for n in atoms:
                summed = n * points * present * PER_ATOM_POINT
                cost += (present > 0) * np.minimum(_seconds(n, points, terms, present), summed)
        planes.append((partition, fitted))
        costs.append(cost)
    chosen = np.argmin(costs, axis=0)
    seconds = np.min(costs, axis=0).sum() + (points * PER_POINT * inside.sum(axis=1)).sum() * len(atoms)
    return float(seconds), lows, highs, inside, planes, chosen


def _seconds(atoms, points, terms, spheres):
    """Return roughly the CPU seconds of the transforms of one species in one tile, used by some spheres."""
    slower = 1.0 + 0.15 * np.log2(1.0 + points * terms / 1e6)  # arrays that outgrow the caches
    return (
        PER_TILE
        + atoms * (PER_ATOM + PER_ATOM_TERM * terms)
        + points * terms * (PER_POINT_TERM * slower + PER_POINT_TERM_SPHERE * spheres)
    )


def _tiles(view, step, spheres, lows, highs, inside, planes, chosen) -> tuple[Tile, ...]:
    """Return the tiles that :func:`_fit` found."""
    thickness = _thickness(view)
    tiles = []
    for t in range(len(lows)):
        groups = []
        for members, fitted in zip(*planes[chosen[t]], strict=True):
            own = tuple(int(s) for s in members if inside[t, s])
            if own:
                constant, *slope, bound = fitted[t]
                level = level_of(bound * thickness)
                groups.append(Group(own, float(constant), np.array(slope), bandwidth_of(level) / thickness, level))
        tiles.append(Tile(tuple(lows[t].tolist()), tuple(highs[t].tolist()), tuple(groups)))
    return tuple(tiles)


def _fine(view: View, beam: Beam, sigma: float) -> tuple[int, int]:
    """Return the samples per pixel along x and y; the slope of the sphere adds part of the thickness to the extent."""
    slope = 0.0 if beam.flat else sampling.largest_tangent(beam, sigma)
    block = view.extent()
    return tuple(
        sampling.samples_per_pixel(block[i] + 0.5 * ATOM_DIAMETER + slope * block[2], beam.pixel, sigma)
        for i in range(2)
    )


def cost(view: View, beams: Sequence[Beam], sigma: float) -> float:
    """Return roughly the CPU seconds of the patterns of all ``beams``, to choose between methods."""
    seconds = Plan.build(view, beams, sigma).seconds
    for beam in beams:
        x, y = _fine(view, beam, sigma)
        seconds += PER_SAMPLE * x * y * (beam.detector.pixels + 2 * sampling.padding(sigma)) ** 2
    return seconds


def _thickness(view: View) -> float:
    """Return the largest |z| of the cell's atoms [Å], kept off 0."""
    return max(float(np.abs(view.positions[:, 2]).max()), 1e-6)


def bandwidth_of(level: int) -> float:
    """Return the bandwidth B that a ``level`` of :func:`separate` stands for."""
    return 0.02 * 1.15**level if level else 0.0


def level_of(bandwidth: float) -> int:
    """Return the level of :func:`separate` for a bandwidth: |d| max times |z| max."""
    return 0 if bandwidth < 1e-9 else max(1, math.ceil(math.log(bandwidth / 0.02) / math.log(1.15)))


@lru_cache(maxsize=256)
def separate(level: int) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Separate exp(2 pi i B u v), |u|, |v| <= 1, into sum_k U_k(u) V_k(v) for the B of a ``level`` (0: B = 0).

    Returns U and V, float32 (DEPTH_NODES + 1, term), at u and v = -1 ... 1, the number of terms, and how many of them,
    the first ones, are even; the odd terms are to be multiplied by i.
    The kernel is a cosine, even in both, plus i times a sine, odd in both; each is a real matrix on Gauss-Legendre
    nodes, whose singular vectors are continued to every u and v by the kernel itself.
    """
    if level == 0:
        ones = np.ones((DEPTH_NODES + 1, 1), dtype=np.float32)
        return ones, ones, 1, 1
    bandwidth = bandwidth_of(level)
    nodes, gauss = np.polynomial.legendre.leggauss(math.ceil(16 + 8.0 * bandwidth))
    root = np.sqrt(gauss)
    at = np.linspace(-1.0, 1.0, DEPTH_NODES + 1)
    u_terms, v_terms, largest = [], [], 0.0
    for function in (np.cos, np.sin):
        kernel = function(2.0 * np.pi * bandwidth * np.outer(nodes, nodes))
        left, values, right = np.linalg.svd(root[:, None] * kernel * root[None, :])
        largest = max(largest, values[0])
        keep = values > SEPARATION_TOLERANCE * largest
        continued = function(2.0 * np.pi * bandwidth * np.outer(nodes, at))
        scale = 1.0 / np.sqrt(values[keep, None])
        u_terms.append(scale * ((right[keep] * root) @ continued))
        v_terms.append(scale * ((left.T[keep] * root) @ continued))
    u, v = (np.ascontiguousarray(np.concatenate(terms).T, dtype=np.float32) for terms in (u_terms, v_terms))
    return u, v, u.shape[1], len(u_terms[0])


@lru_cache(maxsize=1)
def _taps() -> np.ndarray:
    """Return polynomials for the weights of the grid points around a place, float32 (pair, parity, TAP_DEGREE).

    The place lies between the taps TAPS / 2 - 1 and TAPS / 2, x away from the middle of the two. Taps p and
    TAPS - 1 - p weigh E(x^2) + x O(x^2) and E(x^2) - x O(x^2). Least squares over the band |frequency| <=
    1 / (2 OVERSAMPLING) per step.
    """
    nodes, gauss = np.polynomial.legendre.leggauss(4 * TAPS)
    phase = np.pi / OVERSAMPLING * nodes
    root = np.sqrt(gauss)[:, None]
    offset = np.arange(TAPS) - 0.5 * (TAPS - 1)
    x = 0.5 * np.cos(np.pi * (np.arange(32) + 0.5) / 32)
    design = np.vstack([root * np.cos(np.outer(phase, offset)), root * np.sin(np.outer(phase, offset))])
    target = np.vstack([root * np.cos(np.outer(phase, x)), root * np.sin(np.outer(phase, x))])
    weights = np.linalg.lstsq(design, target, rcond=1e-13)[0]
    powers = x[:, None] ** (2 * np.arange(TAP_DEGREE))
    front, back = weights[: TAPS // 2], weights[::-1][: TAPS // 2]
    even = np.linalg.lstsq(powers, 0.5 * (front + back).T, rcond=None)[0]
    odd = np.linalg.lstsq(powers * x[:, None], 0.5 * (front - back).T, rcond=None)[0]
    return np.ascontiguousarray(np.stack([even.T, odd.T], axis=1), dtype=np.float32)


def _spreading(x: np.ndarray) -> np.ndarray:
    """Return the spreading function at ``x`` grid points from the atom: the exponential of a semicircle.

    A. H. Barnett, J. Magland & L. af Klinteberg, SIAM J. Sci. Comput. 41, C479 (2019), 10.1137/18M120885X.
    """
    shape = 0.97 * math.pi * SPREAD * (1.0 - 0.5 / UPSAMPLING)
    return np.exp(shape * (np.sqrt(np.maximum(1.0 - (2.0 * x / SPREAD) ** 2, 0.0)) - 1.0))


@lru_cache(maxsize=1)
def _spreading_table() -> np.ndarray:
    """Return the spreading function at its SPREAD grid points, float32 (SPREAD_NODES + 1, SPREAD), by the fraction."""
    fraction = np.arange(SPREAD_NODES + 1) / SPREAD_NODES
    return _spreading(fraction[:, None] + np.arange(SPREAD) - 0.5 * SPREAD).astype(np.float32)


@lru_cache(maxsize=256)
def _correction(points: int, length: int) -> np.ndarray:
    """Return what the ``points`` central frequencies of an FFT of ``length`` are multiplied by after spreading.

    The inverse of the spreading function's transform, with the signs that put the middle of the grid at the origin.
    """
    nodes, gauss = np.polynomial.legendre.leggauss(64)
    x = 0.5 * SPREAD * nodes
    m = np.arange(points) - points // 2
    transform = np.cos(2.0 * np.pi * np.outer(m / length, x)) @ (0.5 * SPREAD * gauss * _spreading(x))
    return np.where(m % 2 == 0, 1.0, -1.0) / transform


def _lengths(size: np.ndarray) -> tuple[int, int]:
    """Return the even lengths along x and y of fast FFTs for a tile of ``size`` (2,) grid points."""
    from scipy.fft import next_fast_len

    least = [max(math.ceil(UPSAMPLING * n), 4 * SPREAD + 4) for n in size]
    return 2 * next_fast_len((least[0] + 1) // 2), 2 * next_fast_len((least[1] + 1) // 2)


def batch_bytes(view: View, beams: Sequence[Beam], sigma: float) -> int:
    """Return the memory [bytes] for the patterns of all ``beams`` of one view at once."""
    plan = Plan.build(view, beams, sigma)
    return _working_bytes(view, plan) + sum(map(_sphere_bytes, plan.spheres))


def _sphere_bytes(sphere: Sphere) -> int:
    return 8 * sphere.shape[0] * sphere.shape[1]


def _working_bytes(view: View, plan: Plan) -> int:
    """Return the memory [bytes] that the threads need for their transforms."""
    largest = 0
    for tile in plan.tiles:
        x, y = _lengths(np.subtract(tile.high, tile.low))
        terms = max(separate(group.level)[2] for group in tile.groups)
        largest = max(largest, 10 * x * y * terms)
    return numba.config.NUMBA_NUM_THREADS * largest + 32 * len(view.positions)


def intensities(
    views: Sequence[View], beams: Sequence[Beam], sigma: float, factors: Factors, memory: float | None = None
) -> np.ndarray:
    """Return what :func:`laue.intensities` returns. Beams of one and the same view share what they can.

    ``memory`` [bytes]: spheres are computed a few at a time, at least one, where all of them would need more. The
    result does not depend on it.
    """
    pixels = beams[0].detector.pixels
    images = np.empty((len(beams), pixels, pixels), dtype=np.float32)
    patterns: dict[int, list[int]] = {}
    for i, view in enumerate(views):
        patterns.setdefault(id(view), []).append(i)
    with ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS) as pool:
        for indices in patterns.values():
            own = [beams[i] for i in indices]
            _of_view(views[indices[0]], own, indices, sigma, factors, memory, pool, images)
    return images


def _of_view(view, beams, indices, sigma, factors, memory, pool, images) -> None:
    """Fill ``images[indices]`` with the patterns of one view."""
    plan = Plan.build(view, beams, sigma)
    positions, weights = _in_order(view)
    q_max = 1.05 * max(
        math.hypot(*(max(abs(s.low[i]), abs(s.high[i])) * plan.step[i] for i in range(2)), s.k * s.tangent**2)
        for s in plan.spheres
    )
    tables = factors.tabulate(list(view.elements), q_max)
    lattice = lattice_tables(view)
    for chunk in _chunks(plan, math.inf if memory is None else memory - _working_bytes(view, plan)):
        amplitudes = {s: np.zeros((2, *plan.spheres[s].shape), dtype=np.float32) for s in chunk}

        def fill(tile: Tile, amplitudes=amplitudes) -> None:
            for group in tile.groups:
                members = [s for s in group.spheres if s in amplitudes]
                if members:
                    _add_group(view, plan, tile, group, members, positions, weights, tables, amplitudes)

        def integrate(i: int, amplitudes=amplitudes) -> None:
            s = plan.sphere_of[i]
            images[indices[i]] = _image(view, beams[i], sigma, plan.step, plan.spheres[s], amplitudes[s], lattice)

        # tiles write to different parts of the amplitudes, each in a fixed order
        list(pool.map(fill, plan.tiles))
        list(pool.map(integrate, [i for i, s in enumerate(plan.sphere_of) if s in amplitudes]))


def _chunks(plan: Plan, budget: float) -> list[list[int]]:
    """Split the spheres (indices) into lists whose amplitudes fit into ``budget`` [bytes], of at least one sphere."""
    chunks: list[list[int]] = []
    used = math.inf
    for s, sphere in enumerate(plan.spheres):
        if used + _sphere_bytes(sphere) > budget or not chunks:
            chunks.append([])
            used = 0.0
        chunks[-1].append(s)
        used += _sphere_bytes(sphere)
    return chunks


def _in_order(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and weights with the atoms of each species in strips, so that neighbours share caches."""
    strip = np.floor(view.positions[:, 1] / STRIP)
    species = np.repeat(np.arange(len(view.elements)), np.diff(view.first))
    order = np.lexsort((view.positions[:, 0], strip, species))
    return np.ascontiguousarray(view.positions[order]), np.ascontiguousarray(view.weights[order], dtype=float)


def _add_group(view, plan, tile, group, members, positions, weights, tables, amplitudes) -> None:
    """Add the amplitudes of a tile to those spheres of a group that are ``members``."""
    u_table, v_table, terms, even = separate(group.level)
    low, high = np.array(tile.low), np.array(tile.high)
    size = high - low
    middle = low + size // 2
    plane = np.array([group.constant, *group.slope, 1.0 / max(group.half, 1e-30) if group.level else 0.0])
    length = _lengths(size)
    for species in range(len(view.elements)):
        part = slice(view.first[species], view.first[species + 1])
        atoms = part.stop - part.start
        parts = [_shared_part(plan.spheres[s], tile) for s in members]
        users, points = len(group.spheres), int(size.prod())
        if atoms * points * users * PER_ATOM_POINT < _seconds(atoms, points, terms, users):
            for s, box in zip(members, parts, strict=True):
                _add_directly(
                    amplitudes[s], box, np.array(plan.spheres[s].low), plan.step, plan.spheres[s].parameters,
                    positions[part], weights[part], tables[species], 1.0 / scattering.STEP,
                )  # fmt: skip
            continue
        grid = np.zeros((length[1], length[0], terms), dtype=np.complex64)
        first_row, last_row = _spread(
            grid.view(np.float32).reshape(length[1], -1), positions[part], weights[part], middle * plan.step, plan.step,
            plane, v_table, even, 1.0 / _thickness(view), _spreading_table(),
        )  # fmt: skip
        _transform(grid[first_row:last_row], axis=1)
        start = [length[i] // 2 - int(size[i]) // 2 for i in range(2)]
        _transform(grid[:, start[0] : start[0] + size[0]], axis=0)
        for s, box in zip(members, parts, strict=True):
            _combine(
                amplitudes[s], box, np.array(plan.spheres[s].low), low, np.array(start), grid, plan.step,
                plan.spheres[s].parameters, plane, u_table, _correction(int(size[0]), length[0]),
                _correction(int(size[1]), length[1]), tables[species], 1.0 / scattering.STEP,
            )  # fmt: skip


def _transform(part: np.ndarray, axis: int) -> None:
    """Replace ``part`` by its Fourier transform along ``axis``, exponent positive, not scaled."""
    from scipy import fft

    result = fft.ifft(part, axis=axis, norm="forward", overwrite_x=True)
    if not np.may_share_memory(result, part):
        part[...] = result


def _shared_part(sphere: Sphere, tile: Tile) -> np.ndarray:
    """Return the first and last-but-one index along x and along y of what a sphere and a tile share, shape (4,)."""
    return np.array(
        [f(a[i], b[i]) for i in range(2) for f, a, b in ((max, sphere.low, tile.low), (min, sphere.high, tile.high))]
    )


def _image(view, beam, sigma, step, sphere, amplitude, lattice) -> np.ndarray:
    pixels, detector = beam.detector.pixels, beam.detector
    x, y = _fine(view, beam, sigma)
    image = np.zeros((pixels, pixels))
    _integrate(
        amplitude, np.array(sphere.low), step, sphere.parameters, detector.pitch / detector.distance, x, y,
        sampling.padding(sigma), np.ascontiguousarray(view.cell), view.repeat.astype(np.int64), lattice, _taps(),
        sampling.response_weights(x, sigma).astype(np.float32), sampling.response_weights(y, sigma), image,
    )  # fmt: skip
    return image.astype(np.float32)


_serial = njit(nogil=True, **RULES)
_inline = njit(**RULES)


@_inline
def _sine_and_cosine(turns):
    """sin and cos of 2 pi turns in single precision, after reduction to a quarter turn in double precision."""
    t = np.float32(turns - np.rint(turns))
    # of half the angle: |t| <= 1/2 by Taylor series, to 1e-7
    s = t * t
    sine = t * (
        np.float32(3.14159265358979) + s * (
            np.float32(-5.16771278004997) + s * (
                np.float32(2.550164039877345) + s * (
                    np.float32(-0.5992645293207921) + s * (
                        np.float32(0.08214588661112823) + s * np.float32(-0.00737043094571435))))))  # fmt: skip
    cosine = np.float32(1.0) + s * (
        np.float32(-4.934802200544679) + s * (
            np.float32(4.058712126416768) + s * (
                np.float32(-1.3352627688545893) + s * (
                    np.float32(0.23533063035889312) + s * (
                        np.float32(-0.025806891390014061) + s * np.float32(0.0019295743094039230))))))  # fmt: skip
    return np.float32(2.0) * sine * cosine, np.float32(1.0) - np.float32(2.0) * sine * sine


@_serial
def _spread(grid, positions, weights, q, step, plane, v_table, even, per_depth, table):
    """Spread the atoms, with weights V_k and phases of the tile's middle ``q``, on ``grid`` (row, column x term x 2).

    The signs alternate from point to point, which moves frequency 0 to the middle of the FFT. Returns the first and
    last-but-one row that were written.
    """
    terms = v_table.shape[1]
    rows, width = grid.shape[0], 2 * terms
    columns = grid.shape[1] // width
    scale_x, scale_y = step[0] * columns, step[1] * rows
    coefficients = np.empty(width, np.float32)
    block = np.empty(SPREAD * width, np.float32)
    along_y = np.empty(SPREAD, np.float32)
    nodes, depth_nodes = np.float64(table.shape[0] - 1), 0.5 * (v_table.shape[0] - 1)
    first_row, last_row = rows, 0
    for atom in range(len(positions)):
        z = positions[atom, 2]
        x, y = positions[atom, 0] + plane[1] * z, positions[atom, 1] + plane[2] * z
        sine, cosine = _sine_and_cosine(q[0] * x + q[1] * y + plane[0] * z)
        weight = np.float32(weights[atom])
        sine, cosine = weight * sine, weight * cosine
        node = (z * per_depth + 1.0) * depth_nodes
        n = min(int(node), v_table.shape[0] - 2)
        part = np.float32(node - n)
        for term in range(terms):
            v = v_table[n, term] + part * (v_table[n + 1, term] - v_table[n, term])
            if term < even:
                coefficients[2 * term], coefficients[2 * term + 1] = v * cosine, v * sine
            else:
                coefficients[2 * term], coefficients[2 * term + 1] = -v * sine, v * cosine
        x = x * scale_x + 0.5 * (columns - SPREAD)
        y = y * scale_y + 0.5 * (rows - SPREAD)
        column, row = np.int64(np.ceil(x)), np.int64(np.ceil(y))
        node_x, node_y = (column - x) * nodes, (row - y) * nodes
        n_x, n_y = min(int(node_x), table.shape[0] - 2), min(int(node_y), table.shape[0] - 2)
        part_x, part_y = np.float32(node_x - n_x), np.float32(node_y - n_y)
        sign_x = np.float32(1 - 2 * (column & 1))
        sign_y = np.float32(1 - 2 * (row & 1))
        for i in range(SPREAD):
            kernel = sign_x * (table[n_x, i] + part_x * (table[n_x + 1, i] - table[n_x, i]))
            along_y[i] = sign_y * (table[n_y, i] + part_y * (table[n_y + 1, i] - table[n_y, i]))
            sign_x, sign_y = -sign_x, -sign_y
            for j in range(width):
                block[i * width + j] = kernel * coefficients[j]
        first_row, last_row = min(first_row, row), max(last_row, row + SPREAD)
        start = column * width
        for i in range(SPREAD):
            factor = along_y[i]
            target = grid[row + i, start : start + SPREAD * width]
            for j in range(SPREAD * width):
                target[j] += factor * block[j]
    return first_row, last_row


@_inline
def _depth(qx, qy, sphere):
    """q_z of the point of the sphere above (qx, qy)."""
    x, y = qx + sphere[1], qy + sphere[2]
    return (1.0 - sphere[4]) * (np.sqrt(sphere[0] * sphere[0] - min(x * x + y * y, sphere[5])) - sphere[3])


@_serial
def _combine(
    amplitude, box, sphere_low, tile_low, start, planes, step, sphere, plane, u_table, correction_x, correction_y,
    factors, per_step,
):  # fmt: skip
    """amplitude += f(|q|) sum_k U_k(d) P_k on the part ``box`` of the grid that tile and sphere share.

    ``planes`` (row, column, term) holds the tile from ``start`` (x, y) on.
    """
    terms = planes.shape[2]
    columns = box[1] - box[0]
    scale, node = np.empty(columns, np.float32), np.empty(columns, np.float32)
    half_nodes = 0.5 * (u_table.shape[0] - 1)
    for j in range(box[2], box[3]):
        qy = j * step[1]
        factor_y = correction_y[j - tile_low[1]]
        for c in range(columns):
            qx = (box[0] + c) * step[0]
            qz = _depth(qx, qy, sphere)
            u = (qz - plane[0] - plane[1] * qx - plane[2] * qy) * plane[3]
            node[c] = min(max(u + 1.0, 0.0), 2.0) * half_nodes
            f = cubic(factors, min((qx * qx + qy * qy + qz * qz) * per_step, len(factors) - 4.0))
            scale[c] = f * factor_y * correction_x[box[0] + c - tile_low[0]]
        source, first = planes[j - tile_low[1] + start[1]], box[0] - tile_low[0] + start[0]
        real = amplitude[0, j - sphere_low[1], box[0] - sphere_low[0] : box[1] - sphere_low[0]]
        imaginary = amplitude[1, j - sphere_low[1], box[0] - sphere_low[0] : box[1] - sphere_low[0]]
        for c in range(np.uint64(columns)):
            n = min(np.uint64(node[c]), np.uint64(u_table.shape[0] - 2))
            part = node[c] - np.float32(n)
            place = np.uint64(first) + c
            re, im = np.float32(0.0), np.float32(0.0)
            for term in range(np.uint64(terms)):
                u = u_table[n, term] + part * (u_table[n + np.uint64(1), term] - u_table[n, term])
                re += u * source[place, term].real
                im += u * source[place, term].imag
            real[c] += scale[c] * re
            imaginary[c] += scale[c] * im


@_serial
def _add_directly(amplitude, box, sphere_low, step, sphere, positions, weights, factors, per_step):
    """amplitude += f(|q|) times the sum over a few atoms on the part ``box`` of the grid."""
    columns = box[1] - box[0]
    qz, f = np.empty(columns), np.empty(columns, np.float32)
    for j in range(box[2], box[3]):
        qy = j * step[1]
        real = amplitude[0, j - sphere_low[1], box[0] - sphere_low[0] : box[1] - sphere_low[0]]
        imaginary = amplitude[1, j - sphere_low[1], box[0] - sphere_low[0] : box[1] - sphere_low[0]]
        for c in range(columns):
            qx = (box[0] + c) * step[0]
            qz[c] = _depth(qx, qy, sphere)
            f[c] = cubic(factors, min((qx * qx + qy * qy + qz[c] * qz[c]) * per_step, len(factors) - 4.0))
        for atom in range(len(positions)):
            x, y, z = positions[atom, 0], positions[atom, 1], positions[atom, 2]
            weight = np.float32(weights[atom])
            for c in range(columns):
                sine, cosine = _sine_and_cosine((box[0] + c) * step[0] * x + qy * y + qz[c] * z)
                real[c] += weight * f[c] * cosine
                imaginary[c] += weight * f[c] * sine


@_inline
def _add_taps(source, first, start, stop, x, taps, real, imaginary):
    """Interpolate across rows of ``source`` (2, row, column) at columns start ... stop, x from the middle of two rows.

    The taps are the rows first ... first + TAPS - 1. Unsigned indices cannot count from the end of an array: only so
    are the loops vectorised.
    """
    columns = range(np.uint64(start), np.uint64(stop))
    for c in columns:
        real[c] = np.float32(0.0)
        imaginary[c] = np.float32(0.0)
    for pair in range(TAPS // 2):
        e0, e1, e2, e3 = taps[pair, 0, 0], taps[pair, 0, 1], taps[pair, 0, 2], taps[pair, 0, 3]
        o0, o1, o2, o3 = taps[pair, 1, 0], taps[pair, 1, 1], taps[pair, 1, 2], taps[pair, 1, 3]
        front_real, front_imaginary = source[0, first + pair], source[1, first + pair]
        back_real, back_imaginary = source[0, first + TAPS - 1 - pair], source[1, first + TAPS - 1 - pair]
        for c in columns:
            square = x[c] * x[c]
            even = e0 + square * (e1 + square * (e2 + square * e3))
            odd = x[c] * (o0 + square * (o1 + square * (o2 + square * o3)))
            front, back = even + odd, even - odd
            real[c] += front * front_real[c] + back * back_real[c]
            imaginary[c] += front * front_imaginary[c] + back * back_imaginary[c]


@_inline
def _interpolate(source, place, x, taps, real, imaginary):
    """Interpolate every column of ``source`` (2, row, column) at row ``place`` + TAPS / 2 - 1, which varies slowly."""
    last = source.shape[1] - TAPS
    for begin in range(0, len(place), ROWS):
        end = min(begin + ROWS, len(place))
        start = begin
        while start < end:  # mostly once: until the place passes a row
            first = min(max(int(np.floor(place[start])), 0), last)
            outside = 0
            for c in range(start, end):
                fraction = place[c] - first
                outside += (fraction < 0.0) | (fraction >= 1.0)
                x[c] = np.float32(fraction - 0.5)
            stop = end
            if outside > 0:
                stop = start + 1
                while stop < end and abs(x[stop]) < np.float32(0.5):
                    stop += 1
                x[start] = min(max(x[start], np.float32(-0.5)), np.float32(0.5))  # beyond the grid nothing is needed
            _add_taps(source, first, start, stop, x, taps, real, imaginary)
            start = stop


@_inline
def _cosine_of_angle(x, y):
    """1 / sqrt(1 + x^2 + y^2): single precision and one Newton step, to 1e-14."""
    square = 1.0 + x * x + y * y
    guess = np.float64(np.float32(1.0) / np.sqrt(np.float32(square)))
    return guess * (1.5 - 0.5 * square * guess * guess)


@_serial
def _integrate(
    amplitude, low, step, sphere, per_pixel, fine_x, fine_y, pad, cell, repeat, lattice, taps, response_x, response_y,
    image,
):  # fmt: skip
    """Fill ``image`` with |A|^2 cos^3(2 theta) integrated over pixels, from the cell's amplitude on the grid.

    A sample with tangents x, y of its direction has (Q_x, Q_y) = k (x, y) / sqrt(1 + x^2 + y^2), so that on the curve
    of one y: Q_y = y sqrt((k^2 - Q_x^2) / (1 + y^2)). ROWS rows of samples are interpolated along q_y, turned over, and
    interpolated along q_x, so that either way neighbours in memory need the same taps.
    """
    pixels = len(image)
    k, kx, ky, kz, flat = sphere[0], sphere[1], sphere[2], sphere[3], sphere[4]
    columns = amplitude.shape[2]
    count_x, count_y = fine_x * (pixels + 2 * pad), fine_y * (pixels + 2 * pad)
    real, imaginary = np.empty(columns, np.float32), np.empty(columns, np.float32)
    turned = np.zeros((2, columns, ROWS), np.float32)
    along, place, x_row = np.empty(columns), np.empty(columns), np.empty(columns, np.float32)
    re, im, x_column = np.empty(ROWS, np.float32), np.empty(ROWS, np.float32), np.empty(ROWS, np.float32)
    y, cosine, place_x = np.empty(ROWS), np.empty(ROWS), np.empty(ROWS)
    squared = np.empty((count_x, ROWS), np.float32)
    total = np.empty(ROWS, np.float32)
    for c in range(columns):
        across = (low[0] + c) * step[0] + kx
        along[c] = np.sqrt(max(k * k - across * across, 0.0)) / step[1]
    offset_x, offset_y = kx / step[0] + low[0] + (TAPS // 2 - 1), ky / step[1] + low[1] + (TAPS // 2 - 1)
    edge = -(0.5 * pixels + pad)
    reach_x, reach_y = (2 * pad + 1) * fine_x, (2 * pad + 1) * fine_y
    for block in range(0, count_y, ROWS):
        rows = min(ROWS, count_y - block)
        for j in range(ROWS):
            y[j] = (edge + (block + min(j, rows - 1) + 0.5) / fine_y) * per_pixel
        for j in range(rows):
            slant = y[j] / np.sqrt(1.0 + y[j] * y[j])
            for c in range(columns):
                place[c] = slant * along[c] - offset_y
            _interpolate(amplitude, place, x_row, taps, real, imaginary)
            for c in range(columns):
                turned[0, c, j] = real[c]
                turned[1, c, j] = imaginary[c]
        for i in range(count_x):
            x = (edge + (i + 0.5) / fine_x) * per_pixel
            target, k_x = squared[i], k * x / step[0]
            for j in range(ROWS):
                cosine[j] = _cosine_of_angle(x, y[j])
                place_x[j] = k_x * cosine[j] - offset_x
            _interpolate(turned, place_x, x_column, taps, re, im)
            for j in range(ROWS):
                c = np.float32(cosine[j])
                target[j] = (re[j] * re[j] + im[j] * im[j]) * (c * c * c)
            for axis in range(3):
                if repeat[axis] == 1:
                    continue
                a_x, a_y, a_z = cell[axis, 0], cell[axis, 1], (1.0 - flat) * cell[axis, 2]
                start = kx * a_x + ky * a_y + kz * a_z
                if lattice.shape[1] == 0:
                    for j in range(ROWS):
                        h = k * cosine[j] * (x * a_x + y[j] * a_y + a_z) - start
                        top, bottom = lattice_sum(h, np.float32(repeat[axis]))
                        target[j] *= (top / bottom) ** 2
                else:
                    last = lattice.shape[1] - 1
                    for j in range(ROWS):
                        h = k * cosine[j] * (x * a_x + y[j] * a_y + a_z) - start
                        node = 2.0 * last * abs(h - np.rint(h))
                        n = min(int(node), last - 1)
                        target[j] *= lattice[axis, n] + np.float32(node - n) * (lattice[axis, n + 1] - lattice[axis, n])
        for column in range(pixels):
            for j in range(ROWS):
                total[j] = np.float32(0.0)
            for i in range(reach_x):
                weight = response_x[i]
                source = squared[column * fine_x + i]
                for j in range(ROWS):
                    total[j] += weight * source[j]
            for row in range(max(0, block // fine_y - 2 * pad), min(pixels - 1, (block + rows - 1) // fine_y) + 1):
                first, stop = max(0, row * fine_y - block), min(rows, row * fine_y + reach_y - block)
                weights, part = response_y[block + first - row * fine_y :], total[first:stop]
                summed = 0.0
                for j in range(len(part)):
                    summed += weights[j] * part[j]
                image[row, column] += summed
