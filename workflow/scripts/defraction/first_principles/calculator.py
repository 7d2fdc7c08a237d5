"""GPAW calculators made from settings, and the ladder that they climb where the density does not converge."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, SCFError, all_changes

log = logging.getLogger(__name__)

Factory = Callable[..., Calculator]  # (settings, atoms, txt, rung) -> an ASE calculator

# Ever more patient ways to self-consistency, tried in this order; the last smears otherwise and so changes energies.
# Iterations and width are the least: `rung_changes` keeps what the settings have more of.
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


class NotSelfConsistent(RuntimeError):
    """No rung of the ladder reached self-consistency."""


def rung_changes(electronic: dict, rung: int) -> dict:
    """What a rung puts in place of the settings, as arguments of GPAW: no fewer iterations and no narrower smearing
    than `electronic` (the section of the settings) asks for anyway."""
    changes = dict(RUNGS[rung])
    if "maxiter" in changes:
        changes["maxiter"] = max(changes["maxiter"], electronic["max_iterations"])
    if "occupations" in changes:
        width = max(changes["occupations"]["width"], electronic["width"])
        changes["occupations"] = {**changes["occupations"], "width": width}
    return changes


def cells_of_one_fit(frames: Sequence[dict], count: int) -> list[dict | None]:
    """The frames that one curve goes through, of `count` cells computed one after the other; None: still to compute.

    The last rung smears otherwise, so one curve through its energies or stresses and those of other rungs would mean
    nothing. Where a cell needs it, those computed before on another rung are computed again, in their order, once all
    have been computed; their frames follow behind the others.

    Args:
        frames: computed so far, in the order of computing, each with its `rung`.
        count: number of cells.
    """
    cells: list[dict | None] = [*frames[:count], *[None] * (count - len(frames))]
    if len(frames) >= count:
        again = [i for i, frame in enumerate(frames[:count]) if frame["rung"] < FIRST_RUNG_THAT_CHANGES_ENERGIES]
        if len(again) < count:
            later = iter(frames[count:])
            for i in again:
                cells[i] = next(later, None)
    return cells


def highest_rung(frames: Sequence[dict]) -> int:
    """The rung on which the next cell begins: what one needed, the next needs too."""
    return max((frame["rung"] for frame in frames), default=0)


def rung_facts(frames: Sequence[dict]) -> dict:
    """What a summary says of the rungs: the highest, and whether its energies are those of the settings."""
    rung = highest_rung(frames)
    return {"rung": rung, "energies_comparable": rung < FIRST_RUNG_THAT_CHANGES_ENERGIES}


def calculator(
    settings: dict,
    atoms: Atoms,
    txt: str | Path | IO | None,
    rung: int = 0,
    *,
    gpu: bool = False,
    communicator=None,
) -> Calculator:
    """A GPAW calculator for `settings["electronic"]`, with the changes of one rung of the ladder.

    Args:
        gpu: compute on a GPU; `ranks.check_build` says whether this build of GPAW can.
        communicator: of the MPI ranks that compute together (`worker`); None: this process alone.

    Raises:
        gpaw.BadParallelization: on computing, if there are more ranks than k points and this GPAW has no ScaLAPACK.
    """
    from gpaw import GPAW, PW, cgpaw

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
    parallel: dict = {"gpu": True} if gpu else {}
    if communicator is not None:
        arguments["communicator"] = communicator
        if not hasattr(cgpaw, "new_blacs_context"):
            # Grids and bands are divided among ranks with ScaLAPACK's routines only; k points and spins without.
            parallel.update(domain=1, band=1)
    if parallel:
        arguments["parallel"] = parallel
    return GPAW(**{**arguments, **rung_changes(electronic, rung)})


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

    implemented_properties = ("energy", "free_energy", "forces", "stress", "magmom", "magmoms")

    def __init__(self, factory: Factory, settings: dict, txt: str | Path | IO | None = None, rung: int = 0) -> None:
        super().__init__()
        self.factory, self.settings, self.txt, self.rung = factory, settings, txt, rung
        self.inner: Calculator | None = None
        self.shift: np.ndarray | None = None  # fractional
        self.cell: np.ndarray | None = None  # of the inner calculator

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        image = atoms.copy()
        if self.settings["electronic"]["point_group"]:
            if self.shift is None:
                self.shift = -np.linalg.solve(atoms.cell.array.T, most_symmetric_point(atoms))
            image.positions += self.shift @ atoms.cell.array
        moments = self.settings["electronic"]["moments"]
        if moments:
            image.set_initial_magnetic_moments([moments.get(symbol, 0.0) for symbol in image.symbols])
        for rung in self._rungs():
            if self.inner is None or rung != self.rung or not np.array_equal(image.cell.array, self.cell):
                self.inner = self.factory(self.settings, image, self.txt, rung)
                self.rung, self.cell = rung, image.cell.array.copy()
            image.calc = self.inner
            try:
                self.results = {"energy": float(image.get_potential_energy()), "forces": image.get_forces().copy()}
            except _failures() as error:
                log.warning("self-consistency failed on rung %d: %s", rung, " ".join(str(error).split()))
                continue
            if "stress" in properties:
                self.results["stress"] = np.array(image.get_stress())
            self.results["free_energy"] = float(image.get_potential_energy(force_consistent=True))
            if moments:
                self.results["magmom"] = float(image.get_magnetic_moment())
                self.results["magmoms"] = image.get_magnetic_moments().copy()
            if rung >= FIRST_RUNG_THAT_CHANGES_ENERGIES:
                smearing = rung_changes(self.settings["electronic"], rung)["occupations"]
                log.warning("rung %d smears with %s: energies are not comparable", rung, smearing)
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
