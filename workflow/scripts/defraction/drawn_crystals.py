"""Crystals drawn at random: a space group and a seed decide them, and nothing but their symmetry is true of them.

The measured crystals of a space group are few and alike (of 229 most are bcc metals), and a network that knows no
others takes the habits of their structures for laws of the group. Drawn crystals have its extinctions and no habits:
other Wyckoff positions, elements and coordinates each. They train, and are never held out.

Numbers of sites, volumes per atom and distances are about those of the measured crystals (`resources/materials.csv`).
"""

import logging
from dataclasses import replace

import numpy as np

from defraction.materials import (
    WYCKOFF,
    Material,
    Site,
    crystal,
    describe_free,
    formula_of,
    free_names,
    multiplicity,
    place,
    text_of,
    true_cell,
)

log = logging.getLogger(__name__)

SITES = {1: 0.15, 2: 0.3, 3: 0.3, 4: 0.15, 5: 0.1}  # occupied Wyckoff positions: how many, how likely
ATOMS = 96  # in the conventional cell, at most; each costs the simulation its time
VOLUME = (15.0, 0.35)  # per atom [Å³]: median and width of the logarithmic normal distribution
EDGE = (2.7, 16.5)  # of the conventional cell [Å]
# Shortest distance [Å] for a volume V per atom: fcc has (sqrt(2) V)^(1/3), diamond and oxides 0.77 of that.
CLOSEST, CLOSEST_SHARE = 1.4, 0.65
SAME_ELEMENT = 0.2  # that a site takes the element of an earlier one
NOBLE_OR_SHORT_LIVED = {10, 18, 36, 43, 54, 61}
ELEMENTS = [number for number in range(3, 84) if number not in NOBLE_OR_SHORT_LIVED]
TRIES = 400  # with one number of sites, before another is drawn: crystals of many sites are found more seldom


def draw(material: Material, seed: int) -> Material:
    """`material` with sites and lattice parameter [Å] drawn from `seed`, its space group kept: a row as in the table.

    Sites of few atoms are likelier: by the square root of their multiplicity. A draw is thrown away if its cell has
    more than ATOMS atoms, an edge outside EDGE or atoms too close, or if spglib finds more symmetry or a smaller cell.
    """
    rng = np.random.default_rng([seed, material.space_group])
    while True:
        count = int(rng.choice(list(SITES), p=list(SITES.values())))
        for _ in range(TRIES):
            drawn = _candidate(material, count, rng)
            if drawn is not None and _sound(drawn):
                log.info("%s: %s, a = %.4f Å", material.material, drawn.sites, drawn.lattice_parameter)
                return replace(drawn, formula=formula_of(crystal(drawn)))


def _candidate(material: Material, count: int, rng: np.random.Generator) -> Material | None:
    positions = WYCKOFF[material.space_group]
    weights = np.array([multiplicity(name) ** -0.5 for name in positions])
    chosen = [str(name) for name in rng.choice(list(positions), size=count, p=weights / weights.sum())]
    fixed = [name for name in chosen if not free_names(positions[name])]
    if len(set(fixed)) < len(fixed):
        return None
    atoms = sum(multiplicity(name) for name in chosen)
    volume = VOLUME[0] * np.exp(rng.normal(0, VOLUME[1]))
    edge = round(float(np.cbrt(volume * atoms)), 4)
    if atoms > ATOMS or not EDGE[0] <= edge <= EDGE[1]:
        return None
    sites: list[Site] = []
    for name in chosen:
        again = sites and rng.random() < SAME_ELEMENT
        element = sites[rng.integers(len(sites))].element if again else int(rng.choice(ELEMENTS))
        free = {key: round(float(value), 5) for key, value in zip("xyz", rng.random(3), strict=True)}
        sites.append(place(element, name, positions[name], free))
    return replace(material, sites=text_of(sites), free_parameters=describe_free(sites), lattice_parameter=edge)


def _sound(material: Material) -> bool:
    try:
        atoms = crystal(material)
    except ValueError:  # images of a site so close that they are taken for one atom
        return False
    volume = atoms.cell.volume / len(atoms)
    if _closest(atoms) < max(CLOSEST, CLOSEST_SHARE * np.cbrt(np.sqrt(2) * volume)):
        return False
    group, edge = true_cell(atoms)
    return group == material.space_group and abs(edge - material.lattice_parameter) < 1e-3


def _closest(atoms) -> float:
    """Shortest distance between two atoms of a cubic cell or their images [Å]."""
    fractions, edge = atoms.get_scaled_positions(), atoms.cell[0, 0]
    apart = fractions[:, None] - fractions
    apart = edge * np.linalg.norm(apart - np.round(apart), axis=-1)
    np.fill_diagonal(apart, edge)
    return float(apart.min())
