"""The exact diffraction pattern of a finite block of any repeated cell.

    A(q) = F_cell(q) prod_j sum_n exp(2 pi i n h_j),  h_j = q . a_j,  |sum_n|^2 = (sin(pi N_j h_j) / sin(pi h_j))^2

holds for every cell, strained or triclinic, and every q, not only at reciprocal lattice points. So |A|^2 is evaluated
on a grid several times finer than the pixels (sampling.py), on the Ewald sphere, and integrated over each pixel. Three
steps, each one parallel loop over (pattern, row) of many patterns at once:

1. ``_cell_amplitudes``: F_cell, whose band limit is the cell's small extent, on a coarse grid, summed over its atoms;
2. ``_rows``: for every fine row, F_cell by interpolation, times the lattice sums, integrated over the pixel columns;
3. ``_pixels``: integrated over the pixel rows.

A tilted beam only subtracts a constant from every q (Beam.origin): the band limits stay what they are.

Phases are reduced to one turn in double precision before anything is rounded to single precision. Every sum has a fixed
order, so two runs give the same bits.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from defraction.diffraction import sampling, scattering
from defraction.diffraction.geometry import Beam, scattering_vectors
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import View, lattice_weights

logger = logging.getLogger(__name__)

ERROR_BOUND = 1e-5  # of the largest intensity outside the direct beam, against the float64 sum over all atoms

LATTICE_NODES = 1 << 15  # of the tabulated lattice sum of the smooth beam, over half a period
TAPS = sampling.TAPS
TAPS_BEFORE = TAPS // 2 - 1
# Sums may be reordered to be vectorised, a division by zero is infinite: without either, no loop here is vectorised.
RULES = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy", "cache": True}
_inline = njit(**RULES)
_kernel = njit(parallel=True, **RULES)


@dataclass(frozen=True)
class _Axis:
    """Samples along one detector axis: per pixel, in all, per coarse sample of F_cell, and coarse samples in all."""

    per_pixel: int
    fine: int
    ratio: int
    coarse: int

    @classmethod
    def plan(cls, extent: float, cell_extent: float, beam: Beam, sigma: float) -> "_Axis":
        per_pixel = sampling.samples_per_pixel(extent, beam.pixel, sigma)
        fine = per_pixel * (beam.detector.pixels + 2 * sampling.padding(sigma))
        ratio = math.floor(per_pixel / (sampling.OVERSAMPLING * cell_extent * beam.pixel))
        ratio = max(1, min(ratio, fine // sampling.TAPS))
        coarse = fine if ratio == 1 else (fine - 1) // ratio + sampling.TAPS
        return cls(per_pixel, fine, ratio, coarse)


# An atom scatters from a ball around it: added to the extent of the cell's atoms for the band limit of F_cell [Å].
ATOM_DIAMETER = 6.0


def plan(view: View, beam: Beam, sigma: float) -> tuple[_Axis, _Axis]:
    """Return the samples along x and y; the slope of the Ewald sphere adds part of the thickness to the extent."""
    slope = 0.0 if beam.flat else sampling.largest_tangent(beam, sigma)
    block = view.extent()
    cell = view.cell_extent
    axes = []
    for i in range(2):
        across, along = block[i] + ATOM_DIAMETER * 0.5, block[2]
        axes.append(
            _Axis.plan(across + slope * along, cell[i] + ATOM_DIAMETER + slope * cell[2], beam, sigma),
        )
    return axes[0], axes[1]


def pattern_bytes(view: View, beam: Beam, sigma: float) -> int:
    """Return the memory [bytes] that one pattern needs while it is computed."""
    x, y = plan(view, beam, sigma)
    return 8 * x.coarse * y.coarse + 4 * y.fine * beam.detector.pixels + 4 * beam.detector.pixels**2


def cost(view: View, beams: Sequence[Beam], sigma: float) -> float:
    """Return roughly the CPU seconds of the patterns of all ``beams``, to choose between methods."""
    plans = [plan(view, beam, sigma) for beam in beams]
    return sum(6.5e-10 * x.coarse * y.coarse * len(view.positions) + 7e-9 * x.fine * y.fine for x, y in plans)


def intensities(views: Sequence[View], beams: Sequence[Beam], sigma: float, factors: Factors) -> np.ndarray:
    """Return the mean of |A|^2 cos^3(2 theta) over every pixel [Å^2], with the response, float32 (pattern, y, x).

    Pattern i is ``views[i]`` in ``beams[i]``; all detectors have the same number of pixels. Times pitch^2 / distance^2
    it is the integral of |A|^2 over the pixel's solid angle. ``sigma`` [px] of the response; ``factors``: the
    scattering factors.
    """
    pixels = beams[0].detector.pixels
    plans = [plan(view, beam, sigma) for view, beam in zip(views, beams, strict=True)]
    setup = _Setup.build(views, beams, plans, sigma, factors)
    amplitude = np.empty((2, setup.coarse_start[-1]), dtype=np.float32)
    _cell_amplitudes(
        setup.tasks(setup.coarse[:, 1]), setup.beam, setup.per_pixel, setup.ratio, setup.coarse, setup.coarse_start,
        setup.view, setup.positions, setup.weights, setup.species_start, setup.first, setup.row_of,
        setup.factors, 1.0 / scattering.STEP, amplitude,
    )  # fmt: skip
    rows = np.empty((setup.row_start[-1], pixels), dtype=np.float32)
    _rows(
        setup.tasks(setup.fine[:, 1]), setup.beam, setup.per_pixel, setup.ratio, setup.fine, setup.coarse,
        setup.coarse_start, amplitude, setup.interpolation, setup.interpolation_start, setup.view, setup.cells,
        setup.repeats, setup.lattice, setup.response, setup.response_start[:, 0].copy(), sampling.padding(sigma),
        setup.row_start, rows,
    )  # fmt: skip
    image = np.empty((len(beams), pixels, pixels), dtype=np.float32)
    _pixels(
        setup.per_pixel[:, 1].copy(),
        setup.response,
        setup.response_start[:, 1].copy(),
        sampling.padding(sigma),
        setup.row_start,
        rows,
        image,
    )
    return image


@dataclass(frozen=True)
class _Setup:
    """Everything the kernels read, as flat arrays; ``_start`` arrays say where an item's part begins."""

    beam: np.ndarray  # (pattern, 8): k, distance, pitch, left edge of the samples in pixels, flat, origin of q (3)
    per_pixel: np.ndarray  # (pattern, 2) for x and y, as the next three
    ratio: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray
    coarse_start: np.ndarray
    row_start: np.ndarray
    view: np.ndarray  # (pattern,) index of its view
    positions: np.ndarray  # (atom, 3), beam frame
    weights: np.ndarray  # (atom,)
    species_start: np.ndarray  # (view + 1,) into first and column
    first: np.ndarray  # first atom of each species, counted over all views; species s ends where its successor starts
    row_of: np.ndarray  # row of the species in factors
    factors: np.ndarray  # (element, node) scattering factors over q^2
    cells: np.ndarray  # (view, 3, 3)
    repeats: np.ndarray  # (view, 3)
    lattice: np.ndarray  # (view, 3, node) tabulated |lattice sum|^2 of the smooth beam; no nodes: the sharp block
    interpolation: np.ndarray  # (row, tap)
    interpolation_start: np.ndarray  # (pattern, 2)
    response: np.ndarray
    response_start: np.ndarray  # (pattern, 2)

    @classmethod
    def build(cls, views, beams, plans, sigma: float, factors: Factors) -> "_Setup":
        distinct = list({id(view): view for view in views}.values())
        index = {id(view): i for i, view in enumerate(distinct)}
        elements = sorted({element for view in distinct for element in view.elements})
        q_max = max(_largest_q(beam, plan, sigma) for beam, plan in zip(beams, plans, strict=True))
        atoms = np.cumsum([0] + [len(view.positions) for view in distinct])
        species = np.cumsum([0] + [len(view.elements) for view in distinct])
        interpolation, interpolation_start = _stack(
            [[sampling.interpolation_weights, (axis.ratio,)] for plan in plans for axis in plan]
        )
        response, response_start = _stack(
            [[sampling.response_weights, (axis.per_pixel, sigma)] for plan in plans for axis in plan]
        )
        pad = sampling.padding(sigma)

        def pairs(name):
            return np.array([[getattr(axis, name) for axis in plan] for plan in plans], dtype=np.int64)

        coarse, fine = pairs("coarse"), pairs("fine")
        return cls(
            beam=np.array(
                [
                    [b.k, b.detector.distance, b.detector.pitch, -pad - 0.5 * b.detector.pixels, b.flat, *b.origin]
                    for b in beams
                ]
            ),
            per_pixel=pairs("per_pixel"),
            ratio=pairs("ratio"),
            fine=fine,
            coarse=coarse,
            coarse_start=np.concatenate([[0], np.cumsum(coarse.prod(axis=1))]),
            row_start=np.concatenate([[0], np.cumsum(fine[:, 1])]),
            view=np.array([index[id(view)] for view in views]),
            positions=np.concatenate([view.positions for view in distinct]),
            weights=np.concatenate([view.weights for view in distinct]).astype(np.float32),
            species_start=species,
            first=np.concatenate(
                [view.first[:-1] + start for view, start in zip(distinct, atoms, strict=False)] + [atoms[-1:]]
            ),
            row_of=np.array([elements.index(element) for view in distinct for element in view.elements]),
            factors=factors.tabulate(elements, q_max),
            cells=np.stack([view.cell for view in distinct]),
            repeats=np.stack([view.repeat for view in distinct]).astype(np.int64),
            lattice=np.stack([lattice_tables(view) for view in distinct]),
            interpolation=interpolation,
            interpolation_start=interpolation_start,
            response=response,
            response_start=response_start,
        )

    @staticmethod
    def tasks(rows: np.ndarray) -> np.ndarray:
        """Return (pattern, row) of every row of every pattern, shape (task, 2)."""
        pattern = np.repeat(np.arange(len(rows)), rows)
        row = np.arange(len(pattern)) - np.repeat(np.cumsum(rows) - rows, rows)
        return np.stack([pattern, row], axis=1)


