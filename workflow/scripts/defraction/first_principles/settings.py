"""Settings of the first-principles jobs (GPAW, plane waves, PBE) as plain values.

All settings that change a number come from `tables`; `settings_for` picks one row. What the tables do not hold, other
hosts and other elements, follows from the rules here and in `datasets`. What only changes how long a job takes (wall
time, MPI ranks, GPU, paths) is passed to the functions that run jobs, never kept in here.
"""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy

from defraction.first_principles.tables import (
    AIMD,
    AIMD_CUTOFF,
    AIMD_KPOINTS,
    AL,
    CONVERGENCE,
    CURVATURE,
    CURVATURE_FACTOR,
    CUTOFF,
    ELASTIC,
    ELASTIC_CONVERGENCE,
    ELASTIC_KPOINTS,
    ELASTIC_WIDTH,
    EQUATION_OF_STATE,
    FE,
    GPA,
    LATTICE,
    LATTICE_CONVERGENCE,
    MOMENTS,
    OTHER_EQUATION_OF_STATE,
    PRESETS,
    PRIMITIVE_EDGE,
    RELAX,
    RELAX_KPOINTS,
    SOLUTE_KPOINTS,
    STEPS_PER_PERIOD,
    TASKS,
    WIDTH,
    check_overrides,
    one_of,
)


