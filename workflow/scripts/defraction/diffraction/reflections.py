"""Structure factors at the nodes of the reciprocal lattice, and tables of reflections."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from numba import njit

from defraction.diffraction.geometry import (
    Detector,
    excitation_error,
    reciprocal_cell,
    spot_position,
    wavelength,
    zone_frame,
)
from defraction.diffraction.scattering import Factors
from defraction.diffraction.specimen import Specimen

LIMIT = 5_000_000  # reflections in one table
ATOMS_AT_A_TIME = 256  # whose phase factors are kept, so that they stay in the processor's cache

# Columns in the order of the file. The last four need a zone axis.
COLUMNS = (
    "h", "k", "l", "g_per_angstrom", "f_real_angstrom", "f_imag_angstrom", "f_squared_angstrom2",
    "excitation_error_per_angstrom", "x_px", "y_px", "radius_mm",
)  # fmt: skip


def structure_factors(atoms: Atoms, hkl: np.ndarray, factors: Factors) -> np.ndarray:
    """Return F(g) = sum_j f_j(|g|) exp(2 pi i g.r_j) [Å], complex128, at the nodes ``hkl`` (n, 3) of the atoms' cell.

    The phase refers to the origin of the cell. Raises ValueError for indices that are not whole numbers, and as
    :meth:`Specimen.from_atoms` and :class:`Factors`.
    """
    specimen = Specimen.from_atoms(atoms)
    indices = np.asarray(hkl)
    if indices.ndim != 2 or indices.shape[1] != 3 or (indices != np.rint(indices)).any():
        raise ValueError("hkl: indices of reflections are whole numbers, three per reflection, shape (n, 3)")
    reciprocal = reciprocal_cell(specimen.cell)
    indices = indices.astype(np.int32)
    order = np.argsort(specimen.symbols, kind="stable")
    elements, counts = np.unique(specimen.symbols, return_counts=True)
    fractional = specimen.positions[order] @ reciprocal.T
    length = np.linalg.norm(indices @ reciprocal, axis=1)
    f = np.stack([factors.of(str(element), length) for element in elements])
    return sum_over_atoms(indices, fractional, np.concatenate([[0], np.cumsum(counts)]), f)


def sum_over_atoms(hkl: np.ndarray, fractional: np.ndarray, first: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Return sum_s f_s sum_(j in s) exp(2 pi i hkl.x_j), complex128 (n,).

    ``hkl`` (n, 3) int32, fastest if l varies fastest; ``fractional`` (atom, 3) coordinates, sorted by species;
    ``first`` (species + 1,) where each species starts; ``f`` (species, n) scattering factors [Å].
    """
    total = np.zeros(len(hkl), dtype=np.complex128)
    if len(hkl):
        hkl = np.ascontiguousarray(hkl, dtype=np.int32)
        _sum(hkl, np.ascontiguousarray(fractional - np.floor(fractional)), np.asarray(first, dtype=np.int64), f, total)
    return total


@njit(fastmath={"reassoc", "contract", "nsz"}, cache=True, nogil=True)
def _sum(hkl, fractional, first, f, total):
    """The phase factors of whole multiples of each coordinate are tabulated; exp(i (a + b + c)) is their product."""
    low, count = np.empty(3, np.int64), np.empty(3, np.int64)
    for axis in range(3):
        low[axis] = hkl[:, axis].min()
        count[axis] = hkl[:, axis].max() - low[axis] + 1
    offset = np.array([0, count[0], count[0] + count[1]])
    cosine = np.empty((count.sum(), ATOMS_AT_A_TIME))
    sine = np.empty((count.sum(), ATOMS_AT_A_TIME))
    real, imaginary = np.empty(ATOMS_AT_A_TIME), np.empty(ATOMS_AT_A_TIME)
    for species in range(len(first) - 1):
        for start in range(first[species], first[species + 1], ATOMS_AT_A_TIME):
            atoms = min(ATOMS_AT_A_TIME, first[species + 1] - start)
            for axis in range(3):
                for i in range(count[axis]):
                    for j in range(atoms):
                        turns = (low[axis] + i) * fractional[start + j, axis]
                        angle = 2.0 * math.pi * (turns - np.rint(turns))
                        cosine[offset[axis] + i, j] = math.cos(angle)
                        sine[offset[axis] + i, j] = math.sin(angle)
            h, k = -1, -1  # rows of the tables
            for n in range(len(hkl)):
                row, column = hkl[n, 0] - low[0], offset[1] + hkl[n, 1] - low[1]
                if row != h or column != k:
                    h, k = row, column
                    for j in range(atoms):
                        real[j] = cosine[h, j] * cosine[k, j] - sine[h, j] * sine[k, j]
                        imaginary[j] = cosine[h, j] * sine[k, j] + sine[h, j] * cosine[k, j]
                depth = offset[2] + hkl[n, 2] - low[2]
                c, s = cosine[depth], sine[depth]
                re, im = 0.0, 0.0
                for j in range(atoms):
                    re += real[j] * c[j] - imaginary[j] * s[j]
                    im += real[j] * s[j] + imaginary[j] * c[j]
                total[n] += f[species, n] * complex(re, im)


