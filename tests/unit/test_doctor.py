"""Each check of `defraction doctor` meets the fault that it looks for, and says what to do about it."""

import json
import os
import resource
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from defraction import config, doctor, doctor_command
from defraction.doctor import Study, Unanswered

Usage = namedtuple("Usage", "total free available")


@pytest.fixture(scope="module")
def settings(root):
    return config.load(root / "config/smoke.yaml")


@pytest.fixture
def study(tmp_path, settings):
    return Study(tmp_path, settings, conditions=20, materials=20, models=1, specimens=60, elements=("Al", "Fe"))


def with_runtime(settings, **changes):
    return settings.model_copy(update={"runtime": settings.runtime.model_copy(update=changes)})


def answering(monkeypatch, answers):
    """Let commands answer by their name; a missing name is a missing program."""

    def answer(*command, **_):
        name = next((n for n in answers if n in command or n == Path(command[0]).name), None)
        said = answers.get(name, Unanswered(f"{command[0]} is not in PATH"))
        if isinstance(said, Exception):
            raise said
        return said

    monkeypatch.setattr(doctor, "answer", answer)


def one(findings, subject, state):
    """The only finding of a subject; what is not ok has to say what to do."""
    (found,) = [f for f in findings if f.subject == subject]
    assert found.state == state, found
    assert state == "ok" or found.remedy
    return found


def test_answers_of_commands():
    assert doctor.answer(sys.executable, "-c", "import os; print(os.environ['N'])", N="7") == "7\n"
    for command, said in (
        (("no-such-program",), "not in PATH"),
        ((sys.executable, "-c", "raise SystemExit('so it is')"), "so it is"),
    ):
        with pytest.raises(Unanswered, match=said):
            doctor.answer(*command)
    with pytest.raises(Unanswered, match="did not answer"):
        doctor.answer(sys.executable, "-c", "import time; time.sleep(9)", seconds=0.2)


def test_what_cannot_be_read_is_failing(tmp_path, root):
    _, findings = doctor.prepare(tmp_path, Path("config.yaml"), None)
    assert "cannot be read" in one(findings, "configuration", "failing").found
    one(findings, "profile", "failing")
    study, findings = doctor.prepare(root, Path("config/paper.yaml"), None)
    assert {f.state for f in findings} == {"ok"}
    assert study.elements == ("Al", "Au", "C", "Fe", "Si")
    assert study.conditions > 60 and study.materials > 200


def test_snakemake_of_another_version_and_a_missing_plugin(study, monkeypatch):
    installed = {"snakemake": "8.0.0"}

    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    study.profile = {"executor": "cluster-generic", "cluster-generic-submit-cmd": "qsub -l mem={resources.mem_mb}"}
    monkeypatch.setenv("PATH", "")
    findings = list(doctor.executors(study))
    assert "8.0.0, tested with" in one(findings, "snakemake", "warning").found
    one(findings, "snakemake-executor-plugin-cluster-generic", "failing")
    assert "qsub" in one(findings, "scheduler", "failing").found
    installed.clear()
    one(doctor.executors(study), "snakemake", "failing")


def test_the_generic_profile_finds_any_scheduler_that_its_script_knows(root, tmp_path, monkeypatch):
    """The shipped one: what it runs is a script of ours, and the scheduler's command stands in there."""
    study, _ = doctor.prepare(root, Path("config/smoke.yaml"), Path("generic"))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = one(doctor.executors(study), "scheduler", "failing").found
    assert all(program in found for program in ("qsub", "bsub", "sbatch"))
    (tmp_path / "bsub").write_text("#!/bin/sh\n")
    (tmp_path / "bsub").chmod(0o755)
    assert one(doctor.executors(study), "scheduler", "ok").found == str(tmp_path / "bsub")
    study.profile["cluster-generic-submit-cmd"] = "ssh head submit"
    one(doctor.executors(study), "scheduler", "warning")


def test_slurm_that_is_absent_silent_or_has_other_partitions(study, monkeypatch):
    study.profile = {"executor": "slurm"}
    study.partitions = {"cpu": {}, "a100": {}}
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    answering(monkeypatch, {"sinfo": Unanswered("sinfo failed: cannot contact controller")})
    findings = list(doctor.executors(study))
    for program in ("sbatch", "squeue", "scancel", "Slurm controller"):
        one(findings, program, "failing")
    answering(monkeypatch, {"sinfo": "cpu\ncpu\ngpu\n"})
    assert "a100" in one(doctor.executors(study), "partition", "failing").found


