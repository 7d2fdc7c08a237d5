"""Relaxation of atoms in a fixed cell, or with the cell, resumed exactly where a killed process left it.

BFGS builds its picture of the energy surface from the geometries it has seen. Here that picture is rebuilt from the
trajectory, so a resumed relaxation takes the very steps of an unbroken one (up to the self-consistency noise of a
calculator that starts from another guess) and no geometry is computed twice.
"""

import json
import logging
import math
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.io import write
from ase.optimize import BFGS

from defraction.first_principles.calculator import Factory, Ladder, calculator, rung_facts
from defraction.first_principles.trajectory import Clock, Trajectory, calculator_log, fingerprint

log = logging.getLogger(__name__)


class NotRelaxed(RuntimeError):
    """The steps were used up before the forces were small enough."""


def relax(
    atoms: Atoms,
    settings: dict,
    calculator_factory: Factory,
    restart_dir: Path,
    txt=None,
    walltime: float | None = None,
) -> tuple[Atoms, dict]:
    """Relax the positions until the largest force on an atom is at most `settings["relax"]["fmax"]`.

    With `settings["relax"]["cell"]` "relaxed", lengths and angles of the cell too, all together (ASE's
    `FrechetCellFilter`), until the virial per atom is at most `fmax` [eV] as well: 0.1 GPa for aluminium and 0.01 eV.

    Args:
        atoms: starting structure; left as it is.
        settings: of `settings_for(..., task="relax")`.
        calculator_factory: (settings, atoms, txt, rung) -> ASE calculator.
        restart_dir: folder of the restart state; a relaxation found there is resumed if structure and settings are the
            same.
        txt: where the calculator writes its log.
        walltime: [s] of this call.

    Returns:
        relaxed atoms (positions, energy, forces, magnetic moments where the host has any; `info` kept) and a summary:
        converged, steps, largest_force [eV/Å], energy [eV], magnetic_moment [muB], rung, energies_comparable, history
        (energy and largest force of every geometry), displacements (from the start, mean removed) and settings; of a
        relaxed cell also its lengths [Å], angles [degrees] and the largest component of the stress left [GPa], and
        displacements are those from the start deformed with the cell.

    Raises:
        NotRelaxed: not converged within `steps`, unless `allow_unconverged`.
        NotSelfConsistent: a geometry has no self-consistent density on any rung.
        WallTimeReached: the same call made again goes on.
    """
    section = settings["relax"]
    name = atoms.get_chemical_formula()
    trajectory = Trajectory(Path(restart_dir) / "relax.jsonl", fingerprint(atoms, settings))
    clock = Clock(walltime)
    image = atoms.copy()
    ladder = image.calc = Ladder(calculator_factory, settings, txt)
    with_cell = section.get("cell") == "relaxed"
    moved = FrechetCellFilter(image) if with_cell else image
    x, f = ("coordinates", "generalised_forces") if with_cell else ("positions", "forces")
    optimiser = BFGS(moved, logfile=None, maxstep=section["max_step"], alpha=section["curvature"])
    for earlier in trajectory.frames[:-1]:
        optimiser.prepare_step(earlier[x], -earlier[f])
    if trajectory.frames:
        last = trajectory.frames[-1]
        moved.set_positions(last[x])
        ladder.rung = last["rung"]
        ladder.remember(image, **{key: last.get(key) for key in ("energy", "forces", "stress", "magmom", "magmoms")})

    step = max(len(trajectory.frames) - 1, 0)
    while True:
        if step == len(trajectory.frames):
            clock.check(f"relaxation of {name}")
            extra = {}
            if with_cell:
                extra = {"stress": image.get_stress(), x: moved.get_positions(), f: moved.get_forces()}
            image.get_forces()
            _store(trajectory, image, extra)
            clock.step_done()
        history = [float(np.linalg.norm(frame[f], axis=1).max()) for frame in trajectory.frames]
        converged = history[-1] <= section["fmax"]
        log.info(
            "%s step %d: energy %.5f eV, largest force %.4f eV/Å (to reach: %g), %s",
            name, step, trajectory.frames[-1]["energy"], history[-1], section["fmax"],
            "done" if converged else _left(clock, history, section["fmax"], section["steps"] - step),
        )  # fmt: skip
        if converged or step >= section["steps"]:
            break
        optimiser.step()
        step += 1

    summary = _summary(atoms, image, trajectory, history, converged, settings)
    if not converged:
        message = (
            f"{name}: largest force {history[-1]:.4f} eV/Å after {step} steps, above fmax = {section['fmax']:g}. Raise "
            "relax.steps or relax.fmax, or set relax.allow_unconverged, in the first-principles overrides."
        )
        if not section["allow_unconverged"]:
            raise NotRelaxed(message)
        log.warning("%s Kept because allow_unconverged is set.", message)
    return _result(image, trajectory.frames[-1]), summary