def nodes_within(cell: np.ndarray, g_max: float) -> np.ndarray:
    """Return the indices of every node with |g| <= ``g_max`` [1/Å] of a ``cell`` (rows [Å]), int32 (n, 3), sorted.

    Raises ValueError for a g_max that is not positive or reaches more than LIMIT nodes.
    """
    if not (isinstance(g_max, int | float) and 0.0 < g_max < math.inf):
        raise ValueError(f"g_max: {g_max!r} 1/Å is not positive")
    cell = np.asarray(cell, dtype=float)
    volume = abs(np.linalg.det(cell))
    expected = 4.0 / 3.0 * math.pi * g_max**3 * volume
    if expected > LIMIT:
        largest = (LIMIT / (4.0 / 3.0 * math.pi * volume)) ** (1.0 / 3.0)
        raise ValueError(
            f"g_max: {g_max:g} 1/Å reaches about {expected:.3g} reflections of a cell of {volume:.0f} Å^3, more than "
            f"{LIMIT:,}; give at most {0.999 * largest:.3g} 1/Å, or a smaller cell"
        )
    reciprocal = reciprocal_cell(cell)
    reach = np.floor(g_max * np.linalg.norm(cell, axis=1) * (1.0 + 1e-9)).astype(int)
    plane = np.mgrid[-reach[1] : reach[1] + 1, -reach[2] : reach[2] + 1].reshape(2, -1)
    in_plane = plane.T @ reciprocal[1:]
    limit = (g_max * (1.0 + 1e-9)) ** 2
    found = []
    for h in range(-reach[0], reach[0] + 1):
        inside = np.flatnonzero(np.square(in_plane + h * reciprocal[0]).sum(axis=1) <= limit)
        found.append(np.column_stack([np.full(len(inside), h), plane[0, inside], plane[1, inside]]))
    return np.concatenate(found).astype(np.int32)


def reflections(
    atoms: Atoms,
    g_max: float,
    factors: Factors,
    zone_axis: Sequence[int] | None = None,
    voltage: float | None = None,
    detector: Detector | None = None,
    rotation: float = 0.0,
    tilt: tuple[float, float] = (0.0, 0.0),
) -> dict[str, np.ndarray]:
    """Return a table of every reflection with |g| <= ``g_max`` [1/Å], 000 included, by |g|, then h, k, l.

    h, k, l are indices of the structure's own cell, which for a supercell is the supercell; ``zone_axis`` refers to
    ``info["reference_cell"]`` where the structure has one. F is that of one cell [Å], at the exact node.

    With a ``zone_axis``, a ``voltage`` [kV] and a ``detector``: the excitation error [1/Å], the fractional pixel index
    x_px, y_px (0 is the centre of the first pixel) where the line through g along the beam meets the Ewald sphere, and
    that point's distance from the optic axis [mm]; NaN where it does not. Spots beyond the edge of the detector are
    listed too. ``rotation`` [degrees] and ``tilt`` [mrad] as :func:`zone_frame`.

    The keys are COLUMNS, in that order, each an array (n,). Raises ValueError as :func:`nodes_within`,
    :func:`structure_factors` and :func:`zone_frame`, and for a zone axis without voltage and detector.
    """
    specimen = Specimen.from_atoms(atoms)
    if zone_axis is not None and (voltage is None or detector is None):
        raise ValueError("zone_axes: positions of spots need a voltage and a detector beside the zone axis")
    frame = None if zone_axis is None else zone_frame(specimen.reference_cell, zone_axis, rotation, tilt)
    hkl = nodes_within(specimen.cell, g_max)
    g = hkl @ reciprocal_cell(specimen.cell)
    length = np.linalg.norm(g, axis=1)
    f = structure_factors(atoms, hkl, factors)
    # lengths that differ by rounding only are equal
    order = np.lexsort((hkl[:, 2], hkl[:, 1], hkl[:, 0], np.round(length, 9)))
    hkl, g, length, f = hkl[order], g[order], length[order], f[order]
    columns = [*hkl.T, length, f.real + 0.0, f.imag + 0.0, f.real**2 + f.imag**2]  # + 0.0: no -0 in files
    if frame is not None:
        k = 1.0 / wavelength(voltage)
        along = g @ frame.T
        reached = np.hypot(along[:, 0], along[:, 1]) < k
        error, position = np.full(len(g), np.nan), np.full((len(g), 2), np.nan)
        error[reached] = excitation_error(along[reached], k) + 0.0
        position[reached] = spot_position(along[reached], k, detector.distance)
        columns += [error, *detector.pixel_of(position).T, np.hypot(*position.T)]
    return dict(zip(COLUMNS, columns, strict=False))


def write_csv(path: Path | str, table: dict[str, np.ndarray]) -> None:
    """Write a table of :func:`reflections`: a line of column names, ten digits, nothing where there is no number."""
    with open(path, "w", newline="", encoding="ascii") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table)
        writer.writerows(
            ["" if value != value else format(value, ".10g") for value in row]
            for row in zip(*(column.tolist() for column in table.values()), strict=True)
        )
