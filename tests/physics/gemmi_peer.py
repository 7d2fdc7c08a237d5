"""Structure factors of a crystal by gemmi, for the tests that compare ours with them."""

import gemmi
import numpy as np
from ase import Atoms


def structure_factors(atoms: Atoms, hkl: np.ndarray) -> np.ndarray:
    """Return F [Å], complex (n,), of the table c4322 at the nodes ``hkl`` (n, 3) of the cell of ``atoms``."""
    small = gemmi.SmallStructure()
    small.cell = gemmi.UnitCell(*atoms.cell.cellpar())
    small.spacegroup_hm = "P 1"
    for symbol, point in zip(atoms.get_chemical_symbols(), atoms.get_scaled_positions(), strict=True):
        site = gemmi.SmallStructure.Site()
        site.label = site.type_symbol = symbol
        site.element = gemmi.Element(symbol)
        site.fract = gemmi.Fractional(*point)
        site.occ = 1.0
        small.add_site(site)
    calculator = gemmi.StructureFactorCalculatorE(small.cell)
    return np.array([calculator.calculate_sf_from_small_structure(small, h.tolist()) for h in hkl])