def relax_file(
    atoms: Atoms,
    settings: dict,
    out_extxyz: Path,
    out_json: Path | None,
    gpaw_txt: Path | None,
    restart_dir: Path,
    calculator_factory: Factory = calculator,
    walltime: float | None = None,
) -> None:
    """File form of `relax`: writes the relaxed structure (extended XYZ), summary (JSON) and calculator's log."""
    with calculator_log(restart_dir, gpaw_txt) as txt:
        relaxed, summary = relax(atoms, settings, calculator_factory, restart_dir, txt, walltime)
    write(out_extxyz, relaxed, format="extxyz")
    if out_json is not None:
        Path(out_json).write_text(json.dumps(summary, indent=2) + "\n")


def displacement_groups(displacements: np.ndarray) -> list[dict]:
    """Lengths of displacements (n, 3) [Å] in groups that agree to 0.001 Å, longest first: [{"length", "atoms"}]."""
    lengths = np.sort(np.linalg.norm(displacements, axis=1))[::-1]
    groups = np.split(lengths, np.flatnonzero(-np.diff(lengths) > 1e-3) + 1)
    return [{"length": float(group.mean()), "atoms": len(group)} for group in groups]


def _store(trajectory: Trajectory, image: Atoms, extra: dict) -> None:
    results = image.calc.results
    trajectory.append(
        **extra,
        positions=image.get_positions(),
        forces=results["forces"],
        energy=results["energy"],
        magmom=results.get("magmom"),
        magmoms=results.get("magmoms"),
        rung=image.calc.rung,
    )


def _left(clock: Clock, history: list[float], fmax: float, most: int) -> str:
    """Words for the time until `fmax` if forces go on falling as they have on the whole; as long as they have not
    fallen, for the time of all `most` steps that are allowed."""
    if len(history) < 2 or history[-1] >= history[0]:
        return f"at most {most} steps, {clock.left(most, 'at most')}"
    rate = math.log(history[0] / history[-1]) / (len(history) - 1)
    return clock.left(min(most, max(1, math.ceil(math.log(history[-1] / fmax) / rate))))


def _result(image: Atoms, frame: dict) -> Atoms:
    relaxed = image.copy()
    results = {key: frame[key] for key in ("energy", "forces", "magmom", "magmoms") if frame[key] is not None}
    relaxed.calc = SinglePointCalculator(relaxed, **results)
    return relaxed


def _summary(
    start: Atoms, image: Atoms, trajectory: Trajectory, history: list[float], converged: bool, settings: dict
) -> dict:
    with_cell = settings["relax"].get("cell") == "relaxed"
    sites = start.get_scaled_positions(wrap=False) @ image.cell.array if with_cell else start.positions
    displacements = image.positions - sites
    displacements -= displacements.mean(axis=0)
    last = trajectory.frames[-1]
    largest_force = float(np.linalg.norm(last["forces"], axis=1).max())
    return {
        "formula": image.get_chemical_formula(),
        "atoms": len(image),
        "converged": converged,
        "steps": len(history) - 1,
        "largest_force": largest_force,
        "energy": last["energy"],
        "magnetic_moment": last["magmom"],
        **rung_facts(trajectory.frames),
        "history": [
            {"energy": frame["energy"], "largest_force": force}
            for frame, force in zip(trajectory.frames, history, strict=True)
        ],
        "displacements": {
            "largest": float(np.linalg.norm(displacements, axis=1).max()),
            "groups": displacement_groups(displacements),
        },
        **({"cell": _cell(image, last["stress"])} if with_cell else {}),
        "settings": settings,
    }


def _cell(image: Atoms, stress: np.ndarray) -> dict:
    return {
        "lengths": image.cell.lengths().tolist(),
        "angles": image.cell.angles().tolist(),
        "largest_stress": float(np.abs(stress).max() / units.GPa),
    }