def settings_for(
    host: str | Mapping,
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
        host: element of the host crystal, if it is in the tables ("Al", "Fe"); any other host as the row of
            resources/hosts.csv, with `name`, `crystal_structure`, `lattice_parameter` [angstrom], `c11` and `c44` [GPa]
            and `magnetic_moment` [muB per atom], from which what the tables lack follows.
        preset: "smoke", "laptop" or "paper".
        task: "lattice", "relax", "aimd" or "elastic".
        elements: all elements in the structure; the host always counts as one of them.
        supercell: conventional cells along a, b, c ("relax" and "aimd").
        temperature: [K], for "aimd".
        protocol: "published" or "equilibrated", for "aimd".
        seed: of velocities and thermostat noise, for "aimd".
        overrides: {"electronic" or a task: {key: value}}; replaces values of the tables. A key of "electronic" may also
            stand in the section of a task and then holds for that task alone. Sections of other tasks are left out.

    Returns:
        {"task", "electronic": {...}, task: {...}}: see docs/first-principles.md for every key.

    Raises:
        ValueError: an unknown host, preset, task, element, key or impossible value, with what is allowed.
    """
    one_of("preset", preset, PRESETS)
    one_of("task", task, TASKS)
    row = dict(host) if isinstance(host, Mapping) else {"name": host}
    name = row["name"]
    if name not in WIDTH and len(row) == 1:
        one_of("first-principles host", name, WIDTH, "; any other host needs its row of resources/hosts.csv")
    if len(supercell) != 3 or any(int(n) != n or n < 1 for n in supercell):
        raise ValueError(f"supercell {list(supercell)}: needs three whole numbers of cells, each at least 1")
    check_overrides(overrides or {})
    cutoffs = {element: _cutoff(element, preset) for element in {name, *elements}}
    moments = dict(MOMENTS[name]) if name in MOMENTS else _moments(row)
    electronic = {
        "xc": "PBE",
        "cutoff": max(cutoffs.values()),
        "kpoints": [1, 1, 1],
        "smearing": "marzari-vanderbilt",
        "width": WIDTH[name] if name in WIDTH else 0.1 if _class(row) == "Fe" else 0.2,
        "moments": moments,
        "convergence": dict(CONVERGENCE[preset]),
        "max_iterations": 333,
        "point_group": True,
    }
    section: dict = {}
    if task in ("lattice", "elastic"):
        lattice = LATTICE[preset].get(name) or {
            "cutoff": electronic["cutoff"],
            "kpoints": _primitive_points(row, LATTICE[preset]["Al"]["kpoints"]),
            "cell": "primitive",
        }
        electronic["cutoff"] = lattice["cutoff"]
    if task == "lattice":
        electronic["kpoints"] = [lattice["kpoints"]] * 3
        electronic["convergence"] = dict(LATTICE_CONVERGENCE)
        section = {"cell": lattice["cell"], **EQUATION_OF_STATE.get(name, OTHER_EQUATION_OF_STATE)}
    elif task == "elastic":
        points = ELASTIC_KPOINTS[preset][_class(row)]
        electronic["kpoints"] = [points if name == "Al" else _primitive_points(row, points)] * 3
        if _class(row) == "Al":
            electronic["width"] = ELASTIC_WIDTH
        electronic["convergence"] = dict(ELASTIC_CONVERGENCE)
        section = {**ELASTIC[preset], "curvature": _curvature(row)}
    elif task == "relax":
        solutes = (SOLUTE_KPOINTS[preset][e] for e in cutoffs if e != name and e in SOLUTE_KPOINTS[preset])
        electronic["kpoints"] = _mesh(min([_edge_points(row, RELAX_KPOINTS[preset]), *solutes]), supercell)
        section = {"curvature": _curvature(row), **RELAX[preset]}
    else:
        one_of("AIMD protocol", protocol, AIMD[preset])
        if temperature is None or not temperature > 0:
            raise ValueError(f"AIMD temperature {temperature}: needs a temperature above 0 K")
        others = [cutoff for element, cutoff in cutoffs.items() if element != "Al"]
        electronic["cutoff"] = max([AIMD_CUTOFF[preset], *others])
        electronic["kpoints"] = _mesh(_edge_points(row, AIMD_KPOINTS[preset]), supercell)
        electronic["point_group"] = False
        section = {
            "protocol": protocol,
            "temperature": float(temperature),
            "seed": int(seed),
            **_in_time(AIMD[preset][protocol], row),
        }
    settings = {"task": task, "electronic": electronic, task: section}
    _override(settings, overrides or {})
    return settings


def _override(settings: dict, overrides: Mapping) -> None:
    task = settings["task"]
    for section in ("electronic", task):
        for key, value in overrides.get(section, {}).items():
            target = settings[section] if key in settings[section] else settings["electronic"]
            if key == "convergence":
                target[key] = {**target[key], **value}
            elif (task, key) == ("relax", "cell"):
                if value == "relaxed":  # what is fixed is not named: such settings are those of older results
                    settings["relax"]["cell"] = value
            elif (task, key) == ("aimd", "flights") and settings["aimd"]["protocol"] == "equilibrated":
                if value > 1:  # one is not named either
                    settings["aimd"]["flights"] = value
            elif key in target:  # else a key of the other protocol
                target[key] = deepcopy(list(value) if key == "kpoints" else value)


def _cutoff(element: str, preset: str) -> float:
    if element in CUTOFF[preset]:
        return CUTOFF[preset][element]
    from defraction.first_principles.datasets import cutoff

    return cutoff(element, preset)


def _moments(row: Mapping) -> dict[str, float]:
    moment = float(row["magnetic_moment"])
    return {row["name"]: moment} if moment else {}


def _class(row: Mapping) -> str:
    """The host of the tables that `row` is alike: Al, of metals without moments; Fe, of magnetic ones, and of
    semiconductors, which smear as little."""
    if row["name"] in WIDTH:
        return row["name"]
    return "Fe" if _moments(row) or row["crystal_structure"] == "diamond" else "Al"


def _curvature(row: Mapping) -> float:
    if row["name"] in CURVATURE:
        return CURVATURE[row["name"]]
    return round(CURVATURE_FACTOR * (row["c11"] + 2 * row["c44"]) * GPA * row["lattice_parameter"], 1)


def _edge_points(row: Mapping, table: Mapping[str, int]) -> int:
    """Mesh points along the edge of the conventional cell."""
    if row["name"] in WIDTH:
        return table[row["name"]]
    length = table["Fe"] * FE if _moments(row) else table["Al"] * AL
    if row["crystal_structure"] == "diamond":
        length /= 2
    return max(2, round(length / row["lattice_parameter"]))


def _primitive_points(row: Mapping, points_of_al: int) -> int:
    """Mesh points along the edge of the primitive cell, odd: a shifted mesh breaks the symmetry of a slanted cell."""
    edge = PRIMITIVE_EDGE[row.get("crystal_structure", "bcc")] * row.get("lattice_parameter", FE)
    length = points_of_al * PRIMITIVE_EDGE["fcc"] * AL
    return max(3, 2 * round((length / edge - 1) / 2) + 1)


def _in_time(section: Mapping, row: Mapping) -> dict:
    """The section of the table, in finer steps of the same times where a host's atoms move too fast for its step."""
    section = dict(section)
    if row["name"] not in WIDTH:
        from ase.data import atomic_masses, atomic_numbers

        mass, curvature = atomic_masses[atomic_numbers[row["name"]]], _curvature(row)
        period = 2 * math.pi * math.sqrt(mass / curvature) * 10.180505  # sqrt(u angstrom^2 / eV) in fs
        finer = math.ceil(section["timestep"] * STEPS_PER_PERIOD / period)
        section["timestep"] /= finer
        for key in {"steps", "equilibration", "every"} & set(section):
            section[key] *= finer
    return section


def _mesh(points_per_cell: int, supercell: Sequence[int]) -> list[int]:
    return [max(1, int(points_per_cell / n + 0.5)) for n in supercell]
