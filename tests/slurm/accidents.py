"""What the jobs of accidents.smk do. usage: accidents.py WHAT OUTPUT [NUMBER...]"""

import json
import os
import sys
import time
from pathlib import Path


def sleep(output: Path, seconds: int) -> None:
    """Sleep, and say when and where."""
    started = time.time()
    time.sleep(seconds)
    job = {key: value for key, value in os.environ.items() if key.startswith("SLURM_")}
    output.write_text(json.dumps({"started": started, "ended": time.time(), "slurm": job}))


def memory(output: Path, megabytes: int, granted: int) -> None:
    """Hold so much memory, long enough to be seen."""
    held = os.urandom(2**20) * megabytes
    time.sleep(8)
    output.write_text(json.dumps({"held": len(held) // 2**20, "granted": granted}))


def tick(output: Path, seconds: int) -> None:
    """Count seconds in a file beside the output, from where an earlier attempt stopped."""
    state = Path("results/.restart/time")
    state.parent.mkdir(parents=True, exist_ok=True)
    done = len(state.read_text().splitlines()) if state.exists() else 0
    with state.open("a") as file:
        for second in range(done, seconds):
            file.write(f"{second} {os.environ['SLURM_JOB_ID']}\n")
            file.flush()
            time.sleep(1)
    output.write_text(state.read_text())


def cancelled(output: Path) -> None:
    """Wait to be cancelled; a second attempt ends at once."""
    waiting = Path("waiting")
    if not waiting.exists():
        waiting.touch()
        time.sleep(1800)
    output.touch()


if __name__ == "__main__":
    work = {"sleep": sleep, "memory": memory, "time": tick, "cancelled": cancelled}[sys.argv[1]]
    work(Path(sys.argv[2]), *map(int, sys.argv[3:]))
