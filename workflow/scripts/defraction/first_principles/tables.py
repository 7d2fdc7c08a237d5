"""The tables of first-principles settings, and what may be written in place of their values.

Density functional: PBE (Perdew, Burke and Ernzerhof 1996, 10.1103/PhysRevLett.77.3865). Smearing: Marzari and
Vanderbilt 1999 (10.1103/PhysRevLett.82.3296). k mesh: Monkhorst and Pack 1976 (10.1103/PhysRevB.13.5188).
"""

import difflib
import math
from collections.abc import Iterable, Mapping

TASKS = ("lattice", "relax", "aimd", "elastic")
PRESETS = ("smoke", "laptop", "paper")

# Plane-wave cutoff [eV] that an element asks for; a structure takes the largest among its elements. Elements that are
# not listed: datasets.cutoff.
CUTOFF = {
    "smoke": {"Al": 150.0, "Si": 150.0, "C": 250.0, "Fe": 250.0, "Au": 250.0},
    "laptop": {"Al": 200.0, "Si": 200.0, "C": 250.0, "Fe": 300.0, "Au": 300.0},
    "paper": {"Al": 250.0, "Si": 250.0, "C": 350.0, "Fe": 400.0, "Au": 400.0},
}

# Mesh points per conventional cell edge; n cells in a row take round(points / n). Even meshes do not hold gamma.
RELAX_KPOINTS = {
    "smoke": {"Al": 2, "Fe": 2},
    "laptop": {"Al": 12, "Fe": 8},
    "paper": {"Al": 12, "Fe": 9},
}
# A solute that is listed coarsens the mesh of its host to its own number: carbon asks for a larger cutoff, and moves
# atoms so far that the mesh matters less.
SOLUTE_KPOINTS = {"smoke": {}, "laptop": {"C": 8}, "paper": {}}
AIMD_KPOINTS = {
    "smoke": {"Al": 2, "Fe": 2},
    "laptop": {"Al": 4, "Fe": 4},
    "paper": {"Al": 6, "Fe": 6},
}

# Equation of state: cutoff [eV], cell, mesh points along each of its edges.
LATTICE = {
    "smoke": {
        "Al": {"cutoff": 150.0, "kpoints": 7, "cell": "primitive"},
        "Fe": {"cutoff": 300.0, "kpoints": 5, "cell": "primitive"},
    },
    "laptop": {
        "Al": {"cutoff": 200.0, "kpoints": 11, "cell": "primitive"},
        "Fe": {"cutoff": 300.0, "kpoints": 8, "cell": "conventional"},
    },
    "paper": {
        "Al": {"cutoff": 250.0, "kpoints": 13, "cell": "primitive"},
        "Fe": {"cutoff": 400.0, "kpoints": 12, "cell": "conventional"},
    },
}

# Lattice constants from centre (1 - range) to centre (1 + range) times the measured one. Iron is compressed by PBE, and
# beyond a few percent of volume its moment changes too much for one smooth curve. Others: PBE is 2 % too long for the
# late 5d metals and 1.5 % too short for Cr.
EQUATION_OF_STATE = {
    "Al": {"points": 5, "centre": 1.0, "range": 0.02},
    "Fe": {"points": 5, "centre": 0.99, "range": 0.012},
}
OTHER_EQUATION_OF_STATE = {"points": 7, "centre": 1.005, "range": 0.03}

WIDTH = {"Al": 0.2, "Fe": 0.1}  # Marzari-Vanderbilt smearing width [eV] by host; 0.2 eV costs Fe a tenth of its moment
MOMENTS = {"Al": {}, "Fe": {"Fe": 2.2}}  # initial magnetic moments [muB]; a host without any is not spin-polarised

