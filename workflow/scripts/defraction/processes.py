"""Child processes that end with their parent, however it ends."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys


def end_with(parent: int, number: int) -> None:
    """Ask the kernel to send this process a signal when its parent dies, however it dies (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)


def end_group(process: subprocess.Popen, patience: float = 5.0) -> None:
    """End a child that leads a session of its own, and what it started: asked first, after `patience` [s] at once."""
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, None)):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
