import os
import sys
from pathlib import Path

import pytest

# Small cases are slower on several threads; before NumPy is imported.
for library in ("OMP", "OPENBLAS"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "workflow/scripts"), str(ROOT / "benchmarks")]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT
