"""Method nufft on a GPU: patterns of cells of thousands of atoms by fast Fourier transforms of projected planes.

With q' = (q_x, q_y) + q_z (s, t) and z' = z - s x - t y, q.r = q'.(x, y) + q_z z', and on the Ewald sphere q_z is a
function of q'. Its range times that of z' is small, so that planes.separate gives

    F_cell = sum_k U_k(q_z) P_k(q'),    P_k(q') = sum_n V_k(z'_n) exp(2 pi i q'.(x_n, y_n))

with few terms, and each P_k on a uniform grid of q' is one two-dimensional non-uniform FFT of type 1 (A. H. Barnett,
J. Magland & L. af Klinteberg, SIAM J. Sci. Comput. 41, C479 (2019), doi:10.1137/18M120885X). The shear (s, t) follows
a cell that is a tilted plate or rod, and makes z' thin. The grid is fine enough for |A|^2 of the whole block, whose
points are handed to the pixels with the detector's response.

The spreading is a gather: a block of threads owns a tile of the grid and sums the atoms around it in the order in which
they are sorted, once per view. So is the last step: every pixel sums the grid points that it reaches.
"""

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from defraction.diffraction import kernels, laue, planes, sampling, scattering
from defraction.diffraction.backend import Backend, Launcher
from defraction.diffraction.geometry import Beam
from defraction.diffraction.gpu_laue import tabulated
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import View

logger = logging.getLogger(__name__)

SHEARS = (1.0, 2.0, 4.0)  # longest shears that are tried
BIN = 1.5  # Å, width of the bins by which atoms are sorted
MOST_PLANES = 16  # at a time: more save no time, but a transform's plan keeps working memory of their size
UPLOADS = 1 << 22  # bytes of tables that are kept on the device
IMAGES = 8  # images take at most this part of the memory: copied many at a time, they let the device go on meanwhile
BLOCK = (32, 8)
THREADS = 256

GRID = np.dtype(
    [
        ("step_x", "f8"), ("step_y", "f8"), ("shear_x", "f8"), ("shear_y", "f8"), ("k", "f8"), ("curved", "f8"),
        ("origin", "f8", 3), ("moved_x", "f8"), ("moved_y", "f8"), ("pixels", "f8"), ("deepest", "f8"),
        ("u_scale", "f8"), ("phase_z", "f8"), ("first_z", "f8"), ("v_scale", "f8"), ("cell", "f8", 9),
        ("columns", "i4"), ("rows", "i4"), ("up_x", "i4"), ("up_y", "i4"), ("nodes", "i4"), ("terms", "i4"),
        ("even", "i4"), ("repeat", "i4", 3), ("detector", "i4"), ("pad", "i4"),
    ],
    align=True,
)  # fmt: skip
BINS = np.dtype(
    [("x0", "f8"), ("y0", "f8"), ("per_length", "f8"), ("columns", "i4"), ("rows", "i4")], align=True
)  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """The uniform grid of q': ``half`` (2,) points on each side of the origin along x and y, ``step`` (2,) [1/Å].

    p_z, of q + Beam.origin, runs from ``deepest`` to 0, the sheared z of the atoms over ``depth``.
    """

    half: tuple[int, int]
    step: np.ndarray
    shear: np.ndarray
    deepest: float
    depth: tuple[float, float]

    @classmethod
    def plan(cls, outline: "Outline", beam: Beam, sigma: float) -> "Grid":
        """Return the cheapest grid: a shear makes the object thin, but needs finer steps."""
        tangent = sampling.largest_tangent(beam, sigma)
        usable = 0.0 if beam.flat else 0.7 / tangent  # beyond, some q' would have no point of the sphere
        grids = [
            cls._with_shear(outline, sheared, beam, sigma)
            for sheared in outline.sheared
            if sheared.length == 0.0 or sheared.length < usable
        ]
        return min(grids, key=lambda grid: grid.cost())

    @classmethod
    def _with_shear(cls, outline: "Outline", sheared: "_Sheared", beam: Beam, sigma: float) -> "Grid":
        tangent = sampling.largest_tangent(beam, sigma)
        corner = math.sqrt(1.0 + 2.0 * tangent**2)
        deepest = 0.0 if beam.flat else beam.k * (1.0 / corner - 1.0)
        slope = 0.0 if beam.flat else tangent
        # a pixel off the axis is narrower in q' than one on it: by the angle, and by the shear
        shrink = 1.0 - np.abs(sheared.shear).sum() * slope
        narrowest = beam.pixel / corner**3 * shrink
        moved = np.abs(_moved(beam, sheared.shear))
        step, half = np.empty(2), []
        for i in range(2):
            extent = outline.extent[i] + 0.5 * laue.ATOM_DIAMETER + slope / shrink * sheared.thickness
            step[i] = 1.0 / (extent + sampling.guard(sigma) / narrowest)
            reach = beam.k * tangent / math.sqrt(1.0 + tangent**2) + abs(sheared.shear[i] * deepest) + moved[i]
            half.append(math.ceil(reach / step[i]) + 1)
        return cls(tuple(half), step, sheared.shear, deepest, sheared.depth)

    @property
    def bandwidth(self) -> float:
        """Half the range of p_z times half that of the sheared z, as planes.separate counts it."""
        return -0.25 * self.deepest * (self.depth[1] - self.depth[0])

    def transform(self) -> tuple[int, int]:
        """Return the points of the transform along x and y: whole tiles, a product of small primes."""
        return tuple(_fast_length(2 * half) for half in self.half)

    def cost(self) -> float:
        """Return a number that grows with the time of a pattern, to compare grids of a view."""
        return self.half[0] * self.half[1] * (10.0 + 5.0 * self.bandwidth)