LONG, SHORT = "SlurmctldPort = 6817\nMinJobAge               = 300 sec\n", "MinJobAge = 60 sec\n"
NO_DATABASE = Unanswered("sacct failed: Slurm accounting storage is disabled")


@pytest.mark.parametrize(
    ("chosen", "installed", "sacct", "scontrol", "state", "said"),
    [
        (None, True, "", SHORT, "ok", "sacct answers"),
        (None, True, NO_DATABASE, LONG, "failing", "slurm-status-command: squeue"),
        (None, True, NO_DATABASE, SHORT, "failing", "MinJobAge=120"),
        (None, False, Unanswered("sacct is not in PATH"), LONG, "ok", "squeue"),
        (None, False, Unanswered("sacct is not in PATH"), SHORT, "failing", "MinJobAge=120"),
        ("squeue", True, NO_DATABASE, LONG, "ok", "squeue"),
        ("squeue", True, NO_DATABASE, SHORT, "failing", "forgets a job 60 s after"),
        ("squeue", True, NO_DATABASE, Unanswered("scontrol failed: no permission"), "failing", "forgets a job"),
        ("squeue", True, "", SHORT, "ok", "sacct answers"),  # which the plugin asks then
    ],
)
def test_slurm_that_cannot_tell_what_became_of_a_job(
    study, monkeypatch, chosen, installed, sacct, scontrol, state, said
):
    study.profile = {"executor": "slurm"} | ({"slurm-status-command": chosen} if chosen else {})
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name if installed or name != "sacct" else None)
    answering(monkeypatch, {"sinfo": "cpu\n", "sacct": sacct, "scontrol": scontrol})
    found = one(doctor.executors(study), "states of jobs", state)
    assert said in f"{found.found} {found.remedy}"


def test_partitions_of_the_slurm_profile_are_read(root):
    study, _ = doctor.prepare(root, Path("config/smoke.yaml"), Path("slurm"))
    table = yaml.safe_load((root / "profiles/slurm/partitions.yaml").read_text())
    assert study.executor == "slurm" and study.partitions == table["partitions"]


@pytest.mark.parametrize(
    ("version", "spec", "fits"),
    [
        ("2.4.6", "=2.4", True), ("2.40.1", "=2.4", False), ("2.5.0", "=2.4", False), ("1.17.1", ">=1.16,<1.18", True),
        ("1.18.0", ">=1.16,<1.18", False), ("26.7.0", "==26.7.0", True), ("2026.9.0", "=2026.9", True),
        ("5.0", "", True), ("2.13.0+cu130", "=2.13", True),
    ],
)  # fmt: skip
def test_versions_against_specifications_of_conda(version, spec, fits):
    assert doctor.satisfies(version, spec) is fits


def test_packages_of_a_stage_that_are_missing_or_of_another_version(study, monkeypatch):
    real = metadata.version
    assert {f.state for f in doctor.environments(study)} == {"ok"}  # this environment is the tested one

    def version(name):
        if name == "torch":
            raise metadata.PackageNotFoundError(name)
        return "1.0" if name == "matplotlib" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    findings = list(doctor.environments(study))
    assert "pytorch" in one(findings, "learning", "failing").found
    assert "matplotlib-base 1.0, tested with" in one(findings, "analysis", "warning").found


def test_abtem_is_asked_for_only_where_it_is_used(study, settings):
    assert not [f for f in doctor.environments(study) if f.subject == "multislice"]
    diffraction = settings.diffraction.model_copy(update={"method": "multislice"})
    study.settings = settings.model_copy(update={"diffraction": diffraction})
    one(doctor.environments(study), "multislice", "ok")


def test_conda_that_is_missing_old_or_cut_off(study, monkeypatch):
    study.profile = {"software-deployment-method": ["conda"]}
    answering(monkeypatch, {})
    one(doctor.environments(study), "conda", "failing")
    answers = {"info": json.dumps({"conda_prefix": "/opt/conda"}), "--version": "conda 23.1.0"}
    answering(monkeypatch, answers)
    findings = list(doctor.environments(study))
    one(findings, "conda", "failing")
    one(findings, "channel", "warning")
    answers |= {"--version": "conda 25.1.0", "config": json.dumps({"channel_alias": study.folder.as_uri()})}
    one(doctor.environments(study), "conda", "ok")
    one(doctor.environments(study), "channel", "warning")
    listing = study.folder / "conda-forge/noarch/repodata.json.zst"
    listing.parent.mkdir(parents=True)
    listing.touch()
    one(doctor.environments(study), "channel", "ok")
    monkeypatch.setattr(doctor, "_unwritable", lambda folder: "read-only file system")
    one(doctor.environments(study), "conda prefix", "failing")