def _stack(calls: list) -> tuple[np.ndarray, np.ndarray]:
    """Call each function once per distinct argument list.

    Returns the results end to end, and where each call's begins, shape (pattern, 2). Every array handed to a kernel is
    contiguous, so that each kernel is compiled once.
    """
    blocks, starts, length, where = [], [], 0, {}
    for function, arguments in calls:
        if arguments not in where:
            block = function(*arguments)
            where[arguments] = length
            blocks.append(block)
            length += len(block)
        starts.append(where[arguments])
    return np.ascontiguousarray(np.concatenate(blocks), dtype=np.float32), np.array(starts).reshape(-1, 2)


def _largest_q(beam: Beam, plan: tuple[_Axis, _Axis], sigma: float) -> float:
    """Return the largest |q| [1/Å] of the coarse grids, which reach beyond the fine ones."""
    inside = 0.5 * beam.detector.pixels + sampling.padding(sigma)
    edges = [beam.detector.pitch * (inside + TAPS * axis.ratio / axis.per_pixel) for axis in plan]
    corner = np.linalg.norm(scattering_vectors(*edges, beam.k, beam.detector.distance))
    return float(corner + np.linalg.norm(beam.origin))


def lattice_tables(view: View) -> np.ndarray:
    """Return |sum_n w_n exp(2 pi i n t)|^2 of the smooth beam for t = 0 ... 1/2, shape (3, LATTICE_NODES + 1).

    For the sharp block, whose lattice sums are known in closed form, the shape is (3, 0).
    """
    if not view.smooth:
        return np.zeros((3, 0), dtype=np.float32)
    t = np.linspace(0.0, 0.5, LATTICE_NODES + 1)
    tables = []
    for repeat in view.repeat:
        weight = lattice_weights(int(repeat))
        centred = np.arange(repeat) - 0.5 * (repeat - 1)
        tables.append((np.cos(2.0 * np.pi * np.outer(t, centred)) @ weight) ** 2)  # the weights are symmetric
    return np.stack(tables).astype(np.float32)


