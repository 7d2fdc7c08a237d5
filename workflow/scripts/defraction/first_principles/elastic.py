"""Elastic constants of a cubic host: stresses of strained cells, at the lattice constant of the same functional.

Two strains give all three constants of a cubic crystal (Nye, Physical Properties of Crystals, 1957): a stretch along x,
sigma_xx = C11 e, sigma_yy = sigma_zz = C12 e, and a shear, sigma_yz = C44 gamma. Strains of +-e/2 and +-e fit a
parabola to each normal stress, whose slope at zero is free of the stress that is left at zero strain (a cutoff at
constant energy leaves some: Pulay) and of the third-order constants. The shear stress is odd in gamma by symmetry, so
gamma/2 and gamma do. Cells with inner freedom (diamond) are relaxed in it.
"""

import json
import logging
import math
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.optimize import BFGS

from defraction.first_principles.calculator import (
    Factory,
    Ladder,
    calculator,
    cells_of_one_fit,
    highest_rung,
    rung_facts,
)
from defraction.first_principles.tables import AL, ELASTIC_LEAST
from defraction.first_principles.trajectory import Clock, Trajectory, calculator_log, fingerprint

log = logging.getLogger(__name__)

MOST_STEPS = 50  # of the inner relaxation of a strained cell


def strains(largest: float) -> list[tuple[str, float]]:
    """The strained cells: kind ("stretch" or "shear") and amplitude (shear: engineering strain, 2 epsilon_yz)."""
    stretches = [("stretch", factor * largest) for factor in (-1.0, -0.5, 0.5, 1.0)]
    return [*stretches, *(("shear", factor * largest) for factor in (0.5, 1.0))]


def strained(crystal: Atoms, kind: str, amplitude: float) -> Atoms:
    """A copy of `crystal` under x' = (1 + epsilon) x."""
    epsilon = np.zeros((3, 3))
    if kind == "stretch":
        epsilon[0, 0] = amplitude
    else:
        epsilon[1, 2] = epsilon[2, 1] = amplitude / 2
    out = crystal.copy()
    out.set_cell(crystal.cell.array @ (np.eye(3) + epsilon), scale_atoms=True)
    return out


def fit(amplitudes: dict[str, np.ndarray], stresses: dict[str, np.ndarray]) -> dict:
    """Elastic constants from stresses.

    Args:
        amplitudes: of the stretches (n >= 4) and of the shears (2, the second twice the first).
        stresses: of the same cells, (n, 6) and (2, 6), Voigt order, tension positive [GPa].

    Returns:
        c11, c12, c44 [GPa]; residual_stress (the pressure at zero strain, negative) [GPa]; fit_residual: root mean
        square misfit of the parabolas, and how far the two shears' moduli lie apart [GPa].
    """
    e, normal = amplitudes["stretch"], stresses["stretch"]
    columns = np.stack([normal[:, 0], (normal[:, 1] + normal[:, 2]) / 2], axis=1)
    powers = np.stack([np.ones_like(e), e, e**2], axis=1)
    coefficients = np.linalg.lstsq(powers, columns, rcond=None)[0]
    misfit = powers @ coefficients - columns
    half, whole = stresses["shear"][:, 3] / amplitudes["shear"]
    return {
        "c11": float(coefficients[1, 0]),
        "c12": float(coefficients[1, 1]),
        "c44": float((4 * half - whole) / 3),
        "residual_stress": float((coefficients[0, 0] + 2 * coefficients[0, 1]) / 3),
        "fit_residual": {"stretch": float(np.sqrt(np.mean(misfit**2))), "shear": float(abs(whole - half))},
    }


def doubts(host: dict, crystal: Atoms, settings: dict) -> list[str]:
    """Why elastic constants at these settings mean nothing: sentences, none if nothing is known against them.

    Meshes are compared by their density, as points per edge of the primitive cell of Al (`tables.ELASTIC_LEAST`).

    Args:
        host: has `name` and `crystal_structure`.
        crystal: its cell, without strain.
        settings: of `settings_for(..., task="elastic")`.
    """
    electronic = settings["electronic"]
    points = (math.prod(electronic["kpoints"]) * crystal.get_volume() / (AL**3 / 4)) ** (1 / 3)
    mesh = " x ".join(map(str, electronic["kpoints"]))
    if electronic["moments"] or host["crystal_structure"] == "diamond":
        found, least, what = points, ELASTIC_LEAST["Fe"], "points"
    else:
        found, least, what = points * electronic["width"], ELASTIC_LEAST["Al"], "eV of points times width"
    if found >= least:
        return []
    return [
        f"{host['name']}: elastic constants of a mesh of {mesh} points and a smearing of {electronic['width']:g} eV "
        f"mean nothing, C44 least of all: per edge of the primitive cell of Al these are {found:.1f} {what}, and "
        f"{least:g} are the least. Take the preset laptop or paper, or more of elastic.kpoints or elastic.width."
    ]


