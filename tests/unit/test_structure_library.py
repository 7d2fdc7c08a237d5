"""The shipped results of first-principles runs say what they are."""

import json
import re

import numpy as np
import pytest
from ase.io import read


def test_every_entry_is_relaxed_and_complete(root):
    folder = root / "resources/structures"
    names = sorted(path.stem for path in folder.glob("*.extxyz"))
    assert names
    for name in names:
        summary = json.loads((folder / f"{name}.json").read_text())
        atoms = read(folder / f"{name}.extxyz")
        largest = np.linalg.norm(atoms.get_forces(), axis=1).max()
        assert summary["converged"]
        assert largest == pytest.approx(summary["largest_force"], abs=1e-6)
        assert largest <= summary["settings"]["relax"]["fmax"]
        assert atoms.get_potential_energy() == pytest.approx(summary["energy"], abs=1e-6)
        record = json.loads((folder / f"{name}.record.json").read_text())
        assert record["code"]["commit"] and not record["code"]["dirty"]
        assert name in (folder / "README.md").read_text()


def test_no_entry_names_a_machine_or_a_folder(root):
    for path in (root / "resources/structures").iterdir():
        assert not re.search(r"(?m)(^|[\s\"'])/(home|root|work|tmp|usr)/|^User:|^CWD:", path.read_text()), path.name
