"""The host crystals: measured constants (resources/hosts.csv) and their cells. Lengths in Å, stiffness in GPa."""

import csv
import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from ase import Atoms

_FACE_CENTRED = [[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]
CENTRING = {"fcc": _FACE_CENTRED, "bcc": [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], "diamond": _FACE_CENTRED}  # lattice points
BASIS = {
    "fcc": CENTRING["fcc"],
    "bcc": CENTRING["bcc"],
    # space group 227, origin choice 2: the origin is the inversion centre between two atoms
    "diamond": [[(x + shift) % 1 for x in point] for shift in (0.125, -0.125) for point in _FACE_CENTRED],
}
SPACE_GROUP = {"fcc": 225, "bcc": 229, "diamond": 227}
NEAREST_NEIGHBOUR = {"fcc": np.sqrt(2) / 2, "bcc": np.sqrt(3) / 2, "diamond": np.sqrt(3) / 4}  # lattice parameters


@dataclass(frozen=True)
class Host:
    """A cubic elemental crystal; `name` is its chemical symbol.

    `dataclasses.replace(host, lattice_parameter=...)` gives it another lattice parameter. A job that does not use the
    elastic constants need not be given them, nor where the values come from; in the table they are required.
    """

    name: str
    crystal_structure: str  # fcc | bcc | diamond
    space_group: int
    lattice_parameter: float  # Å
    magnetic_moment: float  # Bohr magnetons per atom
    c11: float = math.nan  # GPa
    c12: float = math.nan  # GPa
    c44: float = math.nan  # GPa
    lattice_reference: str = ""
    elastic_reference: str = ""
    debye_temperature: float | None = None  # K, of the mean square displacement; None: not known

    @property
    def nearest_neighbour(self) -> float:
        """Distance of nearest neighbours [Å]."""
        return float(NEAREST_NEIGHBOUR[self.crystal_structure] * self.lattice_parameter)


def read_hosts(path: Path | str) -> dict[str, Host]:
    """Read the table of hosts.

    Columns that `Host` does not have, such as the source of the magnetic moment, are for the reader only. Raises
    ValueError naming the line and column for a value that is missing or impossible, or a name that occurs twice.
    """
    hosts = {}
    with open(path, newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            values = {}
            for field in fields(Host):
                text = (row.get(field.name) or "").strip()
                if field.default is None:
                    values[field.name] = _number_or_none(text, path, number, field.name)
                    continue
                try:
                    values[field.name] = field.type(text)
                except ValueError as error:
                    raise ValueError(f"{path}, line {number}, column {field.name}: {text!r} is not a number") from error
                if text == "":
                    raise ValueError(f"{path}, line {number}: column {field.name} is missing or empty")
            host = Host(**values)
            if host.crystal_structure not in BASIS:
                raise ValueError(
                    f"{path}, line {number}: crystal_structure {host.crystal_structure!r} is none of {', '.join(BASIS)}"
                )
            if host.space_group != SPACE_GROUP[host.crystal_structure]:
                raise ValueError(
                    f"{path}, line {number}: space group {host.space_group}, but {host.crystal_structure} "
                    f"is {SPACE_GROUP[host.crystal_structure]}"
                )
            stable = host.c44 > 0 and host.c11 > abs(host.c12) and host.c11 + 2 * host.c12 > 0
            if not (stable and host.lattice_parameter > 0):
                raise ValueError(f"{path}, line {number}: {host.name} is not a mechanically stable cubic crystal")
            if host.name in hosts:
                raise ValueError(
                    f"{path}, line {number}, column name: {host.name!r} occurs twice; leave one row for each element"
                )
            hosts[host.name] = host
    return hosts


def _number_or_none(text: str, path: Path | str, line: int, column: str) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        value = 0.0
    if value is not None and not value > 0:
        raise ValueError(f"{path}, line {line}, column {column}: {text!r} is no positive number")
    return value


def unit_cell(host: Host, lattice_parameter: float | None = None) -> Atoms:
    """Conventional cubic cell, a = `lattice_parameter` [Å] or the host's own; its own reference cell, repeat 1."""
    a = host.lattice_parameter if lattice_parameter is None else lattice_parameter
    if not a > 0:
        raise ValueError(f"the lattice parameter of {host.name} must be positive, not {a}")
    basis = BASIS[host.crystal_structure]
    atoms = Atoms([host.name] * len(basis), scaled_positions=basis, cell=np.eye(3) * a, pbc=True)
    return _dress(atoms, host, np.eye(3) * a)


def oriented_cell(host: Host, vectors: np.ndarray) -> Atoms:
    """Cell of `host` on three mutually perpendicular lattice vectors (rows, in units of a), turned onto x, y and z.

    `info["reference_cell"]` holds the conventional cube in the turned frame. Fractional coordinates lie in [0, 1).
    Raises ValueError if the vectors are not perpendicular and right-handed, or are no lattice vectors.
    """
    vectors = np.asarray(vectors, float)
    lengths = np.linalg.norm(vectors, axis=1)
    rotation = vectors / lengths[:, None]  # crystal coordinates -> turned frame
    if not np.allclose(rotation @ rotation.T, np.eye(3)) or np.linalg.det(rotation) < 0:
        raise ValueError(f"the cell vectors {vectors.tolist()} are not perpendicular and right-handed")
    reach = int(np.ceil(np.abs(vectors).sum(axis=0).max())) + 1
    cubes = np.array(list(np.ndindex(*[2 * reach] * 3))) - reach
    points = (cubes[:, None] + np.array(BASIS[host.crystal_structure])[None]).reshape(-1, 3)
    fractions = np.round(points @ np.linalg.inv(vectors), 9)
    fractions = fractions[((fractions >= 0) & (fractions < 1)).all(axis=1)]
    expected = round(float(np.prod(lengths)) * len(BASIS[host.crystal_structure]), 6)
    if len(fractions) != expected:
        raise ValueError(f"{vectors.tolist()} are not lattice vectors of a {host.crystal_structure} crystal")
    fractions = fractions[np.lexsort(fractions.T[[0, 2, 1]])]
    a = host.lattice_parameter
    atoms = Atoms([host.name] * len(fractions), cell=np.diag(lengths * a), pbc=True)
    atoms.set_scaled_positions(points_on_lattice(fractions, vectors))
    return _dress(atoms, host, a * rotation.T)


def points_on_lattice(fractions: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Fractional coordinates with rounding undone: the sites of the hosts are whole multiples of 1/8."""
    exact = np.round(8 * fractions @ vectors) / 8 @ np.linalg.inv(vectors)
    return exact - np.floor(exact + 1e-12)


def _dress(atoms: Atoms, host: Host, reference_cell: np.ndarray) -> Atoms:
    if host.magnetic_moment:
        atoms.set_initial_magnetic_moments([host.magnetic_moment] * len(atoms))
    atoms.info["reference_cell"] = reference_cell.tolist()
    atoms.info["repeat"] = [1, 1, 1]
    return atoms
