"""One of several training processes, started by torchrun with a file of `train`'s arguments (JSON)."""

import json
import logging
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from defraction.learning.train import train
from defraction.processes import end_with

PATIENCE = timedelta(hours=2)  # that processes wait for the first, which alone reads held-out patterns and writes files


def main(request: Path) -> None:
    """Join the group that torchrun describes in the environment, train, leave it."""
    end_with(os.getppid(), signal.SIGKILL)
    arguments = json.loads(request.read_text())
    on_gpu = arguments["device"] != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    level = logging.INFO if distributed.get_rank() == 0 else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout)
    try:
        train(**arguments)
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
