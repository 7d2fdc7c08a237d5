"""The specimen as diffraction sees it: a cell, how often it is repeated, and its view along a zone axis."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from defraction.diffraction.geometry import projected_area, zone_frame

MODELS = ("physical", "article")

# article: amplitude weight exp(-u^2 / (2 s^2)), u the distance from the middle of the block in units of its edge, along
# each edge, so that a face lies three standard deviations from the middle. The form is ours (docs/conventions.md).
BEAM_WIDTH = 1.0 / 6.0


@dataclass(frozen=True)
class View:
    """A specimen turned into the frame of a zone axis (x, y across the beam, z along it); all lengths in Å.

    ``positions`` (n, 3) from the middle of the cell's atoms, sorted by species; ``first`` (species + 1,) where each
    species starts; ``elements`` their names; ``weights`` (n,) amplitude weights; ``cell`` (3, 3) rows a, b, c;
    ``repeat`` (3,); ``area`` the illuminated area [Å^2]; ``smooth`` whether cells weigh less towards the faces (model
    article).
    """

    positions: np.ndarray
    first: np.ndarray
    elements: tuple[str, ...]
    weights: np.ndarray
    cell: np.ndarray
    repeat: np.ndarray
    area: float
    smooth: bool

    @property
    def edges(self) -> np.ndarray:
        """The block's edge vectors, rows [Å]."""
        return self.cell * self.repeat[:, None]

    def extent(self) -> np.ndarray:
        """Return the extent of the block of atoms along x, y, z [Å], shape (3,)."""
        atoms = np.ptp(self.positions, axis=0)
        return atoms + np.abs(self.cell * (self.repeat - 1)[:, None]).sum(axis=0)

    def block(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return positions [Å], species index and amplitude weight of every atom of the repeated block."""
        n = np.stack(np.meshgrid(*(np.arange(m) for m in self.repeat), indexing="ij"), axis=-1).reshape(-1, 3)
        positions = (n @ self.cell)[:, None, :] + self.positions[None]
        species = np.repeat(np.arange(len(self.elements)), np.diff(self.first))
        lattice = np.ones(len(n))
        if self.smooth:
            for axis in range(3):
                lattice *= lattice_weights(self.repeat[axis])[n[:, axis]]
        weights = lattice[:, None] * self.weights[None]
        return positions.reshape(-1, 3), np.tile(species, len(n)), weights.ravel()


def lattice_weights(repeat: int) -> np.ndarray:
    """Return the amplitude weight of each of ``repeat`` cells in a row under the smooth beam, shape (repeat,)."""
    u = (np.arange(repeat) + 0.5) / repeat - 0.5
    return np.exp(-0.5 * (u / BEAM_WIDTH) ** 2) if repeat > 1 else np.ones(1)


@dataclass(frozen=True)
class Specimen:
    """A cell (rows a, b, c [Å]) with atoms at ``positions`` (n, 3) [Å], repeated ``repeat`` times along a, b, c."""

    positions: np.ndarray
    symbols: tuple[str, ...]
    cell: np.ndarray
    repeat: np.ndarray
    reference_cell: np.ndarray

    @classmethod
    def from_atoms(cls, atoms: Atoms, name: str = "structure") -> "Specimen":
        """Read cell, atoms, ``info["repeat"]`` (default 1, 1, 1) and ``info["reference_cell"]`` (default the cell).

        Raises ValueError for no atoms, a flat cell, positions that are not numbers, or a repeat below 1.
        """
        if len(atoms) == 0:
            raise ValueError(f"{name}: the structure has no atoms")
        cell = np.array(atoms.cell[:], dtype=float)
        if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-9:
            raise ValueError(f"{name}: the cell {cell.tolist()} is not three independent vectors")
        positions = np.array(atoms.positions, dtype=float)
        if not np.isfinite(positions).all():
            raise ValueError(f"{name}: an atomic position is not a finite number")
        repeat = np.asarray(atoms.info.get("repeat", (1, 1, 1)))
        if repeat.shape != (3,) or (repeat != np.rint(repeat)).any() or (repeat < 1).any():
            raise ValueError(f"{name}: repeat {repeat.tolist()} is not three whole numbers of at least 1")
        reference = np.array(atoms.info.get("reference_cell", cell), dtype=float)
        return cls(positions, tuple(atoms.get_chemical_symbols()), cell, repeat.astype(int), reference.reshape(3, 3))

    @property
    def atom_count(self) -> int:
        """Number of atoms in the whole block."""
        return len(self.symbols) * int(np.prod(self.repeat))

    def view(self, zone_axis: tuple[int, int, int], model: str = "physical") -> View:
        """Turn the specimen so that ``zone_axis`` of the reference cell lies along z; ValueError as zone_frame."""
        if model not in MODELS:
            raise ValueError(f"model: {model!r} is not one of {', '.join(MODELS)}")
        frame = zone_frame(self.reference_cell, zone_axis)
        symbols = np.array(self.symbols)
        elements, species = np.unique(symbols, return_inverse=True)
        order = np.argsort(species, kind="stable")
        first = np.concatenate([[0], np.cumsum(np.bincount(species))])
        positions = self.positions[order] @ frame.T
        weights = np.ones(len(order))
        if model == "article":
            u = self.positions[order] @ np.linalg.inv(self.cell)
            u -= 0.5 * (u.min(axis=0) + u.max(axis=0))
            single = self.repeat == 1
            weights = np.exp(-0.5 * (u[:, single] ** 2).sum(axis=1) / BEAM_WIDTH**2)
        positions -= 0.5 * (positions.min(axis=0) + positions.max(axis=0))
        cell = self.cell @ frame.T
        return View(
            positions,
            first,
            tuple(str(e) for e in elements),
            weights,
            cell,
            self.repeat,
            projected_area(cell * self.repeat[:, None]),
            smooth=model == "article",
        )
