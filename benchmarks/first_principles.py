"""The first-principles numbers of docs/validation.md: each row of each table is one computation of this script.

    python benchmarks/first_principles.py lattice --host Al --mesh 11 13 17 21 25
    python benchmarks/first_principles.py shear --mesh 25 29 33 37 --width 0.2 0.4
    python benchmarks/first_principles.py elastic --cutoff 200 --mesh 33 --width 0.4
    python benchmarks/first_principles.py vacancy --host Al --supercell 2 --mesh 4 6 8
    python benchmarks/first_principles.py library
    python benchmarks/first_principles.py motion --protocol published --supercell 2 --temperature 300 --seeds 3
    python benchmarks/first_principles.py forces --entry al-thermal-equilibrated-300K-2x2x2 --mesh 1 3
    python benchmarks/first_principles.py resumed --preset smoke --supercell 1 --temperature 300 --seeds 3
    python benchmarks/first_principles.py hosts --preset smoke --names Si Cu W Ni
    python benchmarks/first_principles.py tables        (writes what was found into docs/validation.md)

Cells have the lattice constant of the preset `paper` (resources/structures/lattice) or that of --lattice-parameter.
Rows go to resources/validation/NAME.json as they are found, with their settings and the CPU time they took; what stands
there is not computed again, and a killed run goes on from its restart state. One core, one thread.
"""

import argparse
import hashlib
import json
import logging
import math
import multiprocessing
import os
import re
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow/scripts"))
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402
from ase.data import atomic_masses  # noqa: E402
from ase.io import read  # noqa: E402

from defraction.first_principles import aimd, elastic, formation, lattice, relax  # noqa: E402
from defraction.first_principles.calculator import Ladder, calculator  # noqa: E402
from defraction.first_principles.debye import rms_component  # noqa: E402
from defraction.first_principles.library import Entry, Library  # noqa: E402
from defraction.first_principles.settings import settings_for  # noqa: E402
from defraction.hosts import read_hosts, unit_cell  # noqa: E402
from defraction.published import read_displacements  # noqa: E402
from defraction.site_displacements import shells, sites_of  # noqa: E402

RESULTS = ROOT / "resources/validation"
LIBRARY = ROOT / "resources/structures"
STATE = ROOT / "results/.restart/validation"
GIGAPASCAL = 160.21766208  # in eV/Å^3
NOT_YET = "not computed yet"


def cpu_time() -> float:
    """[s] of this process and of those that it has started and that have ended."""
    return sum(os.times()[:4])


class Table:
    """Rows of one JSON file, each computed once."""

    def __init__(self, name: str) -> None:
        self.name, self.path = name, RESULTS / f"{name}.json"
        self.rows = json.loads(self.path.read_text())["rows"] if self.path.exists() else []

    def row(self, key: dict, settings: dict, compute) -> dict:
        """The row with `key`, by `compute(restart_dir, log)` if it is not there."""
        for row in self.rows:
            if row["key"] == key:
                return row
        digest = hashlib.sha256(json.dumps([self.name, key, settings], sort_keys=True).encode()).hexdigest()[:16]
        folder = STATE / self.name / digest
        folder.mkdir(parents=True, exist_ok=True)
        before = cpu_time()
        with open(folder / "calculator.txt", "a") as log:
            result = compute(folder, log)
        row = {"key": key, **result, "settings": settings, "cpu_seconds": round(cpu_time() - before, 1)}
        self.rows.append(row)
        RESULTS.mkdir(parents=True, exist_ok=True)
        command = f"python benchmarks/first_principles.py {' '.join(sys.argv[1:])}"
        row["command"] = command
        self.path.write_text(json.dumps({"rows": self.rows}, indent=1) + "\n")
        print(self.name, key, {k: v for k, v in result.items() if isinstance(v, float)}, flush=True)
        return row


def electronic(arguments, **values) -> dict:
    given = {"cutoff": arguments.cutoff, **values}
    return {"electronic": {key: value for key, value in given.items() if value is not None}}


def lattice_parameter(arguments) -> float:
    """[Å], to the four digits that keys of rows have."""
    if arguments.lattice_parameter is not None:
        return arguments.lattice_parameter
    path = ROOT / f"resources/structures/lattice/{arguments.host}-paper.json"
    if not path.exists():
        sys.exit(f"{path.relative_to(ROOT)} is not there: give --lattice-parameter [Å] for {arguments.host}")
    return round(json.loads(path.read_text())["lattice_parameter"], 4)


def folded(summary: dict, cells: list[int]) -> dict:
    """The summary that so many `cells` along each edge would have on the mesh onto which that of one cell folds."""
    count = math.prod(cells)
    settings = json.loads(json.dumps(summary["settings"]))
    points = settings["electronic"]["kpoints"]
    settings["electronic"]["kpoints"] = [k // n for k, n in zip(points, cells, strict=True)]
    atoms, energy = (count * summary[key] for key in ("atoms", "energy"))
    return {**summary, "atoms": atoms, "energy": energy, "settings": settings}


def run_lattice(arguments, hosts) -> None:
    table = Table(f"lattice-{arguments.host.lower()}")
    host = vars(hosts[arguments.host])
    for width in arguments.width or [None]:
        for points in arguments.mesh:
            overrides = electronic(arguments, kpoints=[points] * 3, width=width)
            settings = settings_for(host, arguments.preset, "lattice", overrides=overrides)
            key = {k: settings["electronic"][k] for k in ("cutoff", "kpoints", "width")}

            def compute(folder, log, settings=settings):
                found = lattice.equation_of_state(host, settings, folder, log)
                return {k: v for k, v in found.items() if k != "settings"}

            table.row(key, settings, compute)


def run_shear(arguments, hosts) -> None:
    """C44 of Al alone, from one sheared primitive cell (engineering strain 0.01)."""
    table = Table("shear-al")
    host = vars(hosts["Al"])
    a = lattice_parameter(arguments)
    crystal = elastic.strained(elastic.bulk("Al", "fcc", a=a), "shear", 0.01)
    for width in arguments.width:
        for points in arguments.mesh:
            overrides = electronic(arguments, kpoints=[points] * 3, width=width)
            settings = settings_for(host, arguments.preset, "elastic", overrides=overrides)
            key = {k: settings["electronic"][k] for k in ("cutoff", "kpoints", "width")}

            def compute(folder, log, settings=settings):
                image = crystal.copy()
                image.calc = Ladder(calculator, settings, log)
                return {"c44": float(image.get_stress()[3] * GIGAPASCAL / 0.01)}

            table.row({**key, "lattice_parameter": a}, settings, compute)


def run_elastic(arguments, hosts) -> None:
    table = Table(f"elastic-{arguments.host.lower()}")
    host, a = vars(hosts[arguments.host]), lattice_parameter(arguments)
    for width in arguments.width:
        for points in arguments.mesh:
            overrides = electronic(arguments, kpoints=[points] * 3, width=width)
            settings = settings_for(host, arguments.preset, "elastic", overrides=overrides)
            key = {k: settings["electronic"][k] for k in ("cutoff", "kpoints", "width")}

            def compute(folder, log, settings=settings):
                found = elastic.elastic_constants(host, a, settings, folder, log)
                return {k: v for k, v in found.items() if k != "settings"}

            table.row({**key, "lattice_parameter": a}, settings, compute)


def run_vacancy(arguments, hosts) -> None:
    """Vacancy in n x n x n cells; the perfect crystal is one cell on the mesh that folds onto the supercell's."""
    table = Table(f"vacancy-{arguments.host.lower()}")
    host, n, a = hosts[arguments.host], arguments.supercell, lattice_parameter(arguments)
    for points in arguments.mesh:
        perfect, defect = (
            settings_for(vars(host), arguments.preset, "relax", overrides=electronic(arguments, kpoints=[mesh] * 3))
            for mesh in (points * n, points)
        )
        key = {"supercell": n, **{k: defect["electronic"][k] for k in ("cutoff", "kpoints", "width")}}

        def compute(folder, log, perfect=perfect, defect=defect):
            cell = unit_cell(host, a)
            _, whole = relax.relax(cell, perfect, calculator, folder / "perfect", log)
            atoms = cell.repeat(n)
            del atoms[0]
            _, summary = relax.relax(atoms, defect, calculator, folder / "vacancy", log)
            crystal = folded(whole, [n] * 3)
            unrelaxed = {**summary, "energy": summary["history"][0]["energy"]}
            return {
                "formation_energy": formation.vacancy(summary, crystal),
                "unrelaxed_formation_energy": formation.vacancy(unrelaxed, crystal),
                "energy_per_atom": whole["energy"] / whole["atoms"],
                "energy": summary["energy"],
                "magnetic_moment": summary["magnetic_moment"],
                "largest_force": summary["largest_force"],
                "displacements": summary["displacements"],
                "steps": summary["steps"],
                "rung": max(summary["rung"], whole["rung"]),
            }

        table.row({**key, "lattice_parameter": a}, defect, compute)


def run_library(arguments, hosts) -> None:
    """Formation energies of the vacancies in resources/structures; perfect crystal as in `run_vacancy`."""
    table = Table("vacancy-library")
    for entry in Library(LIBRARY).entries:
        n, defect = entry.params["supercell"], entry.params.get("defect") or {}
        if defect.get("kind") != "vacancy" or entry.params["first_principles"]["preset"] != arguments.preset:
            continue
        settings = json.loads(json.dumps(entry.settings))
        points = settings["electronic"]["kpoints"]
        settings["electronic"]["kpoints"] = [k * m for k, m in zip(points, n, strict=True)]
        vacancy = read(entry.file("extxyz"))
        cell = unit_cell(hosts[entry.params["host"]["name"]], vacancy.cell.lengths()[0] / n[0])
        summary = json.loads(entry.file("json").read_text())

        def compute(folder, log, cell=cell, settings=settings, summary=summary, n=n):
            _, whole = relax.relax(cell, settings, calculator, folder, log)
            return {
                "formation_energy": formation.vacancy(summary, folded(whole, n)),
                "energy_per_atom": whole["energy"] / whole["atoms"],
                "magnetic_moment_per_atom": (whole["magnetic_moment"] or 0.0) / whole["atoms"],
            }

        table.row({"entry": entry.stem.name, "kpoints": points}, settings, compute)


def run_motion(arguments, hosts) -> None:
    """Molecular dynamics over seeds, one table per protocol and temperature."""
    n, kelvin, protocol = arguments.supercell, arguments.temperature, arguments.protocol
    host = hosts[arguments.host]
    table = Table(f"motion-{arguments.host.lower()}-{protocol}-{kelvin:g}K-{n}x{n}x{n}")
    a = lattice_parameter(arguments)
    atoms = unit_cell(host, a).repeat(n)
    overrides = electronic(arguments)
    given = {"equilibration": arguments.equilibration, "snapshots": arguments.snapshots, "every": arguments.every}
    overrides["aimd"] = {key: value for key, value in given.items() if value is not None}
    if arguments.mesh:
        overrides["electronic"]["kpoints"] = arguments.mesh * 3
    for seed in range(1, arguments.seeds + 1):
        settings = settings_for(
            vars(host), arguments.preset, "aimd", supercell=[n] * 3, temperature=kelvin, protocol=protocol, seed=seed,
            overrides=overrides,
        )  # fmt: skip

        def compute(folder, log, settings=settings):
            _, summary = aimd.run(atoms, settings, calculator, folder, log)
            return {k: v for k, v in summary.items() if k != "settings"}

        key = {"seed": seed, **{k: settings["electronic"][k] for k in ("cutoff", "kpoints", "width")}}
        table.row({**key, "lattice_parameter": a}, settings, compute)


def run_forces(arguments, hosts) -> None:
    """Forces on the last snapshot of an entry of the library, on other meshes, beside those of its run."""
    table = Table("forces")
    entry = next((entry for entry in Library(LIBRARY).entries if entry.stem.name == arguments.entry), None)
    if entry is None:
        sys.exit(f"resources/structures has no entry {arguments.entry}")
    snapshot = read(entry.file("extxyz"), index=-1)
    for points in arguments.mesh:
        settings = json.loads(json.dumps(entry.settings))
        settings["electronic"]["kpoints"] = [points] * 3

        def compute(folder, log, settings=settings):
            image = snapshot.copy()
            image.calc = Ladder(calculator, settings, log)
            difference = image.get_forces() - snapshot.get_forces()
            return {
                "atoms": len(image),
                "run_kpoints": entry.settings["electronic"]["kpoints"],
                "force": math.sqrt((snapshot.get_forces() ** 2).mean()),
                "difference": math.sqrt((difference**2).mean()),
            }

        table.row({"entry": entry.stem.name, "kpoints": [points] * 3}, settings, compute)


def run_resumed(arguments, hosts) -> None:
    """Molecular dynamics in a thermostat, 125 steps, killed by `kill -9` after 40 and resumed, beside the unbroken run.

    The noise of the thermostat is the same, so the two differ by what self-consistency leaves in the forces.
    """
    n, kelvin, host = arguments.supercell, arguments.temperature, hosts[arguments.host]
    table = Table(f"resumed-{arguments.host.lower()}")
    a = lattice_parameter(arguments)
    atoms = unit_cell(host, a).repeat(n)
    overrides = electronic(arguments)
    overrides["aimd"] = {"equilibration": 65, "snapshots": 15, "every": 4}
    for seed in range(1, arguments.seeds + 1):
        settings = settings_for(
            vars(host), arguments.preset, "aimd", supercell=[n] * 3, temperature=kelvin, protocol="equilibrated",
            seed=seed, overrides=overrides,
        )  # fmt: skip

        def compute(folder, log, settings=settings):
            survived = killed_after(40, folder / "resumed", atoms, settings)
            found = {"atoms": len(atoms), "killed_after": survived.count(b"\n") - 2}
            paths = []
            for name in ("unbroken", "resumed"):
                _, summary = aimd.run(atoms, settings, calculator, folder / name, log)
                found[name] = {
                    "temperature": statistics.mean(summary["temperatures"]),
                    "mean_square": statistics.mean(row["length_rms"] ** 2 / 3 for row in summary["snapshots"]),
                }
                lines = (folder / name / "aimd.jsonl").read_bytes()
                paths.append(np.array([json.loads(line)["positions"] for line in lines.splitlines()[1:]]))
            if not lines.startswith(survived):
                sys.exit("the run was begun anew, not resumed")
            return {**found, "farthest_apart": float(np.linalg.norm(paths[0] - paths[1], axis=2).max())}

        key = {"seed": seed, "supercell": n, **{k: settings["electronic"][k] for k in ("cutoff", "kpoints", "width")}}
        table.row({**key, "lattice_parameter": a}, settings, compute)


def killed_after(steps: int, folder: Path, atoms, settings: dict) -> bytes:
    """Begin a run in a process of its own, kill it once so many steps are on disk; returns the whole lines that are."""
    shutil.rmtree(folder, ignore_errors=True)
    frames = folder / "aimd.jsonl"
    job = multiprocessing.get_context("spawn").Process(target=aimd.run, args=(atoms, settings, calculator, folder))
    job.start()
    while not frames.exists() or frames.read_bytes().count(b"\n") < steps + 2:  # the fingerprint and step 0 come first
        if not job.is_alive():
            sys.exit("the run ended before it could be killed")
        time.sleep(0.01)
    job.kill()
    job.join()
    survived = frames.read_bytes()
    return survived[: survived.rfind(b"\n") + 1]


def run_hosts(arguments, hosts) -> None:
    """Lattice constant and vacancy in one conventional cell of hosts whose settings follow from rules."""
    table = Table("hosts")
    for name in arguments.names:
        host = hosts[name]
        settings, relaxation = (settings_for(vars(host), arguments.preset, task) for task in ("lattice", "relax"))

        def compute(folder, log, host=host, settings=settings, relaxation=relaxation):
            found = lattice.equation_of_state(vars(host), settings, folder / "lattice", log)
            atoms = unit_cell(host, found["lattice_parameter"])
            del atoms[0]
            _, vacancy = relax.relax(atoms, relaxation, calculator, folder / "vacancy", log)
            return {
                "lattice_parameter": found["lattice_parameter"],
                "difference": found["lattice_parameter"] / host.lattice_parameter - 1,
                "magnetic_moment_per_atom": found["magnetic_moment_per_atom"],
                "rung": max(found["rung"], vacancy["rung"]),
                "vacancy": {key: vacancy[key] for key in ("atoms", "converged", "steps", "largest_force")},
            }

        key = {"host": name, "preset": arguments.preset}
        key |= {k: settings["electronic"][k] for k in ("cutoff", "kpoints", "width")}
        table.row(key, {"lattice": settings, "relax": relaxation}, compute)


def tables() -> dict[str, str]:
    """The tables of docs/validation.md that rows of results make, by name."""
    out = {}
    for path in sorted(RESULTS.glob("*.json")):
        rows = json.loads(path.read_text())["rows"]
        kind = path.stem.partition("-")[0]
        if kind == "motion":
            continue
        head, cells = TABLES["library" if path.stem == "vacancy-library" else kind]
        lines = [f"| {' | '.join(head)} | CPU s |", "|---" * (len(head) + 1) + "|"]
        lines += [f"| {' | '.join(cells(row))} | {row['cpu_seconds']:.0f} |" for row in rows]
        out[path.stem] = "\n".join(lines)
    return out | {"shells": _shells(), "motion-article": _flights(), "motion-debye": _equilibrium()}


def _mesh(points: list[int]) -> str:
    return f"{points[0]}³" if len(set(points)) == 1 else " x ".join(map(str, points))


def _electronic(row: dict) -> list[str]:
    return [f"{row['key']['cutoff']:g} eV, {_mesh(row['key']['kpoints'])}, {row['key']['width']:g} eV"]


def _edge(row: dict) -> str:
    """The lattice constant at which a row was computed."""
    return f"{row['key']['lattice_parameter']:.4f}"


def _edge_of_entry(name: str) -> str:
    """The lattice constant of an entry of the library."""
    entry = Entry(LIBRARY / name)
    return f"{read(entry.file('extxyz')).cell.lengths()[0] / entry.params['supercell'][0]:.4f}"


TABLES = {
    "lattice": (
        ["cutoff, mesh, width", "a [Å]", "B [GPa]", "moment [muB]"],
        lambda row: (
            _electronic(row)
            + [
                f"{row['lattice_parameter']:.4f}",
                f"{row['bulk_modulus']:.1f}",
                f"{row['magnetic_moment_per_atom']:.2f}",
            ]
        ),
    ),
    "shear": (
        ["cutoff, mesh, width", "a [Å]", "C44 [GPa]"],
        lambda row: [*_electronic(row), _edge(row), f"{row['c44']:.1f}"],
    ),
    "elastic": (
        ["cutoff, mesh, width", "a [Å]", "C11", "C12", "C44 [GPa]", "misfit of the shears [GPa]"],
        lambda row: (
            [*_electronic(row), f"{row['lattice_parameter']:.4f}"]
            + [f"{row[c]:.1f}" for c in ("c11", "c12", "c44")]
            + [f"{row['fit_residual']['shear']:.2f}"]
        ),
    ),
    "vacancy": (
        [
            "supercell",
            "a [Å]",
            "cutoff, mesh, width",
            "E_f [eV]",
            "unrelaxed",
            "number x length of the displacement [Å]",
        ],
        lambda row: (
            [f"{row['key']['supercell']}³", _edge(row), *_electronic(row)]
            + [f"{row['formation_energy']:.3f}", f"{row['unrelaxed_formation_energy']:.3f}"]
            + [_groups(row["displacements"]["groups"])]
        ),
    ),
    "library": (
        ["entry", "a [Å]", "mesh", "E_f [eV]"],
        lambda row: (
            [row["key"]["entry"], _edge_of_entry(row["key"]["entry"]), _mesh(row["key"]["kpoints"])]
            + [f"{row['formation_energy']:.3f}"]
        ),
    ),
    "forces": (
        ["snapshot of", "atoms", "mesh of the run", "against", "component of the force, rms [eV/Å]", "difference"],
        lambda row: (
            [row["key"]["entry"], str(row["atoms"]), _mesh(row["run_kpoints"]), _mesh(row["key"]["kpoints"])]
            + [f"{row['force']:.3f}", f"{row['difference']:.3f}"]
        ),
    ),
    "hosts": (
        ["host", "cutoff, mesh, width", "a [Å]", "against the measured one", "moment [muB]", "vacancy: atoms, steps"],
        lambda row: (
            [row["key"]["host"], *_electronic(row), f"{row['lattice_parameter']:.3f}", f"{row['difference']:+.1%}"]
            + [f"{row['magnetic_moment_per_atom']:.2f}", f"{row['vacancy']['atoms']}, {row['vacancy']['steps']}"]
        ),
    ),
    "resumed": (
        ["cutoff, mesh, width", "atoms", "seed", "killed after", "T [K], unbroken", "resumed"]
        + ["mean square of a component [Å²], unbroken", "resumed", "farthest apart [Å]"],
        lambda row: (
            [*_electronic(row), str(row["atoms"]), str(row["key"]["seed"]), f"{row['killed_after']} steps"]
            + [f"{row[name]['temperature']:.1f}" for name in ("unbroken", "resumed")]
            + [f"{row[name]['mean_square']:.5f}" for name in ("unbroken", "resumed")]
            + [f"{row['farthest_apart']:.4f}"]
        ),
    ),
}
"""Columns of a table and what a row puts into them, by the first word of its file."""

MOTIONS = [(kelvin, n) for kelvin in (100, 300) for n in (3, 2)]
"""Temperature [K] and cells along each edge of the runs of molecular dynamics of Al in the tables."""


def _groups(groups: list[dict]) -> str:
    moving = [group for group in groups if group["length"] > 1e-3]
    rest = sum(group["atoms"] for group in groups) - sum(group["atoms"] for group in moving)
    parts = [f"{group['atoms']} x {group['length']:.4f}" for group in moving]
    return ", ".join([*parts, f"{rest} below 0.001" if rest else ""]).rstrip(", ")


class Motion(NamedTuple):
    """Molecular dynamics of one kind: statistics and temperature [K] of every snapshot, number of flights, settings."""

    snapshots: list[dict]
    temperatures: list[float]
    flights: int
    settings: dict

    def values(self, key: str) -> list[float]:
        return [snapshot[key] for snapshot in self.snapshots]

    def words(self) -> str:
        """Cutoff, mesh and course of a flight."""
        electronic, section = self.settings["electronic"], self.settings["aimd"]
        if section["protocol"] == "equilibrated":
            steps = f"{section['equilibration']} + {section['snapshots']} x {section['every']}"
        else:
            steps = section["steps"]
        return f"{electronic['cutoff']:g} eV, {_mesh(electronic['kpoints'])}, {steps} x {section['timestep']:g} fs"


def _motion(kelvin: int, protocol: str, n: int) -> Motion | None:
    """From the entry of the library, or else from what `run_motion` has computed; None if there is neither."""
    own = "equilibrated-" if protocol == "equilibrated" else ""
    name = f"al-thermal-{own}{kelvin}K-{n}x{n}x{n}"
    entry = next((entry for entry in Library(LIBRARY).entries if entry.stem.name == name), None)
    path = RESULTS / f"motion-al-{protocol}-{kelvin}K-{n}x{n}x{n}.json"
    if entry is not None:
        summaries = [json.loads(entry.file("json").read_text())]
    elif path.exists():
        summaries = json.loads(path.read_text())["rows"]
    else:
        return None
    courses = [{**summary["settings"]["aimd"], "seed": None} for summary in summaries]
    if any(course != courses[0] for course in courses):
        raise ValueError(f"{path.name}: its rows were computed at different settings, so no mean is theirs")
    return Motion(
        [snapshot for summary in summaries for snapshot in summary["snapshots"]],
        [temperature for summary in summaries for temperature in summary["temperatures"]],
        sum(summary["settings"]["aimd"].get("flights", 1) for summary in summaries),
        summaries[0]["settings"],
    )


def _spread(values: list[float], digits: int, mean: float | None = None) -> str:
    """Mean (or `mean`) and standard deviation (n - 1); of a single value that alone."""
    mean = statistics.mean(values) if mean is None else mean
    return f"{mean:.{digits}f}" + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def _flights() -> str:
    """The protocol `published` beside the article's numbers, in both readings."""
    head = ["T [K]", "atoms", "settings", "flights", "T at the end", "reading", "largest [Å]"]
    head += ["atoms below 0.04 Å (300 K: 0.08 Å)", "share"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    published = read_displacements(ROOT / "resources/paper/displacements.csv")
    for kelvin in sorted({kelvin for kelvin, _ in MOTIONS}):
        numbers = {p.quantity: p.value for p in published if p.condition == f"al-thermal-{kelvin}K-3x3x3"}
        ((quantity, count),) = ((q, value) for q, value in numbers.items() if q.startswith("x_atoms:0:"))
        below = quantity.rpartition(":")[2]
        cells = ["**article**", "", "", "not stated", f"{numbers['x_largest']:g}", f"{count:g}"]
        lines.append(f"| {kelvin} | 108 | {' | '.join(cells)} | {count / 108:.0%} |")
        for n in (n for temperature, n in MOTIONS if temperature == kelvin):
            found, atoms = _motion(kelvin, "published", n), 4 * n**3
            if found is None:
                lines.append(f"| {kelvin} | {atoms} | {NOT_YET} |" + " |" * (len(head) - 3))
                continue
            for key, reading in (("x", "x component"), ("length", "length")):
                inside = found.values(f"{key}_below_{below}")
                cells = [found.words(), str(found.flights), _spread(found.temperatures, 0), reading]
                cells += [_spread(found.values(f"{key}_largest"), 3), _spread(inside, 1)]
                share = statistics.mean(inside) / atoms
                lines.append(f"| {kelvin} | {atoms} | {' | '.join(cells)} | {share:.0%} |")
    return "\n".join(lines)


def _equilibrium() -> str:
    """The protocol `equilibrated` beside the Debye model: root mean squares of one component [Å]."""
    head = ["T [K]", "atoms", "settings", "flights x snapshots", "T found", "x", "length / √3"]
    head += ["Debye, waves of the cell", "Debye, all waves", "and zero-point motion"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    theta = read_hosts(ROOT / "resources/hosts.csv")["Al"].debye_temperature
    for kelvin, n in MOTIONS:
        found, atoms = _motion(kelvin, "equilibrated", n), 4 * n**3
        debye = rms_component(kelvin, theta, float(atomic_masses[13]))
        model = [math.sqrt(1 - atoms ** (-1 / 3)) * debye["classical"], debye["classical"], debye["quantum"]]
        cells = [NOT_YET, "", "", "", ""]
        if found is not None:
            cells = [found.words(), f"{found.flights} x {len(found.snapshots) // found.flights}"]
            cells += [_spread(found.temperatures, 0)]
            for key, part in (("x_rms", 1.0), ("length_rms", math.sqrt(1 / 3))):
                values = [part * value for value in found.values(key)]
                cells.append(_spread(values, 3, math.sqrt(statistics.mean(value**2 for value in values))))
        lines.append(f"| {kelvin} | {atoms} | {' | '.join(cells + [f'{value:.3f}' for value in model])} |")
    return "\n".join(lines)


def _shells() -> str:
    """Distance of the sites from the defect, number of atoms, displacement away from it and length of it."""
    lines = [
        "| entry | mesh, preset | distance [Å] | atoms | away from the defect [Å] | length [Å] |",
        "|---|---|---|---|---|---|",
    ]
    for entry in Library(LIBRARY).entries:
        one_defect = "kind" in (entry.params.get("defect") or {})
        if not one_defect or (preset := entry.params["first_principles"]["preset"]) == "smoke":
            continue
        host, mesh = entry.params["host"], _mesh(entry.settings["electronic"]["kpoints"])
        found = shells(sites_of(read(entry.file("extxyz")), host["crystal_structure"], host["name"]))
        for number, shell in enumerate(found):
            name = f"{entry.stem.name} | {mesh}, {preset}" if number == 0 else " | "
            radial = f"{shell.radial:+.4f}" if abs(shell.radial) >= 5e-5 else "0"
            length = f"{shell.length:.4f}" if shell.length >= 5e-5 else "0"
            lines.append(f"| {name} | {shell.distance:.3f} | {shell.atoms} | {radial} | {length} |")
    return "\n".join(lines)


def run_tables(arguments, hosts) -> None:
    """Put the tables into docs/validation.md, between `<!-- table NAME -->` and `<!-- end -->`."""
    path = ROOT / "docs/validation.md"
    path.write_text(with_tables(path.read_text(), tables()))


def with_tables(text: str, found: dict[str, str]) -> str:
    """`text` with every table of `found` between its marks; ends with an error if a table has no mark to stand at."""
    for name, table in found.items():
        pattern = rf"(<!-- table {re.escape(name)} -->\n).*?(<!-- end -->)"
        text, times = re.subn(
            pattern, lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text, flags=re.DOTALL
        )
        if not times:
            sys.exit(f"docs/validation.md: no place for this table; write <!-- table {name} --> and <!-- end --> there")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="what", required=True)
    for name in ("lattice", "shear", "elastic", "vacancy", "library", "motion", "forces", "resumed", "hosts", "tables"):
        command = commands.add_parser(name)
        command.add_argument("--host", default="Al")
        command.add_argument("--preset", default="paper", choices=["smoke", "laptop", "paper"])
        command.add_argument("--cutoff", type=float, help="in place of the preset's [eV]")
        command.add_argument("--lattice-parameter", type=float, help="[Å], in place of the preset paper's")
        command.add_argument("--mesh", type=int, nargs="*", default=[], help="points per edge of the cell")
        command.add_argument("--width", type=float, nargs="*", default=[], help="of the smearing [eV]")
        command.add_argument("--supercell", type=int, default=2, help="cells along each edge")
        if name == "forces":
            command.add_argument("--entry", required=True, help="of resources/structures")
        if name == "hosts":
            command.add_argument("--names", nargs="+", required=True, help="rows of resources/hosts.csv")
        if name in ("motion", "resumed"):
            command.add_argument("--temperature", type=float, required=True, help="[K]")
            command.add_argument("--seeds", type=int, default=3)
        if name == "motion":
            command.add_argument("--protocol", default="equilibrated", choices=["equilibrated", "published"])
            for option in ("equilibration", "snapshots", "every"):
                command.add_argument(f"--{option}", type=int, help="in place of the preset's [steps]")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    hosts = read_hosts(ROOT / "resources/hosts.csv")
    globals()[f"run_{arguments.what}"](arguments, hosts)


if __name__ == "__main__":
    main()
