"""Point defects: supercells with one vacancy, substitutional or interstitial atom, and the displacements they cause.

Lengths in Å. The cells are unrelaxed; relaxation is first_principles/relax.py.
"""

import json
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.geometry import get_distances

from defraction.hosts import BASIS, Host, unit_cell
from defraction.structures import read_structures

KINDS = ("vacancy", "substitution", "interstitial")

# Fractional coordinates of one interstitial site in the conventional cell, with the distance to its nearest atoms:
# fcc tetrahedral sqrt(3)/4 a, octahedral a/2; bcc tetrahedral sqrt(5)/4 a, octahedral a/2.
INTERSTITIAL_SITES = {
    ("fcc", "tetrahedral"): (0.25, 0.25, 0.25),
    ("fcc", "octahedral"): (0.5, 0.5, 0.5),
    ("bcc", "tetrahedral"): (0.5, 0.25, 0.0),
    ("bcc", "octahedral"): (0.5, 0.5, 0.0),
}


def build(host: Host, settings: dict, lattice: Path | str | None = None, relaxed: Path | str | None = None) -> Atoms:
    """Supercell of `host` with the point defect of a condition, relaxed if `relaxed` positions are given.

    `settings`: `supercell` [i, j, k], `defect` (None for the perfect control, or the keys `kind`, `solute` and `site`
    of `point_defect`), `repeat` (optional, stored in `info`). `lattice` is a JSON file with `lattice_parameter` [Å];
    without it the host's own is used. `relaxed` is a structure file whose last frame is the relaxed supercell.

    Raises ValueError for settings that are missing or do not fit together, or if the relaxed cell holds other atoms.
    """
    parameter = None if lattice is None else float(json.loads(Path(lattice).read_text())["lattice_parameter"])
    unit = unit_cell(host, parameter)
    cells, defect = settings.get("supercell"), settings.get("defect")
    if cells is None:
        raise ValueError("a point defect needs the setting supercell, three numbers of cells such as [3, 3, 3]")
    atoms = supercell(unit, cells) if defect is None else point_defect(unit, {**defect, "supercell": cells})
    if relaxed is not None:
        expected, atoms = atoms.symbols.get_chemical_formula(), read_structures(relaxed)[-1]
        if atoms.symbols.get_chemical_formula() != expected:
            raise ValueError(
                f"{relaxed}: holds {atoms.symbols.get_chemical_formula()}, but the settings mean {expected}"
            )
        atoms.info["reference_cell"] = (np.asarray(atoms.cell) / np.array(cells)[:, None]).tolist()
    atoms.info["repeat"] = [int(n) for n in settings.get("repeat", [1, 1, 1])]
    return atoms


def supercell(unit: Atoms, n: list[int]) -> Atoms:
    """`unit` repeated n = [i, j, k] times. Its reference cell stays that of `unit`; `info["repeat"]` is [1, 1, 1].

    Raises ValueError unless n are three positive whole numbers.
    """
    counts = [int(count) for count in n]
    if len(counts) != 3 or min(counts) < 1 or counts != list(n):
        raise ValueError(f"a supercell needs three positive whole numbers of cells, not {list(n)}")
    reference_cell = unit.info.get("reference_cell", np.asarray(unit.cell).tolist())
    atoms = unit.repeat(counts)
    atoms.info = {"reference_cell": reference_cell, "repeat": [1, 1, 1]}
    return atoms


def point_defect(unit: Atoms, settings: dict) -> Atoms:
    """Supercell of the conventional cell `unit` with one point defect, unrelaxed.

    `settings`: `kind` (vacancy, substitution, interstitial), `supercell` [i, j, k], `solute` (chemical symbol; needed
    unless a vacancy), `site` (tetrahedral or octahedral; needed for an interstitial), `repeat` (optional, stored in
    `info`). A vacancy or substitution takes the atom at the origin; a solute is the first or, as an interstitial, the
    last atom. Solutes carry no initial magnetic moment. The matched control is `supercell(unit, [i, j, k])`.

    Raises ValueError for settings that are missing or do not fit together.
    """
    kind, solute, site = settings.get("kind"), settings.get("solute"), settings.get("site")
    if kind not in KINDS:
        raise ValueError(f"unknown kind of point defect {kind!r}; choose one of {', '.join(KINDS)}")
    if (kind == "vacancy") != (solute is None):
        raise ValueError(f"a {kind} {'takes no' if kind == 'vacancy' else 'needs a'} solute, got {solute!r}")
    if (kind == "interstitial") != (site is not None):
        raise ValueError(f"a {kind} {'needs a' if kind == 'interstitial' else 'takes no'} site, got {site!r}")
    if solute is not None and solute not in atomic_numbers:
        raise ValueError(f"solute {solute!r} is not a chemical element")
    if "supercell" not in settings:
        raise ValueError("a point defect needs the setting supercell, three numbers of cells such as [3, 3, 3]")
    if kind == "substitution" and solute in unit.get_chemical_symbols():
        raise ValueError(f"substituting {solute} in a crystal of {solute} is no defect")

    atoms = supercell(unit, settings["supercell"])
    atoms.info["repeat"] = [int(n) for n in settings.get("repeat", [1, 1, 1])]
    if kind == "interstitial":
        atoms += Atoms(solute, positions=[_interstitial_position(unit, site)])
        return atoms
    origin = int(np.linalg.norm(atoms.positions, axis=1).argmin())
    if kind == "vacancy":
        del atoms[origin]
        return atoms
    atoms.symbols[origin] = solute
    if atoms.has("initial_magmoms"):
        atoms.arrays["initial_magmoms"][origin] = 0.0
    return atoms


def displacement(atoms: Atoms, reference: Atoms) -> np.ndarray:
    """Displacement (n, 3) [Å] of every atom from its site in `reference`, minimum image, with the mean removed.

    Atoms and sites are matched one to one by position, nearest first, whatever their element or order, so that a
    vacancy leaves a site empty. Atoms beyond the number of sites (interstitials) have none: their rows are NaN and
    do not enter the mean.

    Raises ValueError if the cells differ, or if an atom lies half a nearest-neighbour distance or more from every free
    site while fewer atoms than that are surplus, so that no matching is sure.
    """
    if not np.allclose(np.asarray(atoms.cell), np.asarray(reference.cell), atol=1e-4):
        raise ValueError(
            f"displacements need the same cell, but {atoms.cell.cellpar().round(4).tolist()} is not "
            f"{reference.cell.cellpar().round(4).tolist()}"
        )
    vectors, distances = get_distances(reference.positions, atoms.positions, cell=reference.cell, pbc=True)
    between_sites = get_distances(reference.positions[:1], reference.positions, cell=reference.cell, pbc=True)[1]
    limit = 0.5 * between_sites[between_sites > 1e-6].min(initial=np.inf)

    sites, members = np.nonzero(distances < limit)
    order = np.argsort(distances[sites, members], kind="stable")
    site_of = np.full(len(atoms), -1)
    taken = np.zeros(len(reference), bool)
    for site, member in zip(sites[order], members[order], strict=True):
        if site_of[member] < 0 and not taken[site]:
            site_of[member] = site
            taken[site] = True
    matched = site_of >= 0
    surplus = max(0, len(atoms) - len(reference))
    if (~matched).sum() > surplus:
        lost = int(np.flatnonzero(~matched)[0])
        raise ValueError(
            f"atom {lost} ({atoms.symbols[lost]}) is not within {limit:.2f} Å of a free site of the reference; atoms "
            "have changed places or the two structures do not belong together"
        )
    result = np.full((len(atoms), 3), np.nan)
    result[matched] = vectors[site_of[matched], matched]
    return result - result[matched].mean(axis=0)


def _interstitial_position(unit: Atoms, site: str) -> np.ndarray:
    if site not in ("tetrahedral", "octahedral"):
        raise ValueError(f"unknown interstitial site {site!r}; choose tetrahedral or octahedral")
    fractions = unit.get_scaled_positions() % 1.0
    for structure, basis in BASIS.items():
        if len(unit) != len(basis):
            continue
        shifts = fractions[:, None] - np.array(basis)[None]
        if (np.abs(shifts - np.round(shifts)).max(axis=-1).min(axis=0) < 1e-6).all():
            return np.array(INTERSTITIAL_SITES[structure, site]) @ np.asarray(unit.cell)
    raise ValueError(f"interstitial sites are known for conventional cells of {' and '.join(BASIS)} crystals only")
