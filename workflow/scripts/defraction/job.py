"""The context in which every rule's script runs: log, temporary outputs, provenance record.

    with job(snakemake) as run:
        from defraction.diffraction.patterns import simulate_file

        simulate_file(run.input.structure, run.output.patterns, run.params.diffraction)

Heavy imports belong inside the block, after the thread limits are set and where a failure reaches the log. A costly job
calls `run.reuse()` first: where the cache has its results, they are taken and the rest of the block is skipped.
"""

import contextlib
import json
import logging
import os
import platform
import resource
import shutil
import signal
import sys
import time
import traceback
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

from defraction import cache, digest, environment, provenance

logger = logging.getLogger(__name__)

STATE = Path("results/.restart")
RUNNING = Path("results/.running")
CONSOLE_INTERVAL = 20.0
SEGMENT = "segment"
"""Name of the marker that a segment of a long job writes and the next one takes: it orders jobs and is no result."""


EARLIER = "earlier.json"
"""File in a job's restart state: what its runs cost that ended before the results were whole."""


class _Reused(Exception):
    """The outputs came from the cache: ends the block of a job."""


class _Console(logging.Handler):
    """Warnings and, at most every CONSOLE_INTERVAL seconds, progress on the terminal; everything is in the log file."""

    def __init__(self, stream, name: str):
        super().__init__(logging.INFO)
        self.stream, self.name, self.last = stream, name, time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if record.levelno >= logging.WARNING or now - self.last > CONSOLE_INTERVAL:
            self.last = now
            self.stream.write(f"[{self.name}] {record.getMessage()}\n")
            self.stream.flush()


def temporary(path: str | os.PathLike, pid: int) -> Path:
    """Name under which an output is written until it is whole: hidden, same folder and same suffix."""
    path = Path(path)
    return path.with_name(f".{path.stem}.tmp{pid}{path.suffix}")


def _state_name(rule: str, wildcards: dict[str, str]) -> str:
    """Folder of a job's restart state; all segments of a job share it."""
    return "-".join([rule.removesuffix(f"_{SEGMENT}"), *(v for k, v in wildcards.items() if k != "left")])


def _earlier(restart_dir: Path) -> list[dict]:
    """Start, wall and CPU time [s] of the runs of a job before this one."""
    path = restart_dir / EARLIER
    return json.loads(path.read_text()) if path.is_file() else []


def _note_cost(restart_dir: Path, started: float, seconds: float) -> None:
    """Keep what a run cost that another one goes on from; a run killed outright (kill -9) leaves no note."""
    if not restart_dir.is_dir():
        return
    runs = [*_earlier(restart_dir), {"started": started, "seconds": round(seconds, 3), "cpu_seconds": _cpu_seconds()}]
    path = restart_dir / f".{EARLIER}.tmp{os.getpid()}"
    path.write_text(json.dumps(runs))
    os.replace(path, restart_dir / EARLIER)


def _mark(name: str, started: float) -> Path:
    """Tell that a job runs, for the check before the next run; the file is whole from its first moment.

    Several machines may share the folder, so a process is told by its host too.
    """
    facts = {"pid": os.getpid(), "job": name, "host": platform.node(), "started": started}
    if number := os.environ.get("SLURM_JOB_ID"):
        facts["slurm_job"] = number
    RUNNING.mkdir(parents=True, exist_ok=True)
    path = RUNNING / f"{facts['host']}-{facts['pid']}.json"
    partial = path.with_name(f".{path.name}.tmp{os.getpid()}")
    partial.write_text(json.dumps(facts))
    os.replace(partial, path)
    return path


def _cpu_seconds() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return round(sum(u.ru_utime + u.ru_stime for u in usage), 3)


