import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "workflow/scripts"), str(ROOT / "benchmarks")]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT
