"""How far atoms of computed structures lie from the sites of their crystal, counted as the article does. Lengths in Å.

The article counts displacements (its section 3.2 and Fig. 4, section 3.3 and Fig. 6). Structures of ab initio molecular
dynamics have one set of numbers for each snapshot, relaxed point defects one; beside thermal motion stands that of a
Debye solid in equilibrium.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from ase.io import read

from defraction.first_principles.debye import rms_component
from defraction.hosts import BASIS
from defraction.published import PublishedDisplacement, is_article, read_displacements, stand_in
from defraction.tables import write_rows

COLUMNS = (
    "condition", "quantity", "snapshots", "atoms", "mean", "min", "max", "debye_classical", "debye_quantum",
    "measured_on", "published", "page", "where", "note",
)  # fmt: skip
QUANTITIES = ("largest", "rms", "x_largest", "x_rms", "x_atoms:0:0.04", "x_atoms:0:0.08")
"""Measured in any case; the article's come on top."""
RELAXED = 0.05  # a relaxed supercell is strained by less
BESIDE = 0.25  # of the lattice parameter: an atom further than this from every site is an interstitial


class Sites(NamedTuple):
    """Where atoms are and where their sites are.

    Attributes:
        site: nearest lattice site of each atom on one, shape (n, 3). displacement: atom minus site, mean removed,
            shape (n, 3). foreign: whether such an atom is not of the host, (n,). vacant: sites without atom, (m, 3).
            interstitial: positions of atoms on no site, (k, 3). cell: vectors of the supercell, (3, 3).
    """

    site: np.ndarray
    displacement: np.ndarray
    foreign: np.ndarray
    vacant: np.ndarray
    interstitial: np.ndarray
    cell: np.ndarray


def sites_of(atoms: Atoms, crystal_structure: str, host: str) -> Sites:
    """Match the atoms of a supercell of the conventional cell in `atoms.info["reference_cell"]` (cubic, Å) with sites.

    The supercell as a whole may be shifted against the sites by less than a quarter of the lattice parameter; the shift
    is removed with the mean displacement. Of a relaxed cell the sites are those of the cell as it is. Raises ValueError
    for a cell that is no supercell of the conventional one.
    """
    reference = np.asarray(atoms.info["reference_cell"], dtype=float)
    counts = np.asarray(atoms.cell) @ np.linalg.inv(reference)
    repeats = np.rint(np.diag(counts)).astype(int)
    if (repeats < 1).any() or not np.allclose(counts / repeats[:, None], np.eye(3), rtol=0, atol=RELAXED):
        raise ValueError(
            f"{atoms.get_chemical_formula()}: the cell is not a supercell of the conventional cell of {host}"
        )
    reference = np.asarray(atoms.cell) / repeats[:, None]
    basis = np.array(BASIS[crystal_structure])
    corners = np.stack(np.meshgrid(*[np.arange(n) for n in repeats], indexing="ij"), axis=-1).reshape(-1, 3)
    lattice = (corners[:, None] + basis).reshape(-1, 3)
    fractions = atoms.positions @ np.linalg.inv(reference)
    difference = fractions[:, None] - lattice
    difference -= repeats * np.rint(difference / repeats)
    distance = np.linalg.norm(difference, axis=-1)
    nearest = distance.argmin(axis=1)
    on_site = distance[np.arange(len(atoms)), nearest] < BESIDE
    offsets = difference[np.arange(len(atoms)), nearest][on_site] @ reference
    symbols = np.array(atoms.get_chemical_symbols())
    vacant = np.setdiff1d(np.arange(len(lattice)), nearest[on_site])
    return Sites(
        site=lattice[nearest[on_site]] @ reference,
        displacement=offsets - offsets.mean(axis=0),
        foreign=symbols[on_site] != host,
        vacant=lattice[vacant] @ reference,
        interstitial=(fractions[~on_site] % repeats) @ reference,
        cell=np.array(atoms.cell),
    )


class Shell(NamedTuple):
    """Sites at one distance from a point defect.

    Attributes:
        distance: from the defect [Å]. atoms: on these sites. radial: mean displacement along the line away from the
            defect (negative: towards it). length: mean length of the displacement, both [Å].
    """

    distance: float
    atoms: int
    radial: float
    length: float


