"""The Slurm profile on a real Slurm: accidents of small jobs, long jobs in segments, the smoke study."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import yaml
from ase.io import read
from cluster import client

from defraction.preflight import Survivor, clear


@pytest.fixture
def states(slurm):
    """States of the Slurm jobs of a rule, in the order of their attempts."""

    def of(workflow, rule):
        finished = slurm.finished()
        return [finished[number] for number in workflow.submitted()[rule]]

    return of


def test_accidents(slurm, accident, states, note):
    """One run of small jobs: one is cancelled, one needs more memory, one more time; nothing else is touched."""
    started = time.monotonic()
    process = accident.start()
    try:
        slurm.wait_until((accident.folder / "waiting").exists, "a job waits to be cancelled", 300)
        (victim,) = accident.submitted()["rule_cancelled"]
        client("scancel", victim)
        accident.wait(process, 900)
    finally:
        process.kill()
    assert process.returncode == 0, accident.log.read_text()[-6000:]
    log = accident.log.read_text()

    # Too much memory: killed, then granted twice as much by another Slurm job.
    first, second = states(accident, "rule_memory")
    assert first.state in ("OUT_OF_MEMORY", "FAILED") and second.state == "COMPLETED"
    assert (first.memory, second.memory) == (2000, 4000)
    held = json.loads((accident.folder / "memory").read_text())
    assert first.memory < held["held"] < held["granted"] == second.memory
    note(f"memory: {first.memory} MB asked, {first.state}; again with {second.memory} MB, {second.state}")

    # Too long: ended by Slurm, and the next attempt went on where it stopped.
    *timed_out, last = states(accident, "rule_time")
    assert timed_out and {job.state for job in timed_out} == {"TIMEOUT"} and last.state == "COMPLETED"
    ticks = [line.split() for line in (accident.folder / "time").read_text().splitlines()]
    assert [int(second) for second, _ in ticks] == list(range(100))
    assert len({number for _, number in ticks}) == len(timed_out) + 1
    note(f"wall time: 100 s of work at a limit of 1 min: {len(timed_out)} TIMEOUT, no second done twice, COMPLETED")

    # Cancelled: submitted again; the others never noticed.
    first, second = states(accident, "rule_cancelled")
    assert (first.state, second.state) == ("CANCELLED", "COMPLETED")
    note("cancelled: one job CANCELLED by scancel and submitted again, all others went on")

    # One GPU: two jobs in turn, in the partition that has it.
    predictions = sorted(
        (json.loads((accident.folder / f"predictions/{i}").read_text()) for i in range(2)), key=lambda p: p["started"]
    )
    assert predictions[0]["ended"] <= predictions[1]["started"]
    assert all(p["slurm"]["SLURM_GPUS_ON_NODE"] == "1" for p in predictions)
    for i in range(2):
        (job,) = states(accident, f"rule_predict/{i}")
        assert (job.state, job.partition, job.memory) == ("COMPLETED", "gpu", 4000)
    wait = predictions[1]["started"] - predictions[0]["ended"]
    note(f"GPU: two jobs on one (counted) GPU in turn, {wait:.0f} s apart, in the partition with GPUs")

    # Short jobs: one Slurm job for the group, in it one after the other.
    group = [json.loads((accident.folder / f"structures/{i}").read_text()) for i in range(4)]
    assert len({member["slurm"]["SLURM_JOB_ID"] for member in group}) == 1
    group.sort(key=lambda member: member["started"])
    assert all(a["ended"] <= b["started"] for a, b in itertools.pairwise(group))
    note("groups: four short jobs in one Slurm job, one after the other")

    for rule in ("memory", "time", "cancelled"):
        assert {job.partition for job in states(accident, f"rule_{rule}")} == {"cpu"}

    failures = re.findall(r"SLURM status is: '(\w+)'", log)
    assert len(failures) == 2 + len(timed_out), failures
    note(f"accidents: {time.monotonic() - started:.0f} s")


def test_the_controller_dies_and_comes_back(slurm, accident, states, note):
    """Jobs that run meanwhile run once, and their ends are seen: the plugin, left alone, would forget them and wait."""
    process = accident.start("steady/0", "steady/1")
    try:
        slurm.wait_until(lambda: list(slurm.jobs().values()).count("RUNNING") == 2, "both jobs run", 300)
        time.sleep(10)  # the controller saves what it knows every few seconds
        slurm.kill_controller()
        assert client("squeue", seconds=60) == ""
        slurm.start_controller()
        back = time.time()
        accident.wait(process, 600)
    finally:
        process.kill()
    assert process.returncode == 0, accident.log.read_text()[-6000:]
    for i in range(2):
        (job,) = states(accident, f"rule_steady/{i}")
        assert job.state == "COMPLETED"
        times = json.loads((accident.folder / f"steady/{i}").read_text())
        assert times["started"] < back < times["ended"]
    note("controller: killed with two jobs running and started again; they ran through, once, and their ends were seen")


def test_a_second_run_waits_for_the_jobs_of_a_killed_one(slurm, accident, note):
    """Snakemake started again would submit them a second time: the check before a run names them."""
    process = accident.start("steady/0")
    try:
        slurm.wait_until(lambda: "RUNNING" in slurm.jobs().values(), "the job runs", 300)
        slurm.wait_until((accident.folder / ".snakemake/locks").exists, "the run has its lock")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    (number,) = accident.submitted()["rule_steady/0"]
    with pytest.raises(Survivor, match=rf"Slurm job {number}, running \(rule_steady"):
        clear(accident.folder, [])
    client("scancel", number)
    slurm.wait_until(lambda: slurm.jobs()[number] == "CANCELLED", "the job is gone")
    assert any("lock" in line for line in clear(accident.folder, []))
    note("Snakemake killed: the check before the next run names its job in Slurm, and clears the way once that ended")


def test_an_interrupted_run_cancels_its_jobs(slurm, accident, note):
    """Ctrl-C ends the job that runs and the one that waits, and leaves nothing in the way of the next run.

    The signal comes well before the next question about jobs' states, as in the moment of asking the plugin has no list
    of its jobs (docs/running.md).
    """
    seldom = ("--slurm-init-seconds-before-status-checks", "20", "--set-threads", f"steady={slurm.cpus}")
    process = accident.start(*seldom, "--", "steady/0", "steady/1")

    def both() -> list[str]:
        jobs = slurm.jobs()
        return sorted(jobs.get(number, "") for numbers in accident.submitted().values() for number in numbers)

    try:
        slurm.wait_until(lambda: both() == ["PENDING", "RUNNING"], "one job runs, the other waits for its cores", 300)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        slurm.wait_until(lambda: both() == ["CANCELLED"] * 2, "both are cancelled", 30)
        cancelled = time.monotonic() - sent
        accident.wait(process, 120)
    finally:
        process.kill()
    assert process.returncode == 1, accident.log.read_text()[-6000:]
    assert clear(accident.folder, []) == []
    assert not (accident.folder / "steady").exists() or not list((accident.folder / "steady").iterdir())
    ended = time.monotonic() - sent
    note(f"Ctrl-C: a running and a waiting job CANCELLED within {cancelled:.0f} s, Snakemake ended after {ended:.0f} s")


def test_a_job_array(slurm, accident, note):
    """What the profile leaves to its user: jobs of one rule, all ready, as one array."""
    accident.run("--slurm-array-jobs", "member", "--", *(f"members/{i}" for i in range(4)), seconds=400)
    members = [json.loads((accident.folder / f"members/{i}").read_text())["slurm"] for i in range(4)]
    assert len({member["SLURM_ARRAY_JOB_ID"] for member in members}) == 1
    assert {member["SLURM_ARRAY_TASK_ID"] for member in members} == {"1", "2", "3", "4"}
    note("job array: four jobs of a rule as one array, all COMPLETED")


def test_two_gpus_for_one_job(slurm, accident, note):
    """A job that asks for two GPUs sees two in its own step: Snakemake's inner process does not cut them to one."""
    slurm.restart(gpus=2)
    text = (accident.folder / "Snakefile").read_text()
    (accident.folder / "Snakefile").write_text(text.replace("gpu=1", "gpu=2"))
    accident.run("predictions/0", seconds=300)
    seen = json.loads((accident.folder / "predictions/0").read_text())["slurm"]
    assert seen["SLURM_GPUS_ON_NODE"] == "2"
    note("GPU: a job that asked for two (counted) GPUs got both")


def test_long_jobs_go_on_in_the_next_job(slurm, study, root, note):
    """With a wall time that is always over, each of as many Slurm jobs as the configuration has segments computes one
    geometry, on two MPI ranks: five of molecular dynamics, and three of a relaxation, whose last jobs find it done.
    """
    segments, geometries = 5, {"aimd/al-thermal-300K-2x1x1": 5, "relax/al-vacancy-2x1x1": 3}
    results = study.folder / "results/first_principles"
    started = time.monotonic()
    study.run("--configfile", "config/smoke.yaml", "--", "results/first_principles/lattice/Al.json")
    settings = yaml.safe_load((study.folder / "config/smoke.yaml").read_text())
    settings["runtime"] = {"gpaw_ranks": 2, "walltime": 0.001, "segments": segments}
    (study.folder / "config/segments.yaml").write_text(yaml.safe_dump(settings))
    study.run(
        "--configfile", "config/segments.yaml", "--", *(f"results/first_principles/{name}.json" for name in geometries)
    )

    submitted, finished = study.submitted(), slurm.finished()
    for name, count in geometries.items():
        rule, condition = name.split("/")
        jobs = [n for job, numbers in submitted.items() if re.match(rf"rule_{rule}(_segment)?/", job) for n in numbers]
        assert len(jobs) == segments
        assert {(finished[n].state, finished[n].minutes) for n in jobs} == {("COMPLETED", 16)}
        for earlier in range(segments):
            left = segments - 1 - earlier
            log = (study.folder / f"logs/{name}{f'.{left}' if left else ''}.log").read_text()
            resumed = re.search(r"resuming after (\d+) computed geometries", log)
            assert int(resumed[1] if resumed else 0) == min(earlier, count)
            assert ("starting 2 MPI ranks" in log) == (earlier < count)
        # GPAW itself says so once for each geometry, in the log of all segments.
        assert (results / f"{name}.gpaw.txt").read_text().count("Converged in ") == count
        record = json.loads((results / f"{name}.record.json").read_text())
        assert (record["segments"], len(record["earlier"])) == (segments, segments - 1)
        assert not list((study.folder / "results/.restart").glob(f"{rule}-{condition}/*"))
    assert not [path for path in (results / "segments").rglob("*") if path.is_file()]
    _as_in_the_library(results / "relax", root / "resources/structures", "al-vacancy-2x1x1")
    note(
        f"segments: molecular dynamics and a relaxation on 2 MPI ranks, one geometry in each of {segments} jobs until "
        f"done, none twice, {time.monotonic() - started:.0f} s"
    )