@dataclass(frozen=True)
class _Sheared:
    """A shear, the range of z' of the cell's atoms, and the thickness of the block along z' [Å]."""

    shear: np.ndarray
    depth: tuple[float, float]
    thickness: float

    @classmethod
    def of(cls, view: View, columns: np.ndarray, shear: np.ndarray) -> "_Sheared":
        x, y, z = columns
        sheared = z - shear[0] * x - shear[1] * y if shear.any() else z
        low, high = float(sheared.min()), float(sheared.max())
        slant = np.array([-shear[0], -shear[1], 1.0])
        return cls(shear, (low, high), high - low + float(np.abs((view.edges - view.cell) @ slant).sum()))

    @property
    def length(self) -> float:
        return float(np.linalg.norm(self.shear))


@dataclass(frozen=True)
class Outline:
    """What the grids of a view depend on: its extent [Å] and the shears that are worth a trial, the first of them 0."""

    extent: np.ndarray
    sheared: tuple[_Sheared, ...]

    @classmethod
    def of(cls, view: View) -> "Outline":
        """Look at every atom once, for all beams."""
        columns = np.ascontiguousarray(view.positions.T)
        shear = _fitted_shear(columns)
        length = float(np.linalg.norm(shear))
        trials = [0.0]
        if length > 0.02:  # less would not make the object thinner than rounding its bandwidth up does
            trials += [min(1.0, longest / length) for longest in SHEARS if longest == 1.0 or length > 0.5 * longest]
        return cls(view.extent(), tuple(_Sheared.of(view, columns, trial * shear) for trial in trials))


def _fitted_shear(columns: np.ndarray) -> np.ndarray:
    """Return (s, t) for which z - s x - t y of atoms (3, n) varies least (least squares, damped by 1 Å^2)."""
    covariance = np.cov(columns, bias=True)
    return np.linalg.solve(covariance[:2, :2] + np.eye(2), covariance[:2, 2])


def terms(grid: Grid) -> int:
    """Return the terms of the separation in depth, that is the planes of each species."""
    return planes.separate(planes.level_of(grid.bandwidth))[2]


def _moved(beam: Beam, shear: np.ndarray) -> np.ndarray:
    """Return q' of Beam.origin, by which the grid is away from the sphere's own q', shape (2,) [1/Å]."""
    origin = beam.origin
    return origin[:2] + origin[2] * shear


@lru_cache(maxsize=512)
def _fast_length(points: int) -> int:
    """Return the least multiple of TILE, with no prime factor above 7, of UPSAMPLING times ``points`` or more."""
    tiles = math.ceil(kernels.UPSAMPLING * points / kernels.TILE)
    while True:
        rest = tiles
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return kernels.TILE * tiles
        tiles += 1


