"""The default profile does what exact reruns need, on a workflow of two rules and a large file."""

import os
import shutil
import subprocess
import sys
import time

SNAKEFILE = """
rule all:
    input: "small.txt"
rule large:
    output: "large.bin"
    shell: "head -c 12000000 /dev/zero > {output}"
rule small:
    input: "large.bin"
    output: "small.txt"
    shell: "wc -c < {input} > {output}"
"""


def test_touching_a_large_file_reruns_nothing(root, tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    shutil.copytree(root / "profiles", tmp_path / "profiles")

    def snakemake(*arguments):
        command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    snakemake()
    later = time.time() + 10
    os.utime(tmp_path / "large.bin", (later, later))
    assert "Nothing to be done" in snakemake("--dry-run")
    (tmp_path / "large.bin").write_bytes(b"1" * 12000000)
    os.utime(tmp_path / "large.bin", (later, later))
    assert "rule small" in snakemake("--dry-run")


CARDS = """
rule all:
    input: "trained", expand("{i}", i=range(3))
rule train:
    output: "trained"
    resources: gpu=2, card=16
    shell: "date +%s.%N > {output}; sleep 1; date +%s.%N >> {output}"
rule predict:
    output: "{i}"
    resources: gpu=1, card=1
    shell: "date +%s.%N > {output}; sleep 2; date +%s.%N >> {output}"
"""


def test_small_jobs_share_a_card_and_a_training_on_two_has_this_one_alone(root, tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_GPUS_ON_NODE", raising=False)
    (tmp_path / "Snakefile").write_text(CARDS)
    shutil.copytree(root / "profiles", tmp_path / "profiles")
    command = [sys.executable, "-m", "snakemake", "--cores", "4"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    times = {name: [float(t) for t in (tmp_path / name).read_text().split()] for name in ("trained", "0", "1", "2")}
    start, end = times.pop("trained")
    assert all(b <= start or a >= end for a, b in times.values())
    assert max(a for a, _ in times.values()) < min(b for _, b in times.values())
