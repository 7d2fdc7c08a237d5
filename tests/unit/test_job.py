import json
import os
import platform
import signal
import subprocess
import sys
import time

import pytest

from defraction import preflight, provenance

PROGRAM = """
import sys
__file__ = "structure_strain.py"
from types import SimpleNamespace
sys.path.insert(0, {scripts!r})

class Names(dict):
    __getattr__ = dict.__getitem__

from defraction.digest import code_digest
from defraction.job import job
snakemake = SimpleNamespace(
    rule="demo", wildcards=Names(name="x"), threads=1, log=["logs/demo.log"],
    input=Names(source="source.txt"), params=Names(code=code_digest(__file__), value=3), config={{"runtime": {{}}}},
    output=Names(a="results/a.txt", b="results/b.txt", record="results/a.record.json"))
with job(snakemake, state=True) as run:
{body}
"""


@pytest.fixture
def start(tmp_path, root):
    (tmp_path / "source.txt").write_text("in")
    (tmp_path / "results").mkdir()

    def run(body: str, program: str = PROGRAM) -> subprocess.Popen:
        indented = "\n".join("    " + line for line in body.splitlines())
        text = program.format(scripts=str(root / "workflow/scripts"), body=indented)
        return subprocess.Popen([sys.executable, "-c", text], cwd=tmp_path, stderr=subprocess.PIPE, text=True)

    return run


def names(tmp_path):
    return sorted(p.name for p in (tmp_path / "results").iterdir() if p.is_file())


def test_outputs_and_record(start, tmp_path):
    process = start('run.output.a.write_text("1"); run.output.b.write_text("2"); print("hello")')
    assert process.wait() == 0
    assert names(tmp_path) == ["a.record.json", "a.txt", "b.txt"]
    record = json.loads((tmp_path / "results/a.record.json").read_text())
    assert record["inputs"][0]["sha256"] == provenance.sha256(tmp_path / "source.txt")
    assert [o["path"] for o in record["outputs"]] == ["results/a.txt", "results/b.txt"]
    assert record["params"]["value"] == 3
    assert "hello" in (tmp_path / "logs/demo.log").read_text()
    assert not list((tmp_path / "results/.running").iterdir())


@pytest.mark.parametrize("body", ['run.output.a.write_text("1"); 1 / 0', 'run.output.a.write_text("1")'])
def test_failure_leaves_no_output_and_a_traceback_in_the_log(start, tmp_path, body):
    process = start(body)
    assert process.wait() == 1
    assert names(tmp_path) == []
    assert "Traceback" in (tmp_path / "logs/demo.log").read_text()
    assert "[demo:x]" in process.stderr.read()


def test_restart_state_outlives_a_failure_and_not_a_success(start, tmp_path):
    start('(run.restart_dir / "s").write_text("1"); 1 / 0').wait()
    (state,) = (tmp_path / "results/.restart").rglob("s")
    assert state.read_text() == "1"
    body = 'assert (run.restart_dir / "s").exists()\nfor f in vars(run.output).values(): f.write_text("")'
    assert start(body).wait() == 0
    assert not list((tmp_path / "results/.restart").rglob("s"))


def test_restart_state_of_other_input_is_not_seen(start, tmp_path):
    start('(run.restart_dir / "s").write_text("1"); 1 / 0').wait()
    (tmp_path / "source.txt").write_text("other")
    body = 'assert not (run.restart_dir / "s").exists()\nfor f in vars(run.output).values(): f.write_text("")'
    assert start(body).wait() == 0


def test_a_job_that_ends_well_takes_restart_state_of_other_settings_along(start, tmp_path):
    """Nobody would go on from it, and nobody else would remove it."""
    state = tmp_path / "results/.restart/demo-x/0123456789abcdef/state"
    other = tmp_path / "results/.restart/demo-y/0123456789abcdef/state"
    for path in (state, other):
        path.parent.mkdir(parents=True)
        path.write_text("of other settings")
    assert start("1 / 0").wait() == 1
    assert state.exists()
    assert start('for f in vars(run.output).values(): f.write_text("")').wait() == 0
    assert not (tmp_path / "results/.restart/demo-x").exists()
    assert other.exists()


