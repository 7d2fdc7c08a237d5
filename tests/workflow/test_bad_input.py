"""Bad input ends with one clear message before any job starts, through the command a user types."""

import subprocess
import sys

import pytest
import yaml


def run(root, tmp_path, change) -> str:
    raw = yaml.safe_load((root / "config/smoke.yaml").read_text())
    change(raw, tmp_path)
    config = tmp_path / "bad.yaml"
    config.write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", str(config), "--dry-run"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def misspelt(raw, tmp_path):
    raw["learning"]["epoch"] = raw["learning"].pop("epochs")


def unknown_host(raw, tmp_path):
    raw["conditions"][0]["host"] = "All"


def reversed_range(raw, tmp_path):
    raw["conditions"][0]["values"] = {"start": 0.04, "stop": 0.01, "step": 0.01}


def too_much_strain(raw, tmp_path):
    raw["conditions"][0]["values"] = [0.25]


def no_cells(raw, tmp_path):
    next(c for c in raw["conditions"] if c["kind"] == "vacancy")["supercell"] = [0, 1, 1]


def broken_cif(raw, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "broken.cif").write_text("data_x\nloop_\n_atom_site_label\n_atom_site_fract_x\nAl1\n")
    raw["materials"]["folder"] = str(folder)


def no_key(raw, tmp_path):
    raw["materials"]["materials_project"] = ["mp-149"]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (misspelt, ["learning.epoch", "did you mean 'epochs'"]),
        (unknown_host, ["conditions[0].host", "unknown host 'All'", "did you mean 'Al'"]),
        (reversed_range, ["conditions[0].values", "ends (0.01) before it starts (0.04)"]),
        (too_much_strain, ["conditions[0].values", "0.25 is beyond 0.2"]),
        (no_cells, ["supercell[0]", "greater than or equal to 1"]),
        (broken_cif, ["broken.cif"]),
        (no_key, ["MP_API_KEY"]),
    ],
)
def test_bad_input(root, tmp_path, monkeypatch, change, parts):
    monkeypatch.delenv("MP_API_KEY", raising=False)
    message = run(root, tmp_path, change)
    for part in parts:
        assert part in message


def test_an_unknown_target_names_the_nearest_condition(study):
    done = study.snakemake("--dry-run", "results/patterns/al-vacancy-2x1x2.nc", check=False)
    assert done.returncode != 0
    assert "did you mean 'al-vacancy-2x1x1'" in done.stdout + done.stderr
