"""What every MPI rank runs: take a geometry, compute it together with GPAW, answer on rank 0.

`ranks` starts it. Questions and answers are lines of JSON. A question holds "numbers", "cell" [Å], "positions" [Å],
"pbc", "moments" [muB], "stress" (wanted or not) and "new": null to go on with the calculator of the question before,
else "settings", "rung" and "txt" (path of the log, appended to) of a new one. An answer holds "energy", "free_energy"
[eV], "forces" [eV/Å], "stress" [eV/Å^3], "magmom" and "magmoms" [muB] as far as there are any, or "error", "message"
and "converges_on_another_rung".
"""

import ctypes
import json
import os
import signal
import sys
import time
import traceback

MARK = "@defraction "  # begins a line that is an answer; whatever else is printed goes to the job's log
GRACE = 5.0  # [s] for rank 0 to say what is wrong before the others end everything
LOOK_UP = 0.005  # [s]


class Group:
    """The ranks that compute, of all that there are: without ScaLAPACK, GPAW uses no more than it has k points."""

    def __init__(self, world, gpu: bool) -> None:
        self.world, self.gpu = world, gpu
        # All ranks make all communicators: a rank outside one gets None for it.
        self.communicators = {size: world.new_communicator(list(range(size))) for size in range(1, world.size + 1)}
        self.size = world.size
        self.calculator = None
        self.new: dict | None = None

    def compute(self, question: dict) -> dict | None:
        """The answer, None on a rank that has nothing to do."""
        from gpaw import BadParallelization

        if question["new"]:
            self.new, self.calculator, self.size = question["new"], None, self.world.size
        while self.communicators[self.size] is not None:
            try:
                return self._compute(question)
            except BadParallelization:
                self.calculator, self.size = None, self.size - 1
                if self.world.rank == 0:
                    print(f"fewer k points than ranks: {self.size} of {self.world.size} compute", file=sys.stderr)
        return None

    def _compute(self, question: dict) -> dict:
        from ase import Atoms

        from defraction.first_principles.calculator import calculator

        atoms = Atoms(question["numbers"], question["positions"], cell=question["cell"], pbc=question["pbc"])
        if any(question["moments"]):
            atoms.set_initial_magnetic_moments(question["moments"])
        if self.calculator is None:
            path = self.new["txt"] if self.world.rank == 0 else None
            self.calculator = calculator(
                self.new["settings"],
                atoms,
                open(path, "a") if path else None,  # noqa: SIM115 (GPAW keeps it)
                self.new["rung"],
                gpu=self.gpu,
                communicator=self.communicators[self.size],
            )
        atoms.calc = self.calculator
        answer = {
            "energy": float(atoms.get_potential_energy()),
            "free_energy": float(atoms.get_potential_energy(force_consistent=True)),
            "forces": atoms.get_forces().tolist(),
        }
        if any(question["moments"]):
            answer["magmom"] = float(atoms.get_magnetic_moment())
            answer["magmoms"] = atoms.get_magnetic_moments().tolist()
        if question["stress"]:
            answer["stress"] = atoms.get_stress().tolist()
        return answer


def next_question(world) -> str:
    """The next line of standard input, on all ranks; empty at its end.

    MPI waits by turning round as fast as it can. Ranks without work, for minutes perhaps, look up now and then instead.
    """
    import numpy as np
    from gpaw.mpi import broadcast

    there = np.zeros(1)
    if world.rank == 0:
        line = sys.stdin.readline()
        for rank in range(1, world.size):
            world.send(there, rank)
    else:
        line = None
        request = world.receive(there, 0, block=False)
        while not world.test(request):
            time.sleep(LOOK_UP)
    return broadcast(line, comm=world)


def serve(gpu: bool) -> None:
    """Answer questions until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    from gpaw import ConvergenceError
    from gpaw.mpi import world

    def say(answer: dict | None) -> None:
        if world.rank == 0:
            answers.write(MARK + json.dumps(answer) + "\n")
            answers.flush()

    card = ""
    if gpu:
        from gpaw.gpu import cupy

        from defraction.provenance import card_name

        card = card_name(cupy)
    say({"ranks": world.size, "gpu": card})
    group = Group(world, gpu)
    while True:
        line = next_question(world)
        if not line:
            return
        try:
            say(group.compute(json.loads(line)))
        except ConvergenceError as error:
            say({"error": type(error).__name__, "message": str(error), "converges_on_another_rung": True})
        except Exception as error:
            traceback.print_exc()
            say({"error": type(error).__name__, "message": str(error), "converges_on_another_rung": False})
            if world.rank == 0:
                sys.stdin.read()  # until the job has heard it and ends the ranks: what is under way dies with an abort
            time.sleep(GRACE)
            world.abort(1)
            os._exit(1)


if __name__ == "__main__":
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)  # of the launcher's process that started this rank
    serve("--gpu" in sys.argv[1:])