def test_gpu_that_is_asked_for_and_not_there(study, settings, monkeypatch):
    answering(monkeypatch, {})
    assert "on the CPU" in one(doctor.gpu(study), "driver", "ok").found
    study.settings = with_runtime(settings, device="gpu")
    one(doctor.gpu(study), "driver", "failing")


def test_gpu_of_a_cluster_is_that_of_its_partitions(root, study, settings, monkeypatch):
    """The login node has none, and docs/running.md asks for device: gpu there."""
    answering(monkeypatch, {})
    cluster, _ = doctor.prepare(root, Path("config/smoke.yaml"), Path("slurm"))
    assert "runtime.device: gpu" in one(doctor.gpu(cluster), "jobs", "ok").found
    monkeypatch.setattr(config, "gpus_per_job", lambda runtime: 1)
    one(doctor.gpu(cluster), "jobs", "warning")
    cluster.settings = with_runtime(settings, device="gpu")
    assert "partition gpu" in one(doctor.gpu(cluster), "jobs", "ok").found
    for limits in cluster.partitions.values():
        limits.pop("max_gpu", None)
    one(doctor.gpu(cluster), "jobs", "failing")
    study.profile, study.settings = {"executor": "cluster-generic"}, cluster.settings
    one(doctor.gpu(study), "jobs", "ok")


def test_gpu_that_is_full_or_not_seen_by_the_libraries(study, settings, monkeypatch):
    answers = {"nvidia-smi": "A100, 40960, 900, 580.1\nA100, 40960, 40000, 580.1\n", doctor.TORCH: "2.13.0 13.0 2\n"}
    answering(monkeypatch, answers)
    findings = list(doctor.gpu(study))
    one(findings, "card 0", "warning")
    one(findings, "card 1", "ok")
    one(findings, "PyTorch", "ok")
    one(findings, "CuPy", "warning")
    assert not [f for f in findings if f.subject == "side by side"]
    answering(monkeypatch, {**answers, "nvidia-smi": "T400, 4096, 4000, 580.1\n"})
    assert "--resources card=1 turn=1" in one(doctor.gpu(study), "side by side", "warning").remedy
    study.settings = with_runtime(settings, memory=0.5)
    assert "card=2 turn=1" in one(doctor.gpu(study), "side by side", "warning").remedy
    answering(monkeypatch, answers)
    study.settings = with_runtime(settings, device="gpu")
    answers[doctor.TORCH] = "2.13.0 None 0\n"
    findings = list(doctor.gpu(study))
    one(findings, "PyTorch", "failing")
    one(findings, "CuPy", "failing")


def test_gpaw_that_is_not_built_for_the_gpu(study, settings, monkeypatch):
    pytest.importorskip("gpaw")
    answering(monkeypatch, {"nvidia-smi": "A100, 40960, 40000, 580.1\n"})
    study.settings = with_runtime(settings, gpaw_gpu=True)
    monkeypatch.setattr("gpaw.gpu.cupy_is_fake", True)
    one(doctor.gpu(study), "GPAW", "failing")
    monkeypatch.setattr("gpaw.gpu.cupy_is_fake", False)
    one(doctor.gpu(study), "GPAW", "ok")


def test_paw_data_that_are_missing(study):
    pytest.importorskip("gpaw")
    one(doctor.paw_data(study), "data sets", "ok")
    study.elements = ("Al", "Pu")
    assert "Pu" in one(doctor.paw_data(study), "data sets", "failing").found


def test_solutes_in_a_list_of_defects_need_data_sets_too(root, tmp_path):
    (tmp_path / "resources").symlink_to(root / "resources")
    defects = [{"kind": "vacancy"}, {"kind": "substitution", "solute": "Ac", "neighbour": {"shell": 1}}]
    conditions = [
        {"kind": "point_defects", "host": "Al", "supercell": [2, 2, 2], "defects": defects},
        {"kind": "substitution", "host": "Al", "supercell": [2, 2, 2], "solute": "Si"},
    ]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"conditions": conditions}))
    found, _ = doctor.prepare(tmp_path, Path("config.yaml"), None)
    assert found.elements == ("Ac", "Al", "Si")


