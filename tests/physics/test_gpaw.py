"""The real GPAW at the settings of the smoke preset: seconds per test, laws and known numbers only."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from ase import Atoms
from ase.build import bulk

from defraction.defects.point import build
from defraction.first_principles import aimd, lattice, relax, worker
from defraction.first_principles.calculator import Ladder, calculator
from defraction.first_principles.ranks import calculators
from defraction.first_principles.settings import settings_for
from defraction.first_principles.trajectory import WallTimeReached
from defraction.hosts import read_hosts

AL = {"name": "Al", "crystal_structure": "fcc", "lattice_parameter": 4.0495}


def vacancy() -> Atoms:
    atoms = bulk("Al", cubic=True, a=4.045) * (2, 1, 1)
    del atoms[0]
    return atoms


def test_lattice_constant_of_aluminium(tmp_path):
    settings = settings_for("Al", "smoke", "lattice")
    lattice.compute(AL, settings, tmp_path / "Al.json", tmp_path / "Al.txt", tmp_path / "restart")
    result = json.loads((tmp_path / "Al.json").read_text())
    # All-electron PBE: 4.04 Å (Haas, Tran and Blaha 2009, 10.1103/PhysRevB.79.085104); the coarse mesh may cost 0.5 %.
    assert result["lattice_parameter"] == pytest.approx(4.040, rel=0.005)
    assert result["bulk_modulus"] == pytest.approx(77, rel=0.1)
    assert result["magnetic_moment_per_atom"] == 0
    log = (tmp_path / "Al.txt").read_text()
    assert log.count("SCF iterations") == 5, "the log holds all five volumes"


def test_vacancy_relaxes_by_symmetry_and_resumes(tmp_path):
    overrides = {"electronic": {"kpoints": [2, 4, 4]}}
    settings = settings_for("Al", "smoke", "relax", supercell=[2, 1, 1], overrides=overrides)
    with pytest.raises(WallTimeReached):
        relax.relax(vacancy(), settings, calculator, tmp_path / "resumed", walltime=0.0)
    resumed, _ = relax.relax(vacancy(), settings, calculator, tmp_path / "resumed")
    relaxed, summary = relax.relax(vacancy(), settings, calculator, tmp_path / "unbroken")

    start = vacancy().positions
    moved = relaxed.positions - start
    assert summary["history"][-1]["energy"] < summary["history"][0]["energy"]
    # Two mirror planes and the fourfold axis along x go through the vacancy: y and z are alike, and x is odd about it.
    assert np.abs(np.sort(np.abs(moved[:, 1])) - np.sort(np.abs(moved[:, 2]))).max() < 1e-6
    assert np.abs(moved[:, 0].sum()) < 1e-6
    # A chain of vacancies along y and z is a plane of them; the first-shell atoms off that plane close in on it.
    cell = relaxed.cell.lengths()
    vector = start - cell * np.round(start / cell)
    first = (np.abs(np.linalg.norm(vector, axis=1) - 4.045 / np.sqrt(2)) < 0.01) & (np.abs(vector[:, 0]) > 0.1)
    assert first.sum() == 4
    assert (moved[first, 0] * np.sign(vector[first, 0]) < -1e-3).all()
    # The resumed run starts each density from another guess: forces agree to the preset's 0.02 eV/Å, and a step is
    # force / curvature.
    assert np.abs(resumed.positions - relaxed.positions).max() < 0.02 / settings["relax"]["curvature"]


def test_carbon_at_an_octahedral_site_pushes_its_neighbours_apart(root, tmp_path):
    """Two cells in a row: along it the carbon has room, across it the neighbours stand between carbon and carbon."""
    aluminium = read_hosts(root / "resources/hosts.csv")["Al"]
    defect = {"kind": "interstitial", "solute": "C", "site": "octahedral"}
    atoms = build(aluminium, {"defect": defect, "supercell": [2, 1, 1]})
    settings = settings_for("Al", "smoke", "relax", elements=["C"], supercell=[2, 1, 1])
    relaxed, summary = relax.relax(atoms, settings, calculator, tmp_path)
    assert summary["formula"] == "CAl8"
    assert summary["history"][-1]["energy"] < summary["history"][0]["energy"]
    (carbon,) = np.flatnonzero(atoms.symbols == "C")
    moved = relaxed.positions - atoms.positions
    moved -= moved[carbon]
    cell = atoms.cell.lengths()
    vector = atoms.positions - atoms.positions[carbon]
    vector -= cell * np.round(vector / cell)
    distance = np.linalg.norm(vector, axis=1)
    a = aluminium.lattice_parameter
    # Two of the six neighbours stand along the row, the other four are two and their own images.
    along = np.abs(np.abs(vector[:, 0]) - a / 2) + np.abs(vector[:, 1:]).sum(axis=1) < 1e-6
    across = (np.abs(distance - a / 2) < 1e-6) & ~along
    assert along.sum() == across.sum() == 2
    assert (moved[along, 0] * np.sign(vector[along, 0]) > 0.01).all()
    assert np.abs(moved[across]).max() < 1e-6
    # The fourfold axis through the carbon leaves nothing across the row, and what is along it is odd about the carbon.
    assert np.abs(moved[:, 1:]).max() < 1e-6
    assert abs(moved[:, 0].sum()) < 1e-6


def test_the_ladder_saves_a_calculation_that_stops_too_early():
    settings = settings_for("Al", "smoke", "relax", overrides={"electronic": {"max_iterations": 4}})
    atoms = bulk("Al", cubic=True, a=4.045)
    atoms.calc = Ladder(calculator, settings, None)
    energy = atoms.get_potential_energy()
    assert atoms.calc.rung == 1
    patient = bulk("Al", cubic=True, a=4.045)
    patient.calc = Ladder(calculator, settings_for("Al", "smoke", "relax"), None)
    assert patient.calc.rung == 0
    # Energies are converged to 2 meV per valence electron, of which the cell has 12.
    assert energy == pytest.approx(patient.get_potential_energy(), abs=0.024)


def test_the_origin_of_the_calculation_changes_the_cost_not_the_result(tmp_path):
    """Carbon at a tetrahedral site: one k point about the carbon, two about the corner, the same forces."""
    settings = settings_for("Al", "smoke", "relax", elements=["C"], overrides={"electronic": {"kpoints": [2, 2, 2]}})
    atoms = bulk("Al", cubic=True, a=4.045) + Atoms("C", [np.full(3, 4.045 / 4)])
    points, forces = [], []
    for name in ("ladder", "plain"):
        with (tmp_path / name).open("w") as txt:
            atoms.calc = (Ladder if name == "ladder" else plain)(calculator, settings, txt)
            forces.append(atoms.get_forces())
        text = (tmp_path / name).read_text()
        points.append(int(text.split("Number of IBZ points:")[1].split()[0]))
    assert points == [1, 2]
    assert np.abs(forces[0][:4] - forces[1][:4]).max() < 0.05


def plain(factory, settings, txt):
    return factory(settings, None, txt)


@pytest.fixture(scope="module")
def two_ranks():
    """Two MPI ranks of GPAW, shared by the tests: they take seconds to start."""
    from gpaw import cgpaw

    if not cgpaw.have_mpi:
        pytest.skip("this GPAW is built without MPI")
    with calculators(2) as factory:
        yield factory


TIGHT = {"density": 1e-5, "energy": 1e-6, "eigenstates": 1e-7, "forces": 1e-3}


def test_two_ranks_compute_what_one_computes(two_ranks, tmp_path):
    overrides = {"electronic": {"convergence": TIGHT, "kpoints": [1, 3, 3]}, "relax": {"steps": 1}}
    settings = settings_for("Al", "smoke", "relax", supercell=[2, 1, 1], overrides=overrides)
    results = []
    for name, factory in (("one", calculator), ("two", two_ranks)):
        folder = tmp_path / name
        folder.mkdir()
        relax.relax_file(
            vacancy(),
            settings,
            folder / "a.extxyz",
            folder / "a.json",
            folder / "gpaw.txt",
            folder / "restart",
            factory,
        )
        results.append(json.loads((folder / "a.json").read_text()))
        log = (folder / "gpaw.txt").read_text()
        assert log.count("SCF iterations") == len(results[-1]["history"]) == 2, "one log, written by one rank"
    energies, forces = ([[step[key] for step in r["history"]] for r in results] for key in ("energy", "largest_force"))
    # 21 valence electrons, each to 1e-6 eV, and forces to 1e-3 eV/Å.
    assert energies[1] == pytest.approx(energies[0], abs=3e-5)
    assert forces[1] == pytest.approx(forces[0], abs=2e-3)


def test_stress_and_moments_come_back_from_the_ranks(two_ranks):
    overrides = {"electronic": {"kpoints": [2, 2, 2], "cutoff": 250.0, "width": 0.5, "convergence": TIGHT}}
    settings = settings_for("Fe", "smoke", "elastic", overrides=overrides)
    found = []
    for factory in (calculator, two_ranks):
        atoms = bulk("Fe", a=2.83)
        atoms.calc = Ladder(factory, settings, None)
        found.append([*atoms.get_stress(), atoms.get_magnetic_moment(), *atoms.get_magnetic_moments()])
    assert found[1] == pytest.approx(found[0], abs=1e-4)
    assert found[0][6] > 1.5


def test_the_ladder_climbs_on_ranks_of_which_one_has_no_k_point(two_ranks):
    settings = settings_for("Al", "smoke", "relax", overrides={"electronic": {"max_iterations": 4}})
    atoms = bulk("Al", cubic=True, a=4.045)
    atoms.calc = Ladder(two_ranks, settings, None)
    atoms.get_potential_energy()
    assert atoms.calc.rung == 1


def test_an_error_on_the_ranks_is_the_same_error_here():
    from gpaw import cgpaw

    if not cgpaw.have_mpi:
        pytest.skip("this GPAW is built without MPI")
    settings = settings_for("Al", "smoke", "relax", overrides={"electronic": {"smearing": "none-such"}})
    messages = []
    for ranks in (1, 2):
        atoms = bulk("Al", cubic=True, a=4.045)
        with pytest.raises(Exception) as caught, calculators(ranks) as factory:
            atoms.calc = Ladder(factory, settings, None)
            atoms.get_potential_energy()
        messages.append((caught.type, str(caught.value)))
    assert messages[0] == messages[1]


def off_its_site() -> tuple[Atoms, dict]:
    """Two atoms of silicon, one off its site in no symmetric direction, and limits of self-consistency that leave less
    than 5e-6 eV/Å in the forces."""
    tight = {"density": 1e-9, "energy": 1e-8, "eigenstates": 1e-12, "forces": 5e-7}
    electronic = {"kpoints": [2, 2, 2], "cutoff": 200.0, "width": 0.1, "point_group": False, "convergence": tight}
    ends = {"fmax": 1e-3, "steps": 30, "curvature": 20.0, "allow_unconverged": False}
    atoms = bulk("Si", a=5.43)
    atoms.positions[1] += [0.06, -0.03, 0.02]
    return atoms, settings_for("Al", "smoke", "relax", overrides={"electronic": electronic, "relax": ends})


def warm() -> tuple[Atoms, dict]:
    """The same two atoms in a thermostat: 28 steps by the preset smoke, at the limits above."""
    atoms, tight = off_its_site()
    overrides = {"electronic": tight["electronic"], "aimd": {"equilibration": 24, "snapshots": 2, "every": 2}}
    course = {"temperature": 300, "protocol": "equilibrated", "seed": 3}
    return atoms, settings_for("Al", "smoke", "aimd", overrides=overrides, **course)


KILLED_JOB = """
import sys
import test_gpaw as t
t.{compute}(*t.{task}(), t.calculator, t.Path(sys.argv[1]))
"""


def killed(compute: str, task: str, frames: Path, geometries: int) -> bytes:
    """Start a computation in a process of its own, end it with `kill -9` once so many geometries are in `frames`, and
    return the whole lines that survived."""
    path = os.pathsep.join([str(Path(relax.__file__).parents[2]), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    program = KILLED_JOB.format(compute=compute, task=task)
    job = subprocess.Popen([sys.executable, "-c", program, str(frames.parent)], env=environment)
    deadline = time.monotonic() + 600
    try:
        while not frames.exists() or frames.read_bytes().count(b"\n") < 1 + geometries:  # the fingerprint comes first
            assert job.poll() is None, "the job ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        job.send_signal(signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL
    survived = frames.read_bytes()
    return survived[: survived.rfind(b"\n") + 1]


def test_a_relaxation_killed_with_kill_9_ends_where_the_unbroken_one_does(tmp_path):
    """The next density starts from atoms instead of from the last wave functions: forces differ by less than 5e-6 eV/Å,
    positions by that over the 10 eV/Å² that hold an atom of silicon."""
    frames = tmp_path / "killed/relax.jsonl"
    survived = killed("relax.relax", "off_its_site", frames, 2)
    resumed, summary = relax.relax(*off_its_site(), calculator, tmp_path / "killed")
    assert frames.read_bytes().startswith(survived), "resumed, not begun anew"
    unbroken, expected = relax.relax(*off_its_site(), calculator, tmp_path / "unbroken")
    assert summary["steps"] == expected["steps"] > survived.count(b"\n") - 1
    assert np.abs(resumed.positions - unbroken.positions).max() < 1e-6


def test_molecular_dynamics_killed_with_kill_9_follows_the_unbroken_run(tmp_path):
    """Over at least 20 further steps, in every position and momentum.

    A force that is wrong by f moves a vibrating atom by at most 2 f/k, and by pi n f/k in n periods if it keeps their
    time: in the 112 fs of this run (two periods of the mode in which the atoms of silicon move against each other,
    k = 10 eV/Å^2 at the least) by 3e-6 Å, with the 5e-6 eV/Å that self-consistency leaves. Momenta follow by
    mass times frequency, 28 in ASE's units. Noise drawn anew or a step made twice would show as 0.005 Å at once: so far
    does the thermostat throw an atom in one step.
    """
    frames = tmp_path / "killed/aimd.jsonl"
    survived = killed("aimd.run", "warm", frames, 4)
    aimd.run(*warm(), calculator, tmp_path / "killed")
    assert frames.read_bytes().startswith(survived), "resumed, not begun anew"
    aimd.run(*warm(), calculator, tmp_path / "unbroken")
    resumed, unbroken = (
        [json.loads(line) for line in (tmp_path / name / "aimd.jsonl").read_text().splitlines()[1:]]
        for name in ("killed", "unbroken")
    )
    done = survived.count(b"\n") - 1
    assert len(resumed) == len(unbroken) == 29
    assert len(resumed) - done >= 20, "the kill came too late"
    for key, tolerance in (("positions", 1e-5), ("momenta", 3e-4)):
        first, second = (np.array([frame[key] for frame in run]) for run in (resumed, unbroken))
        assert np.abs(first - second).max() < tolerance, key
    # The atoms have moved against each other by far more than that since the kill.
    apart = np.diff(np.array([frame["positions"] for frame in unbroken]), axis=1)[:, 0]
    assert np.linalg.norm(apart[-1] - apart[done - 1]) > 0.01


LONG_JOB = """
import sys
import test_gpaw as t
settings = t.settings_for("Al", "smoke", "relax", overrides={"electronic": {"kpoints": [6, 8, 8], "cutoff": 500.0}})
with t.calculators(2) as factory:
    t.relax.relax(t.vacancy(), settings, factory, t.Path(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a child of its parent's death on Linux only")
def test_ranks_end_with_their_job_after_kill_9(tmp_path):
    from gpaw import cgpaw

    if not cgpaw.have_mpi:
        pytest.skip("this GPAW is built without MPI")
    path = os.pathsep.join([str(Path(relax.__file__).parents[2]), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    job = subprocess.Popen([sys.executable, "-c", LONG_JOB, str(tmp_path)], env=environment)
    deadline = time.monotonic() + 60
    ranks: list[psutil.Process] = []
    while len(ranks) < 2:
        assert job.poll() is None, "the job ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.1)
        started = psutil.Process(job.pid).children(recursive=True)
        ranks = [p for p in started if "mpiexec" not in p.name() and p.cmdline()[-1:] == [worker.__name__]]
    job.send_signal(signal.SIGKILL)
    job.wait()
    gone, alive = psutil.wait_procs(started, timeout=20)
    assert not alive
    assert len(gone) >= 3, "the launcher and two ranks at least"