def _as_in_the_library(folder, library, name):
    """The relaxation is the library's, made by one job of one rank: the same steps, but for what self-consistency
    leaves in the forces (0.02 eV/Å, and an atom is held with 5 eV/Å^2 at least) and in the lattice constant (0.001 Å).
    """
    ours, theirs = (json.loads((place / f"{name}.json").read_text()) for place in (folder, library))
    assert ours["settings"] == theirs["settings"] and ours["steps"] == theirs["steps"]
    moved, expected = (read(place / f"{name}.extxyz") for place in (folder, library))
    forces = theirs["settings"]["electronic"]["convergence"]["forces"]
    difference = moved.positions - expected.positions
    assert np.linalg.norm(difference - difference.mean(axis=0), axis=1).max() < 2 * forces / 5.0 + 2 * 0.001


def test_molecular_dynamics_that_slurm_ends_goes_on(slurm, study, tmp_path, note):
    """Far more steps than fit into the limit, and no wall time to end by itself: the next attempt takes up the geometry
    that was the last whole one when Slurm ended the first."""
    made = shutil.ignore_patterns("results", "logs", ".snakemake", "run.log")
    shutil.copytree(study.folder, tmp_path / "defraction", ignore=made)
    study = replace(study, folder=tmp_path / "defraction")
    condition = "al-thermal-200K-2x1x1"
    settings = yaml.safe_load((study.folder / "config/smoke.yaml").read_text())
    settings["first_principles"] |= {"source": "library", "overrides": {"aimd": {"timestep": 0.1, "steps": 5000}}}
    settings["conditions"] = [{"kind": "thermal", "host": "Al", "supercell": [2, 1, 1], "temperatures": [200]}]
    (study.folder / "config/long.yaml").write_text(yaml.safe_dump(settings))
    limit = ("--set-resources", "aimd:runtime=1", "aimd:mem_mb=4000")
    target = f"results/first_principles/aimd/{condition}.json"
    process = study.start("--configfile", "config/long.yaml", *limit, "--", target)

    def computed() -> int:
        """Geometries on disk: the whole lines of the restart state but its first."""
        files = (study.folder / f"results/.restart/aimd-{condition}").rglob("*.jsonl")
        return sum(max(0, path.read_bytes().count(b"\n") - 1) for path in files)

    def resumed() -> int:
        log = study.folder / f"logs/aimd/{condition}.log"
        found = re.search(r"resuming after (\d+) computed geometries", log.read_text() if log.exists() else "")
        return int(found[1]) if found else 0

    try:
        slurm.wait_until(computed, "the first geometry is computed", 300)
        (number,) = study.submitted()[f"rule_aimd/{condition}"]
        slurm.wait_until(lambda: number in slurm.finished(), "Slurm ends the job at its limit", 240)
        before = computed()
        slurm.wait_until(lambda: resumed() and computed() > resumed(), "the next attempt goes on", 240)
    finally:
        process.kill()
        process.wait()
        slurm.cancel()
    first = slurm.finished()[number]
    assert (first.state, first.minutes, first.partition) == ("TIMEOUT", 1, "cpu")
    assert resumed() == before >= 1
    note(f"wall time: our molecular dynamics TIMEOUT after {before} geometries; the next attempt went on from there")


