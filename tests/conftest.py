import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow/scripts"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT
