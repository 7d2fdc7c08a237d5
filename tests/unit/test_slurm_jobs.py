"""Before a run: jobs of an earlier one that Slurm still holds, by what `squeue` says."""

import logging

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
    squeue(f"7|RUNNING|{study}|rule_relax_wildcards_a|b\n8|PENDING|{tmp_path}|other\n9|PENDING|{study}|rule_aimd")
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