@_inline
def _sine(t2):
    """sin(pi t) / t for t^2 <= 1/4 by the Taylor series in t^2, to 6e-8."""
    return np.float32(math.pi) + t2 * (
        np.float32(-5.16771278004997) + t2 * (
            np.float32(2.550164039877345) + t2 * (
                np.float32(-0.5992645293207921) + t2 * (
                    np.float32(0.08214588661112823) + t2 * np.float32(-0.00737043094571435)))))  # fmt: skip


@_inline
def _cosine(t2):
    """cos(pi t) for t^2 <= 1/4 by the Taylor series in t^2, to 6e-9."""
    return np.float32(1.0) + t2 * (
        np.float32(-4.934802200544679) + t2 * (
            np.float32(4.058712126416768) + t2 * (
                np.float32(-1.3352627688545893) + t2 * (
                    np.float32(0.23533063035889312) + t2 * (
                        np.float32(-0.025806891390014061) + t2 * np.float32(0.0019295743094039230))))))  # fmt: skip


@_inline
def cubic(values, node):
    """Interpolate between ``values``, of which ``values[1]`` is at node 0."""
    i = np.uint32(node)
    u = node - i
    down, up = (u - 1.0) * (u - 2.0), (u + 1.0) * u
    return (
        -u * down / 6.0 * values[i]
        + (u + 1.0) * down / 2.0 * values[i + 1]
        - up * (u - 2.0) / 2.0 * values[i + 2]
        + up * (u - 1.0) / 6.0 * values[i + 3]
    )


@_kernel
def _cell_amplitudes(
    tasks, beam, per_pixel, ratio, coarse, coarse_start, view, positions, weights, species_start, first, row_of,
    factors, per_step, amplitude,
):  # fmt: skip
    """Fill ``amplitude`` (2, sample) with the real and imaginary part of F_cell on the coarse grids."""
    for task in prange(len(tasks)):
        pattern, row = tasks[task, 0], tasks[task, 1]
        k, distance, pitch, edge, flat, origin_x, origin_y, origin_z = beam[pattern]
        columns = coarse[pattern, 0]
        lead_x = TAPS_BEFORE if ratio[pattern, 0] > 1 else 0
        lead_y = TAPS_BEFORE if ratio[pattern, 1] > 1 else 0
        y = pitch * (edge + (ratio[pattern, 1] * (row - lead_y) + 0.5) / per_pixel[pattern, 1])
        qx, qy, qz = np.empty(columns), np.empty(columns), np.empty(columns)
        node, real, imaginary = np.empty(columns), np.empty(columns, np.float32), np.empty(columns, np.float32)
        for c in range(columns):
            x = pitch * (edge + (ratio[pattern, 0] * (c - lead_x) + 0.5) / per_pixel[pattern, 0])
            rho = x * x + y * y
            n = math.sqrt(rho + distance * distance)
            qx[c] = k * x / n - origin_x
            qy[c] = k * y / n - origin_y
            qz[c] = (flat - 1.0) * k * rho / (n * (n + distance)) - origin_z
            node[c] = (qx[c] * qx[c] + qy[c] * qy[c] + qz[c] * qz[c]) * per_step
        start = coarse_start[pattern] + row * columns
        for c in range(columns):
            amplitude[0, start + c] = 0.0
            amplitude[1, start + c] = 0.0
        for species in range(species_start[view[pattern]], species_start[view[pattern] + 1]):
            for c in range(columns):
                real[c] = 0.0
                imaginary[c] = 0.0
            for atom in range(first[species], first[species + 1]):
                rx, ry, rz, weight = positions[atom, 0], positions[atom, 1], positions[atom, 2], weights[atom]
                for c in range(columns):
                    turns = qx[c] * rx + qy[c] * ry + qz[c] * rz
                    t = np.float32(turns - np.rint(turns))
                    t2 = t * t
                    sine = t * _sine(t2)
                    real[c] += weight * (np.float32(1.0) - np.float32(2.0) * sine * sine)
                    imaginary[c] += weight * np.float32(2.0) * sine * _cosine(t2)
            for c in range(columns):
                f = np.float32(cubic(factors[row_of[species]], node[c]))
                amplitude[0, start + c] += f * real[c]
                amplitude[1, start + c] += f * imaginary[c]


@_inline
def _interpolated_square(real, imaginary, weights, result):
    """Fill ``result`` with |F|^2 from a row of coarse F; ten taps, written out so that the compiler vectorises them."""
    ratio = len(weights)
    r1, r2, r3, r4, r5, r6, r7, r8, r9 = (
        real[1:], real[2:], real[3:], real[4:], real[5:], real[6:], real[7:], real[8:], real[9:],
    )  # fmt: skip
    i1, i2, i3, i4, i5, i6, i7, i8, i9 = (
        imaginary[1:], imaginary[2:], imaginary[3:], imaginary[4:], imaginary[5:], imaginary[6:], imaginary[7:],
        imaginary[8:], imaginary[9:],
    )  # fmt: skip
    for offset in range(ratio):
        w = weights[offset]
        w0, w1, w2, w3, w4, w5, w6, w7, w8, w9 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9]
        part = result[offset::ratio]
        for b in range(len(part)):
            re = (
                w0 * real[b] + w1 * r1[b] + w2 * r2[b] + w3 * r3[b] + w4 * r4[b]
                + w5 * r5[b] + w6 * r6[b] + w7 * r7[b] + w8 * r8[b] + w9 * r9[b]
            )  # fmt: skip
            im = (
                w0 * imaginary[b] + w1 * i1[b] + w2 * i2[b] + w3 * i3[b] + w4 * i4[b]
                + w5 * i5[b] + w6 * i6[b] + w7 * i7[b] + w8 * i8[b] + w9 * i9[b]
            )  # fmt: skip
            part[b] = re * re + im * im


@_inline
def lattice_sum(h, repeat):
    """Return sin(pi N h) and sin(pi h) up to their signs; h is kept off 0, where both vanish."""
    t = max(abs(np.float32(h - np.rint(h))), np.float32(1e-9))
    turns = repeat * t
    turns -= np.rint(turns)
    return turns * _sine(turns * turns), t * _sine(t * t)


@_inline
def _cosine_of_angle(x, y):
    """1 / sqrt(1 + x^2 + y^2): single precision and one Newton step, to 1e-14."""
    square = 1.0 + x * x + y * y
    guess = np.float64(np.float32(1.0) / np.sqrt(np.float32(square)))
    return guess * (1.5 - 0.5 * square * guess * guess)


@_inline
def _sharp_block(x0, step, y, across, along, offset, repeat, squared):
    """Multiply |F_cell|^2 on one row by the three squared lattice sums and by cos^3(2 theta).

    x0 + i step and y are tangents of the scattering angle; h = q . a with q = k (x c, y c, c - 1), c = cos(2 theta);
    ``across`` (3, 2) and ``along`` (3,) are k times the components of the cell vectors; ``offset`` (3,) is subtracted
    from h.
    """
    a_x, b_x, c_x = across[0, 0], across[1, 0], across[2, 0]
    a_y, b_y, c_y = y * across[0, 1], y * across[1, 1], y * across[2, 1]
    a_z, b_z, c_z = along[0], along[1], along[2]
    a_0, b_0, c_0 = offset[0], offset[1], offset[2]
    n_a, n_b, n_c = np.float32(repeat[0]), np.float32(repeat[1]), np.float32(repeat[2])
    for i in range(len(squared)):
        x = x0 + i * step
        cosine = _cosine_of_angle(x, y)
        sag = cosine - 1.0
        top_a, bottom_a = lattice_sum((x * a_x + a_y) * cosine + (sag * a_z - a_0), n_a)
        top_b, bottom_b = lattice_sum((x * b_x + b_y) * cosine + (sag * b_z - b_0), n_b)
        top_c, bottom_c = lattice_sum((x * c_x + c_y) * cosine + (sag * c_z - c_0), n_c)
        lattice = (top_a * top_b * top_c) / (bottom_a * bottom_b * bottom_c)
        c = np.float32(cosine)
        squared[i] *= lattice * lattice * (c * c * c)


