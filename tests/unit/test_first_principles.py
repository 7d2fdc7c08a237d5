"""First-principles jobs with ASE's EMT in the place of GPAW: settings, restart, the ladder, statistics."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import SCFError
from ase.calculators.emt import EMT
from ase.io import read
from ase.optimize import BFGS

from defraction.first_principles import aimd, debye, formation, lattice, relax, trajectory
from defraction.first_principles.calculator import (
    RUNGS,
    Ladder,
    NotSelfConsistent,
    most_symmetric_point,
    rung_changes,
)
from defraction.first_principles.settings import settings_for
from defraction.first_principles.trajectory import Trajectory, WallTimeReached, fingerprint, segment
from defraction.hosts import read_hosts

LIBRARY = Path(relax.__file__).parents[2]


def emt(settings, atoms, txt, rung=0):
    return EMT()


class Interrupted(Exception):
    """Stands for the end of a process after some computed geometries."""


def emt_that_ends_after(count: int):
    """A factory whose calculators compute `count` geometries together and then raise."""
    computed = []

    class Ending(EMT):
        def calculate(self, *args, **kwargs):
            if len(computed) == count:
                raise Interrupted
            super().calculate(*args, **kwargs)
            computed.append(1)

    return lambda settings, atoms, txt, rung=0: Ending()


def al_vacancy() -> Atoms:
    """31 atoms and one substitute, off every symmetric position, so that all coordinates take part."""
    atoms = bulk("Al", cubic=True, a=3.99) * (2, 2, 2)
    del atoms[0]
    atoms[3].symbol = "Cu"
    atoms.rattle(0.05, seed=3)
    atoms.info.update(reference_cell=(np.eye(3) * 3.99).tolist(), repeat=[1, 2, 3])
    return atoms


def relax_settings(**changes) -> dict:
    return settings_for("Al", "laptop", "relax", overrides={"relax": {"fmax": 0.005, "steps": 60, **changes}})


def md_settings(protocol: str, **changes) -> dict:
    return settings_for(
        "Al",
        "laptop",
        "aimd",
        supercell=[2, 2, 2],
        temperature=300,
        protocol=protocol,
        seed=7,
        overrides={"aimd": changes},
    )


def perfect() -> Atoms:
    atoms = bulk("Al", cubic=True, a=3.995) * (2, 2, 2)
    atoms.info.update(reference_cell=(np.eye(3) * 3.995).tolist(), repeat=[1, 1, 1])
    return atoms


@pytest.fixture(scope="module")
def hosts(root) -> dict[str, dict]:
    """The rows of resources/hosts.csv."""
    return {name: vars(host) for name, host in read_hosts(root / "resources/hosts.csv").items()}


PUBLISHED = md_settings("published", timestep=2.0, steps=10, flights=2)  # 2 x 11 geometries
EQUILIBRATED = md_settings("equilibrated", equilibration=14, snapshots=3, every=2)  # 21 geometries


# Settings


@pytest.mark.parametrize("preset", ["smoke", "laptop", "paper"])
@pytest.mark.parametrize("host", ["Al", "Fe"])
def test_settings_are_plain_values(preset, host):
    for task in ("lattice", "relax", "aimd", "elastic"):
        settings = settings_for(host, preset, task, elements=["C"], supercell=[3, 2, 1], temperature=100)
        assert json.loads(json.dumps(settings)) == settings
        assert set(settings) == {"task", "electronic", task}


def test_mesh_follows_the_supercell():
    def mesh(host, cells):
        return settings_for(host, "paper", "relax", supercell=cells)["electronic"]["kpoints"]

    assert mesh("Al", [2, 2, 2]) == [6, 6, 6]
    assert mesh("Al", [3, 3, 3]) == [4, 4, 4]
    assert mesh("Fe", [3, 3, 3]) == [3, 3, 3]
    assert mesh("Fe", [4, 4, 4]) == [2, 2, 2]
    assert settings_for("Al", "smoke", "relax", supercell=[2, 1, 1])["electronic"]["kpoints"] == [1, 2, 2]


@pytest.mark.parametrize("preset", ["laptop", "paper"])
def test_a_solute_leaves_the_mesh_of_its_host_unless_it_is_listed(preset):
    """Iron and aluminium too, which are hosts of the same tables."""

    def mesh(host, solute):
        settings = settings_for(host, preset, "relax", elements=[solute], supercell=[2, 2, 2])
        return settings["electronic"]["kpoints"]

    for host, solutes in {"Al": ("Si", "Fe", "Au", "Cu"), "Fe": ("Al", "Au", "Cr")}.items():
        assert {tuple(mesh(host, solute)) for solute in solutes} == {tuple(mesh(host, host))}
    assert mesh("Al", "C") == {"laptop": [4, 4, 4], "paper": [6, 6, 6]}[preset]


def test_the_most_demanding_element_sets_the_cutoff():
    assert settings_for("Al", "paper", "relax", elements=["Al", "C"])["electronic"]["cutoff"] == 350
    assert settings_for("Al", "paper", "relax", elements=["Al", "Si"])["electronic"]["cutoff"] == 250


def test_overrides_replace_values_of_the_task_only():
    overrides = {
        "electronic": {"cutoff": 333.0},
        "relax": {"fmax": 0.5},
        "aimd": {"steps": 3},
        "lattice": {"points": 7},
    }
    settings = settings_for("Al", "smoke", "relax", overrides=overrides)
    assert settings["electronic"]["cutoff"] == 333.0
    assert settings["relax"]["fmax"] == 0.5
    assert "aimd" not in settings
    assert settings_for("Al", "smoke", "relax")["relax"]["fmax"] == 0.05, "the table itself must not change"


def test_a_key_of_electronic_in_the_section_of_a_task_holds_for_that_task_alone():
    overrides = {"electronic": {"width": 0.3}, "relax": {"kpoints": [5, 5, 5], "convergence": {"forces": 0.5}}}
    relaxation = settings_for("Al", "laptop", "relax", overrides=overrides)
    assert relaxation["electronic"]["kpoints"] == [5, 5, 5]
    assert relaxation["electronic"]["width"] == 0.3
    assert relaxation["electronic"]["convergence"]["forces"] == 0.5
    assert relaxation["electronic"]["convergence"]["density"] == 1e-3, "criteria that are not given stay"
    assert "kpoints" not in relaxation["relax"]
    equation = settings_for("Al", "laptop", "lattice", overrides=overrides)
    assert equation["electronic"]["kpoints"] == [11, 11, 11]
    assert equation["electronic"]["width"] == 0.3


def test_a_host_of_the_tables_has_the_same_settings_by_name_and_by_row(hosts):
    for name in ("Al", "Fe"):
        for task in ("lattice", "relax", "aimd", "elastic"):
            arguments = {"elements": ["C", name], "supercell": [2, 2, 2], "temperature": 300}
            assert settings_for(hosts[name], "paper", task, **arguments) == settings_for(
                name, "paper", task, **arguments
            )


def test_every_host_has_settings_for_every_task(hosts):
    assert len(hosts) > 10
    for row in hosts.values():
        for task in ("lattice", "relax", "aimd", "elastic"):
            settings = settings_for(row, "laptop", task, supercell=[2, 2, 2], temperature=300)
            assert json.loads(json.dumps(settings)) == settings
            assert bool(settings["electronic"]["moments"]) == bool(row["magnetic_moment"])


def test_the_rules_for_other_hosts_agree_with_the_tables_where_both_speak(hosts):
    """Aluminium and iron under other names: their settings then come from the rules."""
    for name, element, relax_points in (("Al", "Ga", 12), ("Fe", "Mn", 8)):
        row = {**hosts[name], "name": element}
        ours = settings_for(row, "laptop", "relax", supercell=[1, 1, 1])
        table = settings_for(name, "laptop", "relax", supercell=[1, 1, 1])
        assert ours["electronic"]["kpoints"] == table["electronic"]["kpoints"] == [relax_points] * 3
        assert ours["electronic"]["width"] == table["electronic"]["width"]
        # A curvature off by a factor of 1.2 costs BFGS nothing.
        assert ours["relax"]["curvature"] == pytest.approx(table["relax"]["curvature"], rel=0.2)
        flight = settings_for(row, "laptop", "aimd", temperature=300)["aimd"]
        assert flight["timestep"] == 5.0


def test_light_and_stiff_atoms_take_finer_steps_of_the_same_times(hosts):
    for protocol in ("published", "equilibrated"):
        carbon = settings_for(hosts["C"], "paper", "aimd", temperature=300, protocol=protocol)["aimd"]
        aluminium = settings_for("Al", "paper", "aimd", temperature=300, protocol=protocol)["aimd"]
        assert carbon["timestep"] < aluminium["timestep"]
        for key in {"steps", "equilibration", "every"} & set(aluminium):
            assert carbon["timestep"] * carbon[key] == pytest.approx(aluminium["timestep"] * aluminium[key])


def test_cutoffs_from_the_data_sets_are_those_of_the_table_within_a_hundred_electronvolts():
    from defraction.first_principles import datasets, tables

    for preset, row in tables.CUTOFF.items():
        for element, cutoff in row.items():
            assert abs(datasets.cutoff(element, preset) - cutoff) <= 150, (preset, element)
    for element in ("Al", "Cu", "O"):
        cutoffs = [datasets.cutoff(element, preset) for preset in tables.PRESETS]
        assert cutoffs == sorted(cutoffs)
    assert datasets.cutoff("O", "laptop") > datasets.cutoff("Na", "laptop"), "2p is harder than 3s"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"preset": "latop"}, "did you mean 'laptop'"),
        ({"host": "Cu"}, "its row of resources/hosts.csv"),
        ({"task": "relaxation"}, "did you mean 'relax'"),
        ({"elements": ["Po"]}, r"'Po': no PAW data set .* Ag, Al"),
        ({"supercell": [2, 2, 0]}, "at least 1"),
        ({"task": "aimd"}, "temperature"),
        ({"task": "aimd", "temperature": 100, "protocol": "publshed"}, "did you mean 'published'"),
        ({"overrides": {"relax": {"fmx": 0.1}}}, "did you mean 'fmax'"),
        ({"overrides": {"relaxx": {}}}, "did you mean 'relax'"),
        ({"overrides": {"relax": {"fmax": "small"}}}, r"relax\.fmax: needs a number"),
        ({"overrides": {"electronic": {"kpoints": [2, 2]}}}, "three whole numbers"),
        ({"overrides": {"electronic": {"point_group": 1}}}, "true or false"),
        ({"overrides": {"lattice": 3}}, "keys and values"),
        ({"overrides": {"aimd": {"temperature": 300}}}, "unknown key"),
        ({"overrides": {"aimd": {"flights": 1.5}}}, r"aimd\.flights: needs a whole number"),
    ],
)
def test_bad_settings_say_what_is_allowed(arguments, words):
    arguments = {"host": "Al", "preset": "laptop", "task": "relax", **arguments}
    with pytest.raises(ValueError, match=words):
        settings_for(**arguments)


def test_importing_the_modules_does_not_load_the_heavy_packages():
    # ASE itself imports the bare package gpaw as a plugin; _gpaw is the compiled part that comes with its code.
    code = (
        "import sys; from defraction.first_principles import aimd, calculator, elastic, lattice, ranks, relax, worker; "
        "print([m for m in ('_gpaw', 'torch', 'pymatgen', 'matplotlib.pyplot') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(LIBRARY)}, capture_output=True, text=True
    )
    assert out.stdout.strip() == "[]", out.stderr


# Symmetry


def test_the_tetrahedral_interstitial_is_the_most_symmetric_point():
    atoms = bulk("Al", cubic=True, a=4.0) * (2, 2, 2) + Atoms("C", [[5.0, 1.0, 7.0]])
    shifted = atoms.positions - most_symmetric_point(atoms)
    carbon = shifted[-1] / 8.0
    assert np.abs(carbon - np.round(carbon)).max() < 1e-9


def test_a_crystal_without_a_better_point_stays_where_it_is():
    atoms = bulk("Al", cubic=True, a=4.0) * (2, 2, 2)
    del atoms[0]
    assert np.array_equal(most_symmetric_point(atoms), np.zeros(3))


# Trajectory


def test_every_way_to_cut_the_last_frame_off_leaves_the_frames_before(tmp_path):
    atoms = bulk("Al")
    mark = fingerprint(atoms, {})
    trajectory = Trajectory(tmp_path / "t.jsonl", mark)
    rng = np.random.default_rng(0)
    frames = [rng.standard_normal((2, 3)) for _ in range(3)]
    for positions in frames:
        trajectory.append(positions=positions, energy=1 / 3, magmom=None)
    data = (tmp_path / "t.jsonl").read_bytes()
    last = data[:-1].rfind(b"\n") + 1
    for end in range(last + 1, len(data)):
        (tmp_path / "t.jsonl").write_bytes(data[:end])
        resumed = Trajectory(tmp_path / "t.jsonl", mark)
        assert len(resumed.frames) == 2
        assert (tmp_path / "t.jsonl").read_bytes() == data[:last]
    resumed.append(positions=frames[2], energy=1 / 3, magmom=None)
    assert (tmp_path / "t.jsonl").read_bytes() == data
    again = Trajectory(tmp_path / "t.jsonl", mark)
    for frame, positions in zip(again.frames, frames, strict=True):
        assert np.array_equal(frame["positions"], positions), "frames read back to the last bit"


def test_a_file_cut_within_its_first_line_is_begun_anew(tmp_path):
    (tmp_path / "t.jsonl").write_bytes(b'{"fingerprint": "ab')
    trajectory = Trajectory(tmp_path / "t.jsonl", "abc")
    trajectory.append(energy=1.0)
    assert [frame["energy"] for frame in Trajectory(tmp_path / "t.jsonl", "abc").frames] == [1.0]


def test_frames_of_another_structure_are_never_resumed(tmp_path):
    atoms = al_vacancy()
    settings = relax_settings()
    relax.relax(atoms, settings, emt, tmp_path)
    other = atoms.copy()
    other.positions[0, 0] += 1e-6
    ours, summary = relax.relax(other, settings, emt, tmp_path)
    fresh, expected = relax.relax(other, settings, emt, tmp_path / "fresh")
    assert summary == expected
    assert np.array_equal(ours.positions, fresh.positions)


# Relaxation


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return relax.relax(al_vacancy(), relax_settings(), emt, tmp_path_factory.mktemp("unbroken"))


def test_relaxation_takes_the_steps_of_ase(unbroken):
    relaxed, summary = unbroken
    section = relax_settings()["relax"]
    atoms = al_vacancy()
    atoms.calc = EMT()
    optimiser = BFGS(atoms, logfile=None, maxstep=section["max_step"], alpha=section["curvature"])
    assert optimiser.run(fmax=section["fmax"])
    assert optimiser.get_number_of_steps() == summary["steps"]
    # The steps differ by rounding alone: the relaxation works about another origin, and BFGS inverts a Hessian.
    assert np.abs(atoms.positions - relaxed.positions).max() < 1e-9


def test_relaxed_structure_carries_its_results(unbroken):
    relaxed, summary = unbroken
    assert summary["converged"]
    assert summary["rung"] == 0
    assert summary["largest_force"] <= 0.005
    assert relaxed.info["repeat"] == [1, 2, 3]
    fresh = relaxed.copy()
    fresh.calc = EMT()
    assert relaxed.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-9)
    assert np.abs(relaxed.get_forces() - fresh.get_forces()).max() < 1e-9
    energies = [entry["energy"] for entry in summary["history"]]
    assert energies[-1] == min(energies)
    assert sum(group["atoms"] for group in summary["displacements"]["groups"]) == 31
    json.dumps(summary)


def test_relaxation_interrupted_after_every_geometry_equals_the_unbroken_one(unbroken, tmp_path):
    interruptions = 0
    while True:
        try:
            relaxed, summary = relax.relax(al_vacancy(), relax_settings(), emt_that_ends_after(1), tmp_path)
            break
        except Interrupted:
            interruptions += 1
    assert interruptions == unbroken[1]["steps"]
    assert summary["steps"] == unbroken[1]["steps"]
    assert np.abs(relaxed.positions - unbroken[0].positions).max() < 1e-9


def test_a_finished_relaxation_computes_nothing_again(tmp_path):
    first, _ = relax.relax(al_vacancy(), relax_settings(), emt, tmp_path)
    second, _ = relax.relax(al_vacancy(), relax_settings(), emt_that_ends_after(0), tmp_path)
    assert np.array_equal(first.positions, second.positions)


def test_too_few_steps_are_an_error_that_says_what_to_change(tmp_path):
    with pytest.raises(relax.NotRelaxed, match=r"relax\.steps or relax\.fmax"):
        relax.relax(al_vacancy(), relax_settings(steps=2), emt, tmp_path / "error")
    _, summary = relax.relax(al_vacancy(), relax_settings(steps=2, allow_unconverged=True), emt, tmp_path / "allowed")
    assert summary["converged"] is False
    assert summary["steps"] == 2


def test_wall_time_ends_a_relaxation_that_then_goes_on(unbroken, tmp_path):
    calls = 0
    while True:
        calls += 1
        try:
            relaxed, _ = relax.relax(al_vacancy(), relax_settings(), emt, tmp_path, walltime=0.0)
            break
        except WallTimeReached:
            assert len((tmp_path / "relax.jsonl").read_bytes().splitlines()) == calls + 1, "one geometry in every call"
    assert calls == unbroken[1]["steps"] + 1
    assert np.abs(relaxed.positions - unbroken[0].positions).max() < 1e-9


def test_segments_go_on_where_the_one_before_stopped(unbroken, tmp_path):
    restart, done = tmp_path / "restart", []
    while not (done and done[-1]):
        segment(relax.relax, al_vacancy(), relax_settings(), tmp_path / "marker.json", restart, emt, walltime=0.0)
        done.append(json.loads((tmp_path / "marker.json").read_text())["finished"])
    assert len(done) == unbroken[1]["steps"] + 1, "one geometry in every segment"
    segment(relax.relax, al_vacancy(), relax_settings(), tmp_path / "marker.json", restart, emt_that_ends_after(0), 0.0)
    relaxed, _ = relax.relax(al_vacancy(), relax_settings(), emt_that_ends_after(0), restart)
    assert np.abs(relaxed.positions - unbroken[0].positions).max() < 1e-9


def test_relaxation_to_files(tmp_path):
    relax.relax_file(
        al_vacancy(),
        relax_settings(),
        tmp_path / "a.extxyz.part",
        tmp_path / "a.json",
        tmp_path / "a.txt",
        tmp_path / "restart",
        calculator_factory=emt,
    )
    atoms = read(tmp_path / "a.extxyz.part", format="extxyz")
    assert np.allclose(atoms.info["reference_cell"], np.eye(3) * 3.99)
    assert list(atoms.info["repeat"]) == [1, 2, 3]
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() <= 0.005
    assert json.loads((tmp_path / "a.json").read_text())["converged"]
    assert (tmp_path / "a.txt").exists()


# kill -9

SLOW = """
import sys, time
sys.path[:0] = [{library!r}, {tests!r}]
import test_first_principles as t
from ase.calculators.emt import EMT
class Slow(EMT):
    def calculate(self, *args, **kwargs):
        time.sleep(0.05)
        super().calculate(*args, **kwargs)
def slow(settings, atoms, txt, rung=0):
    return Slow()
t.{call}
"""


def kill_when(path: Path, frames: int, call: str) -> None:
    """Start `call` in a process of its own and SIGKILL it once `path` holds `frames` frames."""
    code = SLOW.format(library=str(LIBRARY), tests=str(Path(__file__).parent), call=call)
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 120
    try:
        while not path.exists() or path.read_bytes().count(b"\n") < frames + 1:
            assert process.poll() is None, "the job ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL


def test_relaxation_goes_on_after_kill(unbroken, tmp_path):
    kill_when(
        tmp_path / "relax.jsonl", 4, f"relax.relax(t.al_vacancy(), t.relax_settings(), slow, t.Path({str(tmp_path)!r}))"
    )
    survived = (tmp_path / "relax.jsonl").read_bytes()
    relaxed, summary = relax.relax(al_vacancy(), relax_settings(), emt, tmp_path)
    assert (tmp_path / "relax.jsonl").read_bytes().startswith(survived[: survived.rfind(b"\n") + 1]), (
        "resumed, not redone"
    )
    assert summary["steps"] == unbroken[1]["steps"]
    assert np.abs(relaxed.positions - unbroken[0].positions).max() < 1e-9


@pytest.mark.parametrize("name", ["PUBLISHED", "EQUILIBRATED"])
def test_dynamics_go_on_after_kill(name, tmp_path):
    call = f"aimd.run(t.perfect(), t.{name}, slow, t.Path({str(tmp_path)!r}))"
    kill_when(tmp_path / "aimd.jsonl", 13, call)
    snapshots, summary = aimd.run(perfect(), globals()[name], emt, tmp_path)
    expected, expected_summary = aimd.run(perfect(), globals()[name], emt, tmp_path / "unbroken")
    assert len(snapshots) == len(expected)
    for ours, theirs in zip(snapshots, expected, strict=True):
        assert np.abs(ours.positions - theirs.positions).max() < 1e-9
    assert summary["mean"] == pytest.approx(expected_summary["mean"], abs=1e-9)


def test_progress_of_a_relaxation_bounds_the_time_left_from_the_first_step_on(tmp_path, monkeypatch, caplog):
    """A geometry of 100 s: first all 60 steps that are allowed, then the steps that the forces' fall lets expect."""
    now = [0.0]

    class Long(EMT):
        def calculate(self, *args, **kwargs):
            now[0] += 100.0
            super().calculate(*args, **kwargs)

    monkeypatch.setattr(trajectory, "time", SimpleNamespace(monotonic=lambda: now[0]))
    caplog.set_level("INFO")
    _, summary = relax.relax(al_vacancy(), relax_settings(), lambda *_: Long(), tmp_path)
    first, second, *_, last = [message for message in caplog.messages if " step " in message]
    assert first.endswith("at most 60 steps, at most 100 min left")
    assert last.endswith("done")
    largest = [step["largest_force"] for step in summary["history"]]
    seconds = 100 * np.ceil(np.log(largest[1] / 0.005) / np.log(largest[0] / largest[1]))
    assert second.endswith(f"about {seconds:.0f} s left" if seconds < 600 else f"about {seconds / 60:.0f} min left")


