"""Every benchmark starts and says what it takes: its imports and options are those of the library as it is now."""

import json
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


def test_two_ranks_pay_and_the_page_quotes_what_was_measured(root):
    import gpaw_ranks

    found = json.loads((root / "benchmarks/results/gpaw_ranks.json").read_text())
    assert found["load"] <= gpaw_ranks.BUSY, "measured on a busy machine"
    two = found["one"]["wall"] / found["two"]["wall"]
    side = 2 * found["one"]["wall"] / found["side"]["wall"]
    assert two >= 1.3 and side >= two
    assert found["energy_difference"] < 1e-6
    page = " ".join((root / "docs/first-principles.md").read_text().split())
    assert f"ranks {two:.2f} times as fast as on one, two such jobs side by side {side:.2f} times as many" in page
    assert f"Python and the imports of a job {found['startup_cpu']:.1f} CPU s" in page
    assert f"Python and its imports are {found['startup_cpu']:.1f} CPU s a job" in page
    assert gpaw_ranks.report(found) == (root / "benchmarks/results/gpaw_ranks.md").read_text()
