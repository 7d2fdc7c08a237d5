"""Electron scattering factors of neutral atoms, by the name of their table.

f(q) is in Å, q = 2 sin(theta) / lambda in 1/Å (k = 1/d, no factor 2 pi).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType

import gemmi
import numpy as np

# c4322: International Tables for Crystallography C (2006), table 4.3.2.2 (doi:10.1107/97809553602060000593), fits of
# Peng, Ren, Dudarev & Whelan, Acta Cryst. A52 (1996) 257 (doi:10.1107/S0108767395014371), as gemmi holds them.
TABLES = ("c4322",)

# Cubic interpolation in q^2 with this step [1/Å^2]: the widest Gaussian of the table (b = 200 Å^2) is met to 1e-8.
STEP = 1.0 / 2048.0


@dataclass(frozen=True)
class Factors:
    """Scattering factors of a ``table``, damped by Debye-Waller factors B [Å^2] by element where given.

    Raises ValueError for an unknown table.
    """

    table: str = "c4322"
    debye_waller: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self):
        if self.table not in TABLES:
            raise ValueError(f"scattering_factors: unknown table {self.table!r}; known are {', '.join(TABLES)}")

    def of(self, element: str, q: np.ndarray) -> np.ndarray:
        """Return f(q) exp(-B q^2 / 4) [Å] for q [1/Å] of any shape."""
        return self._of_square(element, np.square(np.asarray(q, dtype=float)))

    def _of_square(self, element: str, q_squared: np.ndarray) -> np.ndarray:
        a, b = coefficients(element, self.table)
        return np.exp(-0.25 * (b + self.debye_waller.get(element, 0.0)) * q_squared[..., None]) @ a

    def tabulate(self, elements: list[str], q_max: float) -> np.ndarray:
        """Return f of each element at q^2 = STEP * (row - 1), for as many rows as q_max needs, shape (element, row)."""
        rows = int(np.ceil(q_max * q_max / STEP)) + 4
        q_squared = STEP * (np.arange(rows) - 1)
        return np.stack([self._of_square(element, q_squared) for element in elements])


@cache
def coefficients(element: str, table: str = "c4322") -> tuple[np.ndarray, np.ndarray]:
    """Return (a [Å], b [Å^2]), each of shape (5,), of f(q) = sum a exp(-b q^2 / 4).

    Raises ValueError for an element that the table does not hold.
    """
    entry = gemmi.Element(element)
    if entry.name != element or entry.atomic_number < 1 or entry.c4322 is None:
        raise ValueError(f"scattering_factors: the table {table} has no element {element!r}")
    return np.array(entry.c4322.a), np.array(entry.c4322.b)
