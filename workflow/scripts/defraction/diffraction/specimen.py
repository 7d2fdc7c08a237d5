"""The specimen as diffraction sees it: a cell, its repeats, its outline, and its view along a zone axis."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from ase import Atoms

from defraction.diffraction.geometry import projected_area, zone_frame
from defraction.diffraction.settings import MODELS, SHAPES

# article: amplitude weight exp(-u^2 / (2 s^2)), u the distance from the middle of the block in units of its edge, along
# each edge, so that a face lies three standard deviations from the middle. The form is ours (docs/conventions.md).
BEAM_WIDTH = 1.0 / 6.0

MAX_EXPLICIT = 10_000_000  # atoms of a cylinder or sphere, each of which is kept: about 1 GiB while patterns are made
CHUNK = 1 << 20  # atoms of the block that are cut to shape at a time


@dataclass(frozen=True)
class View:
    """A specimen turned into the frame of a zone axis (x, y across the beam, z along it); all lengths in Å.

    ``positions`` (n, 3) from the middle of the cell's atoms, sorted by species; ``first`` (species + 1,) where each
    species starts; ``elements`` their names; ``weights`` (n,) amplitude weights; ``cell`` (3, 3) rows a, b, c;
    ``repeat`` (3,); ``area`` the illuminated area [Å^2]; ``smooth`` whether cells weigh less towards the faces (model
    article). A cylinder or sphere has one cell, the block from which it was cut, that holds all its atoms.
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

    @cached_property
    def cell_extent(self) -> np.ndarray:
        """Extent of one cell's atoms along x, y, z [Å], shape (3,)."""
        return np.ptp(self.positions, axis=0)

    def extent(self) -> np.ndarray:
        """Return the extent of the block of atoms along x, y, z [Å], shape (3,)."""
        return self.cell_extent + np.abs(self.cell * (self.repeat - 1)[:, None]).sum(axis=0)

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
class Body:
    """A right circular cylinder of ``radius`` and ``height`` [Å] along ``axis`` (unit vector), or a sphere.

    A sphere has no ``axis``; its height is its diameter.
    """

    radius: float
    height: float
    axis: np.ndarray | None = None

    @classmethod
    def inscribed(cls, shape: str, edges: np.ndarray) -> "Body":
        """Return the largest ``shape`` (cylinder, sphere) about the middle of the block of ``edges``, rows [Å].

        The sphere touches the nearest pair of faces. The cylinder stands along c: its round side touches the nearer
        pair of the faces that contain c; its ends, perpendicular to c, reach as far as their rims stay inside the
        block, whose own ends an oblique cell tilts. So both lie wholly inside the block.

        Raises ValueError where the block is too oblique for such a cylinder.
        """
        normals = np.linalg.inv(edges).T  # of the faces b x c, c x a, a x b; 1 / length is the distance of a pair
        half = 0.5 / np.linalg.norm(normals, axis=1)
        if shape == "sphere":
            radius = float(half.min())
            return cls(radius, 2.0 * radius)
        axis = edges[2] / np.linalg.norm(edges[2])
        radius = float(half[:2].min())
        cosine = float(2.0 * half[2] * (normals[2] @ axis))
        height = 2.0 * (half[2] - radius * math.sqrt(max(0.0, 1.0 - cosine * cosine))) / cosine
        if height <= 0.0:
            raise ValueError(
                f"shape: the block is so oblique and flat that no upright cylinder of radius {radius:.1f} Å fits; "
                "repeat the cell more often along c"
            )
        return cls(radius, float(height), axis)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return whether points [Å] from the middle, shape (n, 3), lie inside or within 1e-6 Å of the surface."""
        square = (points**2).sum(axis=1)
        if self.axis is None:
            return square <= (self.radius + 1e-6) ** 2
        along = points @ self.axis
        return (square - along**2 <= (self.radius + 1e-6) ** 2) & (np.abs(along) <= 0.5 * self.height + 1e-6)

    def volume(self) -> float:
        """Return the volume [Å^3]."""
        return math.pi * self.radius**2 * (self.height if self.axis is not None else 4.0 / 3.0 * self.radius)

    def shadow(self, direction: np.ndarray) -> float:
        """Return the area [Å^2] of the shadow along ``direction``, a unit vector."""
        if self.axis is None:
            return math.pi * self.radius**2
        cosine = min(1.0, abs(float(self.axis @ direction)))
        sine = math.sqrt(1.0 - cosine * cosine)
        return math.pi * self.radius**2 * cosine + 2.0 * self.radius * self.height * sine


@dataclass(frozen=True)
class Specimen:
    """A cell (rows a, b, c [Å]) with atoms at ``positions`` (n, 3) [Å], repeated ``repeat`` times along a, b, c.

    With a ``body`` the cell is the block from which it was cut, and the atoms are all of those inside it.
    """

    positions: np.ndarray
    symbols: tuple[str, ...]
    cell: np.ndarray
    repeat: np.ndarray
    reference_cell: np.ndarray
    body: Body | None = field(default=None)

    @classmethod
    def from_atoms(cls, atoms: Atoms, name: str = "structure", shape: str = "block") -> "Specimen":
        """Read cell, atoms, ``info["repeat"]`` (default 1, 1, 1) and ``info["reference_cell"]`` (default the cell).

        ``shape`` cylinder or sphere keeps the atoms of the block that lie in the inscribed body (:class:`Body`).

        Raises ValueError for no atoms, a flat cell, positions that are not numbers, a repeat below 1, or a shape that
        would hold no atom or more than MAX_EXPLICIT.
        """
        if len(atoms) == 0:
            raise ValueError(f"{name}: the structure has no atoms")
        cell = np.array(atoms.cell[:], dtype=float)
        if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-9:
            raise ValueError(
                f"{name}: the cell {cell.tolist()} is not three independent vectors; give the structure a cell (for a "
                "particle or molecule, a box around it)"
            )
        positions = np.array(atoms.positions, dtype=float)
        if not np.isfinite(positions).all():
            raise ValueError(f"{name}: an atomic position is not a finite number")
        repeat = np.asarray(atoms.info.get("repeat", (1, 1, 1)))
        if repeat.shape != (3,) or (repeat != np.rint(repeat)).any() or (repeat < 1).any():
            raise ValueError(f"{name}: repeat {repeat.tolist()} is not three whole numbers of at least 1")
        reference = np.array(atoms.info.get("reference_cell", cell), dtype=float)
        symbols = tuple(atoms.get_chemical_symbols())
        specimen = cls(positions, symbols, cell, repeat.astype(int), reference.reshape(3, 3))
        return specimen if shape == "block" else specimen.cut(shape, name)

    def cut(self, shape: str, name: str = "structure") -> "Specimen":
        """Return the specimen with the atoms of the block inside the inscribed ``shape``; errors as from_atoms."""
        if shape not in SHAPES:
            raise ValueError(f"shape: {shape!r} is not one of {', '.join(SHAPES)}")
        edges = self.cell * self.repeat[:, None]
        body = Body.inscribed(shape, edges)
        expected = body.volume() * len(self.symbols) / abs(np.linalg.det(self.cell))
        if expected > MAX_EXPLICIT:
            raise ValueError(
                f"{name}: a {shape} inside {' x '.join(map(str, self.repeat))} cells holds about {expected:.1e} atoms, "
                f"each of which is kept in memory ({expected * 1e2 / 2**30:.0f} GiB); at most {MAX_EXPLICIT:.0e} are "
                "possible: repeat the cell less often, or take the shape block"
            )
        cells = np.stack(np.meshgrid(*(np.arange(n) for n in self.repeat), indexing="ij"), axis=-1).reshape(-1, 3)
        step = max(1, CHUNK // len(self.symbols))
        origins = cells - 0.5 * self.repeat
        parts = []
        for start in range(0, len(cells), step):
            shift = origins[start : start + step] @ self.cell
            points = (shift[:, None, :] + self.positions[None]).reshape(-1, 3)
            inside = np.flatnonzero(body.contains(points))
            parts.append((points[inside], inside % len(self.symbols)))
        kept = np.concatenate([atom for _, atom in parts])
        if not len(kept):
            raise ValueError(f"{name}: no atom lies inside the {shape}; repeat the cell more often")
        symbols = tuple(np.array(self.symbols)[kept].tolist())
        positions = np.concatenate([points for points, _ in parts])
        return Specimen(positions, symbols, edges, np.ones(3, dtype=int), self.reference_cell, body)

    @property
    def atom_count(self) -> int:
        """Number of atoms in the whole specimen."""
        return len(self.symbols) * int(np.prod(self.repeat))

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Positions sorted by species, where each species starts, and the species."""
        elements, species = np.unique(np.array(self.symbols), return_inverse=True)
        order = np.argsort(species, kind="stable")
        first = np.concatenate([[0], np.cumsum(np.bincount(species))])
        return self.positions[order], first, tuple(str(element) for element in elements)

    @property
    def elements(self) -> tuple[str, ...]:
        """The elements in it, sorted."""
        return self._sorted[2]

    def view(
        self,
        zone_axis: tuple[int, int, int],
        model: str = "physical",
        rotation: float = 0.0,
        tilt: tuple[float, float] = (0.0, 0.0),
    ) -> View:
        """Turn the specimen so that ``zone_axis`` of the reference cell lies along z, then turn and tilt it.

        ``rotation`` [degrees] and ``tilt`` [mrad] as in :func:`geometry.zone_frame`. Raises ValueError as zone_frame,
        for an unknown model, and for the model article with a cut specimen.
        """
        if model not in MODELS:
            raise ValueError(f"model: {model!r} is not one of {', '.join(MODELS)}")
        if model == "article" and self.body is not None:
            raise ValueError("shape: the model article knows blocks only, along whose edges its beam fades out")
        frame = zone_frame(self.reference_cell, zone_axis, rotation, tilt)
        source, first, elements = self._sorted
        positions = source @ frame.T
        weights = np.ones(len(source))
        if model == "article":
            u = source @ np.linalg.inv(self.cell)
            u -= 0.5 * (u.min(axis=0) + u.max(axis=0))
            single = self.repeat == 1
            weights = np.exp(-0.5 * (u[:, single] ** 2).sum(axis=1) / BEAM_WIDTH**2)
        positions -= 0.5 * (positions.min(axis=0) + positions.max(axis=0))
        area = self.area(zone_axis, rotation, tilt)
        return View(positions, first, elements, weights, self.cell @ frame.T, self.repeat, area, model == "article")

    def area(
        self, zone_axis: tuple[int, int, int], rotation: float = 0.0, tilt: tuple[float, float] = (0.0, 0.0)
    ) -> float:
        """Return the projected area [Å^2] along the optic axis of the view with these arguments."""
        frame = zone_frame(self.reference_cell, zone_axis, rotation, tilt)
        if self.body is not None:
            return self.body.shadow(frame[2])
        return projected_area((self.cell * self.repeat[:, None]) @ frame.T)