# Molecular dynamics


@pytest.mark.parametrize("name", ["PUBLISHED", "EQUILIBRATED"])
def test_dynamics_interrupted_after_every_step_follow_the_unbroken_run(name, tmp_path):
    settings = globals()[name]
    for _ in range(40):
        try:
            snapshots, _ = aimd.run(perfect(), settings, emt_that_ends_after(1), tmp_path)
            break
        except Interrupted:
            continue
    expected, _ = aimd.run(perfect(), settings, emt, tmp_path / "unbroken")
    for ours, theirs in zip(snapshots, expected, strict=True):
        assert np.abs(ours.positions - theirs.positions).max() < 1e-9
        assert np.abs(ours.get_momenta() - theirs.get_momenta()).max() < 1e-9


def emt_with_self_consistency_noise(seed: int, ends_after: int | None = None):
    """Forces that are off by 0.003 eV/Å at random, as a density that starts elsewhere leaves them."""
    rng, computed = np.random.default_rng(seed), []

    class Noisy(EMT):
        def calculate(self, *args, **kwargs):
            if len(computed) == ends_after:
                raise Interrupted
            super().calculate(*args, **kwargs)
            noise = rng.normal(scale=0.003, size=self.results["forces"].shape)
            self.results["forces"] = self.results["forces"] + noise - noise.mean(axis=0)
            computed.append(1)

    return lambda settings, atoms, txt, rung=0: Noisy()


