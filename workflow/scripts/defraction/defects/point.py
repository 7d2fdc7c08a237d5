"""Point defects: supercells and blocks with vacancies, substitutional and interstitial atoms. Lengths in Å.

The cells are unrelaxed; relaxation is first_principles/relax.py, displacements are told by site_displacements.py.
"""

import difflib
import json
import math
from functools import cache
from itertools import permutations, product
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import get_distances

from defraction.hosts import BASIS, Host, unit_cell
from defraction.orientation import standard_orientation

KINDS = ("vacancy", "substitution", "interstitial")
PLACEMENTS = ("position", "neighbour", "count", "concentration")
ENTRY_KEYS = ("kind", "solute", "site", *PLACEMENTS)
CELL_KEYS = ("supercell", "repeat", "defects", "seed", "minimum_separation")
ON_SITE = 0.01  # Å within which a position is that of a site

# Fractional coordinates of one interstitial site in the conventional cell, with the distance to its nearest atoms:
# fcc tetrahedral sqrt(3)/4 a, octahedral a/2; bcc tetrahedral sqrt(5)/4 a, octahedral a/2; diamond tetrahedral
# sqrt(3)/4 a, hexagonal sqrt(11)/8 a.
INTERSTITIAL_SITES = {
    ("fcc", "tetrahedral"): (0.25, 0.25, 0.25),
    ("fcc", "octahedral"): (0.5, 0.5, 0.5),
    ("bcc", "tetrahedral"): (0.5, 0.25, 0.0),
    ("bcc", "octahedral"): (0.5, 0.5, 0.0),
    ("diamond", "tetrahedral"): (0.375, 0.375, 0.375),
    ("diamond", "hexagonal"): (0.5, 0.5, 0.5),
}

