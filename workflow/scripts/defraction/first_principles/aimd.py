"""Molecular dynamics for thermal disorder, by one of two protocols, resumed exactly after a kill.

`published`: flights of about 20 fs from the perfect lattice. Velocities are drawn from the Maxwell-Boltzmann
distribution at the stated temperature, total momentum removed (and scaled to exactly that temperature where
`exact_temperature` asks for it), then energy is conserved (velocity Verlet, Swope et al. 1982, 10.1063/1.442716).
Displacements grow in proportion to time, hardly depend on the forces, and are far below equilibrium: that is what the
published displacement counts look like.

`equilibrated`: Langevin dynamics (Vanden-Eijnden and Ciccotti 2006, 10.1016/j.cplett.2006.07.086) to equilibrium, then
snapshots; once, or in several flights with an equilibration each. The noise of a step depends on (seed, flight, step)
alone, so a resumed run follows the unbroken one and no two flights share theirs.
"""

import json
import logging
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

from defraction.first_principles.calculator import Factory, Ladder, calculator, rung_facts
from defraction.first_principles.trajectory import Clock, Trajectory, calculator_log, fingerprint

log = logging.getLogger(__name__)

THRESHOLDS = (0.04, 0.08)  # [Å]; the article counts atoms displaced by less at 100 K and at 300 K


def run(
    atoms: Atoms,
    settings: dict,
    calculator_factory: Factory,
    restart_dir: Path,
    txt=None,
    walltime: float | None = None,
) -> tuple[list[Atoms], dict]:
    """Snapshots of a crystal at a temperature.

    Args:
        atoms: the perfect supercell; left as it is.
        settings: of `settings_for(..., task="aimd")`.
        calculator_factory: (settings, atoms, txt, rung) -> ASE calculator.
        restart_dir: folder of the restart state.
        txt: where the calculator writes its log.
        walltime: [s] of this call.

    Returns:
        snapshots (positions with the mean displacement removed, momenta, energy, forces; `info` of `atoms` and flight,
        step, time [fs], temperature [K]) and a summary: displacements of every snapshot, their mean and spread over
        snapshots (standard deviation; null of a single one), flights, times and temperatures of the snapshots, rung,
        energies_comparable, energy_drift [eV per atom, published only], settings.

    Raises:
        NotSelfConsistent: a geometry has no self-consistent density on any rung.
        WallTimeReached: the same call made again goes on.
    """
    section = settings["aimd"]
    equilibrated = section["protocol"] == "equilibrated"
    flights = section.get("flights", 1)
    if equilibrated:
        steps = section["equilibration"] + section["snapshots"] * section["every"]
        times = [steps - i * section["every"] for i in reversed(range(section["snapshots"]))]
    else:
        steps = section["steps"]
        times = [steps]
    wanted = [(flight, step) for flight in range(flights) for step in times]
    trajectory = Trajectory(Path(restart_dir) / "aimd.jsonl", fingerprint(atoms, settings))
    clock = Clock(walltime)
    total = flights * (steps + 1)
    image = atoms.copy()
    ladder = image.calc = Ladder(calculator_factory, settings, txt)
    timestep = section["timestep"] * units.fs
    if equilibrated:
        friction = section["friction"] / units.fs
        integrator = Langevin(
            image, timestep, temperature_K=section["temperature"], friction=friction, fixcm=False, logfile=None
        )
    else:
        integrator = VelocityVerlet(image, timestep, logfile=None)
    if trajectory.frames:
        last = trajectory.frames[-1]
        image.set_positions(last["positions"])
        image.set_momenta(last["momenta"])
        ladder.rung = last["rung"]
        ladder.remember(image, **{key: last[key] for key in ("energy", "forces", "magmom")})

    for index in range(len(trajectory.frames), total):
        clock.check(f"molecular dynamics of {atoms.get_chemical_formula()}")
        flight, step = divmod(index, steps + 1)
        rng = np.random.default_rng([section["seed"], flight, step])
        if step == 0:
            image.set_positions(atoms.positions)
            momenta = thermal_momenta(image, section["temperature"], rng)
            if section.get("exact_temperature"):
                momenta *= np.sqrt(section["temperature"] / temperature(momenta, image))
            image.set_momenta(momenta)
            image.get_forces()
        else:
            integrator.rng = rng
            integrator.step()
        results = ladder.results
        trajectory.append(
            flight=flight,
            step=step,
            positions=image.get_positions(),
            momenta=image.get_momenta(),
            forces=results["forces"],
            energy=results["energy"],
            magmom=results.get("magmom"),
            rung=ladder.rung,
        )
        clock.step_done()
        log.info(
            "%s flight %d of %d, step %d of %d: %.0f K, energy %.5f eV, largest force %.3f eV/Å, largest displacement "
            "%.3f Å, %s",
            atoms.get_chemical_formula(), flight + 1, flights, step, steps, temperature(image.get_momenta(), image),
            results["energy"], np.linalg.norm(results["forces"], axis=1).max(),
            np.linalg.norm(_displacements(image.positions, atoms), axis=1).max(), clock.left(total - index - 1),
        )  # fmt: skip

    snapshots = [
        _snapshot(atoms, trajectory.frames[flight * (steps + 1) + step], section["timestep"]) for flight, step in wanted
    ]
    return snapshots, _summary(atoms, trajectory.frames, snapshots, settings)