@_inline
def _smooth_block(x0, step, y, across, along, offset, tables, squared):
    """As :func:`_sharp_block` for the smooth beam, whose squared lattice sums are tabulated over half a period."""
    last = tables.shape[1] - 1
    for i in range(len(squared)):
        x = x0 + i * step
        cosine = _cosine_of_angle(x, y)
        c = np.float32(cosine)
        product = c * c * c
        for axis in range(3):
            h = (x * across[axis, 0] + y * across[axis, 1]) * cosine + ((cosine - 1.0) * along[axis] - offset[axis])
            node = 2.0 * last * abs(h - np.rint(h))
            n = min(int(node), last - 1)
            product *= tables[axis, n] + np.float32(node - n) * (tables[axis, n + 1] - tables[axis, n])
        squared[i] *= product


@_kernel
def _rows(
    tasks, beam, per_pixel, ratio, fine, coarse, coarse_start, amplitude, interpolation, interpolation_start, view,
    cells, repeats, lattice, response, response_start, pad, row_start, rows,
):  # fmt: skip
    """Fill ``rows`` (fine row, pixel column) with |A|^2 cos^3(2 theta), integrated along x."""
    pixels = rows.shape[1]
    for task in prange(len(tasks)):
        pattern, j = tasks[task, 0], tasks[task, 1]
        k, distance, pitch, edge, flat, origin_x, origin_y, origin_z = beam[pattern]
        columns = coarse[pattern, 0]

        # F_cell on this row's coarse columns, then |F_cell|^2 on its fine samples
        block, between = j // ratio[pattern, 1], j % ratio[pattern, 1]
        real, imaginary = np.zeros(columns, np.float32), np.zeros(columns, np.float32)
        for tap in range(TAPS if ratio[pattern, 1] > 1 else 1):
            weight = interpolation[interpolation_start[pattern, 1] + between, tap]
            start = coarse_start[pattern] + (block + tap) * columns
            source_real, source_imaginary = amplitude[0, start : start + columns], amplitude[1, start : start + columns]
            for c in range(columns):
                real[c] += weight * source_real[c]
                imaginary[c] += weight * source_imaginary[c]
        squared = np.empty(fine[pattern, 0], np.float32)
        if ratio[pattern, 0] == 1:
            for c in range(columns):
                squared[c] = real[c] * real[c] + imaginary[c] * imaginary[c]
        else:
            start = interpolation_start[pattern, 0]
            _interpolated_square(real, imaginary, interpolation[start : start + ratio[pattern, 0]], squared)

        # times the lattice sums
        y = pitch * (edge + (j + 0.5) / per_pixel[pattern, 1]) / distance
        x0 = pitch * (edge + 0.5 / per_pixel[pattern, 0]) / distance
        step = pitch / per_pixel[pattern, 0] / distance
        cell = cells[view[pattern]]
        across, along = k * cell[:, :2], k * (1.0 - flat) * cell[:, 2]
        offset = origin_x * cell[:, 0] + origin_y * cell[:, 1] + origin_z * cell[:, 2]
        if lattice.shape[2] == 0:
            _sharp_block(x0, step, y, across, along, offset, repeats[view[pattern]], squared)
        else:
            _smooth_block(x0, step, y, across, along, offset, lattice[view[pattern]], squared)

        # integrated over pixels along x
        width = per_pixel[pattern, 0]
        reach = (2 * pad + 1) * width
        weights = response[response_start[pattern] : response_start[pattern] + reach]
        for column in range(pixels):
            part = squared[column * width : column * width + reach]
            total = np.float32(0.0)
            for i in range(reach):
                total += weights[i] * part[i]
            rows[row_start[pattern] + j, column] = total


@_kernel
def _pixels(per_pixel, response, response_start, pad, row_start, rows, image):
    """Fill ``image`` (pattern, y, x) from fine rows: the response along y."""
    patterns, pixels, _ = image.shape
    for task in prange(patterns * pixels):
        pattern, row = task // pixels, task % pixels
        reach = (2 * pad + 1) * per_pixel[pattern]
        first = row_start[pattern] + row * per_pixel[pattern]
        for column in range(pixels):
            image[pattern, row, column] = 0.0
        target = image[pattern, row]
        for i in range(reach):
            weight = response[response_start[pattern] + i]
            source = rows[first + i]
            for column in range(pixels):
                target[column] += weight * source[column]