# GPAW's convergence criteria: density [electrons per valence electron], energy [eV per valence electron],
# eigenstates [eV^2 per valence electron], forces [eV/angstrom].
CONVERGENCE = {
    "smoke": {"density": 2e-3, "energy": 2e-3, "eigenstates": 1e-4, "forces": 0.02},
    "laptop": {"density": 1e-3, "energy": 5e-4, "eigenstates": 1e-4, "forces": 5e-3},
    "paper": {"density": 1e-4, "energy": 1e-4, "eigenstates": 1e-5, "forces": 1e-3},
}
LATTICE_CONVERGENCE = {"density": 1e-3, "energy": 1e-4, "eigenstates": 1e-6}
ELASTIC_CONVERGENCE = {"density": 1e-5, "energy": 1e-5, "eigenstates": 1e-8}  # a stress is first order in the density

# fmax: largest force at which a relaxation ends [eV/angstrom]; max_step: longest move of an atom in a step [angstrom].
RELAX = {
    "smoke": {"fmax": 0.05, "steps": 2, "max_step": 0.2, "allow_unconverged": True},
    "laptop": {"fmax": 0.015, "steps": 30, "max_step": 0.2, "allow_unconverged": False},
    "paper": {"fmax": 0.01, "steps": 100, "max_step": 0.2, "allow_unconverged": False},
}

# Curvature of the energy that BFGS starts from [eV/angstrom^2]. Force over displacement is 5 to 7 for a vacancy or Si
# in Al, 13 to 22 for a vacancy or Au in Fe; ASE's default of 70 costs two to five steps more.
CURVATURE = {"Al": 7.0, "Fe": 15.0}
# Others: 1.75 (C11 + 2 C44) a. The sum is the acoustic branches' rho omega^2 / q^2; the factor gives the numbers of Al
# (7.2) and Fe (14.6) from their measured constants.
CURVATURE_FACTOR = 1.75

# timestep [fs], friction [1/fs]; `published`: steps per flight; `equilibrated`: steps before and between snapshots, one
# flight unless `flights` of a condition or of the overrides says more.
# exact_temperature: scale the drawn velocities to the temperature (one draw for 32 atoms scatters by 15 %).
AIMD = {
    "smoke": {
        "published": {"timestep": 5.0, "steps": 4, "flights": 1, "exact_temperature": True},
        "equilibrated": {"timestep": 4.0, "friction": 0.02, "equilibration": 3, "snapshots": 2, "every": 2},
    },
    "laptop": {
        "published": {"timestep": 5.0, "steps": 4, "flights": 1, "exact_temperature": True},
        "equilibrated": {"timestep": 4.0, "friction": 0.02, "equilibration": 40, "snapshots": 2, "every": 10},
    },
    "paper": {
        "published": {"timestep": 2.0, "steps": 10, "flights": 4, "exact_temperature": False},
        "equilibrated": {"timestep": 4.0, "friction": 0.02, "equilibration": 250, "snapshots": 6, "every": 50},
    },
}
AIMD_CUTOFF = {"smoke": 150.0, "laptop": 150.0, "paper": 200.0}  # Al; other elements take CUTOFF where it is larger
STEPS_PER_PERIOD = 20  # of other hosts, at least; the period is 2 pi sqrt(mass / curvature): 124 fs in Al

# Elastic constants: largest strain, largest force [eV/angstrom] on an atom of a strained cell.
ELASTIC = {
    "smoke": {"cell": "primitive", "strain": 0.01, "fmax": 0.02},
    "laptop": {"cell": "primitive", "strain": 0.01, "fmax": 0.005},
    "paper": {"cell": "primitive", "strain": 0.01, "fmax": 0.002},
}
# Mesh points per edge of the primitive cell of fcc Al. Others take the same density: metals without moments that of Al,
# magnetic ones and semiconductors that of Fe. A shear moves the Fermi surface of a simple metal through the mesh: its
# C44 asks for more points and a wider smearing [eV] than anything else here.
ELASTIC_KPOINTS = {
    "smoke": {"Al": 9, "Fe": 9},
    "laptop": {"Al": 33, "Fe": 21},
    "paper": {"Al": 33, "Fe": 33},
}
ELASTIC_WIDTH = 0.4
# Below these elastic constants are not to be believed, and the summary says so. Metals without moments: mesh points
# times width [eV]; C44 of Al is within a tenth of the measured one from 28 points and 0.4 eV on (11.2), not at 21 and
# 0.5 eV (10.5) or 25 and 0.2 eV (5). Others: mesh points, by guess.
ELASTIC_LEAST = {"Al": 11.0, "Fe": 18.0}