def test_resumed_dynamics_agree_after_half_a_picosecond_with_other_errors_in_the_forces(tmp_path):
    settings = md_settings("equilibrated", equilibration=65, snapshots=15, every=4)  # 125 steps of 4 fs
    _, unbroken = aimd.run(perfect(), settings, emt_with_self_consistency_noise(1), tmp_path / "a")
    with pytest.raises(Interrupted):
        aimd.run(perfect(), settings, emt_with_self_consistency_noise(1, ends_after=40), tmp_path / "b")
    _, resumed = aimd.run(perfect(), settings, emt_with_self_consistency_noise(2), tmp_path / "b")
    paths = [
        np.array([json.loads(line)["positions"] for line in (tmp_path / name / "aimd.jsonl").open().readlines()[1:]])
        for name in "ab"
    ]
    apart = np.abs(paths[0] - paths[1]).max(axis=(1, 2))
    # The thermal noise is the same, so what the forces' errors add stays small beside the motion of 0.1 Å.
    assert apart[:40].max() < 1e-9 and 0 < apart[60] < 0.003 and apart[125] < 0.01
    assert resumed["mean"]["x_rms"] == pytest.approx(unbroken["mean"]["x_rms"], rel=0.02)
    assert np.mean(resumed["temperatures"]) == pytest.approx(np.mean(unbroken["temperatures"]), rel=0.02)


