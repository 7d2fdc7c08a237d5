"""Uniform lattice strain by Hooke's law of the anisotropic crystal. Stress and stiffness in GPa, strain as a fraction.

Voigt order: xx, yy, zz, yz, xz, xy, shear components as engineering strain (gamma = 2 epsilon). Axes are those of the
crystal's Cartesian frame, x parallel to a; tension and extension are positive. Formulas: J. F. Nye, Physical Properties
of Crystals (Oxford, 1957), chapter VIII.
"""

import difflib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase import Atoms

from defraction.hosts import Host, unit_cell
from defraction.orientation import standard_orientation

COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")
LIMIT = 0.2  # beyond this the small-strain tensor means nothing

# Settings of each mode, beside mode and repeat.
MODES = {
    "component": ("component", "value"),
    "stress": ("stress", "pressure"),
    "biaxial": ("value", "plane"),
    "hydrostatic": ("value",),
    "tensor": ("tensor",),
}


def cubic_stiffness(c11: float, c12: float, c44: float) -> np.ndarray:
    """Stiffness (6, 6) [GPa] of a cubic crystal along its cube axes."""
    stiffness = np.diag([c11 - c12] * 3 + [c44] * 3).astype(float)
    stiffness[:3, :3] += c12
    return stiffness


def strain_from_stress(stiffness: np.ndarray, stress: np.ndarray) -> np.ndarray:
    """Strain tensor (3, 3) under `stress` (six Voigt components, GPa), for any stiffness (6, 6) [GPa]."""
    return strain_tensor(np.linalg.solve(stiffness, np.asarray(stress, float)))


def stress_from_strain(stiffness: np.ndarray, strain: np.ndarray) -> np.ndarray:
    """Stress tensor (3, 3) [GPa] of the strain tensor (3, 3), for any stiffness (6, 6) [GPa]."""
    xx, yy, zz, yz, xz, xy = stiffness @ voigt(strain)
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def strain_with_one_component(stiffness: np.ndarray, component: str, value: float) -> np.ndarray:
    """Strain tensor (3, 3) whose `component` is `value` while every stress but that one vanishes.

    For a normal component this is uniaxial stress: the other directions follow by Poisson's ratios of the crystal.
    A shear `value` is the engineering strain gamma. Raises ValueError for an unknown component.
    """
    index = _index(component)
    compliance = np.linalg.inv(stiffness)
    return strain_tensor(compliance[:, index] * (value / compliance[index, index]))


def biaxial_strain(stiffness: np.ndarray, value: float, normal: np.ndarray) -> np.ndarray:
    """Strain tensor (3, 3) of a film whose plane is stretched by `value` in all directions and whose surface is free.

    `normal` (3,) of the plane, of any length, in the crystal's Cartesian frame. With the unit normal n the strain is
    value (1 - n n) + (n d + d n)/2, and d follows from the traction on the plane, sigma n = 0: three linear equations
    with the Christoffel matrix c_ijkl n_j n_l. On (001) of a cubic crystal the normal strain is -2 c12/c11 value; on
    planes of low symmetry the film is sheared as well. Raises ValueError for a normal of no length.
    """
    normal = np.asarray(normal, float)
    length = np.linalg.norm(normal)
    if normal.shape != (3,) or not (np.isfinite(length) and length > 0):
        raise ValueError(f"the plane of a biaxial strain needs three indices that are not all zero, not {normal}")
    n = normal / length
    flat = value * (np.eye(3) - np.outer(n, n))
    tilts = [(np.outer(n, d) + np.outer(d, n)) / 2 for d in np.eye(3)]
    christoffel = np.column_stack([stress_from_strain(stiffness, tilt) @ n for tilt in tilts])
    d = np.linalg.solve(christoffel, -stress_from_strain(stiffness, flat) @ n)
    return flat + (np.outer(n, d) + np.outer(d, n)) / 2