CUBE = [np.diag(signs)[list(order)] for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def build(host: Host, settings: dict, lattice: Path | str | None = None, relaxed: Path | str | None = None) -> Atoms:
    """Supercell or block of `host` with the point defects of a condition, relaxed if `relaxed` positions are given.

    `settings`: `supercell` [i, j, k], periodic and repeated `repeat` times (optional, stored in `info`), or `block`
    [i, j, k], the whole specimen, which is neither periodic nor repeated; `defect` (None for the perfect control, or
    the keys of one entry of `point_defect`) or `defects` (a list of entries), `seed` and `minimum_separation` as there.
    `lattice` is a JSON file with `lattice_parameter` [Å]; without it the host's own is used. `relaxed` is a structure
    file whose last frame is the relaxed supercell.

    Raises ValueError for settings that are missing or do not fit together, or if the relaxed cell holds other atoms.
    """
    parameter = None if lattice is None else float(json.loads(Path(lattice).read_text())["lattice_parameter"])
    unit = unit_cell(host, parameter)
    cells, defect = settings.get("supercell"), settings.get("defect")
    whole = settings.get("block")
    if cells is None and whole is None:
        raise ValueError("a point defect needs the setting supercell, three numbers of cells such as [3, 3, 3]")
    if whole is not None and (cells is not None or settings.get("repeat") not in (None, [1, 1, 1])):
        raise ValueError("a block is the whole specimen: it goes with neither supercell nor repeat")
    if defect is not None and settings.get("defects") is not None:
        raise ValueError("give either defect or defects, not both")
    if settings.get("defects") is not None:
        defect = {key: settings[key] for key in ("defects", "seed", "minimum_separation") if key in settings}
    cells = whole if cells is None else cells
    periodic = whole is None
    atoms = (
        supercell(unit, cells, periodic)
        if defect is None
        else point_defect(unit, {**defect, "supercell": cells}, periodic)
    )
    if relaxed is not None:
        from ase.io import read

        expected, atoms = atoms.symbols.get_chemical_formula(), read(relaxed, index=-1)
        if atoms.symbols.get_chemical_formula() != expected:
            raise ValueError(
                f"{relaxed}: holds {atoms.symbols.get_chemical_formula()}, but the settings mean {expected}"
            )
        atoms.info["reference_cell"] = (np.asarray(atoms.cell) / np.array(cells)[:, None]).tolist()
        if not np.allclose(atoms.cell.array, np.diag(atoms.cell.lengths())):  # relaxed with the atoms
            atoms = standard_orientation(atoms)
    atoms.info["repeat"] = [int(n) for n in settings.get("repeat") or [1, 1, 1]]
    return atoms


def supercell(unit: Atoms, n: list[int], periodic: bool = True) -> Atoms:
    """`unit` repeated n = [i, j, k] times. Its reference cell stays that of `unit`; `info["repeat"]` is [1, 1, 1].

    `periodic` False makes it a block that ends at its faces. Raises ValueError unless n are three positive whole
    numbers.
    """
    counts = _whole(n)
    reference_cell = unit.info.get("reference_cell", np.asarray(unit.cell).tolist())
    atoms = unit.repeat(counts)
    atoms.pbc = periodic
    atoms.info = {"reference_cell": reference_cell, "repeat": [1, 1, 1]}
    return atoms


def point_defect(unit: Atoms, settings: dict, periodic: bool = True) -> Atoms:
    """Supercell of the conventional cell `unit` with point defects, unrelaxed.

    `settings` of one entry: `kind` (vacancy, substitution, interstitial), `solute` (chemical symbol; needed unless a
    vacancy), `site` (tetrahedral, octahedral or, in diamond, hexagonal; needed for an interstitial), and one of

    * nothing: the atom nearest to the origin, or the interstitial site of `INTERSTITIAL_SITES` in the first cell;
    * `position`: one or a list of sites [u, v, w] in conventional cells from the origin, such as [1.5, 0.5, 0];
    * `neighbour`: {shell: 1, of: 0}, a site in that shell of neighbours around the defect of that number, which was
      placed before; of the shell's free sites the first in the order of their fractional coordinates;
    * `count` or `concentration` c: so many sites at random; c refers to the N lattice sites of the perfect cell, and
      the number is c N rounded, halves up.

    Beside it, or with a list of entries under `defects`: `supercell` [i, j, k], `seed` (whole number, needed for random
    sites), `minimum_separation` [Å] between any two defects, periodic images included, those of a block too, and
    `repeat` (stored in `info`). `periodic` False makes a block that ends at its faces, as `supercell` does.

    Chosen sites are taken first, in the order of the list, then random ones. Random sites are distinct. Each entry
    walks through a permutation of all its sites, drawn from the seed and the entry's place in the list, and takes what
    is free and far enough. So for one seed the sites of a lower concentration are among those of a higher one, as long
    as the entries before it stay, and the order of atoms in `unit` does not matter. Interstitials never come closer to
    each other than half the distance of nearest neighbours.

    Substituted atoms keep their place, interstitials follow in the order of placement. Solutes carry no initial
    magnetic moment. Settings with a placement, a list, a seed or a separation get `info["defects"]`: the number of
    lattice `sites`, the `seed`, and for each entry under `placed` its kind, solute, site, count and exact fraction.
    The matched control is `supercell(unit, [i, j, k])`.

    Raises ValueError for settings that are missing or do not fit together, or that leave no room.
    """
    several = settings.get("defects")
    unknown = sorted(set(settings) - {*CELL_KEYS, *(ENTRY_KEYS if several is None else ())})
    if unknown:
        raise ValueError(f"unknown setting of point defects: {', '.join(unknown)}; known are {', '.join(ENTRY_KEYS)}")
    entries = [{key: settings.get(key) for key in ENTRY_KEYS}] if several is None else several
    if not entries:
        raise ValueError("the list of defects is empty; for the perfect crystal give no defects")
    for entry in entries:
        check_entry(entry, unit)
    if "supercell" not in settings:
        raise ValueError("a point defect needs the setting supercell, three numbers of cells such as [3, 3, 3]")
    separation, seed = settings.get("minimum_separation"), settings.get("seed")
    perfect = supercell(unit, settings["supercell"], periodic)
    crowd = _Crowd(unit, perfect, settings["supercell"], 0.0 if separation is None else separation)
    for number, entry in enumerate(entries):
        for site in _chosen(crowd, entry, number):
            crowd.place(entry, number, site)
    for number, entry in enumerate(entries):
        if (number_wanted := wanted(entry, len(perfect))) is not None:
            if seed is None or isinstance(seed, bool) or seed != int(seed) or seed < 0:
                raise ValueError(f"defects at random sites need a seed, a whole number from 0, not {seed!r}")
            crowd.place_at_random(entry, number, number_wanted, np.random.default_rng([int(seed), number]))

    atoms = crowd.atoms()
    atoms.info["repeat"] = [int(n) for n in settings.get("repeat") or [1, 1, 1]]
    placed = any(entry.get(key) is not None for entry in entries for key in PLACEMENTS)
    if several is not None or placed or seed is not None or separation is not None:
        counts = [sum(owner == number for owner in crowd.owners) for number in range(len(entries))]
        atoms.info["defects"] = {
            "sites": len(perfect),
            "seed": seed,
            "placed": [
                {key: entry.get(key) for key in ("kind", "solute", "site")}
                | {"count": count, "fraction": count / len(perfect)}
                for entry, count in zip(entries, counts, strict=True)
            ],
        }
    return atoms


class _Crowd:
    """The defects placed so far in one supercell. A site is a pair: `lattice` or the kind of interstitial, number."""

    def __init__(self, unit: Atoms, perfect: Atoms, cells: list[int], separation: float):
        self.unit, self.perfect, self.cells, self.separation = unit, perfect, cells, separation
        self.positions, self.owners, self.sites, self.entries = [], [], [], []
        self._candidates = {"lattice": perfect.positions}
        self._neighbours = _nearest_neighbour(unit)
        self.width = 1 / np.linalg.norm(np.asarray(perfect.cell.reciprocal()), axis=1)  # Å between opposite faces
        if not (math.isfinite(separation) and separation >= 0):
            raise ValueError(f"minimum_separation must be a length in Å, not {separation}")
        if perfect.pbc.any() and separation > self.width.min():
            raise ValueError(
                f"minimum_separation {separation:g} Å is more than the {self.width.min():.2f} Å between a defect and "
                "its own periodic image; take a larger supercell"
            )

    def kind(self, entry: dict) -> str:
        return entry["site"] if entry["kind"] == "interstitial" else "lattice"

    def candidates(self, kind: str) -> np.ndarray:
        """Positions (n, 3) [Å] of all sites of one kind."""
        if kind not in self._candidates:
            orbit = interstitial_sites(self.unit, kind)
            corners = np.array(list(np.ndindex(*self.cells)))
            fractions = (corners[:, None] + orbit[None]).reshape(-1, 3)
            self._candidates[kind] = fractions @ np.asarray(self.unit.cell)
        return self._candidates[kind]

    def in_order(self, kind: str) -> np.ndarray:
        """Numbers of the sites of one kind, sorted by their fractional coordinates, whatever the order of atoms."""
        fractions = np.round(self.perfect.cell.scaled_positions(self.candidates(kind)), 6) % 1
        return np.lexsort(fractions.T[::-1])

    def distances(self, number: int, points: np.ndarray, periodic: bool | None = None) -> np.ndarray:
        """Distances [Å] of `points` from the defect of that number, minimum image along periodic axes, or all."""
        own = self.positions[number][None]
        pbc = self.perfect.pbc if periodic is None else periodic
        return get_distances(own, points, cell=self.perfect.cell, pbc=pbc)[1][0]

    def place(self, entry: dict, number: int, site: int) -> None:
        kind = self.kind(entry)
        point = self.candidates(kind)[site]
        if (kind, site) in self.sites:
            raise ValueError(f"{_name(entry)}: the site at {self.where(point)} is taken already")
        for other in range(len(self.positions)):
            least = self._least(entry, self.entries[other])
            if least > 0 and (apart := self.distances(other, point[None], True)[0]) < least - 1e-9:
                raise ValueError(
                    f"{_name(entry)}: the site at {self.where(point)} is {apart:.2f} Å from another defect; at least "
                    f"{least:.2f} Å are asked for"
                )
        self._add(entry, number, kind, site)

    def place_at_random(self, entry: dict, number: int, wanted: int, rng: np.random.Generator) -> None:
        kind = self.kind(entry)
        points, order = self.candidates(kind), self.in_order(kind)
        order = order[rng.permutation(len(order))]
        free = np.ones(len(points), bool)
        free[[site for own, site in self.sites if own == kind]] = False
        if self._least(entry, entry) == 0 and not any(self._least(entry, other) for other in self.entries):
            chosen = order[free[order]][:wanted]
        else:
            chosen = self._walk(entry, points, order, free, wanted)
        if len(chosen) < wanted:
            raise ValueError(
                f"{_name(entry)}: only {len(chosen)} of {wanted} fit on {len(points)} sites beside the other defects "
                f"with at least {self._least(entry, entry):.2f} Å between them"
            )
        for site in chosen:
            self._add(entry, number, kind, int(site))

    def atoms(self) -> Atoms:
        """The supercell with all defects."""
        atoms = self.perfect.copy()
        vacant = []
        for entry, (_, site) in zip(self.entries, self.sites, strict=True):
            if entry["kind"] == "vacancy":
                vacant.append(site)
            elif entry["kind"] == "substitution":
                atoms.symbols[site] = entry["solute"]
                if atoms.has("initial_magmoms"):
                    atoms.arrays["initial_magmoms"][site] = 0.0
        added = [k for k, entry in enumerate(self.entries) if entry["kind"] == "interstitial"]
        if added:
            atoms += Atoms([self.entries[k]["solute"] for k in added], positions=[self.positions[k] for k in added])
        if len(vacant) == len(atoms):
            raise ValueError("no atom is left: every site is vacant")
        if vacant:
            del atoms[vacant]
        return atoms

    def _add(self, entry: dict, number: int, kind: str, site: int) -> None:
        self.positions.append(self.candidates(kind)[site])
        self.owners.append(number)
        self.sites.append((kind, site))
        self.entries.append(entry)

    def _least(self, entry: dict, other: dict) -> float:
        """Distance [Å] that two defects must keep."""
        both = entry["kind"] == other["kind"] == "interstitial"
        return max(self.separation, 0.5 * self._neighbours if both else 0.0)

    def _walk(self, entry: dict, points: np.ndarray, order: np.ndarray, free: np.ndarray, wanted: int) -> list[int]:
        """The first `wanted` sites in `order` that are free and far enough from all defects and from each other."""
        from scipy.spatial import cKDTree

        images, owner = self._images(points, max(self._least(entry, entry), self.separation))
        tree = cKDTree(images)
        for other, position in zip(self.entries, self.positions, strict=True):
            self._close(free, tree, owner, position, self._least(entry, other))
        chosen = []
        for site in order:
            if len(chosen) == wanted:
                break
            if free[site]:
                chosen.append(int(site))
                self._close(free, tree, owner, points[site], self._least(entry, entry))
                free[site] = False
        return chosen

    def _close(self, free: np.ndarray, tree, owner: np.ndarray, point: np.ndarray, least: float) -> None:
        if least > 0:
            fractions = self.perfect.cell.scaled_positions(point[None])[0]
            inside = (fractions % 1) @ np.asarray(self.perfect.cell)
            free[owner[tree.query_ball_point(inside, least - 1e-9)]] = False

    def _images(self, points: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
        """`points` in the cell with their periodic images within `reach` [Å] of it, and whose image each one is.

        Those of a block too: other programs read its file as a periodic cell.
        """
        fractions = self.perfect.cell.scaled_positions(points) % 1
        margin = reach / self.width + 1e-6
        images, owner = [], []
        for shift in product((-1, 0, 1), repeat=3):
            moved = fractions + shift
            near = ((moved >= -margin) & (moved <= 1 + margin)).all(axis=1) | (not any(shift))
            images.append(moved[near])
            owner.append(np.flatnonzero(near))
        return np.concatenate(images) @ np.asarray(self.perfect.cell), np.concatenate(owner)

    def where(self, point: np.ndarray) -> list[float]:
        return np.round(point @ np.linalg.inv(np.asarray(self.unit.cell)), 4).tolist()


def interstitial_sites(unit: Atoms, site: str) -> np.ndarray:
    """Fractional coordinates (n, 3) in [0, 1) of all interstitial sites of one kind in the conventional cell `unit`.

    Raises ValueError for a crystal whose sites are not known, or a site that the crystal does not have.
    """
    structure = _structure(unit)
    if structure is None:
        raise ValueError(f"interstitial sites are known for conventional cells of {', '.join(BASIS)} crystals only")
    if (structure, site) not in INTERSTITIAL_SITES:
        known = [name for crystal, name in INTERSTITIAL_SITES if crystal == structure]
        raise ValueError(f"unknown interstitial site {site!r} in {structure}; choose {' or '.join(known)}")
    return _orbit(structure, site).copy()


@cache
def _orbit(structure: str, site: str) -> np.ndarray:
    basis, first = np.array(BASIS[structure]), np.array(INTERSTITIAL_SITES[structure, site])
    orbit = [first]
    for matrix in CUBE:
        for shift in basis - matrix @ basis[0]:
            point = (matrix @ first + shift) % 1
            if _is_same(basis @ matrix.T + shift, basis) and not any(_is_same(point[None], p[None]) for p in orbit):
                orbit.append(point)
    return np.array(orbit)


def check_entry(entry: dict, unit: Atoms) -> None:
    """Raise ValueError unless an entry of defects is complete, without contradiction and possible in the crystal.

    Args:
        entry: one of the defects of `point_defect`, keys `ENTRY_KEYS`; what is absent or None is not given.
        unit: conventional cell of the host.
    """
    unknown = sorted(set(entry) - set(ENTRY_KEYS))
    if unknown:
        raise ValueError(f"unknown setting {', '.join(unknown)} of a point defect; known are {', '.join(ENTRY_KEYS)}")
    kind, solute, site = entry.get("kind"), entry.get("solute"), entry.get("site")
    if kind not in KINDS:
        raise ValueError(f"unknown kind of point defect {kind!r}; choose one of {', '.join(KINDS)}")
    if (kind == "vacancy") != (solute is None):
        raise ValueError(f"a {kind} {'takes no' if kind == 'vacancy' else 'needs a'} solute, got {solute!r}")
    if (kind == "interstitial") != (site is not None):
        raise ValueError(f"a {kind} {'needs a' if kind == 'interstitial' else 'takes no'} site, got {site!r}")
    if solute is not None and solute not in chemical_symbols[1:]:
        near = difflib.get_close_matches(solute.capitalize(), chemical_symbols[1:], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"solute {solute!r} is not a chemical element{hint}")
    if kind == "substitution" and solute in unit.get_chemical_symbols():
        raise ValueError(f"substituting {solute} in a crystal of {solute} is no defect")
    if kind == "interstitial":
        interstitial_sites(unit, site)
    given = [key for key in PLACEMENTS if entry.get(key) is not None]
    if len(given) > 1:
        raise ValueError(f"{_name(entry)}: give one of {', '.join(PLACEMENTS)}, not {' and '.join(given)}")


def wanted(entry: dict, sites: int) -> int | None:
    """How many defects of an entry go to random sites of `sites` lattice sites; None: they are chosen.

    Raises ValueError for a count that is no whole number, or a concentration that is no fraction or no whole defect.
    """
    count, concentration = entry.get("count"), entry.get("concentration")
    if concentration is not None:
        if not 0 <= concentration <= 1:
            raise ValueError(
                f"{_name(entry)}: concentration {concentration} is not a fraction from 0 to 1 of the lattice sites "
                "(0.01 is 1 %)"
            )
        number = math.floor(concentration * sites + 0.5)
        if concentration and not number:
            raise ValueError(
                f"{_name(entry)}: concentration {concentration:g} of {sites} sites is not one defect; the least is "
                f"{0.5 / sites:.2g}"
            )
        return number
    if count is not None and (count != int(count) or count < 0):
        raise ValueError(f"{_name(entry)}: count must be a whole number from 0, not {count}")
    return None if count is None else int(count)


def _chosen(crowd: _Crowd, entry: dict, number: int) -> list[int]:
    """Numbers of the sites that an entry names, of its kind of site."""
    kind = crowd.kind(entry)
    points = crowd.candidates(kind)
    if entry.get("position") is not None:
        positions = np.atleast_2d(np.asarray(entry["position"], float))
        if positions.ndim != 2 or positions.shape[1] != 3:
            raise ValueError(f"{_name(entry)}: position must be [u, v, w] or a list of such, not {entry['position']}")
        return [_nearest(crowd, entry, points, position) for position in positions]
    if entry.get("neighbour") is not None:
        return [_neighbour(crowd, entry, points, kind)]
    if any(entry.get(key) is not None for key in ("count", "concentration")):
        return []
    if kind == "lattice":
        return [int(np.linalg.norm(points, axis=1).argmin())]
    structure = _structure(crowd.unit)
    return [_nearest(crowd, entry, points, np.array(INTERSTITIAL_SITES[structure, kind]))]


def _nearest(crowd: _Crowd, entry: dict, points: np.ndarray, position: np.ndarray) -> int:
    """Number of the site at `position`, which counts in conventional cells."""
    target = position @ np.asarray(crowd.unit.cell)
    distances = get_distances(target[None], points, cell=crowd.perfect.cell, pbc=crowd.perfect.pbc)[1][0]
    site = int(distances.argmin())
    if not distances[site] < ON_SITE:
        raise ValueError(
            f"{_name(entry)}: no such site at {position.tolist()}, counted in conventional cells; the nearest is at "
            f"{crowd.where(points[site])}"
        )
    return site


def _neighbour(crowd: _Crowd, entry: dict, points: np.ndarray, kind: str) -> int:
    """Number of the first free site in a shell of neighbours around a defect placed before."""
    relation = dict(entry["neighbour"])
    shell, of = relation.pop("shell", 1), relation.pop("of", 0)
    if relation or shell != int(shell) or shell < 1:
        raise ValueError(f"{_name(entry)}: neighbour needs shell (from 1) and of (a defect's number), not {relation}")
    if not 0 <= of < len(crowd.positions):
        raise ValueError(
            f"{_name(entry)}: neighbour of defect {of}, but {len(crowd.positions)} are placed before, counted from 0; "
            "random ones come last"
        )
    distances = crowd.distances(of, points)
    order = crowd.in_order(kind)
    shells = np.unique(np.round(distances[distances > ON_SITE], 4))
    merged = shells[np.diff(shells, prepend=-1) > 1e-3]
    if shell > len(merged):
        raise ValueError(f"{_name(entry)}: shell {shell} of neighbours, but the supercell holds {len(merged)} shells")
    members = [int(s) for s in order if abs(distances[s] - merged[shell - 1]) < 2e-3 and (kind, s) not in crowd.sites]
    if not members:
        raise ValueError(f"{_name(entry)}: shell {shell} of neighbours around defect {of} has no free site")
    return members[0]


def _whole(n: list[int]) -> list[int]:
    counts = [int(count) for count in n]
    if len(counts) != 3 or min(counts) < 1 or counts != list(n):
        raise ValueError(f"a supercell needs three positive whole numbers of cells, not {list(n)}")
    return counts


def _name(entry: dict) -> str:
    return " ".join(str(entry[key]) for key in ("solute", "site", "kind") if entry.get(key) is not None)


def _nearest_neighbour(unit: Atoms) -> float:
    distances = get_distances(unit.positions[:1], unit.repeat(3).positions, cell=3 * unit.cell, pbc=True)[1]
    return float(distances[distances > 1e-6].min())


def _is_same(points: np.ndarray, others: np.ndarray) -> bool:
    """Whether two sets of fractional coordinates are the same but for whole numbers."""
    shifts = points[:, None] - others[None]
    return bool((np.abs(shifts - np.round(shifts)).max(axis=-1).min(axis=0) < 1e-6).all())


def _structure(unit: Atoms) -> str | None:
    """fcc, bcc or diamond if `unit` is a conventional cell of it, else None."""
    fractions = unit.get_scaled_positions() % 1.0
    for structure, basis in BASIS.items():
        if len(unit) == len(basis) and _is_same(fractions, np.array(basis)):
            return structure
    return None