@lru_cache(maxsize=512)
def _correction(points: int, length: int) -> np.ndarray:
    """Return 1 / the transform of the spreading function at the ``points`` central frequencies of ``length``.

    The signs of (-1)^(column + row), which put the middle of the grid at the origin, drop out of |A|^2.
    """
    nodes, gauss = np.polynomial.legendre.leggauss(64)
    u = 0.5 * kernels.SPREAD * nodes
    value = np.exp(kernels.SPREAD_BETA * (np.sqrt(1.0 - nodes**2) - 1.0)) * (0.5 * kernels.SPREAD * gauss)
    frequency = (np.arange(points) - points // 2) / length
    return (1.0 / (np.cos(2.0 * np.pi * np.outer(frequency, u)) @ value)).astype(np.float32)


@lru_cache(maxsize=16)
def _response(sigma: float) -> np.ndarray:
    """Return the response by distance from the pixel's centre, RESPONSE_NODES per pixel, beyond its reach."""
    distance = np.arange((sampling.padding(sigma) + 1) * kernels.RESPONSE_NODES + 2) / kernels.RESPONSE_NODES
    return sampling.response(distance, sigma).astype(np.float32)


class _OnDevice:
    """A view's atoms on the device, each species sorted by bins of (x, y), and the tables its patterns need."""

    def __init__(self, view: View, backend: Backend):
        xp, self.backend = backend.xp, backend
        self.outline = Outline.of(view)
        self.uploads: dict[int, tuple] = {}
        corner = view.positions[:, :2].min(axis=0)
        columns, rows = (int(n) for n in np.ptp(view.positions[:, :2], axis=0) // BIN + 1)
        bins = np.array([(corner[0], corner[1], 1.0 / BIN, columns, rows)], dtype=BINS)
        self.bins = backend.to_device(bins.view(np.uint8))
        atoms = backend.to_device(np.column_stack([view.positions, view.weights]))
        # multiplied, as the kernel does: a quotient could round to the other side of a bin's edge
        place = xp.floor((atoms[:, :2] - xp.asarray(corner)) * (1.0 / BIN)).astype(np.int32)
        bin_of = xp.minimum(place[:, 1], rows - 1) * columns + xp.minimum(place[:, 0], columns - 1)
        self.atoms, self.starts = [], []
        for first, end in itertools.pairwise(map(int, view.first)):
            order = xp.argsort(bin_of[first:end], kind="stable")
            self.atoms.append(xp.ascontiguousarray(atoms[first:end][order]))
            starts = xp.searchsorted(bin_of[first:end][order], xp.arange(columns * rows + 1, dtype=np.int32))
            self.starts.append(starts.astype(np.int32))
        self.lattice = backend.to_device(laue.lattice_tables(view).ravel() if view.smooth else np.zeros(1, np.float32))

    def upload(self, array: np.ndarray):
        """Return ``array`` on the device; the same array is copied once while there is room."""
        if id(array) not in self.uploads:
            if array.nbytes + sum(host.nbytes for host, _ in self.uploads.values()) > UPLOADS:
                self.uploads.clear()
            self.uploads[id(array)] = (array, self.backend.to_device(array))
        return self.uploads[id(array)][1]


def nufft_intensities(
    views: Sequence[View],
    beams: Sequence[Beam],
    sigma: float,
    factors: Factors,
    backend: Backend,
    memory: float,
    on_device: bool = False,
    launch: Launcher | None = None,
):
    """Return what :func:`laue.intensities` returns, by method nufft on the GPU of ``backend`` within ``memory`` [GiB].

    ``on_device`` and ``launch`` as for :func:`gpu_laue.laue_intensities`, and the same errors. Patterns of one view
    that follow each other share its sorted atoms.
    """
    launch = launch or kernels.launcher(backend)
    xp, pixels = backend.xp, beams[0].detector.pixels
    result = (xp if on_device else np).empty((len(beams), pixels, pixels), np.float32)
    waiting = 1 if on_device else min(len(beams), max(1, int(memory * 2**30 / IMAGES / (4 * pixels**2))))
    at_once, first, again = 0, 0, False
    with backend.limited_to(memory):
        last, atoms, images = None, None, None  # images of patterns first, first + 1, ...
        while first < len(beams):
            if on_device:
                images = result[first:]
            elif images is None:
                images = xp.empty((waiting, pixels, pixels), np.float32)
            done = 0
            try:
                for view, beam in zip(views[first : first + len(images)], beams[first:], strict=False):
                    if view is not last:
                        last, atoms = view, _OnDevice(view, backend)
                    count = _pattern(view, atoms, beam, sigma, factors, memory, launch, images[done], waiting)
                    at_once, done, again = max(at_once, count), done + 1, False
            except backend.out_of_memory:
                if again:
                    raise
                again = True
            if not on_device:
                result[first : first + done] = backend.to_host(images[:done])
            first += done
            if again:  # the pattern once more in an empty pool, into which nothing small is scattered
                last, atoms, images = None, None, None
                backend.give_back()
    logger.info("%s: at most %d planes at a time for %.3g GiB", backend.name, at_once, memory)
    return result


def _pattern(view, atoms: _OnDevice, beam, sigma, factors, memory, launch, image, images) -> int:
    """Fill ``image`` (y, x) on the device with one pattern; return how many planes were computed at a time.

    So many ``images`` lie on the device at once.
    """
    backend, xp = atoms.backend, atoms.backend.xp
    plan = Grid.plan(atoms.outline, beam, sigma)
    level = planes.level_of(plan.bandwidth)
    u_table, v_table, terms, even = planes.separate(level)
    grid = backend.to_device(_grid(plan, view, beam, sigma, level, len(u_table) - 1, terms, even).view(np.uint8))
    columns, rows = (2 * half for half in plan.half)
    up_x, up_y = plan.transform()
    q_max = 0.6 * math.hypot(columns * plan.step[0], rows * plan.step[1], plan.deepest) + np.linalg.norm(beam.origin)
    f = atoms.upload(tabulated(factors, view.elements, float(q_max)))
    u_table, v_table, response = map(atoms.upload, (u_table, v_table, _response(sigma)))
    correction = [atoms.upload(_correction(n, up)) for n, up in ((columns, up_x), (rows, up_y))]
    amplitude = xp.empty((rows, columns), np.complex64)
    left = memory * 2**30 - images * image.nbytes
    count = _planes_at_once(terms, up_x * up_y, len(view.positions), columns * rows, left)
    blocks = (math.ceil(columns / BLOCK[0]), math.ceil(rows / BLOCK[1]))
    partial = xp.empty((rows, columns), np.complex64) if count < terms else amplitude  # else never read
    for species, sorted_atoms in enumerate(atoms.atoms):
        strengths = xp.empty((len(sorted_atoms), count), np.complex64)
        for first in range(0, terms, count):
            here = min(count, terms - first)
            launch(
                "nufft_strengths",
                (math.ceil(len(sorted_atoms) * count / THREADS),),
                (THREADS,),
                (grid, sorted_atoms, np.int32(len(sorted_atoms)), v_table, np.int32(first), np.int32(count), strengths),
                0,
            )
            stack = xp.empty((here, up_y, up_x), np.complex64)
            launch(
                "nufft_spread",
                (up_x // kernels.TILE, up_y // kernels.TILE, math.ceil(here / kernels.PLANES)),
                (THREADS,),
                (
                    grid, atoms.bins, sorted_atoms, atoms.starts[species], strengths, np.int32(count), np.int32(here),
                    stack,
                ),
                0,
            )  # fmt: skip
            stack = backend.inverse_transform(stack)
            launch(
                "nufft_combine",
                blocks,
                BLOCK,
                (
                    grid, stack, u_table, np.int32(first), np.int32(here), f[species], np.int32(f.shape[1] - 4),
                    np.float64(1.0 / scattering.STEP), np.int32(species > 0), partial, amplitude,
                ),
                0,
            )  # fmt: skip
    samples = xp.empty((rows, columns, 4), np.float32)
    launch(
        "nufft_square",
        blocks,
        BLOCK,
        (grid, amplitude, *correction, atoms.lattice, np.int32(view.smooth), samples),
        0,
    )
    pixels = beam.detector.pixels
    launch(
        "nufft_pixels",
        (math.ceil(pixels / BLOCK[0]), math.ceil(pixels / BLOCK[1])),
        BLOCK,
        (grid, samples, response, image),
        0,
    )
    return count


def _planes_at_once(terms: int, transform: int, atoms: int, grid: int, memory: float) -> int:
    """Return how many planes to compute at a time within ``memory`` [bytes], a multiple of PLANES.

    A plane is held up to three times during its transform; amplitude, its part and samples take 32 bytes per point.
    """
    per_plane = 24 * transform + 8 * atoms
    left = memory - 32 * grid - 64 * atoms - 2 * UPLOADS
    most = min(MOST_PLANES, kernels.PLANES * max(1, int(left // (kernels.PLANES * per_plane))))
    return min(most, kernels.PLANES * math.ceil(terms / kernels.PLANES))


def _grid(plan: Grid, view: View, beam: Beam, sigma: float, level: int, nodes: int, terms: int, even: int):
    """Return the kernels' description of a pattern, one GRID."""
    g = np.zeros(1, dtype=GRID)
    g["step_x"], g["step_y"] = plan.step
    g["shear_x"], g["shear_y"] = plan.shear
    g["k"], g["curved"], g["origin"] = beam.k, 0.0 if beam.flat else 1.0, beam.origin
    g["moved_x"], g["moved_y"] = _moved(beam, plan.shear)
    g["pixels"] = beam.detector.distance / beam.detector.pitch
    # p_z = middle + half u and z' = z_middle + z_half v, |u|, |v| <= 1; exp(2 pi i half u z_middle) drops out of |A|^2
    half, middle = -0.5 * plan.deepest, 0.5 * plan.deepest
    z_half = planes.bandwidth_of(level) / half if level else 1.0
    g["deepest"], g["u_scale"] = plan.deepest, nodes / (2.0 * half) if level else 0.0
    g["phase_z"] = middle - beam.origin[2]
    g["first_z"] = 0.5 * sum(plan.depth) - z_half
    g["v_scale"] = nodes / (2.0 * z_half) if level else 0.0
    g["cell"] = view.cell.ravel()
    g["columns"], g["rows"] = 2 * plan.half[0], 2 * plan.half[1]
    g["up_x"], g["up_y"] = plan.transform()
    g["nodes"], g["terms"], g["even"] = nodes, terms, even
    g["repeat"], g["detector"], g["pad"] = view.repeat, beam.detector.pixels, sampling.padding(sigma)
    return g
