"""Lattice constant of a host from its equation of state, at the settings its defects are computed with."""

import json
import logging
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk

from defraction.first_principles.calculator import (
    Factory,
    Ladder,
    calculator,
    cells_of_one_fit,
    highest_rung,
    rung_facts,
)
from defraction.first_principles.trajectory import Clock, Trajectory, calculator_log, fingerprint

log = logging.getLogger(__name__)

ATOMS_PER_CONVENTIONAL_CELL = {"fcc": 4, "bcc": 2, "diamond": 8}


def fit(volumes: np.ndarray, energies: np.ndarray) -> tuple[float, float, float, float]:
    """Third-order Birch-Murnaghan fit (Birch 1947, 10.1103/PhysRev.71.809), which is a cubic in V^(-2/3).

    Args:
        volumes: (n,) volumes [Å^3], n >= 4.
        energies: (n,) energies [eV].

    Returns:
        volume of the minimum [Å^3], its energy [eV], bulk modulus [GPa], root mean square residual of the fit [eV].

    Raises:
        ValueError: the curve has no minimum between the smallest and the largest volume.
    """
    x = volumes ** (-2 / 3)
    centre, scale = x.mean(), np.ptp(x)
    curve = np.polynomial.Polynomial.fit(x, energies, 3, domain=[centre - scale, centre + scale])
    roots = curve.deriv().roots()
    roots = roots[np.isreal(roots)].real
    minima = [r for r in roots if curve.deriv(2)(r) > 0 and x.min() <= r <= x.max()]
    if len(minima) != 1:
        raise ValueError(
            f"equation of state: no minimum between {volumes.min():.3f} and {volumes.max():.3f} Å^3 (energies "
            f"{np.array2string(np.asarray(energies), precision=4)} eV); start from a better lattice constant in the "
            "table of hosts or widen lattice.range in the first-principles overrides"
        )
    best = minima[0]
    volume = best**-1.5
    bulk_modulus = 4 / 9 * curve.deriv(2)(best) * best**2 / volume / units.GPa
    residual = float(np.sqrt(np.mean((curve(x) - energies) ** 2)))
    return float(volume), float(curve(best)), float(bulk_modulus), residual


def equation_of_state(
    host,
    settings: dict,
    restart_dir: Path,
    txt=None,
    calculator_factory: Factory = calculator,
    walltime: float | None = None,
) -> dict:
    """Lattice constant and bulk modulus of a host.

    Args:
        host: has `name`, `crystal_structure` ("fcc", "bcc" or "diamond") and `lattice_parameter` [Å], around which
            volumes are taken; an object with these attributes or a dict with these keys.
        settings: of `settings_for(..., task="lattice")`.
        restart_dir: folder of the restart state.
        txt: where the calculator writes its log.
        walltime: [s] of this call.

    Returns:
        lattice_parameter [Å], bulk_modulus [GPa], energy_per_atom [eV], magnetic_moment_per_atom [muB], volumes
        [Å^3 per atom], energies [eV per atom], fit_residual [eV per atom], rung, energies_comparable, settings. A
        volume begins on the rung that the one before needed; if that becomes the last rung, all are computed on it.

    Raises:
        ValueError: no minimum among the volumes, or another crystal structure.
        NotSelfConsistent: a volume has no self-consistent density on any rung.
        WallTimeReached: the same call made again goes on.
    """
    host = host if isinstance(host, dict) else vars(host)
    structure, start = host["crystal_structure"], float(host["lattice_parameter"])
    if structure not in ATOMS_PER_CONVENTIONAL_CELL:
        raise ValueError(
            f"host {host['name']}: crystal structure {structure!r} is none of {', '.join(ATOMS_PER_CONVENTIONAL_CELL)}"
        )
    section = settings["lattice"]
    images = [
        bulk(
            host["name"], structure, a=start * section["centre"] * (1 + change), cubic=section["cell"] == "conventional"
        )
        for change in np.linspace(-section["range"], section["range"], section["points"])
    ]
    trajectory = Trajectory(Path(restart_dir) / "volumes.jsonl", fingerprint(images[0], settings))
    clock = Clock(walltime)
    while None in (frames := cells_of_one_fit(trajectory.frames, len(images))):
        clock.check(f"equation of state of {host['name']}")
        number = frames.index(None)
        image = images[number]
        n = len(image)
        image.calc = Ladder(calculator_factory, settings, txt, highest_rung(trajectory.frames))
        energy = image.get_potential_energy()
        trajectory.append(
            volume=image.get_volume() / n,
            energy=energy / n,
            moment=image.calc.results.get("magmom", 0.0) / n,
            rung=image.calc.rung,
        )
        clock.step_done()
        log.info(
            "%s volume %d of %d: %.4f Å^3 and %.5f eV per atom, %s",
            host["name"], number + 1, len(images), image.get_volume() / n, energy / n,
            clock.left(frames.count(None) - 1),
        )  # fmt: skip
    volumes, energies, moments = (np.array([f[key] for f in frames]) for key in ("volume", "energy", "moment"))
    volume, energy, bulk_modulus, residual = fit(volumes, energies)
    return {
        "lattice_parameter": float((volume * ATOMS_PER_CONVENTIONAL_CELL[structure]) ** (1 / 3)),
        "bulk_modulus": bulk_modulus,
        "energy_per_atom": energy,
        "magnetic_moment_per_atom": float(np.interp(volume, volumes, moments)),
        "volumes": volumes.tolist(),
        "energies": energies.tolist(),
        "fit_residual": residual,
        **rung_facts(frames),
        "settings": settings,
    }


def compute(
    host,
    settings: dict,
    out_json: Path,
    log_txt: Path | None,
    restart_dir: Path,
    calculator_factory: Factory = calculator,
    walltime: float | None = None,
) -> None:
    """File form of `equation_of_state`: writes the result as JSON and the calculator's log of all volumes."""
    with calculator_log(restart_dir, log_txt) as txt:
        result = equation_of_state(host, settings, restart_dir, txt, calculator_factory, walltime)
    Path(out_json).write_text(json.dumps(result, indent=2) + "\n")
    log.info(
        "%s: a = %.4f Å, B = %.0f GPa, moment %.2f muB per atom",
        host["name"] if isinstance(host, dict) else host.name,
        result["lattice_parameter"], result["bulk_modulus"], result["magnetic_moment_per_atom"],
    )  # fmt: skip