def test_flights_and_seeds_differ(tmp_path):
    snapshots, _ = aimd.run(perfect(), PUBLISHED, emt, tmp_path / "a")
    assert np.abs(snapshots[0].positions - snapshots[1].positions).max() > 0.01
    other = {**PUBLISHED, "aimd": {**PUBLISHED["aimd"], "seed": 8}}
    assert np.abs(aimd.run(perfect(), other, emt, tmp_path / "b")[0][0].positions - snapshots[0].positions).max() > 0.01


def test_a_short_flight_is_nearly_ballistic(tmp_path):
    """After t = 20 fs a harmonic atom has moved v sin(w t) / w: 0.76 v t in the stiffest mode of Al (10 THz), v t in
    the softest. The rms displacement must lie between the two."""
    snapshots, summary = aimd.run(perfect(), PUBLISHED, emt, tmp_path)
    for flight, (snapshot, statistics) in enumerate(zip(snapshots, summary["snapshots"], strict=True)):
        assert snapshot.info["time"] == 20.0
        start = aimd.thermal_momenta(perfect(), 300, np.random.default_rng([7, flight, 0]))
        start *= np.sqrt(300 / aimd.temperature(start, perfect()))
        free = np.linalg.norm(start / perfect().get_masses()[:, None], axis=1) * 20.0 * units.fs
        ratio = statistics["length_rms"] / np.sqrt(np.mean(free**2))
        assert 0.76 < ratio < 1.0


def test_energy_error_falls_with_the_square_of_the_time_step(tmp_path):
    drifts = []
    for timestep in (4.0, 2.0, 1.0):
        settings = md_settings("published", timestep=timestep, steps=round(40 / timestep), flights=1)
        drifts.append(aimd.run(perfect(), settings, emt, tmp_path / str(timestep))[1]["energy_drift"])
    # Velocity Verlet is of second order; at these steps higher orders change the ratio of 4 by less than a quarter.
    assert 3 < drifts[0] / drifts[1] < 5
    assert 3 < drifts[1] / drifts[2] < 5


def test_equilibrated_runs_of_one_job_are_independent_samples(tmp_path):
    settings = md_settings("equilibrated", equilibration=14, snapshots=3, every=2, flights=2)
    snapshots, summary = aimd.run(perfect(), settings, emt, tmp_path / "two")
    alone, _ = aimd.run(perfect(), EQUILIBRATED, emt, tmp_path / "one")
    assert summary["flights"] == [0, 0, 0, 1, 1, 1]
    assert [snapshot.info["step"] for snapshot in snapshots] == [16, 18, 20] * 2
    assert [snapshot.info["flight"] for snapshot in snapshots] == summary["flights"]
    for ours, theirs in zip(snapshots, alone, strict=False):
        assert np.array_equal(ours.positions, theirs.positions), "the first is what it would be alone"
    first, second = (snapshots[k].positions - perfect().positions for k in (2, 5))
    correlation = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    assert abs(correlation) < 0.4  # four standard deviations of 96 independent numbers


def test_a_second_flight_goes_on_where_it_was_interrupted(tmp_path):
    settings = md_settings("equilibrated", equilibration=2, snapshots=2, every=2, flights=2)  # 2 x 7 geometries
    expected, _ = aimd.run(perfect(), settings, emt, tmp_path / "unbroken")
    for end in (7, 4):  # at the beginning of the second flight, and within it
        with pytest.raises(Interrupted):
            aimd.run(perfect(), settings, emt_that_ends_after(end), tmp_path / "broken")
    found, _ = aimd.run(perfect(), settings, emt, tmp_path / "broken")
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(ours.positions - theirs.positions).max() < 1e-9


def test_settings_of_one_equilibrated_flight_are_those_of_older_results():
    assert "flights" not in EQUILIBRATED["aimd"]
    assert md_settings("equilibrated", flights=1) == md_settings("equilibrated")
    assert md_settings("equilibrated", flights=3)["aimd"]["flights"] == 3
    assert md_settings("published", flights=3)["aimd"]["flights"] == 3


