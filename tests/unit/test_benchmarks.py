"""Every benchmark starts and says what it takes: its imports and options are those of the library as it is now."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = (Path(__file__).parents[2] / "benchmarks").glob("*.py")
BENCHMARKS = sorted(script for script in SCRIPTS if "__main__" in script.read_text())


@pytest.mark.parametrize("script", BENCHMARKS, ids=lambda script: script.stem)
def test_a_benchmark_says_what_it_takes(script):
    ended = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "usage:" in ended.stdout and "--help" in ended.stdout