def elastic_constants(
    host: dict,
    lattice_parameter: float,
    settings: dict,
    restart_dir: Path,
    txt=None,
    calculator_factory: Factory = calculator,
    walltime: float | None = None,
) -> dict:
    """C11, C12 and C44 of a cubic host.

    Args:
        host: has `name` and `crystal_structure` (a dict with these keys).
        lattice_parameter: of the same functional [Å], around which cells are strained.
        settings: of `settings_for(..., task="elastic")`.
        restart_dir: folder of the restart state.
        txt: where the calculator writes its log.
        walltime: [s] of this call.

    Returns:
        c11, c12, c44, bulk_modulus [GPa], zener (anisotropy 2 C44 / (C11 - C12)), residual_stress and fit_residual of
        `fit`, lattice_parameter, strains and stresses [GPa] of every cell, rung, energies_comparable, warnings (of
        `doubts`), settings. A cell begins on the rung that the one before needed; if that becomes the last rung, all
        are computed on it.

    Raises:
        ValueError: what was found is no stable cubic crystal.
        NotSelfConsistent: a cell has no self-consistent density on any rung.
        WallTimeReached: the same call made again goes on.
    """
    section = settings["elastic"]
    crystal = bulk(
        host["name"], host["crystal_structure"], a=lattice_parameter, cubic=section["cell"] == "conventional"
    )
    cells = strains(section["strain"])
    warnings = doubts(host, crystal, settings)
    for warning in warnings:
        log.warning("%s", warning)
    trajectory = Trajectory(Path(restart_dir) / "strains.jsonl", fingerprint(crystal, settings))
    clock = Clock(walltime)
    while None in (frames := cells_of_one_fit(trajectory.frames, len(cells))):
        clock.check(f"elastic constants of {host['name']}")
        number = frames.index(None)
        kind, amplitude = cells[number]
        image = strained(crystal, kind, amplitude)
        image.calc = Ladder(calculator_factory, settings, txt, highest_rung(trajectory.frames))
        if len(image) > 1 and not BFGS(image, logfile=None, alpha=section["curvature"]).run(
            section["fmax"], MOST_STEPS
        ):
            raise ValueError(
                f"{host['name']} under a {kind} of {amplitude:g}: forces above {section['fmax']:g} eV/Å after "
                f"{MOST_STEPS} steps; raise elastic.fmax in the first-principles overrides"
            )
        stress = image.get_stress() / units.GPa
        trajectory.append(kind=kind, amplitude=amplitude, stress=stress, rung=image.calc.rung)
        clock.step_done()
        log.info(
            "%s %s %d of %d: %+.4f, stress %s GPa, %s",
            host["name"], kind, number + 1, len(cells), amplitude, np.array2string(stress, precision=3),
            clock.left(frames.count(None) - 1),
        )  # fmt: skip
    amplitudes, stresses = {}, {}
    for kind in ("stretch", "shear"):
        alike = [frame for frame in frames if frame["kind"] == kind]
        amplitudes[kind] = np.array([frame["amplitude"] for frame in alike])
        stresses[kind] = np.array([frame["stress"] for frame in alike])
    result = fit(amplitudes, stresses)
    if not (result["c44"] > 0 and result["c11"] > abs(result["c12"])):
        raise ValueError(
            f"{host['name']}: C11 {result['c11']:.1f}, C12 {result['c12']:.1f}, C44 {result['c44']:.1f} GPa are those "
            "of no stable crystal; take a denser electronic.kpoints in the first-principles overrides"
        )
    return {
        **result,
        "bulk_modulus": (result["c11"] + 2 * result["c12"]) / 3,
        "zener": 2 * result["c44"] / (result["c11"] - result["c12"]),
        "lattice_parameter": lattice_parameter,
        "strains": {kind: values.tolist() for kind, values in amplitudes.items()},
        "stresses": {kind: values.tolist() for kind, values in stresses.items()},
        **rung_facts(frames),
        "warnings": warnings,
        "settings": settings,
    }


def compute(
    host: dict,
    lattice_json: Path,
    settings: dict,
    out_json: Path,
    log_txt: Path | None,
    restart_dir: Path,
    calculator_factory: Factory = calculator,
    walltime: float | None = None,
) -> None:
    """File form of `elastic_constants`, at the lattice constant in `lattice_json` (written by `lattice`)."""
    lattice_parameter = json.loads(Path(lattice_json).read_text())["lattice_parameter"]
    with calculator_log(restart_dir, log_txt) as txt:
        result = elastic_constants(host, lattice_parameter, settings, restart_dir, txt, calculator_factory, walltime)
    Path(out_json).write_text(json.dumps(result, indent=2) + "\n")
    log.info("%s: C11 = %.1f, C12 = %.1f, C44 = %.1f GPa", host["name"], *(result[c] for c in ("c11", "c12", "c44")))
