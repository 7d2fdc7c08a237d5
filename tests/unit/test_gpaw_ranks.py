"""How a job talks to its MPI ranks, without MPI: a stand-in for the launcher computes with ASE's EMT."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT

from defraction import provenance
from defraction.first_principles import ranks as ranks_module
from defraction.first_principles import relax
from defraction.first_principles.calculator import calculator
from defraction.first_principles.ranks import OnRanks, Ranks, RanksLost, calculators, launcher_command
from defraction.first_principles.settings import settings_for

LIBRARY = Path(relax.__file__).parents[2]
STAND_IN = """
import json, os, sys, time
from ase import Atoms
from ase.calculators.emt import EMT
MARK = {mark!r}
mode = {mode!r}
def say(answer):
    print(MARK + json.dumps(answer), flush=True)
print("a launcher may print what it likes", flush=True)
gpu = "a card" if "--gpu" in sys.argv else ""
say({{"ranks": 1 if mode == "copies" else int(sys.argv[sys.argv.index("-n") + 1]), "gpu": gpu}})
count = 0
for line in sys.stdin:
    question = json.loads(line)
    count += 1
    if question["new"]:
        rung = question["new"]["rung"]
    if mode == "dies" and count == 2:
        os._exit(9)
    if mode == "slow":
        time.sleep(3600)
    if mode == "raises":
        say({{"error": "ValueError", "message": "no such data set", "converges_on_another_rung": False}})
    elif mode == "unknown":
        say({{"error": "BadParallelization", "message": "too many", "converges_on_another_rung": False}})
    elif mode == "climbs" and rung < 2:
        say({{"error": "KohnShamConvergenceError", "message": "no", "converges_on_another_rung": True}})
    else:
        atoms = Atoms(question["numbers"], question["positions"], cell=question["cell"], pbc=question["pbc"])
        atoms.calc = EMT()
        energy = atoms.get_potential_energy()
        say({{"energy": energy, "free_energy": energy, "forces": atoms.get_forces().tolist()}})
"""


def launcher(folder: Path, mode: str = "works") -> str:
    path = folder / f"{mode}.py"
    path.write_text(STAND_IN.format(mark=ranks_module.worker.MARK, mode=mode))
    return f"{sys.executable} {path}"


def atoms():
    crystal = bulk("Al", cubic=True, a=3.99) * (2, 1, 1)
    del crystal[0]
    crystal.rattle(0.05, seed=1)
    return crystal


SETTINGS = settings_for("Al", "laptop", "relax", overrides={"relax": {"fmax": 0.005}})


def relaxed_on(folder: Path, mode: str):
    group = Ranks(2, launcher(folder, mode))
    try:
        return relax.relax(atoms(), SETTINGS, lambda *arguments: OnRanks(group, *arguments), folder / "restart")
    finally:
        group.close()


class Forgetful(EMT):
    """EMT with a new list of neighbours for every geometry, as the stand-in has: the same sums in the same order."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, all_changes)


def emt(settings, atoms, txt, rung=0):
    return Forgetful()


def test_a_relaxation_on_ranks_is_the_relaxation_in_one_process_to_the_last_bit(tmp_path):
    ours, summary = relaxed_on(tmp_path, "works")
    expected, expected_summary = relax.relax(atoms(), SETTINGS, emt, tmp_path / "one")
    assert np.array_equal(ours.positions, expected.positions)
    assert np.array_equal(ours.get_forces(), expected.get_forces())
    assert summary == expected_summary


def test_the_ladder_climbs_on_ranks(tmp_path):
    assert relaxed_on(tmp_path, "climbs")[1]["rung"] == 2


def test_errors_of_the_ranks_keep_their_type_and_words(tmp_path):
    with pytest.raises(ValueError, match=r"^no such data set$"):
        relaxed_on(tmp_path, "raises")
    with pytest.raises(RuntimeError, match=r"^BadParallelization: too many$"):
        relaxed_on(tmp_path, "unknown")


def test_ranks_that_die_leave_what_was_computed(tmp_path):
    with pytest.raises(RanksLost, match="ended with status 9"):
        relaxed_on(tmp_path, "dies")
    assert (tmp_path / "restart/relax.jsonl").read_bytes().count(b"\n") == 2, "the header and one geometry"
    ours, _ = relaxed_on(tmp_path, "works")
    expected, _ = relax.relax(atoms(), SETTINGS, emt, tmp_path / "one")
    assert np.abs(ours.positions - expected.positions).max() < 1e-9


def test_a_launcher_of_another_mpi_library_is_found_out(tmp_path):
    with pytest.raises(ValueError, match="instead of one group of 2"):
        relaxed_on(tmp_path, "copies")


@pytest.mark.parametrize(("command", "words"), [("mpiexxec", "neither beside"), (" ", "is empty")])
def test_a_launcher_that_is_not_there_is_named(command, words):
    with pytest.raises(ValueError, match=words):
        launcher_command(command)


def test_a_launcher_keeps_its_arguments():
    assert launcher_command(f"{sys.executable} --mpi=pmi2 -v")[1:] == ["--mpi=pmi2", "-v"]


def test_a_build_without_mpi_or_gpu_is_an_error_before_any_work(monkeypatch):
    import gpaw.cgpaw
    import gpaw.gpu

    monkeypatch.setattr(gpaw.cgpaw, "have_mpi", False)
    with (
        pytest.raises(ValueError, match=r"runtime\.gpaw_ranks is 2, but this GPAW is built without MPI"),
        calculators(2),
    ):
        pass
    monkeypatch.setattr(gpaw.gpu, "cupy_is_fake", True)
    with pytest.raises(ValueError, match=r"runtime\.gpaw_gpu is set"), calculators(1, gpu=True):
        pass
    with calculators(1) as factory:
        assert factory.keywords == {"gpu": False}


@pytest.mark.parametrize("gpu", [False, True])
def test_the_gpu_of_the_ranks_is_recorded(tmp_path, monkeypatch, gpu):
    monkeypatch.setattr(provenance, "used_gpus", set())
    group = Ranks(2, launcher(tmp_path), gpu)
    relax.relax(atoms(), SETTINGS, lambda *arguments: OnRanks(group, *arguments), tmp_path / "restart")
    group.close()
    assert provenance.used_gpus == ({"a card"} if gpu else set())


@pytest.mark.parametrize("gpu", [False, True])
def test_the_gpu_setting_reaches_gpaw(monkeypatch, gpu):
    """What a build with CuPy is asked for; such a build was not at hand."""
    import gpaw

    asked = {}
    monkeypatch.setattr(gpaw, "GPAW", lambda **arguments: asked.update(arguments))
    calculator(settings_for("Al", "smoke", "relax"), bulk("Al"), None, gpu=gpu)
    assert asked.get("parallel", {}).get("gpu", False) is gpu


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a child of its parent's death on Linux only")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_launcher_does_not_outlive_its_job(number, tmp_path):
    code = (
        "import sys, test_gpaw_ranks as t; from pathlib import Path\n"
        f"group = t.Ranks(2, t.launcher(Path({str(tmp_path)!r}), 'slow')); group._start()\n"
        "print(group.process.pid, flush=True)\n"
        "t.relax.relax(t.atoms(), t.SETTINGS, lambda *a: t.OnRanks(group, *a), Path(sys.argv[1]))\n"
    )
    path = os.pathsep.join([str(LIBRARY), str(Path(__file__).parent)])
    job = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    launched = int(job.stdout.readline())
    assert alive(launched)
    job.send_signal(number)
    job.communicate()
    deadline = time.monotonic() + 20
    while alive(launched) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(launched)
