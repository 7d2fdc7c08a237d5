"""Settings and calculators of the first-principles jobs (GPAW, plane waves, PBE).

All settings that change a number stand in the tables below; `settings_for` picks one row and returns plain values.
What only changes how long a job takes (wall time, paths) is passed to the functions that run jobs, never kept in here.

Density functional: PBE (Perdew, Burke and Ernzerhof 1996, 10.1103/PhysRevLett.77.3865). Smearing: Marzari and
Vanderbilt 1999 (10.1103/PhysRevLett.82.3296). k mesh: Monkhorst and Pack 1976 (10.1103/PhysRevB.13.5188).
"""

import difflib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import IO

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, SCFError, all_changes

log = logging.getLogger(__name__)

Factory = Callable[..., Calculator]  # (settings, atoms, txt, rung) -> an ASE calculator

# Plane-wave cutoff [eV] that an element asks for; a structure takes the largest among its elements.
CUTOFF = {
    "smoke": {"Al": 150.0, "Si": 150.0, "C": 250.0, "Fe": 250.0, "Au": 250.0},
    "laptop": {"Al": 200.0, "Si": 200.0, "C": 250.0, "Fe": 300.0, "Au": 300.0},
    "paper": {"Al": 250.0, "Si": 250.0, "C": 350.0, "Fe": 400.0, "Au": 400.0},
}

# Mesh points per conventional cell edge; n cells in a row take round(points / n). Even meshes do not hold gamma.
# A solute that is listed coarsens the mesh to its own number (carbon asks for a larger cutoff, and moves atoms so far
# that the mesh matters less).
RELAX_KPOINTS = {
    "smoke": {"Al": 2, "Fe": 2},
    "laptop": {"Al": 12, "Fe": 4, "C": 8},
    "paper": {"Al": 12, "Fe": 9},
}
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
# beyond a few percent of volume its moment changes too much for one smooth curve.
EQUATION_OF_STATE = {
    "Al": {"points": 5, "centre": 1.0, "range": 0.02},
    "Fe": {"points": 5, "centre": 0.99, "range": 0.012},
}

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

# fmax: largest force at which a relaxation ends [eV/angstrom]; max_step: longest move of an atom in a step [angstrom].
RELAX = {
    "smoke": {"fmax": 0.05, "steps": 2, "max_step": 0.2, "allow_unconverged": True},
    "laptop": {"fmax": 0.015, "steps": 30, "max_step": 0.2, "allow_unconverged": False},
    "paper": {"fmax": 0.01, "steps": 100, "max_step": 0.2, "allow_unconverged": False},
}

# Curvature of the energy that BFGS starts from [eV/angstrom^2]. Force over displacement is 5 to 7 for a vacancy or Si
# in Al, 13 to 22 for a vacancy or Au in Fe; ASE's default of 70 costs two to five steps more.
CURVATURE = {"Al": 7.0, "Fe": 15.0}

# timestep [fs], friction [1/fs]; `published`: steps per flight; `equilibrated`: steps before and between snapshots.
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

# Ever more patient ways to self-consistency, tried in this order; the last smears otherwise and so changes energies.
RUNGS = (
    {},
    {"maxiter": 333, "mixer": {"name": "pulay", "beta": 0.05, "nmaxold": 8, "weight": 50.0}},
    {
        "maxiter": 500,
        "mixer": {"name": "pulay", "beta": 0.02, "nmaxold": 5, "weight": 100.0},
        "eigensolver": {"name": "davidson", "niter": 3},
    },
    {
        "maxiter": 666,
        "mixer": {"name": "pulay", "beta": 0.01, "nmaxold": 5, "weight": 100.0},
        "eigensolver": {"name": "davidson", "niter": 3},
        "occupations": {"name": "fermi-dirac", "width": 0.2},
    },
)
FIRST_RUNG_THAT_CHANGES_ENERGIES = 3

TASKS = ("lattice", "relax", "aimd")


class NotSelfConsistent(RuntimeError):
    """No rung of the ladder reached self-consistency."""