def test_the_spread_is_that_of_a_sample_and_a_single_snapshot_has_none(tmp_path):
    _, two = aimd.run(perfect(), PUBLISHED, emt, tmp_path / "two")
    values = [row["x_rms"] for row in two["snapshots"]]
    assert two["spread"]["x_rms"] == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2))
    single = md_settings("published", timestep=2.0, steps=2, flights=1)
    _, one = aimd.run(perfect(), single, emt, tmp_path / "one")
    assert set(one["spread"].values()) == {None}


def test_progress_names_step_energy_largest_force_and_time_left(tmp_path, caplog):
    caplog.set_level("INFO")
    aimd.run(perfect(), md_settings("published", timestep=2.0, steps=2, flights=1), emt, tmp_path)
    last = json.loads((tmp_path / "aimd.jsonl").read_text().splitlines()[-1])
    force = np.linalg.norm(last["forces"], axis=1).max()
    (line,) = [message for message in caplog.messages if "step 2 of 2" in message]
    assert f"energy {last['energy']:.5f} eV, largest force {force:.3f} eV/Å" in line
    assert "left" in line


def test_the_temperature_is_that_of_the_motion_about_the_centre_of_mass():
    """A thermostat that moves the centre of mass too draws momenta with a total: they still have its temperature."""
    atoms = perfect()
    atoms.symbols[0] = "Au"
    rng = np.random.default_rng(2)
    scale = np.sqrt(atoms.get_masses()[:, None] * units.kB * 300)
    found = [aimd.temperature(scale * rng.standard_normal((32, 3)), atoms) for _ in range(6000)]
    # One draw scatters by 44 K, the mean of 6000 by 0.57 K: five of these. With the total the mean would be 309.7 K.
    assert abs(np.mean(found) - 300) < 2.9
    drifting = scale * rng.standard_normal((32, 3))
    moving = drifting + 0.3 * atoms.get_masses()[:, None]
    assert aimd.temperature(moving, atoms) == pytest.approx(aimd.temperature(drifting, atoms))


def test_thermal_momenta_have_the_temperature_and_no_total():
    atoms = perfect()
    atoms.symbols[0] = "Au"
    rng = np.random.default_rng(1)
    temperatures = []
    for _ in range(400):
        momenta = aimd.thermal_momenta(atoms, 300, rng)
        assert np.abs(momenta.sum(axis=0)).max() < 1e-12
        temperatures.append(aimd.temperature(momenta, atoms))
    # One draw scatters by 300 K sqrt(2/93) = 44 K, the mean of 400 by 2.2 K: five standard errors.
    assert abs(np.mean(temperatures) - 300) < 11
    assert 35 < np.std(temperatures) < 53


def test_small_cells_start_at_exactly_the_temperature(tmp_path):
    aimd.run(perfect(), PUBLISHED, emt, tmp_path / "exact")
    scattered = {**PUBLISHED, "aimd": {**PUBLISHED["aimd"], "exact_temperature": False}}
    aimd.run(perfect(), scattered, emt, tmp_path / "scattered")

    def start(folder):
        first = (tmp_path / folder / "aimd.jsonl").read_text().splitlines()[1]
        return aimd.temperature(np.array(json.loads(first)["momenta"]), perfect())

    assert start("exact") == pytest.approx(300, abs=1e-9)
    assert abs(start("scattered") - 300) > 1


def test_displacement_statistics_count_both_readings():
    displacements = np.array([[0.03, 0.0, 0.04], [-0.05, 0.0, 0.0], [0.09, 0.0, 0.0], [0.0, 0.0, 0.0]])
    statistics = aimd.displacement_statistics(displacements)
    assert statistics["atoms"] == 4
    assert (statistics["x_below_0.04"], statistics["x_below_0.08"]) == (2, 3)
    assert (statistics["length_below_0.04"], statistics["length_below_0.08"]) == (1, 3)
    assert statistics["x_largest"] == pytest.approx(0.09)
    assert statistics["length_largest"] == pytest.approx(0.09)


def test_snapshots_do_not_drift(tmp_path):
    snapshots, _ = aimd.run(perfect(), EQUILIBRATED, emt, tmp_path)
    for snapshot in snapshots:
        assert np.abs((snapshot.positions - perfect().positions).mean(axis=0)).max() < 1e-12


def test_dynamics_file_to_file(tmp_path):
    aimd.run_file(
        perfect(),
        EQUILIBRATED,
        tmp_path / "a.extxyz",
        tmp_path / "a.json",
        tmp_path / "a.txt",
        tmp_path / "restart",
        calculator_factory=emt,
    )
    snapshots = read(tmp_path / "a.extxyz", index=":")
    assert [snapshot.info["step"] for snapshot in snapshots] == [16, 18, 20]
    assert list(snapshots[0].info["repeat"]) == [1, 1, 1]
    assert snapshots[0].get_forces().shape == (32, 3)
    assert len(json.loads((tmp_path / "a.json").read_text())["snapshots"]) == 3


# Ladder


def converging_from(rung: int, tries: list[int]):
    """A factory whose calculators fail below `rung` and note which rungs were built."""

    class Failing(EMT):
        def calculate(self, *args, **kwargs):
            raise SCFError("not converged")

    def factory(settings, atoms, txt, rung_asked=0):
        tries.append(rung_asked)
        return EMT() if rung_asked >= rung else Failing()

    return factory


def test_the_ladder_climbs_once_and_stays(tmp_path):
    tries: list[int] = []
    _, summary = relax.relax(al_vacancy(), relax_settings(), converging_from(2, tries), tmp_path)
    assert tries == [0, 1, 2], "a rung is built once, not once per geometry"
    assert summary["rung"] == 2
    assert summary["energies_comparable"]
    assert summary["steps"] > 2


