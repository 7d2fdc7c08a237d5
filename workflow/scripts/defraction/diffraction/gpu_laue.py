"""Method laue on a GPU: the three steps of laue.py, each one launch for many patterns.

The sampling, the tables and the weights are those of the CPU; only the arithmetic moves. As many patterns are computed
at a time as the memory budget holds.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from defraction.diffraction import kernels, laue, sampling, scattering
from defraction.diffraction.backend import Backend, Launcher
from defraction.diffraction.geometry import Beam
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import View

logger = logging.getLogger(__name__)

SHARED_MEMORY = 48 * 1024  # bytes a block may have on every device without asking for more
TILE = 256  # most pixel columns of a block of laue_rows
MOST_PATTERNS = 1 << 15  # of a launch; CUDA's grids have at most 2^16 - 1 blocks along y and z
CELL_THREADS = 128
PIXEL_BLOCK = (32, 8)

PATTERN = np.dtype(
    [
        ("x0", "f8"), ("y0", "f8"), ("step_x", "f8"), ("step_y", "f8"), ("k", "f8"), ("curved", "f8"),
        ("origin", "f8", 3), ("a_x", "f8", 3), ("a_y", "f8", 3), ("a_z", "f8", 3), ("shift", "f8", 3),
        ("amplitude", "i8"), ("rows", "i8"),
        ("nsub_x", "i4"), ("nsub_y", "i4"), ("ratio_x", "i4"), ("ratio_y", "i4"), ("fine_x", "i4"), ("fine_y", "i4"),
        ("coarse_x", "i4"), ("coarse_y", "i4"), ("interpolation_x", "i4"), ("interpolation_y", "i4"),
        ("response_x", "i4"), ("response_y", "i4"), ("species", "i4"), ("species_end", "i4"), ("repeat", "i4", 3),
        ("lattice", "i4"),
    ],
    align=True,
)  # fmt: skip
SPECIES = np.dtype([("first", "i4"), ("end", "i4"), ("factors", "i4"), ("unused", "i4")])
ONE_AND_A_HALF = 1.5 * 2.0**20  # kernels.py
ROUNDING = 16 * 512  # bytes: CuPy's pool rounds every array up to 512


def laue_intensities(
    views: Sequence[View],
    beams: Sequence[Beam],
    sigma: float,
    factors: Factors,
    backend: Backend,
    memory: float,
    on_device: bool = False,
    launch: Launcher | None = None,
):
    """Return what :func:`laue.intensities` returns, computed on the GPU of ``backend`` within ``memory`` [GiB].

    ``on_device`` leaves the result, float32 (pattern, y, x), on the device (not counted in ``memory``). ``launch``
    starts the kernels; the default is CuPy's.

    Raises ValueError for a backend without a GPU, MemoryError if one pattern does not fit.
    """
    return LauePlan.build(views, beams, sigma, factors).run(backend, memory, on_device, launch)


@dataclass(frozen=True)
class LauePlan:
    """What the kernels of method laue read, on the host: build once, run as often as needed."""

    pixels: int
    pad: int
    smooth: bool
    patterns: np.ndarray  # (pattern,) PATTERN
    species: np.ndarray  # (species of all views,) SPECIES
    atoms: np.ndarray  # (atom, 4): position [Å] in the beam's frame, weight
    factors: np.ndarray  # (element, node) scattering factors [Å] over q^2, float32
    interpolation: np.ndarray  # float32, as the next two
    response: np.ndarray
    lattice: np.ndarray
    width: int  # pixel columns of a block of laue_rows
    rooms: tuple[int, int, int, int]  # of such a block: F_cell on a row, fine samples, largest ratio, weights

    @classmethod
    def build(cls, views: Sequence[View], beams: Sequence[Beam], sigma: float, factors: Factors) -> "LauePlan":
        """Plan patterns ``views[i]`` in ``beams[i]``; arguments as for :func:`laue.intensities`."""
        if len(views) != len(beams):
            raise ValueError(f"{len(views)} views for {len(beams)} beams; give one of each per pattern")
        distinct, view = _distinct(views)
        distinct_beams, beam = _distinct(beams)
        pixels, pad = beams[0].detector.pixels, sampling.padding(sigma)
        axes = sample(distinct, view, distinct_beams, beam, sigma)
        elements = tuple(sorted({element for v in distinct for element in v.elements}))
        f = tabulated(factors, elements, _largest_q(axes, distinct_beams, beam, pad))
        interpolation = _Pool([_interpolation(ratio) for ratio in axes["ratio"].ravel().tolist()])
        response = _Pool([_response(samples, sigma) for samples in axes["per_pixel"].ravel().tolist()])
        lattice = _Pool(_lattice(distinct))

        species_start = np.cumsum([0] + [len(v.elements) for v in distinct])
        atom_start = np.cumsum([0] + [len(v.positions) for v in distinct])
        species = np.array(
            [
                (start + v.first[i], start + v.first[i + 1], elements.index(element) * f.shape[1], 0)
                for v, start in zip(distinct, atom_start, strict=False)
                for i, element in enumerate(v.elements)
            ],
            dtype=SPECIES,
        )
        cells = np.stack([v.cell for v in distinct])[view]  # (pattern, vector, component)
        k = np.array([b.k for b in distinct_beams])[beam, None]
        curved = np.array([0.0 if b.flat else 1.0 for b in distinct_beams])[beam, None]
        origin = np.stack([b.origin for b in distinct_beams])[beam]
        pitch = np.array([b.detector.pitch / b.detector.distance for b in distinct_beams])[beam]
        p = np.zeros(len(beams), dtype=PATTERN)
        for i, axis in enumerate("xy"):
            for name, field in (("nsub", "per_pixel"), ("ratio", "ratio"), ("fine", "fine"), ("coarse", "coarse")):
                p[f"{name}_{axis}"] = axes[field][:, i]
            p[f"step_{axis}"] = pitch / p[f"nsub_{axis}"]
            p[f"{axis}0"] = pitch * (0.5 / p[f"nsub_{axis}"] - pad - 0.5 * pixels)
            p[f"interpolation_{axis}"] = interpolation.starts[i::2]
            p[f"response_{axis}"] = response.starts[i::2]
        p["k"], p["curved"], p["origin"] = k[:, 0], curved[:, 0], origin
        p["a_x"], p["a_y"], p["a_z"] = k * cells[:, :, 0], k * cells[:, :, 1], k * curved * cells[:, :, 2]
        p["shift"] = ONE_AND_A_HALF - p["a_z"] - np.einsum("pij,pj->pi", cells, origin)
        p["species"], p["species_end"] = species_start[view], species_start[view + 1]
        p["repeat"] = np.stack([v.repeat for v in distinct])[view]
        p["lattice"] = lattice.starts[view]
        width, *rooms = _tile(p, pixels, pad)
        return cls(
            pixels, pad, views[0].smooth, p, species,
            np.concatenate([np.column_stack([v.positions, v.weights]) for v in distinct]), f, interpolation.values,
            response.values, lattice.values, width, tuple(rooms),
        )  # fmt: skip

    @property
    def shared(self) -> int:
        """Shared memory [bytes] of a block of laue_rows."""
        return _shared(*self.rooms)

    def _bytes(self) -> np.ndarray:
        """Device memory [bytes] of every pattern: F_cell, fine rows, image."""
        p = self.patterns
        return (
            8 * p["coarse_x"].astype(np.int64) * p["coarse_y"]
            + 4 * p["fine_y"].astype(np.int64) * self.pixels
            + 4 * self.pixels**2
        )

    def run(self, backend: Backend, memory: float, on_device: bool = False, launch: Launcher | None = None):
        """Compute the patterns; arguments and result as for :func:`laue_intensities`."""
        launch = launch or kernels.launcher(backend)
        xp, count, pixels = backend.xp, len(self.patterns), self.pixels
        tables = (self.species, self.atoms, self.factors, self.interpolation, self.response, self.lattice)
        budget = memory * 2**30 - sum(table.nbytes for table in tables) - self.patterns.nbytes - ROUNDING
        chunks = split(self._bytes(), budget)
        logger.info(
            "%s: %d patterns in %d launches of at most %d for %.3g GiB",
            backend.name, count, len(chunks), max(map(len, chunks)), memory,
        )  # fmt: skip
        result = xp.empty((count, pixels, pixels), np.float32) if on_device else np.empty((count, pixels, pixels), "f4")
        with backend.limited_to(memory):
            species, atoms, factors, interpolation, response, lattice = (
                backend.to_device(table.view(np.uint8) if table.dtype.names else table) for table in tables
            )
            samples = self.patterns["coarse_x"].astype(np.int64) * self.patterns["coarse_y"]
            rows = self.patterns["fine_y"].astype(np.int64)
            amplitude = xp.empty(max(int(samples[c].sum()) for c in chunks), np.complex64)
            row_values = xp.empty(max(int(rows[c].sum()) for c in chunks) * pixels, np.float32)
            images = result if on_device else xp.empty((max(map(len, chunks)), pixels, pixels), np.float32)
            for chunk in chunks:
                part = self.patterns[chunk]
                part["amplitude"] = np.cumsum(samples[chunk]) - samples[chunk]
                part["rows"] = np.cumsum(rows[chunk]) - rows[chunk]
                patterns = backend.to_device(part.view(np.uint8))
                here = slice(chunk[0], chunk[-1] + 1)
                image = images[here] if on_device else images[: len(chunk)]
                size, pad = np.int32(pixels), np.int32(self.pad)
                launch(
                    "laue_cell",
                    (math.ceil(int(samples[chunk].max()) / CELL_THREADS), len(chunk)),
                    (CELL_THREADS,),
                    (patterns, species, atoms, factors, np.float64(1.0 / scattering.STEP), amplitude),
                    0,
                )
                coarse_room, fine_room, ratio_room = map(np.int32, self.rooms[:3])
                launch(
                    "laue_rows_smooth" if self.smooth else "laue_rows_sharp",
                    (math.ceil(int(rows[chunk].max()) / kernels.ROWS), math.ceil(pixels / self.width), len(chunk)),
                    (min(kernels.MOST_THREADS, 32 * math.ceil((self.width + 2 * self.pad) / 32)),),
                    (
                        patterns, amplitude, interpolation, response, lattice, size, pad, np.int32(self.width),
                        coarse_room, fine_room, ratio_room, row_values,
                    ),
                    self.shared,
                )  # fmt: skip
                launch(
                    "laue_pixels",
                    (math.ceil(pixels / PIXEL_BLOCK[0]), math.ceil(pixels / PIXEL_BLOCK[1]), len(chunk)),
                    PIXEL_BLOCK,
                    (patterns, response, row_values, size, pad, image),
                    0,
                )
                if not on_device:
                    result[here] = backend.to_host(image)
        return result


def split(sizes: np.ndarray, budget: float) -> list[np.ndarray]:
    """Split items of ``sizes`` [bytes] into runs within ``budget``, each of at least one and at most MOST_PATTERNS."""
    chunks, used = [], np.inf
    for item, size in enumerate(sizes):
        if used + size > budget or len(chunks[-1]) == MOST_PATTERNS:
            chunks.append([])
            used = 0.0
        chunks[-1].append(item)
        used += size
    return [np.array(chunk) for chunk in chunks]


class _Pool:
    """Arrays end to end, each distinct one once: ``values``, and for every array given where it begins."""

    def __init__(self, arrays: list[np.ndarray]):
        starts, blocks, length = {}, [], 0
        for array in arrays:  # cached, so that the same array is the same object
            if id(array) not in starts:
                starts[id(array)] = length
                blocks.append(array)
                length += len(array)
        self.values = np.concatenate(blocks)
        self.starts = np.array([starts[id(array)] for array in arrays])


@lru_cache(maxsize=512)
def _interpolation(ratio: int) -> np.ndarray:
    return sampling.interpolation_weights(ratio).astype(np.float32).ravel()


@lru_cache(maxsize=512)
def _response(samples: int, sigma: float) -> np.ndarray:
    return sampling.response_weights(samples, sigma).astype(np.float32)


def _lattice(views: list[View]) -> list[np.ndarray]:
    """Return the tables of the smooth beam of every view, one array for all views of the same repeat."""
    if not views[0].smooth:
        return [np.zeros(1, np.float32)] * len(views)
    tables = {}
    for view in views:
        repeat = tuple(view.repeat)
        if repeat not in tables:
            tables[repeat] = laue.lattice_tables(view).ravel()
    return [tables[tuple(view.repeat)] for view in views]


def tabulated(factors: Factors, elements: tuple[str, ...], q_max: float) -> np.ndarray:
    """Return the table of scattering factors for a q_max rounded up, so that one table serves many conditions."""
    damping = tuple(sorted(factors.debye_waller.items()))
    return _table(factors.table, damping, elements, math.ceil(4.0 * q_max) / 4.0)


@lru_cache(maxsize=32)
def _table(name: str, damping: tuple, elements: tuple[str, ...], q_max: float) -> np.ndarray:
    return Factors(name, dict(damping)).tabulate(list(elements), q_max).astype(np.float32)


def _distinct(items: Sequence) -> tuple[list, np.ndarray]:
    """Return the items without those that are the same object as an earlier one, and the place of every item there."""
    distinct = list({id(item): item for item in items}.values())
    place = {id(item): i for i, item in enumerate(distinct)}
    return distinct, np.array([place[id(item)] for item in items])


def sample(views: list[View], of_view: np.ndarray, beams: list[Beam], of_beam: np.ndarray, sigma: float) -> dict:
    """Return what :func:`laue.plan` returns for ``views[of_view[i]]`` in ``beams[of_beam[i]]``, for all i at once.

    By the names of its axes' fields, int64 (pattern, 2). One by one, the plans would take as long as the patterns.
    """
    block, cell = (
        np.stack(extents)[of_view] for extents in zip(*((v.extent(), v.cell_extent) for v in views), strict=True)
    )
    slope = np.array([0.0 if b.flat else sampling.largest_tangent(b, sigma) for b in beams])[of_beam, None]
    pixel = np.array([b.pixel for b in beams])[of_beam, None]
    pixels = np.array([b.detector.pixels for b in beams])[of_beam, None]
    extent = block[:, :2] + laue.ATOM_DIAMETER * 0.5 + slope * block[:, 2:]
    cell_extent = cell[:, :2] + laue.ATOM_DIAMETER + slope * cell[:, 2:]
    per_pixel = np.ceil(extent * pixel + sampling.guard(sigma)).astype(np.int64)
    fine = per_pixel * (pixels + 2 * sampling.padding(sigma))
    ratio = np.floor(per_pixel / (sampling.OVERSAMPLING * cell_extent * pixel)).astype(np.int64)
    ratio = np.maximum(1, np.minimum(ratio, fine // sampling.TAPS))
    coarse = np.where(ratio == 1, fine, (fine - 1) // ratio + sampling.TAPS)
    return {"per_pixel": per_pixel, "fine": fine, "ratio": ratio, "coarse": coarse}


def _largest_q(axes: dict, beams: list[Beam], of_beam: np.ndarray, pad: int) -> float:
    """Return a bound of |q| [1/Å] on the coarse grids, which reach beyond the fine ones."""
    k, pitch, origin = np.array(
        [(b.k, b.detector.pitch / b.detector.distance, np.linalg.norm(b.origin)) for b in beams]
    ).T[:, of_beam]
    edge = 0.5 * beams[0].detector.pixels + pad + sampling.TAPS * axes["ratio"] / axes["per_pixel"]
    tangent = pitch * np.linalg.norm(edge, axis=1)
    return float((2.0 * k * np.sin(0.5 * np.arctan(tangent)) + origin).max())


def _shared(coarse: int, fine: int, ratio: int, weights: int) -> int:
    """Return the shared memory [bytes] of a block of laue_rows, which works on two rows at a time."""
    return 16 * coarse + 8 * fine + 48 * ratio + 4 * weights


def _tile(patterns: np.ndarray, pixels: int, pad: int) -> tuple[int, int, int, int, int]:
    """Return the pixel columns of a block of laue_rows, and its room for F_cell, fine samples, ratio and weights.

    Raises ValueError for a sampling so fine that a single pixel column does not fit.
    """
    nsub, ratio = patterns["nsub_x"], patterns["ratio_x"]
    for tiles in range(math.ceil(pixels / TILE), pixels + 1):
        width = math.ceil(pixels / tiles)
        fine = (width + 2 * pad) * nsub
        coarse = np.where(ratio > 1, (fine - 1) // ratio + 1 + sampling.TAPS, fine)
        rooms = int(coarse.max()), int(fine.max()), int(ratio.max()), int(nsub.max()) * (2 * pad + 1)
        if _shared(*rooms) <= SHARED_MEMORY:
            return width, *rooms
    raise ValueError(
        f"response_sigma, camera_lengths: {nsub.max()} samples per pixel are more than a block of the GPU holds; "
        "use device cpu, a narrower response, or a specimen of less extent"
    )
