"""Random displacements of all atoms by a fraction of the nearest neighbours' distance, and blocks that hold them.

Lengths in Å. The distributions are those with which A. Ziletti et al., Nat. Commun. 9, 2775 (2018),
doi:10.1038/s41467-018-05169-6, tested their classifier (`gaussian_scaled` and `uniform_scaled` of their code). They are
static, independent from atom to atom, and no thermal motion.
"""

from pathlib import Path

import numpy as np
from ase import Atoms

from defraction.defects import point
from defraction.hosts import NEAREST_NEIGHBOUR, Host

DISTRIBUTIONS = ("gaussian", "uniform")
LIMIT = 0.25  # of the nearest neighbours' distance; beyond it atoms change places
SETTINGS = ("distribution", "fraction", "seed")


def build(host: Host, settings: dict, lattice: Path | str | None = None, relaxed: Path | str | None = None) -> Atoms:
    """Supercell or block of `host`, with point defects if asked for, whose atoms are displaced at random.

    `settings`: those of `point.build` and `displacement`, a dict with `distribution` (gaussian or uniform), `fraction`
    of the host's nearest-neighbour distance (0 to 0.25) and `seed`; None for the control. `lattice` and `relaxed` are
    those of `point.build`. Raises ValueError for settings that are missing or impossible.
    """
    displacement = settings.get("displacement")
    if displacement is not None:
        _check(displacement)
    atoms = point.build(host, settings, lattice, relaxed)
    if displacement is None:
        return atoms
    parameter = np.linalg.norm(atoms.info["reference_cell"][0])
    return displace(atoms, displacement, float(NEAREST_NEIGHBOUR[host.crystal_structure] * parameter))


def build_samples(host: Host, settings: dict, seed: int) -> list[Atoms]:
    """As many independent specimens as `settings["samples"]`, with `block`, `defects` and `displacement` of `build`.

    Every specimen draws its sites and displacements from its own seeds, which follow from `seed`. Raises as `build`.
    """
    settings = dict(settings)
    streams = np.random.default_rng(seed).integers(2**31, size=(settings.pop("samples"), 2)).tolist()
    return [
        build(host, _with_seeds({key: settings[key] for key in settings if key != "family"}, *pair)) for pair in streams
    ]


def _with_seeds(settings: dict, sites: int, moves: int) -> dict:
    if settings.get("defects") is not None:
        settings["seed"] = sites
    if settings.get("displacement") is not None:
        settings["displacement"] = {**settings["displacement"], "seed": moves}
    return settings


def displace(atoms: Atoms, settings: dict, nearest_neighbour: float) -> Atoms:
    """Copy of `atoms` with every atom displaced at random, independently along x, y and z.

    `settings`: `distribution`, `fraction` f (0 to 0.25) and `seed` (whole number). With d = `nearest_neighbour` [Å]
    each component is

    * gaussian: normal with the standard deviation f d, not cut off;
    * uniform: between -f d and f d, so that its standard deviation is f d / sqrt(3).

    No mean is removed. The draws go to the atoms in the order of their fractional coordinates, so the order of atoms
    does not matter, and for one seed the displacements are in proportion to f. `info["displacement"]` holds the
    settings, `sigma` [Å], the standard deviation of a component, and `debye_waller` B = 8 pi^2 sigma^2 [Å^2], by which
    the Bragg spots of a large specimen weaken. Raises ValueError for settings that are missing or impossible.
    """
    _check(settings)
    if not (np.isfinite(nearest_neighbour) and nearest_neighbour > 0):
        raise ValueError(f"displacement: the nearest-neighbour distance must be positive, not {nearest_neighbour}")
    fraction, seed = float(settings["fraction"]), int(settings["seed"])
    scale = fraction * nearest_neighbour
    rng = np.random.default_rng(seed)
    if settings["distribution"] == "gaussian":
        draws, sigma = rng.standard_normal((len(atoms), 3)), scale
    else:
        draws, sigma = rng.uniform(-1, 1, (len(atoms), 3)), scale / np.sqrt(3)
    fractions = np.round(atoms.cell.scaled_positions(atoms.positions), 6)
    moved = atoms.copy()
    moved.positions[np.lexsort(fractions.T[::-1])] += scale * draws
    moved.info["displacement"] = {
        "distribution": settings["distribution"],
        "fraction": fraction,
        "seed": seed,
        "sigma": float(sigma),
        "debye_waller": float(8 * np.pi**2 * sigma**2),
    }
    return moved


def _check(settings: dict) -> None:
    unknown = sorted(set(settings) - set(SETTINGS))
    missing = [key for key in SETTINGS if settings.get(key) is None]
    if unknown or missing:
        raise ValueError(
            f"displacement takes {', '.join(SETTINGS)}; missing: {', '.join(missing) or 'none'}, "
            f"unknown: {', '.join(unknown) or 'none'}"
        )
    if settings["distribution"] not in DISTRIBUTIONS:
        raise ValueError(
            f"unknown distribution of displacements {settings['distribution']!r}; choose {' or '.join(DISTRIBUTIONS)}"
        )
    if not 0 <= settings["fraction"] <= LIMIT:
        raise ValueError(
            f"displacement fraction {settings['fraction']} is not within 0 and {LIMIT} of the distance of nearest "
            "neighbours (0.01 is 1 %)"
        )
    seed = settings["seed"]
    if isinstance(seed, bool) or seed != int(seed) or seed < 0:
        raise ValueError(f"displacement seed must be a whole number from 0, not {seed!r}")