def settings_for(
    host: str,
    preset: str,
    task: str,
    *,
    elements: Sequence[str] = (),
    supercell: Sequence[int] = (1, 1, 1),
    temperature: float | None = None,
    protocol: str = "published",
    seed: int = 0,
    overrides: dict | None = None,
) -> dict:
    """All physics settings of one job as plain values (JSON can hold them).

    Args:
        host: element of the host crystal ("Al", "Fe").
        preset: "smoke", "laptop" or "paper".
        task: "lattice", "relax" or "aimd".
        elements: all elements in the structure; the host always counts as one of them.
        supercell: conventional cells along a, b, c ("relax" and "aimd").
        temperature: [K], for "aimd".
        protocol: "published" or "equilibrated", for "aimd".
        seed: of velocities and thermostat noise, for "aimd".
        overrides: {"electronic" | "lattice" | "relax" | "aimd": {key: value}}; replaces values of the table. Sections
            of other tasks are accepted and left out.

    Returns:
        {"task", "electronic": {...}, task: {...}}: see docs/first-principles.md for every key.

    Raises:
        ValueError: an unknown host, preset, task, element, key or impossible value, with what is allowed.
    """
    _one_of("preset", preset, CUTOFF)
    _one_of("task", task, TASKS)
    _one_of("first-principles host", host, WIDTH)
    if len(supercell) != 3 or any(int(n) != n or n < 1 for n in supercell):
        raise ValueError(f"supercell {list(supercell)}: needs three whole numbers of cells, each at least 1")
    cutoffs = {}
    for element in {host, *elements}:
        _one_of(f"element in the cutoff table of preset {preset!r}", element, CUTOFF[preset])
        cutoffs[element] = CUTOFF[preset][element]
    electronic = {
        "xc": "PBE",
        "cutoff": max(cutoffs.values()),
        "kpoints": [1, 1, 1],
        "smearing": "marzari-vanderbilt",
        "width": WIDTH[host],
        "moments": dict(MOMENTS[host]),
        "convergence": dict(CONVERGENCE[preset]),
        "max_iterations": 333,
        "point_group": True,
    }
    section: dict = {}
    if task == "lattice":
        electronic["cutoff"] = LATTICE[preset][host]["cutoff"]
        electronic["kpoints"] = [LATTICE[preset][host]["kpoints"]] * 3
        electronic["convergence"] = dict(LATTICE_CONVERGENCE)
        section = {"cell": LATTICE[preset][host]["cell"], **EQUATION_OF_STATE[host]}
    elif task == "relax":
        table = RELAX_KPOINTS[preset]
        electronic["kpoints"] = _mesh(min(table.get(element, table[host]) for element in cutoffs), supercell)
        section = {"curvature": CURVATURE[host], **RELAX[preset]}
    else:
        _one_of("AIMD protocol", protocol, AIMD[preset])
        if temperature is None or not temperature > 0:
            raise ValueError(f"AIMD temperature {temperature}: needs a temperature above 0 K")
        others = [cutoff for element, cutoff in cutoffs.items() if element != "Al"]
        electronic["cutoff"] = max([AIMD_CUTOFF[preset], *others])
        electronic["kpoints"] = _mesh(AIMD_KPOINTS[preset][host], supercell)
        electronic["point_group"] = False
        section = {
            "protocol": protocol,
            "temperature": float(temperature),
            "seed": int(seed),
            **AIMD[preset][protocol],
        }
    settings = {"task": task, "electronic": electronic, task: section}
    _override(settings, overrides or {}, preset)
    return settings


def _override(settings: dict, overrides: dict, preset: str) -> None:
    known = {
        "electronic": set(settings["electronic"]),
        "lattice": {"cell", "points", "centre", "range"},
        "relax": {"curvature", *RELAX[preset]},
        "aimd": {"protocol", "temperature", "seed"}.union(*AIMD[preset].values()),
    }
    for section, values in overrides.items():
        _one_of("section of the first-principles overrides", section, known)
        for key, value in values.items():
            _one_of(f"key of the first-principles overrides in {section!r}", key, known[section])
            if key in settings.get(section, {}):
                settings[section][key] = deepcopy(value)


def _mesh(points_per_cell: int, supercell: Sequence[int]) -> list[int]:
    return [max(1, int(points_per_cell / n + 0.5)) for n in supercell]


def _one_of(what: str, value: str, allowed) -> None:
    if value in allowed:
        return
    near = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {what}: {value!r}; known: {', '.join(sorted(map(str, allowed)))}{hint}")


