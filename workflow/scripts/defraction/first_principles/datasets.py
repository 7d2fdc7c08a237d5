"""PAW data sets of GPAW: which elements there are, and the plane-wave cutoff that one needs.

The cutoff of an element outside the table of cutoffs comes from its data set by the criterion of Rappe, Rabe,
Kaxiras and Joannopoulos 1990 (10.1103/PhysRevB.41.1227): the kinetic energy in plane waves beyond the cutoff is at most
TAIL for every occupied pseudo valence state of the free atom, and the cutoff is rounded up to 50 eV.
"""

from functools import cache
from pathlib import Path

import numpy as np

TAIL = {"smoke": 0.1, "laptop": 0.05, "paper": 0.02}  # [eV per electron]
LEAST = {"smoke": 150.0, "laptop": 200.0, "paper": 250.0}  # [eV], that of Al
STEP = 50.0  # [eV]
MOST = 1000.0  # [eV]


def elements(functional: str = "PBE") -> list[str]:
    """Symbols of all elements with a data set for `functional` in GPAW's search path, sorted."""
    import gpaw

    files = [path.name for folder in gpaw.setup_paths for path in Path(folder).glob(f"*.{functional}*")]
    return sorted({name.split(".")[0] for name in files if name.split(".")[1] == functional})


@cache
def cutoff(element: str, preset: str) -> float:
    """Plane-wave cutoff [eV] of an element by the rule above.

    Raises:
        ValueError: no data set for the element; names those that exist.
    """
    known = elements()
    if element not in known:
        raise ValueError(
            f"element {element!r}: no PAW data set in gpaw-data (functional PBE); there are {', '.join(known)}"
        )
    energies, tail = _tail(element)
    enough = energies[np.argmax(tail <= TAIL[preset])]
    return float(min(MOST, max(LEAST[preset], STEP * np.ceil(enough / STEP))))


@cache
def _tail(element: str) -> tuple[np.ndarray, np.ndarray]:
    """Cutoffs (n,) [eV] and the kinetic energy beyond them of an electron in the hardest state (n,) [eV]."""
    from ase.units import Ha
    from gpaw.setup_data import SetupData
    from scipy.interpolate import CubicSpline
    from scipy.special import spherical_jn

    data = SetupData(element, "PBE")
    g = 0.025 * np.arange(1, 401)  # [1/bohr], to 1360 eV
    r = np.arange(0.0, 20.0, 0.02)  # [bohr]
    hardest = np.zeros_like(g)
    for angular, occupation, pseudo in zip(data.l_j, data.f_j, data.phit_jg, strict=True):
        if occupation <= 0:
            continue
        radial = CubicSpline(data.rgd.r_g[: len(pseudo)], pseudo)(np.minimum(r, data.rgd.r_g[len(pseudo) - 1]))
        transform = [np.sqrt(2 / np.pi) * np.sum(spherical_jn(angular, k * r) * r**2 * radial) * r[1] for k in g]
        kinetic = 0.5 * g**4 * np.square(transform) * g[0] * Ha
        hardest = np.maximum(hardest, kinetic[::-1].cumsum()[::-1])
    return 0.5 * g**2 * Ha, hardest