@contextlib.contextmanager
def job(snakemake, state: bool = False):
    """Run the body of a rule's script.

    Sends stdout, stderr and logging to the rule's log file, gives temporary output names that are renamed only when the
    body ends well, and writes the record last.

    Args:
        snakemake: the object that Snakemake puts into a script.
        state: whether the body keeps restart state; it is removed when the job ends well, with that of other settings
            and code, unless it is a segment of a longer one.

    Yields:
        Namespace with `input`, `output` (temporary paths), `params`, `wildcards`, `threads`, `runtime` (the
        configuration's section, plain values), `origin` (short provenance to put inside files), `restart_dir` and
        `reuse`, a function that ends the block if the cache of `runtime.cache` has the outputs, and that otherwise has
        them stored there when the block ends well.

    Raises:
        RuntimeError: the code is not the one that was planned with, or a package was imported from outside the conda
            environment that the rule names; like every exception of the body it ends in the log and in exit status 1.
    """
    os.environ["NUMBA_NUM_THREADS"] = str(snakemake.threads)
    os.environ.setdefault("NUMBA_CACHE_DIR", str(Path("results/.cache/numba").absolute()))
    started, clock = time.time(), time.monotonic()
    wildcards = dict(snakemake.wildcards.items())
    name = ":".join([snakemake.rule, *wildcards.values()])

    log = Path(snakemake.log[0])
    log.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.fdopen(os.dup(2), "w")
    with open(log, "w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    logging.getLogger("defraction").addHandler(_Console(terminal, name))

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    outputs = {key: Path(path) for key, path in snakemake.output.items() if key != "record"}
    partial = {key: temporary(path, os.getpid()) for key, path in outputs.items()}
    params = {key: value for key, value in sorted(snakemake.params.items())}
    finished = False
    script = Path(getattr(sys.modules["__main__"], "__file__", "")).name
    runtime = dict(snakemake.config["runtime"])
    with_host = runtime.get("record_host", True)
    shelf: cache.Entry | None = None
    found: dict | None = None
    marker: Path | None = None
    restart_dir: Path | None = None

    def reuse() -> None:
        nonlocal shelf, found
        if (folder := cache.folder(runtime.get("cache"))) is None:
            return
        try:
            shelf = cache.Entry(folder, cache.content(snakemake.rule, wildcards, params, inputs))
        except PackageNotFoundError as error:
            logger.warning("the cache is not used: the version of %s cannot be told", error.name)
            return
        if SEGMENT in outputs:
            if shelf.sound():
                partial[SEGMENT].write_text(json.dumps({"finished": True}) + "\n")
                raise _Reused
        elif (found := shelf.fetch(partial)) is not None:
            raise _Reused

    try:
        marker = _mark(name, started)
        for path in partial.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        inputs = [
            provenance.entry(path, role)
            for role, paths in snakemake.input.items()
            if role != SEGMENT
            for path in ([paths] if isinstance(paths, str) else paths)
        ]
        restart_dir = STATE / _state_name(snakemake.rule, wildcards) / provenance.state_digest(params, inputs)
        run = SimpleNamespace(
            input=snakemake.input,
            output=SimpleNamespace(**partial),
            params=snakemake.params,
            wildcards=snakemake.wildcards,
            threads=snakemake.threads,
            runtime=runtime,
            origin={"rule": snakemake.rule, "wildcards": wildcards, "params": params, **provenance.code()},
            restart_dir=restart_dir,
            reuse=reuse,
        )
        if (code := digest.code_digest(script)) != params["code"]:
            raise RuntimeError(
                f"the code of {script} changed since the run was planned ({params['code']} -> {code}, package in "
                f"{digest.SCRIPTS}); start the run again"
            )
        prefix = environment.close(script)
        if state:
            restart_dir.mkdir(parents=True, exist_ok=True)
        try:
            yield run
        except _Reused:
            logger.info("taken from the cache: %s", shelf.path)
        environment.check(prefix, script)
        missing = [str(outputs[key]) for key, path in partial.items() if not path.exists()]
        if missing:
            raise FileNotFoundError(f"the job ended without writing {', '.join(missing)}")
        if not with_host and "log" in partial:
            hosts = {platform.node(), *([found["host"].get("name", "")] if found else [])}
            other_prefix = found["environment"].get("prefix") if found else None
            provenance.strip_log(partial["log"], hosts - {""}, other_prefix)
        for key, path in partial.items():
            provenance.place(path, outputs[key])
        record = Path(snakemake.output.record)
        facts = {
            "rule": snakemake.rule,
            "wildcards": wildcards,
            "params": params,
            "inputs": inputs,
            "outputs": [provenance.entry(path, key) for key, path in outputs.items()],
            "threads": snakemake.threads,
            "started": started,
            "seconds": round(time.monotonic() - clock, 3),
            "log": str(log),
        }
        if state:
            facts["segments"] = runtime.get("segments", 1) if SEGMENT in dict(snakemake.input.items()) else 1
            facts["earlier"] = _earlier(restart_dir)
            if SEGMENT not in outputs:
                provenance.mark_segments(record, facts["segments"])
        if found is not None:
            facts["cache"] = {"key": shelf.key, "record": found}
        facts["configuration"] = provenance.keep_configuration(snakemake.config, with_host)
        provenance.write_record(record, facts, digest.file_digests(script), with_host)
        finished = True
        if shelf is not None and found is None and SEGMENT not in outputs:
            shelf.store(outputs, provenance.read_record(record))
        if state and SEGMENT not in outputs:
            shutil.rmtree(restart_dir.parent, ignore_errors=True)
    except BaseException as error:
        traceback.print_exc()
        terminal.write(f"[{name}] {type(error).__name__}: {error}\n[{name}] log: {log}\n")
        terminal.flush()
        raise SystemExit(1) from None
    finally:
        if state and restart_dir is not None and (SEGMENT in outputs or not finished):
            _note_cost(restart_dir, started, time.monotonic() - clock)
        for path in partial.values():
            path.unlink(missing_ok=True)
        if marker is not None:
            marker.unlink(missing_ok=True)