# Edge [angstrom] times mesh points along it: the density of the tables above, for hosts that are not in them. Metals
# without moments take that of Al, magnetic ones that of Fe, semiconductors (in supercells) half of that of Al.
AL, FE = 4.0496, 2.8665  # lattice parameters [angstrom], 300 K
PRIMITIVE_EDGE = {"fcc": 1 / math.sqrt(2), "bcc": math.sqrt(3) / 2, "diamond": 1 / math.sqrt(2)}  # lattice parameters
GPA = 1 / 160.21766208  # eV/angstrom^3

ELECTRONIC_KEYS = (
    "xc", "cutoff", "kpoints", "smearing", "width", "moments", "convergence", "max_iterations", "point_group",
)  # fmt: skip
COUNTS = ("max_iterations", "points", "steps", "flights", "equilibration", "snapshots", "every")
"""Keys that hold whole numbers."""


def known_keys() -> dict[str, set[str]]:
    """The sections of the overrides and the keys that each may hold."""
    own = {
        "electronic": set(),
        "lattice": {"cell", *OTHER_EQUATION_OF_STATE},
        "relax": {"curvature", "cell", *RELAX["paper"]},
        "aimd": set().union(*AIMD["paper"].values()),
        "elastic": {"curvature", *ELASTIC["paper"]},
    }
    return {section: keys | set(ELECTRONIC_KEYS) for section, keys in own.items()}


def check_overrides(overrides: Mapping) -> None:
    """Raise ValueError for a section, key or kind of value that `settings_for` does not know, naming the nearest."""
    known = known_keys()
    for section, values in overrides.items():
        one_of("section of the first-principles overrides", section, known)
        if not isinstance(values, Mapping):
            raise ValueError(f"first-principles overrides in {section!r}: needs keys and values, not {values!r}")
        for key, value in values.items():
            one_of(f"key of the first-principles overrides in {section!r}", key, known[section])
            _check_value(section, key, value)


def _check_value(section: str, key: str, value) -> None:
    wanted = {
        "xc": "a name",
        "smearing": "a name",
        "cell": "fixed or relaxed" if section == "relax" else "primitive or conventional",
        "kpoints": "three whole numbers, each at least 1",
        "moments": "elements with numbers",
        "convergence": "criteria of GPAW with numbers",
        **dict.fromkeys(COUNTS, "a whole number, at least 1"),
        "point_group": "true or false",
        "allow_unconverged": "true or false",
        "exact_temperature": "true or false",
    }.get(key, "a number above 0")

    def number(x) -> bool:
        return isinstance(x, int | float) and not isinstance(x, bool)

    if wanted == "a name":
        good = isinstance(value, str) and bool(value)
    elif wanted == "true or false":
        good = isinstance(value, bool)
    elif key in COUNTS:
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    elif key == "cell":
        good = value in (("fixed", "relaxed") if section == "relax" else ("primitive", "conventional"))
    elif key == "kpoints":
        good = isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(n, int) and n > 0 for n in value)
    elif key in ("moments", "convergence"):
        good = isinstance(value, Mapping) and all(number(x) for x in value.values())
    else:
        good = number(value) and value > 0
    if not good:
        raise ValueError(f"first-principles overrides, {section}.{key}: needs {wanted}, not {value!r}")


def one_of(what: str, value: str, allowed: Iterable, hint: str = "") -> None:
    """Raise ValueError if `value` is none of `allowed`, naming them and the nearest (or else `hint`)."""
    if value in allowed:
        return
    near = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else hint
    raise ValueError(f"unknown {what}: {value!r}; known: {', '.join(sorted(map(str, allowed)))}{hint}")
