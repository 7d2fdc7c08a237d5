"""The profile for other schedulers: its scripts against schedulers' answers, and a run through a scheduler of straw."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

PBS = "Job Id: 7.head\n    Job_Name = relax\n    job_state = {}\n    queue = cpu\n{}"
SLURM = "JobId=7 JobName=relax UserId=me(1) JobState={} Reason=None"
ANSWERS = [
    ("qstat", 0, PBS.format("Q", ""), "running"),
    ("qstat", 0, PBS.format("R", ""), "running"),
    ("qstat", 0, PBS.format("H", ""), "running"),
    ("qstat", 0, PBS.format("F", "    Exit_status = 0\n"), "success"),
    ("qstat", 0, PBS.format("C", "    exit_status = 0\n"), "success"),
    ("qstat", 0, PBS.format("F", "    Exit_status = 1\n"), "failed"),
    ("qstat", 0, PBS.format("F", "    Exit_status = -29\n"), "failed"),
    ("qstat", 0, PBS.format("F", ""), "failed"),
    ("qstat", 153, "qstat: Unknown Job Id 7.head", "failed"),
    ("qstat", 1, "Connection refused\nqstat: cannot connect to server head (errno=111)", "running"),
    ("bjobs", 0, "PEND", "running"),
    ("bjobs", 0, "RUN", "running"),
    ("bjobs", 0, "UNKWN", "running"),
    ("bjobs", 0, "DONE", "success"),
    ("bjobs", 0, "EXIT", "failed"),
    ("bjobs", 255, "Job <7> is not found", "failed"),
    ("bjobs", 1, "LSF is down. Please wait ...", "running"),
    ("scontrol", 0, SLURM.format("PENDING"), "running"),
    ("scontrol", 0, SLURM.format("COMPLETED"), "success"),
    ("scontrol", 0, SLURM.format("OUT_OF_MEMORY"), "failed"),
    ("scontrol", 0, SLURM.format("TIMEOUT"), "failed"),
    ("scontrol", 1, "slurm_load_jobs error: Invalid job id specified", "failed"),
    ("scontrol", 1, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)", "running"),
]

# A scheduler that starts each job at once and keeps its number, what was asked for and how it ended in files.
QSUB = """\
#!/bin/sh
number=$(($(ls "$SCHEDULER" | wc -l) + 1))
for script; do :; done
echo "$@" > "$SCHEDULER/$number"
(sh "$script" > /dev/null 2>&1; echo $? > "$SCHEDULER.$number.exit") > /dev/null 2>&1 &
echo $number.straw
"""
QSTAT = """\
#!/bin/sh
for job; do :; done
exit="$SCHEDULER.${job%.straw}.exit"
[ -s "$exit" ] && printf 'job_state = F\\nExit_status = %s\\n' "$(cat "$exit")" || echo 'job_state = R'
"""
SNAKEFILE = """
rule all:
    input: "results/steady", "results/hungry"
rule steady:
    output: "results/steady"
    threads: 3
    shell: "echo {threads} > {output}"
rule relax:
    output: "results/hungry"
    shell: "[ {resources.mem_mb} -gt 4000 ] && echo {resources.mem_mb} > {output}"
"""


def command(folder, name, text):
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def bin_of_straw(tmp_path):
    """A folder of commands to be found first; the schedulers that this machine may have are not found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "sed", "cut", "mkdir", "cat", "ls", "wc", "expr", "printf", "dirname"):
        if path := shutil.which(name):
            (folder / name).symlink_to(path)
    return folder


@pytest.mark.parametrize(("program", "status", "answer", "verdict"), ANSWERS)
def test_status(root, bin_of_straw, program, status, answer, verdict):
    command(bin_of_straw, program, f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\nexit {status}\n")
    script = root / "profiles/generic/status.sh"
    done = subprocess.run([script, "7"], env={"PATH": str(bin_of_straw)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{verdict}\n", "")


@pytest.mark.parametrize(
    ("program", "answer", "asked"),
    [
        ("qsub", "7.head", "-l select=1:ncpus=4:mem=8000mb:ngpus=2 -l walltime=25:05:00"),
        ("bsub", "Job <7> is submitted to queue <normal>.", "-n 4 -R span[hosts=1] -R rusage[mem=8000] -W 1505"),
        ("sbatch", "7;head", "--cpus-per-task=4 --mem=8000 --time=1505"),
    ],
)
def test_submit(root, bin_of_straw, tmp_path, program, answer, asked):
    command(bin_of_straw, program, f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\necho '{answer}'\n")
    script = [root / "profiles/generic/submit.sh", "4", "8000", "1505", "2", "a_name_that_is_long", "job.sh"]
    done = subprocess.run(script, env={"PATH": str(bin_of_straw)}, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().split(".")[0] == "7"
    line = (tmp_path / "asked").read_text()
    assert asked in line and line.endswith("job.sh\n") and "a_name_that_is_" in line
    assert ("gpu" in line) and "a_name_that_is_l" not in line


def test_submit_says_what_is_missing(root, bin_of_straw, tmp_path):
    script = [root / "profiles/generic/submit.sh", "1", "1", "1", "0", "a", "job.sh"]
    done = subprocess.run(script, env={"PATH": str(bin_of_straw)}, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "none of qsub, bsub, sbatch" in done.stderr


@pytest.mark.parametrize("program", ["qdel", "bkill", "scancel"])
def test_cancel(root, bin_of_straw, tmp_path, program):
    """All numbers go to the scheduler's own command, with its answer: what it could not cancel is no success."""
    command(bin_of_straw, program, f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nexit 3\n')
    script = [root / "profiles/generic/cancel.sh", "7.head", "8.head"]
    done = subprocess.run(script, env={"PATH": str(bin_of_straw)}, capture_output=True, text=True)
    assert (done.returncode, (tmp_path / "asked").read_text()) == (3, "7.head 8.head\n")


def test_cancel_says_what_is_missing(root, bin_of_straw):
    script = [root / "profiles/generic/cancel.sh", "7"]
    done = subprocess.run(script, env={"PATH": str(bin_of_straw)}, capture_output=True, text=True)
    assert done.returncode == 1 and "none of qdel, bkill, scancel" in done.stderr


@pytest.mark.skipif(
    importlib.util.find_spec("snakemake_executor_plugin_cluster_generic") is None,
    reason="snakemake-executor-plugin-cluster-generic is not installed (make cluster)",
)
def test_a_run_through_a_scheduler(root, bin_of_straw, tmp_path):
    """A job that fails with its first memory is submitted again with twice as much; cores and time are passed on."""
    shutil.copytree(root / "profiles", tmp_path / "profiles")
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "jobs").mkdir()
    command(bin_of_straw, "qsub", QSUB)
    command(bin_of_straw, "qstat", QSTAT)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"PATH": f"{bin_of_straw}:{os.environ['PATH']}", "SCHEDULER": str(tmp_path / "jobs")}
    arguments = ["--workflow-profile", "profiles/generic", "--seconds-between-status-checks", "2"]
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    asked = [path.read_text() for path in (tmp_path / "jobs").iterdir()]
    memory = sorted(int(line.split("mem=")[1].split("mb")[0]) for line in asked if "-N relax" in line)
    assert memory == [4000, 8000]
    (steady,) = (line for line in asked if "-N steady" in line)
    assert "ncpus=3:mem=2000mb" in steady and "walltime=00:10:00" in steady
    assert (tmp_path / "results/hungry").read_text() == "8000\n"
    print(json.dumps({"a run through the generic profile, seconds": round(time.monotonic() - started)}))