def test_the_rung_survives_a_restart(tmp_path):
    tries: list[int] = []
    with pytest.raises(WallTimeReached):
        relax.relax(al_vacancy(), relax_settings(), converging_from(2, tries), tmp_path, walltime=0.0)
    del tries[:]
    relax.relax(al_vacancy(), relax_settings(), converging_from(2, tries), tmp_path)
    assert tries == [2]


def test_energies_of_the_last_rung_are_marked(tmp_path):
    _, summary = relax.relax(al_vacancy(), relax_settings(), converging_from(3, []), tmp_path)
    assert not summary["energies_comparable"]


@pytest.mark.parametrize("own", [{}, {"max_iterations": 1000, "width": 0.4}, {"max_iterations": 10, "width": 0.05}])
def test_every_rung_is_at_least_as_patient_as_the_settings_and_the_rung_before(own):
    electronic = settings_for("Al", "laptop", "relax", overrides={"electronic": own})["electronic"]
    reached = [{"maxiter": electronic["max_iterations"]} | rung_changes(electronic, k) for k in range(len(RUNGS))]
    iterations = [changes["maxiter"] for changes in reached]
    assert iterations == sorted(iterations)
    assert iterations[0] == electronic["max_iterations"]
    assert reached[-1]["occupations"]["width"] >= max(0.2, electronic["width"])
    assert RUNGS[-1]["occupations"]["width"] == 0.2, "the table itself must not change"


def test_no_rung_left_is_an_error_that_says_what_to_change():
    tries: list[int] = []
    atoms = al_vacancy()
    atoms.calc = Ladder(converging_from(99, tries), relax_settings())
    with pytest.raises(NotSelfConsistent, match=r"electronic\.width"):
        atoms.get_potential_energy()
    assert tries == list(range(len(RUNGS)))


# Equation of state


AL = {"name": "Al", "crystal_structure": "fcc", "lattice_parameter": 4.0}


def test_lattice_constant_is_where_the_stress_vanishes(tmp_path):
    settings = settings_for("Al", "laptop", "lattice")
    lattice.compute(AL, settings, tmp_path / "Al.json", tmp_path / "Al.txt", tmp_path / "r", calculator_factory=emt)
    result = json.loads((tmp_path / "Al.json").read_text())

    def pressure(a):
        atoms = bulk("Al", a=a)
        atoms.calc = EMT()
        return -atoms.get_stress()[:3].mean() / units.GPa

    a = result["lattice_parameter"]
    # The fit spans 12 % in volume. What it leaves of the pressure is to be small beside the modulus: 0.1 % in volume.
    assert abs(pressure(a)) < 1e-3 * result["bulk_modulus"]
    strain = 1e-3
    numerical = -(pressure(a * (1 + strain)) - pressure(a * (1 - strain))) / (6 * strain)
    assert result["bulk_modulus"] == pytest.approx(numerical, rel=0.05)
    assert len(result["volumes"]) == len(result["energies"]) == 5
    assert result["settings"] == settings


def test_volumes_are_not_computed_twice(tmp_path):
    settings = settings_for("Al", "laptop", "lattice")
    with pytest.raises(Interrupted):
        lattice.equation_of_state(AL, settings, tmp_path, calculator_factory=emt_that_ends_after(3))
    resumed = lattice.equation_of_state(AL, settings, tmp_path, calculator_factory=emt_that_ends_after(2))
    assert resumed == lattice.equation_of_state(AL, settings, tmp_path / "fresh", calculator_factory=emt)


def emt_on_a_rung(needing: int, needed: int, tries: list[int]):
    """A factory for an equation of state of five volumes, of which the last `needing` converge from the rung `needed`
    on only; energies of the last rung lie 0.05 eV lower. It notes which rungs were built."""

    class Smeared(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["energy"] -= 0.05

    class Failing(EMT):
        def calculate(self, *args, **kwargs):
            raise SCFError("not converged")

    section = settings_for("Al", "laptop", "lattice")["lattice"]
    edges = AL["lattice_parameter"] * section["centre"] * np.linspace(1 - section["range"], 1 + section["range"], 5)

    def factory(settings, atoms, txt, rung=0):
        tries.append(rung)
        number = int(np.abs(edges**3 / 4 - atoms.get_volume() / len(atoms)).argmin())
        if number >= 5 - needing and rung < needed:
            return Failing()
        return Smeared() if rung == len(RUNGS) - 1 else EMT()

    return factory


LAST = len(RUNGS) - 1


def test_a_volume_begins_on_the_rung_that_the_one_before_needed(tmp_path):
    tries: list[int] = []
    settings = settings_for("Al", "laptop", "lattice")
    result = lattice.equation_of_state(AL, settings, tmp_path, calculator_factory=emt_on_a_rung(3, 1, tries))
    assert tries == [0, 0, 0, 1, 1, 1], "the first rung is tried in vain once"
    assert result["rung"] == 1
    assert result["energies_comparable"], "the energies of the first rungs are the same"


@pytest.mark.parametrize("needing", [1, 2, 5])
def test_volumes_of_the_last_rung_take_the_others_with_them(needing, tmp_path):
    settings = settings_for("Al", "laptop", "lattice")
    tries: list[int] = []
    plain = lattice.equation_of_state(AL, settings, tmp_path / "plain", calculator_factory=emt)
    smeared = lattice.equation_of_state(
        AL, settings, tmp_path / "smeared", calculator_factory=emt_on_a_rung(needing, LAST, tries)
    )
    assert (plain["rung"], smeared["rung"]) == (0, LAST)
    assert (plain["energies_comparable"], smeared["energies_comparable"]) == (True, False)
    # All energies are those of the last rung, so that the curve is the same one, 0.05 eV lower.
    assert smeared["volumes"] == plain["volumes"]
    assert smeared["energies"] == pytest.approx(np.array(plain["energies"]) - 0.05, abs=1e-9)
    assert smeared["lattice_parameter"] == pytest.approx(plain["lattice_parameter"], abs=1e-9)
    assert tries == [0] * (5 - needing) + list(range(LAST + 1)) + [LAST] * (needing - 1 + 5 - needing)


def test_volumes_computed_again_are_not_computed_a_third_time(tmp_path):
    settings = settings_for("Al", "laptop", "lattice")
    factory = emt_on_a_rung(2, LAST, [])
    calls = 0
    while True:
        calls += 1
        try:
            resumed = lattice.equation_of_state(AL, settings, tmp_path, None, factory, walltime=0.0)
            break
        except WallTimeReached:
            continue
    assert calls == 5 + 3, "five volumes, and the three before the last rung again"
    assert resumed == lattice.equation_of_state(AL, settings, tmp_path / "fresh", calculator_factory=factory)


def test_a_minimum_outside_the_volumes_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"lattice\.range"):
        lattice.equation_of_state(
            {**AL, "lattice_parameter": 4.4}, settings_for("Al", "laptop", "lattice"), tmp_path, calculator_factory=emt
        )


