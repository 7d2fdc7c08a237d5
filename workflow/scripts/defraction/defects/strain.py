"""Uniform lattice strain by Hooke's law of the anisotropic crystal. Stress and stiffness in GPa, strain as a fraction.

Voigt order: xx, yy, zz, yz, xz, xy, shear components as engineering strain (gamma = 2 epsilon). Axes are those of the
crystal's Cartesian frame, x parallel to a. Formulas: J. F. Nye, Physical Properties of Crystals (Oxford, 1957),
chapter VIII.
"""

import numpy as np
from ase import Atoms

from defraction.hosts import Host, unit_cell
from defraction.structures import standard_orientation

COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")
LIMIT = 0.2  # beyond this the small-strain tensor means nothing


def cubic_stiffness(c11: float, c12: float, c44: float) -> np.ndarray:
    """Stiffness (6, 6) [GPa] of a cubic crystal along its cube axes."""
    stiffness = np.diag([c11 - c12] * 3 + [c44] * 3).astype(float)
    stiffness[:3, :3] += c12
    return stiffness


def strain_from_stress(stiffness: np.ndarray, stress: np.ndarray) -> np.ndarray:
    """Strain tensor (3, 3) under `stress` (six Voigt components, GPa), for any stiffness (6, 6) [GPa]."""
    return strain_tensor(np.linalg.solve(stiffness, np.asarray(stress, float)))


def strain_with_one_component(stiffness: np.ndarray, component: str, value: float) -> np.ndarray:
    """Strain tensor (3, 3) whose `component` is `value` while every stress but that one vanishes.

    For a normal component this is uniaxial stress: the other directions follow by Poisson's ratios of the crystal.
    A shear `value` is the engineering strain gamma. Raises ValueError for an unknown component.
    """
    index = _index(component)
    compliance = np.linalg.inv(stiffness)
    return strain_tensor(compliance[:, index] * (value / compliance[index, index]))


def strain_tensor(voigt: np.ndarray) -> np.ndarray:
    """Symmetric strain tensor (3, 3) from six Voigt components with engineering shear."""
    xx, yy, zz, yz, xz, xy = voigt
    return np.array([[xx, xy / 2, xz / 2], [xy / 2, yy, yz / 2], [xz / 2, yz / 2, zz]])


def deform(atoms: Atoms, strain: np.ndarray) -> Atoms:
    """Copy of `atoms` deformed by x' = (1 + strain) x and turned into the standard orientation.

    `info["reference_cell"]` deforms along: zone axes refer to the deformed crystal.
    """
    gradient = np.eye(3) + np.asarray(strain, float)
    deformed = atoms.copy()
    deformed.set_cell(np.asarray(atoms.cell) @ gradient.T, scale_atoms=True)
    reference_cell = np.asarray(atoms.info.get("reference_cell", np.asarray(atoms.cell)), float)
    deformed.info["reference_cell"] = (reference_cell @ gradient.T).tolist()
    return standard_orientation(deformed)


def build(host: Host, settings: dict) -> Atoms:
    """Conventional cell of `host` under one strain component, all other stresses zero.

    `settings`: `component` (xx, yy, zz, yz, xz, xy) and `value` (fraction, or engineering shear in rad, at most 0.2 in
    magnitude), neither for the unstrained control; `repeat` (three positive numbers of cells, stored in `info`). The
    reference cell is the deformed cell itself. Raises ValueError for settings that are missing or impossible.
    """
    component, value = settings.get("component"), settings.get("value")
    if (component is None) != (value is None):
        raise ValueError(f"strain needs both component and value, or neither, not {component!r} and {value!r}")
    repeat = [int(n) for n in settings.get("repeat", [1, 1, 1])]
    if len(repeat) != 3 or min(repeat) < 1:
        raise ValueError(f"strain: repeat must be three positive whole numbers, not {settings['repeat']}")
    atoms = unit_cell(host)
    if component is not None:
        if not abs(value) <= LIMIT:
            raise ValueError(f"strain {value} is beyond {LIMIT:.0%}; give a fraction between {-LIMIT} and {LIMIT}")
        stiffness = cubic_stiffness(host.c11, host.c12, host.c44)
        atoms = deform(atoms, strain_with_one_component(stiffness, component, value))
    atoms.info["repeat"] = repeat
    return atoms


def _index(component: str) -> int:
    if component not in COMPONENTS:
        raise ValueError(f"unknown strain component {component!r}; choose one of {', '.join(COMPONENTS)}")
    return COMPONENTS.index(component)