def test_launchers_that_fail_hang_or_start_copies(study, settings, monkeypatch):
    answering(monkeypatch, {"-n": "3\n"})
    study.settings = with_runtime(settings, mpi_launcher=f"{sys.executable}", gpaw_ranks=2)
    one(doctor.mpi(study), "launcher", "ok")
    answering(monkeypatch, {"-n": "1\n1\n"})
    one(doctor.mpi(study), "launcher", "failing")
    answering(monkeypatch, {"-n": Unanswered("mpiexec did not answer within 60 s")})
    one(doctor.mpi(study), "launcher", "failing")
    study.settings = with_runtime(settings, mpi_launcher=f"{sys.executable}")
    one(doctor.mpi(study), "launcher", "warning")
    study.settings = with_runtime(settings, mpi_launcher="no-such-launcher")
    assert "no-such-launcher" in one(doctor.mpi(study), "launcher", "warning").found


def test_ranks_are_not_started_where_that_may_submit_a_job(study, settings, tmp_path, monkeypatch):
    for variable in doctor.JOB_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    started = []
    monkeypatch.setattr(doctor, "answer", lambda *command, **_: started.append(command) or "3\n")
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    study.settings = with_runtime(settings, mpi_launcher=f"{tmp_path}/srun --mpi=pmi2", gpaw_ranks=2)
    assert "not tried" in one(doctor.mpi(study), "launcher", "ok").found
    study.settings, study.profile = with_runtime(settings, mpi_launcher=sys.executable), {"executor": "slurm"}
    assert "not tried" in one(doctor.mpi(study), "launcher", "ok").found
    assert not started
    study.settings, study.profile = with_runtime(settings, mpi_launcher=f"{tmp_path}/srun"), {}
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert "talk to each other" in one(doctor.mpi(study), "launcher", "ok").found and started


def test_need_of_room_grows_with_pixels_and_specimens(study, settings):
    small = doctor.needed_bytes(study)
    study.specimens *= 2
    more = doctor.needed_bytes(study)
    assert small < more
    finer = settings.diffraction.model_copy(update={"pixels": 4 * settings.diffraction.pixels})
    study.settings = settings.model_copy(update={"diffraction": finer})
    images = len(finer.zone_axes) * len(finer.voltages) * len(finer.camera_lengths)
    added = study.specimens * images * 4 * (finer.pixels**2 - settings.diffraction.pixels**2)
    assert doctor.needed_bytes(study) - more == added


@pytest.mark.parametrize(("share", "state"), [(0.5, "failing"), (1.5, "warning"), (3, "ok")])
def test_disks_that_are_too_small(study, monkeypatch, share, state):
    free = share * doctor.needed_bytes(study)
    monkeypatch.setattr(doctor.psutil, "disk_usage", lambda path: Usage(0, free, 0))
    findings = list(doctor.disk(study))
    one(findings, "results", state)
    monkeypatch.setattr(doctor.psutil, "disk_usage", lambda path: Usage(0, 2**20, 0))
    one(doctor.disk(study), "scratch", "warning")


def test_inodes_that_run_out(study, monkeypatch):
    facts = namedtuple("Facts", "f_files f_favail")
    monkeypatch.setattr(doctor.psutil, "disk_usage", lambda path: Usage(0, 2**50, 0))
    monkeypatch.setattr(doctor.os, "statvfs", lambda path: facts(1000, 3))
    one(doctor.disk(study), "inodes", "failing")


def test_memory_that_is_too_small_or_taken(study, monkeypatch):
    need = 2 * doctor.GIB + doctor.WORKING_MEMORY
    for total, available, state in ((0.5, 0.5, "failing"), (4, 0.5, "warning"), (99, 99, "ok")):
        facts = Usage(int(total * need), 0, int(available * need))
        monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda facts=facts: facts)
        one(doctor.memory(study), "here", state)
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 100)
    assert "--cores 99" in one(doctor.memory(study), "side by side", "warning").remedy


