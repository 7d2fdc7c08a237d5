"""Specimens of one perfect crystal: the block of the article, and blocks whose faces and thickness are drawn at random.

A sharp block writes its own shape into a pattern: streaks across its faces, and spots that fade as its thickness
tells. Where all crystals of a training set are cut alike, a network can read the zone axis from these
(docs/learning.md), so it should see many outlines. A drawn block costs about as much to simulate as any other: its
cell is another choice of lattice vectors of the same crystal, and `reference_cell` keeps zone axes and the orientation
of the pattern where they were.
"""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.build import make_supercell

from defraction.orientation import standard_orientation

CELLS = (12, 48)  # edge of a drawn block in conventional cells; between them, every ratio is equally likely
DETERMINANTS = (1, 2)  # conventional cells in a drawn one: more would cost as many times the atoms
OBLIQUE = 0.75  # largest cosine between two edges; beyond it (41 degrees) a block is a splinter


def specimens(crystal: Atoms, repeat: Sequence[int], drawn: int, seed: int) -> list[Atoms]:
    """The block of `repeat` conventional cells along a, b, c, then `drawn` blocks drawn at random.

    Number n of the drawn ones depends on `seed` and n only, so that asking for more leaves the first ones as they were.
    """
    block = crystal.copy()
    block.info["repeat"] = [int(n) for n in repeat]
    return [block, *(draw_block(crystal, np.random.default_rng([seed, n])) for n in range(drawn))]


def draw_block(crystal: Atoms, rng: np.random.Generator) -> Atoms:
    """A block with edges along three random short lattice vectors, which are [uvw] with indices -1, 0 or 1.

    Its cell holds one or two conventional cells of `crystal`, its edges are CELLS conventional cells long, drawn on a
    logarithmic scale, and its frame is the standard orientation. `info` has its `repeat` and the `reference_cell` [Å]
    of `crystal`, turned with it.
    """
    edges = _draw_edges(rng, np.asarray(crystal.cell))
    lengths = np.exp(rng.uniform(*np.log(CELLS), 3)) * np.cbrt(crystal.cell.volume)
    cell = make_supercell(crystal, edges)
    cell.info = {"reference_cell": np.asarray(crystal.cell).tolist()}
    cell.info["repeat"] = np.maximum(1, np.rint(lengths / cell.cell.lengths())).astype(int).tolist()
    return standard_orientation(cell)


def _draw_edges(rng: np.random.Generator, cell: np.ndarray) -> np.ndarray:
    while True:
        edges = rng.integers(-1, 2, (3, 3))
        if round(np.linalg.det(edges)) not in DETERMINANTS:
            continue
        vectors = edges @ cell
        vectors /= np.linalg.norm(vectors, axis=1)[:, None]
        if np.abs((vectors @ vectors.T)[np.triu_indices(3, 1)]).max() <= OBLIQUE:
            return edges
