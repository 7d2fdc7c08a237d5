"""Electron scattering factors of neutral atoms, by the name of their table.

f(q) is in Å, q = 2 sin(theta) / lambda = 1/d in 1/Å (no factor 2 pi). Every table's f is the first Born amplitude
without the relativistic factor gamma. No parameters are kept here: they are read from the libraries that publish them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from types import MappingProxyType

import gemmi
import numpy as np

# c4322: International Tables for Crystallography C (2006), table 4.3.2.2 (doi:10.1107/97809553602060000593), the fits
#   of Peng, Ren, Dudarev & Whelan, Acta Cryst. A52 (1996) 257 (doi:10.1107/S0108767395014371) that hold to
#   sin(theta) / lambda = 2 / Å, as gemmi has them.
# lobato: Lobato & Van Dyck, Acta Cryst. A70 (2014) 636 (doi:10.1107/S205327331401643X).
# kirkland: Kirkland, Advanced Computing in Electron Microscopy, 2nd edition, 2010 (doi:10.1007/978-1-4419-6533-2).
# peng: the fits of the same paper as c4322 that hold to sin(theta) / lambda = 6 / Å (International Tables C, 4.3.2.3).
TABLES = ("c4322", "lobato", "kirkland", "peng")

_FILES = {"lobato": "lobato.json", "kirkland": "kirkland.json", "peng": "peng_high.json"}  # of abTEM

# Cubic interpolation in q^2 with this step [1/Å^2] meets every element of every table to 2e-8 of f; helium in the
# table kirkland to 1.2e-6, whose parameters hold a peak of 1.1e-6 of f(0) that is 0.005 / Å wide.
STEP = 1.0 / 2048.0


@dataclass(frozen=True)
class Factors:
    """Scattering factors of a ``table``, damped by Debye-Waller factors B [Å^2] by element where given.

    Raises ValueError for an unknown table, an unknown element in ``debye_waller`` or a B that is not finite and >= 0.
    """

    table: str = "c4322"
    debye_waller: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self):
        if self.table not in TABLES:
            raise ValueError(f"scattering_factors: unknown table {self.table!r}; known are {', '.join(TABLES)}")
        for element, value in self.debye_waller.items():
            if not _is_element(element):
                raise ValueError(f"debye_waller: {element!r} is not the symbol of an element")
            if isinstance(value, bool) or not (isinstance(value, int | float) and 0.0 <= value < np.inf):
                raise ValueError(f"debye_waller: B of {element} is {value!r}; give a number of Å^2 that is 0 or more")
        object.__setattr__(self, "debye_waller", MappingProxyType(dict(self.debye_waller)))

    def of(self, element: str, q: np.ndarray) -> np.ndarray:
        """Return f(q) exp(-B q^2 / 4) [Å] for q [1/Å] of any shape.

        Raises ValueError for an element that the table does not hold, RuntimeError if the package that holds the table
        is not installed.
        """
        return self._of_square(element, np.square(np.asarray(q, dtype=float)))

    def tabulate(self, elements: list[str], q_max: float) -> np.ndarray:
        """Return f of each element at q^2 = STEP * (row - 1), for as many rows as q_max needs, shape (element, row).

        Errors as for :meth:`of`.
        """
        rows = int(np.ceil(q_max * q_max / STEP)) + 4
        q_squared = STEP * (np.arange(rows) - 1)
        return np.stack([self._of_square(element, q_squared) for element in elements])

    def _of_square(self, element: str, q_squared: np.ndarray) -> np.ndarray:
        form, parameters = _parameters(element, self.table)
        return form(q_squared[..., None], *parameters) * np.exp(-0.25 * self.debye_waller.get(element, 0.0) * q_squared)


def _gaussians(q_squared: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.exp(-0.25 * b * q_squared) @ a


def _lobato(q_squared: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    x = b * q_squared
    return ((2.0 + x) / (1.0 + x) ** 2) @ a


def _kirkland(q_squared: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    # bounded, for helium's narrow peak at the negative q^2 where tables for interpolation begin
    return (1.0 / (q_squared + b)) @ a + np.exp(-np.maximum(d * q_squared, -1.0)) @ c


_FORMS: dict[str, Callable[..., np.ndarray]] = {
    "c4322": _gaussians,
    "lobato": _lobato,
    "kirkland": _kirkland,
    "peng": _gaussians,
}


def _is_element(symbol: object) -> bool:
    if not isinstance(symbol, str):
        return False
    entry = gemmi.Element(symbol)
    return entry.name == symbol and entry.atomic_number >= 1


@cache
def _parameters(element: str, table: str) -> tuple[Callable[..., np.ndarray], tuple[np.ndarray, ...]]:
    """Return the functional form of the table, f(q^2[..., None], *parameters), and the element's parameters."""
    if table == "c4322":
        entry = gemmi.Element(element).c4322 if _is_element(element) else None
        rows = None if entry is None else (entry.a, entry.b)
    else:
        rows = _read(table).get(element)
    if rows is None:
        raise ValueError(f"scattering_factors: the table {table} has no element {element!r}")
    return _FORMS[table], tuple(np.array(row, dtype=float) for row in rows)


@cache
def _read(table: str) -> dict[str, list[list[float]]]:
    """Return the parameters of every element from abTEM's data files, without importing abTEM, which takes seconds."""
    try:
        path = distribution("abtem").locate_file(f"abtem/parametrizations/data/{_FILES[table]}")
        return json.loads(path.read_text(encoding="ascii"))
    except (PackageNotFoundError, FileNotFoundError) as error:
        raise RuntimeError(
            f"scattering_factors: the table {table} is read from the data files of the package abtem ({error}); "
            "install abtem, or use the table c4322"
        ) from error
