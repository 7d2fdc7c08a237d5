"""Where GPAW computes: in this process, or on MPI ranks that this process starts and ends.

A job runs in one process: optimiser, integrator, restart state, log and outputs. Only densities, energies and forces
are computed by all ranks. They are copies of `worker`, started by an MPI launcher, and take one geometry after the
other over the launcher's standard input and answer over its standard output, one JSON object per line, numbers to the
last bit. So a relaxation on ranks takes the very same code path as one without, and there is nothing that ranks could
disagree on.
"""

import builtins
import contextlib
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, SCFError, all_changes

from defraction import provenance
from defraction.first_principles import worker
from defraction.first_principles.calculator import Factory, calculator
from defraction.processes import end_group, end_with

log = logging.getLogger(__name__)

PATIENCE = 20.0  # [s] that ranks have to end by themselves


class RanksLost(RuntimeError):
    """The ranks ended while a geometry was being computed; the restart state holds all earlier ones."""


@contextlib.contextmanager
def calculators(ranks: int = 1, launcher: str = "mpiexec", gpu: bool = False) -> Iterator[Factory]:
    """A factory of GPAW calculators for one job.

    Args:
        ranks: MPI ranks; 1 computes in this process.
        launcher: command that starts them, with its arguments; "-n RANKS" is added.
        gpu: compute on GPUs (GPAW's `parallel={"gpu": True}`).

    Yields:
        (settings, atoms, txt, rung) -> ASE calculator. Ranks start with the first calculator and end with the block.

    Raises:
        ValueError: this build of GPAW has no MPI or no GPU support, or the launcher is not there.
    """
    check_build(ranks, gpu)
    if ranks == 1:
        yield partial(calculator, gpu=gpu)
        return
    group = Ranks(ranks, launcher, gpu)
    try:
        yield partial(OnRanks, group)
    except BaseException:
        group.kill()
        raise
    group.close()


def check_build(ranks: int, gpu: bool) -> None:
    """Raise ValueError, before any work, if GPAW has no MPI though `ranks` > 1, or no GPU though `gpu`."""
    if ranks > 1:
        from gpaw import cgpaw

        if not cgpaw.have_mpi:
            raise ValueError(
                f"runtime.gpaw_ranks is {ranks}, but this GPAW is built without MPI; build it with mpi = True (see "
                "tools/gpaw_siteconfig.py; `make setup` does) or set runtime.gpaw_ranks to 1"
            )
    if gpu:
        from gpaw.gpu import cupy_is_fake

        if cupy_is_fake:
            raise ValueError(
                "runtime.gpaw_gpu is set, but this GPAW cannot compute on a GPU: it is built without gpu = True, CuPy "
                "is missing, or there is no GPU; mend that or set runtime.gpaw_gpu to false"
            )


def launcher_command(launcher: str) -> list[str]:
    """The launcher as a list of words; a program beside this interpreter comes before one of the same name in PATH.

    Raises:
        ValueError: there is no such program.
    """
    words = shlex.split(launcher)
    if not words:
        raise ValueError("runtime.mpi_launcher is empty; give a command such as mpiexec")
    beside = Path(sys.executable).parent / words[0]
    program = str(beside) if beside.is_file() else shutil.which(words[0])
    if program is None:
        raise ValueError(
            f"runtime.mpi_launcher {launcher!r}: {words[0]!r} is neither beside {sys.executable} nor in PATH; the "
            "package mpich brings mpiexec, a cluster has its own (srun)"
        )
    return [program, *words[1:]]


class Ranks:
    """A group of MPI ranks that compute geometries; started by the first request."""

    def __init__(self, count: int, launcher: str = "mpiexec", gpu: bool = False) -> None:
        command = [*launcher_command(launcher), "-n", str(count), sys.executable, "-m", "gpaw", "python", "-m"]
        self.command = [*command, worker.__spec__.name, *(["--gpu"] if gpu else [])]
        self.count = count
        self.process: subprocess.Popen | None = None

    def request(self, question: Mapping) -> dict:
        """The ranks' answer to one question (`worker` says what both hold).

        Raises:
            SCFError: the density did not converge; the ranks go on living.
            RanksLost: the ranks ended.
            Exception: of the type and with the words that the ranks raised (RuntimeError for types that Python itself
                does not have).
        """
        if self.process is None:
            self._start()
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise self._lost() from None
        answer = self._answer()
        if "error" in answer:
            name, message = answer["error"], answer["message"]
            if answer["converges_on_another_rung"]:
                raise SCFError(message)
            self.kill()
            kind = getattr(builtins, name, None)
            if isinstance(kind, type) and issubclass(kind, Exception):
                raise kind(message)
            raise RuntimeError(f"{name}: {message}")
        return answer

    def close(self) -> None:
        """End the ranks: they leave by themselves when their standard input ends, or are killed."""
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)
            self.kill()

    def kill(self) -> None:
        """End the ranks at once."""
        if self.process is None:
            return
        # The launcher ends its ranks, on other machines too, if it is asked to; what is left of it then dies.
        end_group(self.process)
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process = None

    def _start(self) -> None:
        log.info("starting %d MPI ranks: %s", self.count, shlex.join(self.command))
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=partial(end_with, os.getpid(), signal.SIGTERM),
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(
                    filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")])
                ),
            },
        )
        started = self._answer()
        if started.get("gpu"):
            provenance.used_gpus.add(started["gpu"])
        if started["ranks"] != self.count:
            self.kill()
            raise ValueError(
                f"runtime.mpi_launcher: {shlex.join(self.command[:3])} started copies of {started['ranks']} rank(s) "
                f"instead of one group of {self.count}; use the launcher of the MPI library that GPAW was built with"
            )

    def _answer(self) -> dict:
        for line in self.process.stdout:
            if line.startswith(worker.MARK):
                return json.loads(line[len(worker.MARK) :])
            log.info("ranks: %s", line.rstrip())
        raise self._lost()

    def _lost(self) -> RanksLost:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        status = self.process.returncode
        self.kill()
        how = "hung up" if status is None else f"ended with status {status}"
        return RanksLost(
            f"the {self.count} MPI ranks {how} (see above in this log); out of memory, or the launcher "
            f"{self.command[0]!r} cannot start them here? Run again to go on from the last computed geometry"
        )


class OnRanks(Calculator):
    """An ASE calculator whose geometries are computed by MPI ranks."""

    implemented_properties = ("energy", "free_energy", "forces", "stress", "magmom", "magmoms")

    def __init__(self, ranks: Ranks, settings: dict, atoms: Atoms, txt: str | Path | IO | None, rung: int = 0) -> None:
        super().__init__()
        self.ranks = ranks
        path = getattr(txt, "name", txt)
        self.new = {"settings": settings, "rung": rung, "txt": None if path is None else os.path.abspath(path)}

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        question = {
            "new": self.new,
            "numbers": atoms.numbers.tolist(),
            "cell": atoms.cell.array.tolist(),
            "pbc": atoms.pbc.tolist(),
            "positions": atoms.positions.tolist(),
            "moments": atoms.get_initial_magnetic_moments().tolist(),
            "stress": "stress" in properties,
        }
        answer = self.ranks.request(question)
        self.new = None
        self.results = {key: np.array(value) if isinstance(value, list) else value for key, value in answer.items()}
