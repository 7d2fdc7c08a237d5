"""The standard orientation of cells (docs/conventions.md). Lengths in Å.

Apart from `structures`, so that an edit of the reading and writing of files reruns no first-principles calculation.
"""

import numpy as np
from ase import Atoms

ORIENTATION_TOLERANCE = 1e-7  # Å by which a cell vector may miss the standard orientation


def standard_orientation(atoms: Atoms) -> Atoms:
    """Copy of `atoms`, turned so that a lies along +x, b in the xy plane with positive y, and c has positive z.

    Positions, cell, momenta and `info["reference_cell"]` turn together; results of a calculator are left behind.
    Raises ValueError for a flat or left-handed cell, which no rotation can bring into this orientation.
    """
    cell = np.asarray(atoms.cell)
    if not np.linalg.det(cell) > 0:
        raise ValueError(
            f"structure {atoms.get_chemical_formula('hill')}: the cell is flat or left-handed; give right-handed cell "
            "vectors a, b, c"
        )
    rotation, upper = np.linalg.qr(cell.T)
    signs = np.sign(np.diag(upper))
    rotation, upper = rotation * signs, signs[:, None] * upper
    turned = atoms.copy()
    turned.set_cell(np.tril(upper.T), scale_atoms=False)
    turned.positions[:] = atoms.positions @ rotation
    if turned.has("momenta"):
        turned.arrays["momenta"][:] = atoms.arrays["momenta"] @ rotation
    if "reference_cell" in atoms.info:
        turned.info["reference_cell"] = (np.asarray(atoms.info["reference_cell"], float) @ rotation).tolist()
    return turned


def check_standard_orientation(atoms: Atoms) -> None:
    """Raise ValueError unless the cell of `atoms` is in the standard orientation (docs/conventions.md)."""
    cell = np.asarray(atoms.cell)
    above_diagonal = np.abs(cell[np.triu_indices(3, 1)]).max()
    if above_diagonal > ORIENTATION_TOLERANCE or not (np.diag(cell) > 0).all():
        raise ValueError(
            f"structure {atoms.get_chemical_formula('hill')}: the cell {np.round(cell, 4).tolist()} is not in standard "
            "orientation (a along +x, b in the xy plane, right-handed); turn it with "
            "defraction.orientation.standard_orientation"
        )