def test_an_input_that_cannot_be_read_is_said_and_leaves_no_marker(start, tmp_path):
    (tmp_path / "source.txt").unlink()
    process = start("pass")
    assert process.wait() == 1
    assert "[demo:x] FileNotFoundError" in process.stderr.read()
    assert "Traceback" in (tmp_path / "logs/demo.log").read_text()
    assert not list((tmp_path / "results/.running").iterdir())


def test_content_is_on_the_disk_before_a_file_gets_its_name(start, tmp_path):
    """A power cut after the renaming finds the content; without fsync it may find an empty file."""
    body = """
import os
on_disk, replace, fsync = set(), os.replace, os.fsync
def noting(number):
    on_disk.add(os.fstat(number).st_ino)
    return fsync(number)
def checking(source, target):
    if "results/." not in str(target):
        with open("named", "a") as file:
            file.write(f"{target} {os.stat(source).st_ino in on_disk}\\n")
    return replace(source, target)
os.fsync, os.replace = noting, checking
for f in vars(run.output).values(): f.write_text("whole")
"""
    assert start(body).wait() == 0
    named = dict(line.split() for line in (tmp_path / "named").read_text().splitlines())
    configuration = provenance.configuration_file({"runtime": {}})[0]["path"]
    assert named == dict.fromkeys(("results/a.txt", "results/b.txt", "results/a.record.json", configuration), "True")


def test_the_marker_of_a_running_job_tells_host_and_queue(start, tmp_path, monkeypatch):
    """Several nodes share the folder: process numbers alone would collide."""
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    copy = 'import shutil; shutil.copytree("results/.running", "seen")\n'
    process = start(copy + 'for f in vars(run.output).values(): f.write_text("")')
    assert process.wait() == 0
    (marker,) = (tmp_path / "seen").iterdir()
    assert marker.name == f"{platform.node()}-{process.pid}.json"
    assert json.loads(marker.read_text())["slurm_job"] == "4711"


def test_preflight_names_a_survivor_and_clears_after_its_death(start, tmp_path):
    process = start('run.output.a.write_text("1")\nimport time; time.sleep(60)')
    try:
        for _ in range(100):
            if list((tmp_path / "results").glob(".a.tmp*")):
                break
            time.sleep(0.1)
        with pytest.raises(preflight.Survivor, match=rf"job demo:x, process {process.pid}"):
            preflight.clear(tmp_path, [])
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert preflight.clear(tmp_path, []) == ["removed 1 partly written file(s)"]
    assert not list((tmp_path / "results").glob(".a.tmp*"))
    assert not list((tmp_path / "results/.running").iterdir())


def test_a_lock_that_snakemake_does_not_remove_is_one_clear_error(tmp_path):
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    (tmp_path / "Snakefile").write_text('raise ValueError("no table")\n')
    with pytest.raises(RuntimeError) as fault:
        preflight.clear(tmp_path, [])
    message = str(fault.value)
    assert len(message.splitlines()) == 1
    assert f"{tmp_path}: Snakemake does not remove the lock of a killed run: no table; mend that" in message
    assert "snakemake --unlock" in message


def test_termination_cleans_up(start, tmp_path):
    process = start('run.output.a.write_text("1")\nimport time; time.sleep(60)')
    for _ in range(100):
        if list((tmp_path / "results").glob(".a.tmp*")):
            break
        time.sleep(0.1)
    process.terminate()
    assert process.wait() != 0
    assert names(tmp_path) == []


def test_code_that_changed_after_planning_is_refused(start, tmp_path):
    process = start("pass", PROGRAM.replace("code_digest(__file__)", "'0123'"))
    assert process.wait() == 1
    assert "the code of structure_strain.py changed since the run was planned" in process.stderr.read()
