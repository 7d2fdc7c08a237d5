"""Formation energy of a vacancy from two relaxations at the same settings."""

import json
from pathlib import Path

from ase.formula import Formula


def vacancy(defect: dict, perfect: dict) -> float:
    """E(n - v) - (n - v)/n E(n) [eV], per vacancy, of a cell of n sites with v vacancies at constant volume.

    Args:
        defect: summary of the relaxed cell with vacancies (`relax.relax`).
        perfect: summary of the same supercell without them.

    Raises:
        ValueError: the two cells or the settings do not belong together, or an energy is not comparable.
    """
    left, sites = _atoms(defect), _atoms(perfect)
    vacancies = sites - left
    if vacancies < 1:
        raise ValueError(f"{defect['formula']} has no vacancy beside {perfect['formula']}")
    for key, value in perfect["settings"]["electronic"].items():
        if defect["settings"]["electronic"][key] != value:
            raise ValueError(
                f"{defect['formula']} was computed with {key} = {defect['settings']['electronic'][key]}, "
                f"{perfect['formula']} with {value}: the difference of their energies means nothing"
            )
    for summary in (defect, perfect):
        if not summary["energies_comparable"]:
            raise ValueError(f"{summary['formula']}: energies of rung {summary['rung']} are not comparable")
    return (defect["energy"] - left * perfect["energy"] / sites) / vacancies


def _atoms(summary: dict) -> int:
    """Number of atoms; summaries of older versions have it in the formula alone."""
    return summary["atoms"] if "atoms" in summary else len(Formula(summary["formula"]))


def vacancy_file(defect_json: Path, perfect_json: Path, out_json: Path) -> None:
    """File form of `vacancy`, unrelaxed (first geometry) and relaxed."""
    defect, perfect = (json.loads(Path(path).read_text()) for path in (defect_json, perfect_json))
    unrelaxed = {**defect, "energy": defect["history"][0]["energy"]}
    result = {
        "formation_energy": vacancy(defect, perfect),
        "unrelaxed_formation_energy": vacancy(unrelaxed, perfect),
        "formula": defect["formula"],
        "settings": defect["settings"],
    }
    Path(out_json).write_text(json.dumps(result, indent=2) + "\n")
