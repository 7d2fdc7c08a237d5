"""Training on several processes, one for each GPU or sharing the CPU's threads: torchrun, started by the job itself.

The parent waits, passes on what the processes log, and ends them if it ends; `worker` is what each of them runs.
"""

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from defraction import provenance
from defraction.learning import worker
from defraction.learning.train import train
from defraction.processes import end_group, end_with

log = logging.getLogger(__name__)

REQUEST = "request.json"


def train_in_processes(processes: int, **arguments: Any) -> dict[str, Any]:
    """Train on `processes` data-parallel processes; arguments, results and errors as those of `train.train`.

    Each takes its share of every batch, and gradients are averaged, so that a step is the same step whatever the
    number. Draws are the same, too; sums are rounded in another order, and on CPUs each process normalises a batch by
    its own share of it, so results differ from those of one process within the noise of training. `threads` are shared
    out.

    Raises ValueError if a batch cannot be shared evenly, RuntimeError if a process failed; its words are in the log.
    """
    if processes == 1:
        return train(**arguments)
    size = arguments["settings"]["batch_size"]
    if size % processes:
        raise ValueError(
            f"learning.batch_size is {size}, which {processes} processes (runtime.training_processes) cannot share "
            "evenly; change one of the two"
        )
    folder = Path(arguments["restart_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    threads = max(1, (arguments.get("threads") or processes) // processes)
    request = folder / REQUEST
    request.write_text(json.dumps(arguments | {"threads": threads}, default=str))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command += [worker.__spec__.name, str(request)]
    log.info("starting %d training processes: %s", processes, shlex.join(command))
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=partial(end_with, os.getpid(), signal.SIGTERM),
        env={
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")])),
        },
    )
    try:
        for line in process.stdout:
            log.info("%s", line.rstrip())
        status = process.wait()
    finally:
        end_group(process)
        process.stdout.close()
    if status:
        raise RuntimeError(
            f"the {processes} training processes ended with status {status}; what they said is above in this log. Run "
            "again to go on from the last checkpoint"
        )
    request.unlink()
    card = json.loads(Path(arguments["card"]).read_text(encoding="utf-8"))
    if card["device"] != "cpu":
        provenance.used_gpus.add(card["device"])
    return card