def test_smoke_study(slurm, study, note):
    """The whole study, after the long jobs above, whose results it takes as they are; it trains on two processes."""
    started, earlier = time.monotonic(), set(slurm.finished())
    settings = yaml.safe_load((study.folder / "config/smoke.yaml").read_text())
    settings["runtime"] = {"training_processes": 2}
    (study.folder / "config/processes.yaml").write_text(yaml.safe_dump(settings))
    # So few jobs would stand in one or two queues with the profile's sizes of groups.
    sizes = ("structures=8", "points=4", "clean_patterns=6", "patterns=6", "predictions=6", "tables=10", "figures=50")
    study.run("--configfile", "config/processes.yaml", "--group-components", *sizes)
    seconds = time.monotonic() - started
    finished = [job for number, job in slurm.finished().items() if number not in earlier]
    jobs = int(re.findall(r"(\d+) of \1 steps \(100%\) done", study.log.read_text())[-1])
    assert {(job.state, job.partition) for job in finished} == {("COMPLETED", "cpu")}
    assert len(finished) < jobs / 2
    for name, numbers in study.submitted().items():
        assert len(numbers) == 1 or not re.match(r"rule_(lattice|relax|aimd)", name), f"{name} was made again"
    log = (study.folder / "logs/train/main-seed1.log").read_text()
    assert "starting 2 training processes" in log and "2 process(es) of 1 threads" in log
    for name in ("accuracy.csv", "report.html"):
        assert (study.folder / "results" / name).stat().st_size > 0
    command = [sys.executable, "-m", "snakemake", "--configfile", "config/smoke.yaml", "--cores", "1", "--dry-run"]
    done = subprocess.run(command, cwd=study.folder, capture_output=True, text=True, check=True)
    assert "Nothing to be done" in done.stdout + done.stderr
    command = [sys.executable, "-m", "defraction.cli", "verify"]
    environment = {**os.environ, "PYTHONPATH": str(study.folder / "workflow/scripts")}
    assert subprocess.run(command, cwd=study.folder, env=environment).returncode == 0
    note(
        f"smoke study: {jobs} jobs in {len(finished)} Slurm jobs, training on 2 processes, {seconds:.0f} s; a run "
        "without Slurm, on 1 process, adds nothing"
    )
