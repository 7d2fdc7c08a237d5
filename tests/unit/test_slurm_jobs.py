"""Before a run: jobs of an earlier one that Slurm still holds, by what `squeue` says, and those on other machines."""

import json
import logging
import os

import pytest

from defraction.preflight import Survivor, clear, slurm_jobs


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Puts a squeue that prints these lines, or fails, before all others."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    folder = tmp_path / "bin"
    folder.mkdir()

    def install(lines: str, status: int = 0) -> None:
        (folder / "squeue").write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\nexit {status}\n")
        (folder / "squeue").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")

    return install


def test_only_jobs_of_this_folder_count(squeue, tmp_path, monkeypatch):
    study = tmp_path / "study"
    study.mkdir()
    lines = (f"7|7|RUNNING|{study}|rule_relax_wildcards_a|b", f"8|8|PENDING|{tmp_path}|other")
    squeue("\n".join((*lines, f"9|9|PENDING|{study}|rule_aimd")))
    found = slurm_jobs(study)
    assert [line.split(",")[0] for line in found] == ["Slurm job 7", "Slurm job 9"]
    assert "running" in found[0] and "rule_relax_wildcards_a|b" in found[0] and "scancel 7" in found[0]
    with pytest.raises(Survivor, match="Slurm job 9, pending"):
        clear(study, [])
    # The job in which Snakemake itself runs is not in its way.
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert len(slurm_jobs(study)) == 1


def test_a_silent_controller_is_said(squeue, tmp_path, caplog):
    squeue("", status=1)
    with caplog.at_level(logging.WARNING):
        assert slurm_jobs(tmp_path) == []
    assert "squeue does not answer" in caplog.text


def test_without_slurm_there_is_nothing_to_ask(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm_jobs(tmp_path) == []


@pytest.fixture
def elsewhere(tmp_path):
    """A study with the marker of a job on another machine; gives the study and a function that writes more into it."""
    study = tmp_path / "study"
    marker = study / "results/.running/node7-12.json"
    marker.parent.mkdir(parents=True)
    (study / "results/.a.tmp12.nc").write_text("half")

    def write(**more) -> None:
        marker.write_text(json.dumps({"pid": 12, "job": "simulate:x", "host": "node7", "started": 1.0, **more}))

    write()
    return study, write


def kept(study):
    return (study / "results/.running/node7-12.json").exists() and (study / "results/.a.tmp12.nc").exists()


def test_a_job_on_another_machine_counts_as_alive_where_nobody_can_tell(elsewhere, tmp_path, monkeypatch):
    """As under PBS and LSF: its files are not touched, and the message says what to delete if it died."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Survivor, match=r"simulate:x on node7, .*delete results/.running/node7-12.json"):
        clear(elsewhere[0], [])
    assert kept(elsewhere[0])


def test_a_job_on_another_machine_outside_slurm_counts_as_alive(elsewhere, squeue):
    """Slurm knows nothing about a workstation that shares the folder."""
    squeue("")
    with pytest.raises(Survivor, match="simulate:x on node7"):
        clear(elsewhere[0], [])
    assert kept(elsewhere[0])


def test_slurm_tells_of_its_own_jobs_on_other_machines(elsewhere, squeue, tmp_path):
    study, write = elsewhere
    write(slurm_job="40")
    squeue(f"40|38_2|RUNNING|{study}|rule_simulate")
    with pytest.raises(Survivor, match="Slurm job 38_2, running"):
        clear(study, [])
    # submitted from another folder: the number tells
    squeue(f"40|38_2|RUNNING|{tmp_path}|rule_simulate")
    with pytest.raises(Survivor, match="simulate:x in Slurm job 40"):
        clear(study, [])
    squeue("", status=1)
    with pytest.raises(Survivor, match="simulate:x on node7"):
        clear(study, [])
    assert kept(study)
    # the queue answers and has it not: it is dead
    squeue(f"41|41|RUNNING|{tmp_path}|other")
    assert clear(study, []) == ["removed 1 partly written file(s)"]
    assert not list((study / "results/.running").iterdir())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
def test_a_job_of_another_user_counts_as_alive(elsewhere, squeue):
    """squeue was asked for one's own jobs."""
    study, write = elsewhere
    write(slurm_job="40")
    os.chown(study / "results/.running/node7-12.json", 1000, -1)
    squeue("")
    with pytest.raises(Survivor, match="simulate:x on node7"):
        clear(study, [])
