"""The restart state of a first-principles job: one file of frames, safe against `kill -9` at any moment.

A trajectory is a text file with one JSON object per line. The first line holds the fingerprint of what is computed
(structure and settings), every other line is one computed geometry, its numbers written so that they read back to the
last bit. A frame counts once its line end is on disk; whatever stands behind the last whole line is cut off when the
file is opened. All state of an optimiser or integrator follows from the frames, so nothing can disagree with them.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from ase import Atoms

log = logging.getLogger(__name__)


class WallTimeReached(RuntimeError):
    """The next step would not fit into the wall time. The same call made again goes on where this one stopped."""


def fingerprint(atoms: Atoms, settings: dict) -> str:
    """SHA-256 of the starting structure (species, cell, positions, periodicity) and the settings."""
    content = {
        "numbers": atoms.numbers.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "positions": atoms.positions.tolist(),
        "settings": settings,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Trajectory:
    """Frames (dicts of plain values and float arrays) kept in `path`; opened where an earlier process left it.

    Frames of another fingerprint are never resumed: the file is begun anew, and the log says so.
    """

    def __init__(self, path: Path, mark: str) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.frames: list[dict] = []
        header, whole = None, 0
        data = self.path.read_bytes() if self.path.exists() else b""
        for line in data.splitlines(keepends=True):
            try:
                content = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                content = None
            if not isinstance(content, dict):
                break
            if header is None:
                header = content
            else:
                self.frames.append({k: np.array(v) if isinstance(v, list) else v for k, v in content.items()})
            whole += len(line)
        if header is not None and header.get("fingerprint") == mark:
            if whole < len(data):
                log.warning("%s: dropped an unfinished frame of %d bytes at the end", self.path, len(data) - whole)
                os.truncate(self.path, whole)
            if self.frames:
                log.info("%s: resuming after %d computed geometries", self.path, len(self.frames))
            return
        if data:
            log.warning("%s: belongs to another structure or other settings; starting afresh", self.path)
        self.frames = []
        self.path.write_bytes(b"")
        self._write_line({"fingerprint": mark})

    def append(self, **frame) -> None:
        """Add one frame and put it on disk before returning."""
        self._write_line({k: v.tolist() if isinstance(v, np.ndarray | np.generic) else v for k, v in frame.items()})
        self.frames.append(frame)

    def _write_line(self, content: dict) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(content).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def calculator_log(restart_dir: Path, copy_to: Path | None) -> Iterator[IO[str]]:
    """The calculator's text log: appended to over all resumptions in `restart_dir`, copied to `copy_to` at the end."""
    path = Path(restart_dir) / "calculator.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        yield file
    if copy_to is not None:
        shutil.copyfile(path, copy_to)


def segment(
    compute: Callable,
    atoms: Atoms,
    settings: dict,
    out_json: Path,
    restart_dir: Path,
    calculator_factory: Callable,
    walltime: float | None,
) -> None:
    """Compute (`relax.relax` or `aimd.run`) until it is done or the wall time is up; `out_json` says which it was.

    What was computed stays in the restart state; the next segment, and at last the job that writes the results, go on
    from there.
    """
    with calculator_log(restart_dir, None) as txt:
        try:
            compute(atoms, settings, calculator_factory, restart_dir, txt, walltime)
            finished = True
        except WallTimeReached as reached:
            log.info("%s", reached)
            finished = False
    Path(out_json).write_text(json.dumps({"finished": finished}) + "\n")


class Clock:
    """Wall time of this process's share of a job: mean seconds per step, time left, and the limit."""

    def __init__(self, walltime: float | None) -> None:
        self.walltime = walltime
        self.started = self.last = time.monotonic()
        self.longest = 0.0
        self.steps = 0

    def step_done(self) -> None:
        now = time.monotonic()
        self.longest = max(self.longest, now - self.last)
        self.last = now
        self.steps += 1

    def left(self, steps: int, how: str = "about") -> str:
        """Words for the time that `steps` more steps would take; `how` sure that number of steps is."""
        if not self.steps:
            return "time left unknown"
        seconds = steps * (self.last - self.started) / self.steps
        return f"{how} {seconds:.0f} s left" if seconds < 600 else f"{how} {seconds / 60:.0f} min left"

    def check(self, what: str) -> None:
        """Raise WallTimeReached if a further step may not fit. The first step is always made, so every call gets on."""
        if self.walltime is None or not self.steps:
            return
        if time.monotonic() - self.started + self.longest > self.walltime:
            raise WallTimeReached(
                f"{what}: the wall time of {self.walltime:g} s is used up; run again to go on from here, or give more "
                "runtime.segments"
            )