def strain_tensor(voigt: np.ndarray) -> np.ndarray:
    """Symmetric strain tensor (3, 3) from six Voigt components with engineering shear."""
    xx, yy, zz, yz, xz, xy = voigt
    return np.array([[xx, xy / 2, xz / 2], [xy / 2, yy, yz / 2], [xz / 2, yz / 2, zz]])


def voigt(strain: np.ndarray) -> np.ndarray:
    """Six Voigt components with engineering shear of a symmetric strain tensor (3, 3)."""
    strain = np.asarray(strain, float)
    return np.array([*np.diag(strain), 2 * strain[1, 2], 2 * strain[0, 2], 2 * strain[0, 1]])


def strain_from_settings(stiffness: np.ndarray, settings: dict) -> np.ndarray | None:
    """Strain tensor (3, 3) that `settings` ask of a crystal with `stiffness` (6, 6) [GPa]; None if they ask for none.

    `mode` and its settings:

    * `component` (default): `component` (xx, yy, zz, yz, xz, xy) has the strain `value`, all other stresses vanish;
      without both there is no strain.
    * `stress`: components of the tensor `stress`, such as {xx: 0.5, xy: 0.1}, those left out zero; or `pressure` alone,
      which is the stress -pressure along all axes [GPa].
    * `biaxial`: `value` in every direction of the `plane` (Miller indices of a cubic crystal, default [0, 0, 1]), no
      traction on it.
    * `hydrostatic`: `value` along every direction.
    * `tensor`: the strain itself, components of `tensor` such as {xx: 0.01, xy: 0.004}, shear as engineering strain.

    Raises ValueError for settings that are unknown, missing, of another mode, not finite, or beyond 20 % in any
    component, and for a stiffness that is not that of a mechanically stable crystal (M. Born, Math. Proc. Cambridge
    Phil. Soc. 36, 160 (1940): positive definite).
    """
    mode = settings.get("mode") or "component"
    if mode not in MODES:
        near = difflib.get_close_matches(str(mode), MODES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown mode of strain {mode!r}; choose one of {', '.join(MODES)}{hint}")
    given = {key for keys in MODES.values() for key in keys if settings.get(key) is not None}
    foreign = sorted(given - set(MODES[mode]))
    if foreign:
        raise ValueError(f"strain of mode {mode} takes {' and '.join(MODES[mode])}, not {', '.join(foreign)}")
    if not (np.linalg.eigvalsh((stiffness + stiffness.T) / 2) > 0).all():
        raise ValueError(
            "the elastic constants are not those of a stable crystal (cubic: c11 > |c12|, c11 + 2 c12 > 0, c44 > 0)"
        )
    if mode == "component":
        component, value = settings.get("component"), settings.get("value")
        if (component is None) != (value is None):
            raise ValueError(f"strain needs both component and value, or neither, not {component!r} and {value!r}")
        if component is None:
            return None
        strain = strain_with_one_component(stiffness, component, _number(settings, mode, "value"))
    elif mode == "stress":
        strain = strain_from_stress(stiffness, _stress(settings, mode))
    elif mode == "biaxial":
        plane = [0, 0, 1] if settings.get("plane") is None else settings["plane"]
        strain = biaxial_strain(stiffness, _number(settings, mode, "value"), _plane(plane))
    elif mode == "hydrostatic":
        strain = _number(settings, mode, "value") * np.eye(3)
    else:
        strain = strain_tensor(_components(settings, mode, "tensor"))
    largest = np.abs(voigt(strain)).max()
    if not largest <= LIMIT:
        raise ValueError(
            f"strain: a component of {largest:.3g} is beyond {LIMIT:.0%}, where small strains mean nothing; give less "
            "(strains are fractions, 0.01 is 1 %)"
        )
    return strain


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


def deformation(deformed: Atoms, stiffness: np.ndarray, strain: np.ndarray) -> dict:
    """What a deformed crystal is, as plain values for `info` and for the metadata of its files.

    `lengths` [Å] and `angles` [degrees] of its conventional cell (`info["reference_cell"]`), the `strain` (3x3) and the
    `stress` (3x3, GPa) that it needs, both along the cube axes before the cell was turned into standard orientation.
    """
    cellpar = Atoms(cell=deformed.info["reference_cell"]).cell.cellpar()
    return {
        "lengths": cellpar[:3].tolist(),
        "angles": cellpar[3:].tolist(),
        "strain": np.asarray(strain, float).tolist(),
        "stress": stress_from_strain(stiffness, strain).tolist(),
    }


def build(host: Host, settings: dict, elastic: Path | str | None = None) -> Atoms:
    """Conventional cell of `host` under the strain that `strain_from_settings` reads from `settings`.

    `settings`: those of `strain_from_settings`, none of them for the unstrained control, `repeat` (three positive
    numbers of cells, stored in `info`) and `elastic`: "table" (default), or "gpaw" for the constants in the file of
    that name, a JSON file with `c11`, `c12` and `c44` [GPa] (`first_principles.elastic`). The lattice parameter is the
    host's in either case. The reference cell is the deformed cell itself. `info["deformation"]` of a strained crystal
    is that of `deformation`, with computed constants under `constants`. Raises ValueError for settings that are missing
    or impossible.
    """
    repeat = [int(n) for n in settings.get("repeat", [1, 1, 1])]
    if len(repeat) != 3 or min(repeat) < 1:
        raise ValueError(f"strain: repeat must be three positive whole numbers, not {settings['repeat']}")
    if (settings.get("elastic") == "gpaw") != (elastic is not None):
        raise ValueError("a strain with elastic: gpaw, and no other, takes a file of computed elastic constants")
    constants = {}
    if elastic is not None:
        found = json.loads(Path(elastic).read_text())
        constants = {key: float(found[key]) for key in ("c11", "c12", "c44")}
    host = replace(host, **constants)
    stiffness = cubic_stiffness(host.c11, host.c12, host.c44)
    strain = strain_from_settings(stiffness, settings)
    atoms = unit_cell(host)
    if strain is not None:
        atoms = deform(atoms, strain)
        atoms.info["deformation"] = deformation(atoms, stiffness, strain)
        if constants:
            atoms.info["deformation"]["constants"] = constants
    atoms.info["repeat"] = repeat
    return atoms


def _index(component: str) -> int:
    if component not in COMPONENTS:
        raise ValueError(f"unknown strain component {component!r}; choose one of {', '.join(COMPONENTS)}")
    return COMPONENTS.index(component)


def _number(settings: dict, mode: str, key: str) -> float:
    if settings.get(key) is None:
        raise ValueError(f"strain of mode {mode} needs the setting {key}")
    try:
        number = float(settings[key])
    except (TypeError, ValueError) as error:
        raise ValueError(f"strain: {key} must be a number, not {settings[key]!r}") from error
    if not np.isfinite(number):
        raise ValueError(f"strain: {key} must be a finite number, not {number}")
    return number


def _plane(indices) -> np.ndarray:
    try:
        vector = np.asarray(indices, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"strain: plane must be 3 numbers, not {indices!r}") from error
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise ValueError(f"strain: plane must be 3 finite numbers, not {indices!r}")
    return vector


def _stress(settings: dict, mode: str) -> np.ndarray:
    if (settings.get("stress") is None) == (settings.get("pressure") is None):
        raise ValueError("strain of mode stress needs either stress or pressure [GPa]")
    if settings.get("stress") is None:
        return -_number(settings, mode, "pressure") * np.array([1.0, 1, 1, 0, 0, 0])
    return _components(settings, mode, "stress")


def _components(settings: dict, mode: str, key: str) -> np.ndarray:
    """Six Voigt components of a tensor given as {component: number}."""
    given = settings.get(key)
    if not isinstance(given, dict) or not given:
        raise ValueError(f"strain of mode {mode} needs the setting {key}, components such as {{xx: 0.01, xy: 0.004}}")
    components = np.zeros(6)
    for component in given:
        components[_index(component)] = _number(given, mode, component)
    return components