def run_file(
    atoms: Atoms,
    settings: dict,
    out_extxyz: Path,
    out_json: Path | None,
    gpaw_txt: Path | None,
    restart_dir: Path,
    calculator_factory: Factory = calculator,
    walltime: float | None = None,
) -> None:
    """File form of `run`: writes the snapshots (extended XYZ), the summary (JSON) and the calculator's log."""
    with calculator_log(restart_dir, gpaw_txt) as txt:
        snapshots, summary = run(atoms, settings, calculator_factory, restart_dir, txt, walltime)
    write(out_extxyz, snapshots, format="extxyz")
    if out_json is not None:
        Path(out_json).write_text(json.dumps(summary, indent=2) + "\n")


def thermal_momenta(atoms: Atoms, kelvin: float, rng: np.random.Generator) -> np.ndarray:
    """Maxwell-Boltzmann momenta (n, 3) [ASE units] at `kelvin`, the velocity of the centre of mass removed."""
    masses = atoms.get_masses()[:, None]
    return _without_total(rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * kelvin), masses)


def temperature(momenta: np.ndarray, atoms: Atoms) -> float:
    """Kinetic temperature [K] of momenta (n, 3) about the centre of mass, which has 3n - 3 degrees of freedom.

    A thermostat moves the centre of mass too; what that adds is no motion of the atoms against each other.
    """
    masses = atoms.get_masses()[:, None]
    kinetic = 0.5 * float((_without_total(momenta, masses) ** 2 / masses).sum())
    return 2 * kinetic / ((3 * len(atoms) - 3) * units.kB)


def displacement_statistics(displacements: np.ndarray) -> dict:
    """Both readings of the article's counts, for displacements (n, 3) [Å]: x components and lengths."""
    x, lengths = np.abs(displacements[:, 0]), np.linalg.norm(displacements, axis=1)
    result: dict = {"atoms": len(lengths)}
    for name, values in (("x", x), ("length", lengths)):
        result[f"{name}_largest"] = float(values.max())
        result[f"{name}_rms"] = float(np.sqrt(np.mean(values**2)))
        for threshold in THRESHOLDS:
            result[f"{name}_below_{threshold}"] = int((values < threshold).sum())
    return result


def _without_total(momenta: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Momenta (n, 3) without the velocity of the centre of mass; `masses` (n, 1)."""
    return momenta - masses * momenta.sum(axis=0) / masses.sum()


def _displacements(positions: np.ndarray, perfect: Atoms) -> np.ndarray:
    displacements = positions - perfect.positions
    return displacements - displacements.mean(axis=0)


def _snapshot(perfect: Atoms, frame: dict, timestep: float) -> Atoms:
    snapshot = perfect.copy()
    snapshot.positions += _displacements(frame["positions"], perfect)
    snapshot.set_momenta(frame["momenta"])
    snapshot.info.update(
        flight=frame["flight"],
        step=frame["step"],
        time=frame["step"] * timestep,
        temperature=temperature(frame["momenta"], perfect),
    )
    snapshot.calc = SinglePointCalculator(snapshot, energy=frame["energy"], forces=frame["forces"])
    return snapshot


def _spread(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _summary(perfect: Atoms, frames: list[dict], snapshots: list[Atoms], settings: dict) -> dict:
    each = [displacement_statistics(_displacements(snapshot.positions, perfect)) for snapshot in snapshots]
    summary = {
        "formula": perfect.get_chemical_formula(),
        "snapshots": each,
        "mean": {key: float(np.mean([row[key] for row in each])) for key in each[0]},
        "spread": {key: _spread([row[key] for row in each]) for key in each[0]},
        "flights": [snapshot.info["flight"] for snapshot in snapshots],
        "temperatures": [snapshot.info["temperature"] for snapshot in snapshots],
        "times": [snapshot.info["time"] for snapshot in snapshots],
        **rung_facts(frames),
        "settings": settings,
    }
    if settings["aimd"]["protocol"] == "published":
        masses = perfect.get_masses()[:, None]
        totals = [frame["energy"] + 0.5 * float((frame["momenta"] ** 2 / masses).sum()) for frame in frames]
        steps = settings["aimd"]["steps"] + 1
        summary["energy_drift"] = max(
            float(np.ptp(totals[i : i + steps])) / len(perfect) for i in range(0, len(totals), steps)
        )
    return summary
