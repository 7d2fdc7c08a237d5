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