@pytest.mark.parametrize(
    ("seconds", "state"), [(0, "ok"), (5, "warning"), (-5, "warning"), (100, "failing"), (-100, "failing")]
)
def test_clocks_that_differ(study, monkeypatch, seconds, state):
    real = os.stat
    monkeypatch.setattr(doctor.os, "stat", lambda path: namedtuple("Stat", "st_mtime")(real(path).st_mtime + seconds))
    one(doctor.clock(study), "file times", state)
    assert not list(study.folder.iterdir())


def test_what_a_killed_run_left(study):
    one(doctor.leftovers(study), "nothing", "ok")
    for name in (".snakemake/locks/0.input.lock", "results/.a.tmp123.nc", "results/.restart/relax-x/ab/relax.jsonl"):
        path = study.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    findings = list(doctor.leftovers(study))
    one(findings, "lock", "warning")
    one(findings, "files", "warning")
    assert "1 job(s)" in one(findings, "restart state", "ok").found
    assert (study.folder / ".snakemake/locks/0.input.lock").exists()


def test_a_run_at_work_here(study, monkeypatch):
    monkeypatch.setattr(doctor.preflight, "running", lambda folder: ["job relax:x, process 7"])
    assert "process 7" in one(doctor.leftovers(study), "run", "warning").found


def test_limits_that_are_low(study, monkeypatch):
    low = {resource.RLIMIT_NOFILE: 256, resource.RLIMIT_NPROC: 10, resource.RLIMIT_AS: 2**31}
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda kind: (low[kind], resource.RLIM_INFINITY))
    findings = list(doctor.limits(study))
    for subject in ("open files", "processes", "address space"):
        one(findings, subject, "warning")
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY,) * 2)
    assert {f.state for f in doctor.limits(study)} == {"ok"}


def test_network_file_systems_need_patience(study, monkeypatch):
    mount = namedtuple("Mount", "mountpoint fstype")
    mounts = [mount("/", "ext4"), mount(str(study.folder.resolve()), "nfs4")]
    monkeypatch.setattr(doctor.psutil, "disk_partitions", lambda all: mounts)
    assert doctor.file_system_type(study.folder / "results") == "nfs4"
    one(doctor.file_system(study), "type", "ok")
    study.profile = {"executor": "slurm"}
    one(doctor.file_system(study), "type", "warning")
    study.profile["latency-wait"] = 60
    one(doctor.file_system(study), "type", "ok")


def test_folders_without_write_permission(study, monkeypatch):
    results = study.folder / "results"
    results.mkdir()
    real = doctor.tempfile.NamedTemporaryFile

    def refuse(dir, **more):
        if Path(dir) == results:  # as root no mode would refuse
            raise PermissionError(13, "Permission denied")
        return real(dir=dir, **more)

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    assert "Permission denied" in one(doctor.file_system(study), "results", "failing").found
    monkeypatch.setattr(
        doctor.tempfile, "NamedTemporaryFile", lambda **_: (_ for _ in ()).throw(OSError(30, "Read-only"))
    )
    one(doctor.clock(study), "file times", "failing")


def test_a_check_that_breaks_down_is_failing_and_stops_no_other(study, monkeypatch):
    def broken(study):
        raise OSError("no such device")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (broken, doctor.leftovers))
    findings = doctor.examine(study)
    assert "no such device" in one(findings, "check", "failing").found
    one(findings, "nothing", "ok")


@pytest.fixture
def command(tmp_path, monkeypatch):
    app = typer.Typer()
    app.command()(doctor_command.doctor)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "prepare", lambda *_: (Study(tmp_path), []))

    def run(findings, *arguments):
        monkeypatch.setattr(doctor, "examine", lambda study: findings)
        return CliRunner().invoke(app, arguments)

    return run


def test_the_exit_status_says_whether_something_is_failing(command):
    good = doctor.Finding("disk", "results", "ok", "enough")
    poor = doctor.Finding("gpu", "card 0", "warning", "full", "wait")
    bad = doctor.Finding("executors", "sbatch", "failing", "not in PATH", "load the module")
    assert command([good, poor]).exit_code == 0
    done = command([good, poor, bad])
    assert done.exit_code == 1
    assert "load the module" in done.output and "1 ok, 1 warning, 1 failing" in done.output
    answer = json.loads(command([good, bad], "--json").output)
    assert answer["schema"] == "defraction-doctor/1" and answer["ok"] is False
    assert answer["findings"][1] == {
        "check": "executors", "subject": "sbatch", "state": "failing", "found": "not in PATH",
        "remedy": "load the module",
    }  # fmt: skip
