"""What a test session that was killed left behind does not keep later ones from starting a Slurm. None runs here."""

import shutil
import subprocess

import cluster
import pytest


@pytest.fixture
def session(tmp_path, monkeypatch):
    """A machine with all that a Slurm needs, and the files and links of a session that was killed."""
    monkeypatch.setattr(cluster.os, "geteuid", lambda: 0)
    found = shutil.which
    monkeypatch.setattr(cluster.shutil, "which", lambda name: found(name) or name)
    monkeypatch.setattr(cluster, "DEFAULT_PLACE", tmp_path / "etc")
    folder = tmp_path / "session"
    (folder / "munge").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    for name in ("slurm.conf", "gres.conf"):
        (folder / name).touch()
        (tmp_path / "etc" / name).symlink_to(folder / name)
    return folder


@pytest.fixture
def process(tmp_path):
    """Starts a program that sleeps, by a name, in a folder."""
    started = []

    def start(name: str, folder) -> int:
        shutil.copy(shutil.which("sleep"), tmp_path / name)
        started.append(subprocess.Popen([tmp_path / name, "60"], cwd=folder))
        return started[-1].pid

    yield start
    for one in started:
        one.kill()
        one.wait()


def test_a_dead_session_is_in_nobodys_way(session):
    assert cluster.missing() is None
    (session / "slurmctld.pid").write_text("4194304")  # above the largest process id of Linux
    assert cluster.missing() is None


def test_other_programs_there_and_daemons_elsewhere_are_none_of_it(session, process, tmp_path):
    process("editor", session)
    process("slurmctld", tmp_path)
    assert cluster.missing() is None


def test_a_living_one_is_named(session, process):
    pid = process("slurmctld", session)
    assert f"slurmctld {pid}" in cluster.missing()


def test_a_living_one_is_named_though_its_folder_is_gone(session, process):
    """As with the next `pytest --basetemp` of the same folder: two controllers would write the same state."""
    pid = process("slurmd", session)
    shutil.rmtree(session)
    assert f"slurmd {pid}" in cluster.missing()
    session.mkdir()
    assert f"slurmd {pid}" in cluster.missing()


def test_a_slurm_of_the_machine_is_not_touched(session):
    link = cluster.DEFAULT_PLACE / "slurm.conf"
    link.unlink()
    link.write_text("ClusterName=real\n")
    assert "a Slurm of its own" in cluster.missing()
    # nor one whose administrators use links
    link.rename(session.parent / "slurm.conf")
    link.symlink_to(session.parent / "slurm.conf")
    assert "a Slurm of its own" in cluster.missing()


def test_links_of_a_dead_session_are_replaced(session, tmp_path, monkeypatch):
    mine = cluster.Cluster(tmp_path / "mine", gpus=0)
    for name in ("_munge", "_start_daemons"):
        monkeypatch.setattr(mine, name, lambda: None)
    mine.start()
    assert (cluster.DEFAULT_PLACE / "slurm.conf").resolve() == tmp_path / "mine/slurm.conf"