def test_the_fit_recovers_a_birch_murnaghan_curve():
    v0, e0, b0, b1 = 16.5, -3.7, 78.0 * units.GPa, 4.6
    volumes = np.linspace(0.94, 1.06, 5) * v0
    eta = (v0 / volumes) ** (2 / 3)
    energies = e0 + 9 * v0 * b0 / 16 * ((eta - 1) ** 3 * b1 + (eta - 1) ** 2 * (6 - 4 * eta))
    volume, energy, modulus, residual = lattice.fit(volumes, energies)
    assert volume == pytest.approx(v0, rel=1e-7)
    assert energy == pytest.approx(e0, abs=1e-9)
    assert modulus == pytest.approx(78.0, rel=1e-5)
    assert residual < 1e-9


def test_a_crystal_structure_without_a_cell_is_named(tmp_path):
    with pytest.raises(ValueError, match="fcc, bcc, diamond"):
        lattice.equation_of_state(
            {**AL, "crystal_structure": "hcp"},
            settings_for("Al", "laptop", "lattice"),
            tmp_path,
            calculator_factory=emt,
        )


# Formation energy


def relaxed_summary(atoms: Atoms, folder: Path) -> dict:
    return relax.relax(atoms, relax_settings(), emt, folder)[1]


def test_vacancy_formation_energy_is_that_of_removing_an_atom(tmp_path):
    crystal = perfect()
    vacant = crystal.copy()
    del vacant[0]
    ours = formation.vacancy(relaxed_summary(vacant, tmp_path / "v"), relaxed_summary(crystal, tmp_path / "p"))

    def energy(atoms):
        atoms = atoms.copy()
        atoms.calc = EMT()
        BFGS(atoms, logfile=None).run(fmax=0.005, steps=100)
        return atoms.get_potential_energy()

    # The atom goes to where its energy is that of the crystal; forces of 0.005 eV/Å leave less than 1e-4 eV.
    assert ours == pytest.approx(energy(vacant) - energy(crystal) + energy(crystal) / 32, abs=1e-4)


def test_energies_that_do_not_belong_together_are_refused(tmp_path):
    crystal = relaxed_summary(perfect(), tmp_path / "p")
    vacant = {**crystal, "atoms": 31, "formula": "Al31"}
    other = settings_for("Al", "paper", "relax")
    with pytest.raises(ValueError, match="cutoff = 250"):
        formation.vacancy({**vacant, "settings": other}, crystal)
    with pytest.raises(ValueError, match="not comparable"):
        formation.vacancy({**vacant, "energies_comparable": False}, crystal)
    with pytest.raises(ValueError, match="no vacancy"):
        formation.vacancy(crystal, crystal)


# Debye model


def test_the_debye_model_has_its_two_limits():
    cold, hot, theta, mass = 1e-3, 5000.0, 428.0, 26.98
    zero_point = 3 * debye.HBAR2_PER_U_KB_A2 / (4 * mass * theta)
    assert debye.mean_square_displacement(0, theta, mass) == pytest.approx(zero_point)
    # The correction is of order (T / Theta)^2.
    assert debye.mean_square_displacement(cold, theta, mass) == pytest.approx(zero_point, rel=1e-10)
    classical = debye.mean_square_displacement(hot, theta, mass, classical=True)
    # The expansion at high temperature: 1 + (Theta / T)^2 / 36.
    assert debye.mean_square_displacement(hot, theta, mass) / classical == pytest.approx(
        1 + (theta / hot) ** 2 / 36, abs=1e-6
    )


def test_the_debye_model_by_a_sum_over_modes():
    """An independent way: the mean of (hbar / 2 m omega) coth over a Debye density of states."""
    from scipy import constants

    temperature, theta, mass = 120.0, 428.0, 26.98
    omega = (np.arange(200_000) + 0.5) / 200_000 * theta * constants.k / constants.hbar
    weight = omega**2 / (omega**2).sum()
    coth = 1 / np.tanh(constants.hbar * omega / (2 * constants.k * temperature))
    mean = (weight * constants.hbar / (2 * mass * constants.atomic_mass * omega) * coth).sum() * 1e20
    assert debye.mean_square_displacement(temperature, theta, mass) == pytest.approx(mean, rel=1e-6)


def test_a_flight_stays_below_the_debye_model(tmp_path):
    """20 fs from the perfect lattice are far from equilibrium."""
    _, summary = aimd.run(perfect(), PUBLISHED, emt, tmp_path)
    rms = debye.rms_component(PUBLISHED["aimd"]["temperature"], 412.0, 26.98)
    assert rms["quantum"] > rms["classical"] > summary["mean"]["x_rms"]


@pytest.mark.parametrize("wrong", [(-1, 400, 27), (300, 0, 27), (300, 400, 0)])
def test_impossible_debye_solids_are_refused(wrong):
    with pytest.raises(ValueError, match="Debye"):
        debye.mean_square_displacement(*wrong)