def calculator(settings: dict, atoms: Atoms, txt: str | Path | IO | None, rung: int = 0) -> Calculator:
    """A GPAW calculator for `settings["electronic"]`, with the changes of one rung of the ladder."""
    from gpaw import GPAW, PW

    electronic = settings["electronic"]
    arguments = {
        "mode": PW(electronic["cutoff"]),
        "xc": electronic["xc"],
        # Monkhorst and Pack: odd edges hold gamma, even edges do not.
        "kpts": {"size": tuple(electronic["kpoints"])},
        "occupations": {"name": electronic["smearing"], "width": electronic["width"]},
        "convergence": electronic["convergence"],
        "maxiter": electronic["max_iterations"],
        "symmetry": "on" if electronic["point_group"] else {"point_group": False},
        "txt": txt,
    }
    return GPAW(**{**arguments, **RUNGS[rung]})


def most_symmetric_point(atoms: Atoms) -> np.ndarray:
    """The point (3,) [angstrom] which most symmetry operations leave where it is; the origin if none does better.

    GPAW looks for operations about the origin only. A carbon atom at a tetrahedral site of a cubic supercell has 24
    about itself and 6 about the corner of the cell: moved to the origin it needs half the k points.
    """
    import spglib

    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    dataset = spglib.get_symmetry_dataset(cell, symprec=1e-4)
    if dataset is None:
        return np.zeros(3)

    def kept(point: np.ndarray) -> int:
        moved = dataset.rotations @ point + dataset.translations - point
        return int((np.abs(moved - np.round(moved)) < 1e-3).all(axis=1).sum())

    point = -np.linalg.solve(dataset.transformation_matrix, dataset.origin_shift)
    return point @ atoms.cell.array if kept(point) > kept(np.zeros(3)) else np.zeros(3)


def _failures() -> tuple[type[Exception], ...]:
    """What a calculator raises when it is not self-consistent; GPAW's error only if something has loaded GPAW."""
    gpaw = sys.modules.get("gpaw")
    return (SCFError, gpaw.KohnShamConvergenceError) if gpaw else (SCFError,)


class Ladder(Calculator):
    """An ASE calculator that climbs the rungs: where the inner calculator does not converge, the next rung takes over.

    `rung` is the one that worked last. It stays for later geometries: what was needed once is needed again.
    With point-group symmetry the inner calculator sees the structure with its most symmetric point at the origin.
    """

    implemented_properties = ("energy", "free_energy", "forces", "magmom", "magmoms")

    def __init__(self, factory: Factory, settings: dict, txt: str | Path | IO | None = None, rung: int = 0) -> None:
        super().__init__()
        self.factory, self.settings, self.txt, self.rung = factory, settings, txt, rung
        self.inner: Calculator | None = None
        self.shift: np.ndarray | None = None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        image = atoms.copy()
        if self.settings["electronic"]["point_group"]:
            if self.shift is None:
                self.shift = -most_symmetric_point(atoms)
            image.positions += self.shift
        moments = self.settings["electronic"]["moments"]
        if moments:
            image.set_initial_magnetic_moments([moments.get(symbol, 0.0) for symbol in image.symbols])
        for rung in self._rungs():
            if self.inner is None or rung != self.rung:
                self.inner = self.factory(self.settings, image, self.txt, rung)
                self.rung = rung
            image.calc = self.inner
            try:
                self.results = {"energy": float(image.get_potential_energy()), "forces": image.get_forces().copy()}
            except _failures() as error:
                log.warning("self-consistency failed on rung %d: %s", rung, " ".join(str(error).split()))
                continue
            self.results["free_energy"] = float(image.get_potential_energy(force_consistent=True))
            if moments:
                self.results["magmom"] = float(image.get_magnetic_moment())
                self.results["magmoms"] = image.get_magnetic_moments().copy()
            if rung >= FIRST_RUNG_THAT_CHANGES_ENERGIES:
                log.warning("rung %d smears with %s: energies are not comparable", rung, RUNGS[rung]["occupations"])
            return
        raise NotSelfConsistent(
            f"{image.get_chemical_formula()}: no self-consistent density on any of the {len(RUNGS)} rungs. Look at the "
            "distances between atoms and the initial moments; then try a larger electronic.width, a denser "
            "electronic.kpoints or a higher electronic.cutoff in the first-principles overrides."
        )

    def _rungs(self) -> Iterator[int]:
        return iter(range(self.rung, len(RUNGS)))

    def remember(self, atoms: Atoms, **results) -> None:
        """Take `results` as already computed for `atoms` (a resumed job does not compute its last geometry again)."""
        self.atoms = atoms.copy()
        self.results = {key: value for key, value in results.items() if value is not None}