def shells(found: Sites) -> list[Shell]:
    """Displacements around the one point defect of a supercell, by distance of the site from it, nearest first.

    Distances are to the nearest image, and agree to 0.01 Å within a shell. A foreign atom on a site is the defect
    itself and in no shell. Raises ValueError unless there is exactly one vacant site, interstitial or foreign atom.
    """
    defects = np.concatenate([found.vacant, found.interstitial, found.site[found.foreign]])
    if len(defects) != 1:
        raise ValueError(f"shells need one point defect in the cell, not {len(defects)}")
    others = ~found.foreign
    vectors = found.site[others] - defects[0]
    vectors -= np.rint(vectors @ np.linalg.inv(found.cell)) @ found.cell
    distances = np.linalg.norm(vectors, axis=1)
    moved = found.displacement[others]
    radial = np.einsum("ij,ij->i", moved, vectors) / distances
    order = np.argsort(distances, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(distances[order]) > 0.01) + 1)
    return [
        Shell(
            float(distances[group].mean()),
            len(group),
            float(radial[group].mean()),
            float(np.linalg.norm(moved[group], axis=1).mean()),
        )
        for group in groups
    ]


def measure(quantity: str, displacement: np.ndarray) -> float:
    """One number of displacements (n, 3): `largest`, `rms` or `atoms:low:high` (number from low to below high),
    with `x_` in front of the absolute components along x instead of the lengths. Raises ValueError for another name."""
    along_x = quantity.startswith("x_")
    values = np.abs(displacement[:, 0]) if along_x else np.linalg.norm(displacement, axis=1)
    name, *bounds = quantity.removeprefix("x_").split(":")
    if name == "largest" and not bounds:
        return float(values.max())
    if name == "rms" and not bounds:
        return float(np.sqrt((values**2).mean()))
    if name == "atoms" and len(bounds) == 2:
        low, high = map(float, bounds)
        return float(((values >= low) & (values < high)).sum())
    raise ValueError(
        f"unknown quantity {quantity!r} of displacements; write largest, rms or atoms:low:high, also x_..."
    )


def write_table(
    structures: Mapping[str, Path | str],
    hosts: Mapping[str, tuple[str, str]],
    thermal: Mapping[str, tuple[float, float | None]],
    published: Path | str,
    output: Path | str,
) -> None:
    """Write results/displacements.csv (`COLUMNS`).

    Args:
        structures: extended XYZ by condition id, a frame for each snapshot.
        hosts: crystal structure and name of the host by condition id.
        thermal: temperature and the host's Debye temperature [K], None if not known, by id of a thermal condition.
        published: resources/paper/displacements.csv; a condition of the article that is not among `structures` is
            compared with the nearest of its kind (`published.stand_in`), and the row says so.
    """
    numbers = read_displacements(published)
    substitutes = {entry.condition: stand_in(entry.condition, "=", list(structures)) for entry in numbers}
    rows = []
    for condition, path in structures.items():
        snapshots = [sites_of(atoms, *hosts[condition]).displacement for atoms in read(path, ":")]
        own = [entry for entry in numbers if substitutes.get(entry.condition) == condition]
        wanted = dict.fromkeys([*QUANTITIES, *(entry.quantity for entry in own)])
        model = _debye(*thermal.get(condition, (0.0, None)), hosts[condition][1])
        for quantity in wanted:
            entry = next((e for e in own if e.quantity == quantity), None)
            rows.append(_row(condition, quantity, snapshots, entry) | model.get(quantity, {}))
    write_rows(output, COLUMNS, rows)


def _debye(temperature: float, debye_temperature: float | None, host: str) -> dict[str, dict[str, float]]:
    """Columns of the Debye model by quantity: root mean squares in equilibrium, along x and of the length."""
    if debye_temperature is None:
        return {}
    along_x = rms_component(temperature, debye_temperature, float(atomic_masses[atomic_numbers[host]]))
    factors = {"x_rms": 1.0, "rms": math.sqrt(3)}
    return {
        quantity: {f"debye_{name}": factor * value for name, value in along_x.items()}
        for quantity, factor in factors.items()
    }


def _row(condition: str, quantity: str, snapshots: Sequence[np.ndarray], entry: PublishedDisplacement | None) -> dict:
    values = [measure(quantity, displacement) for displacement in snapshots]
    return {
        "condition": condition,
        "quantity": quantity,
        "snapshots": len(values),
        "atoms": len(snapshots[0]),
        "mean": math.fsum(values) / len(values),
        "min": min(values),
        "max": max(values),
        "debye_classical": None,
        "debye_quantum": None,
        "measured_on": ""
        if entry is None or is_article(condition, entry.condition)
        else f"instead of {entry.condition}",
        "published": None if entry is None else entry.value,
        "page": "" if entry is None else entry.page,
        "where": "" if entry is None else entry.where,
        "note": "" if entry is None else entry.note,
    }
