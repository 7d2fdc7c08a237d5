"""What the smoke study must leave behind, and how it outlived two deaths."""

import csv
import html
import json
import re
import subprocess
import sys
from pathlib import Path

import yaml


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_condition_has_an_accuracy_and_a_loss_against_its_control(study):
    table = {r["condition"]: r for r in rows(study.folder / "results/accuracy.csv")}
    conditions = rows(study.folder / "results/conditions.csv")
    for condition in conditions:
        row = table[condition["condition"]]
        assert int(row["n_patterns"]) > 0
        for key in ("accuracy_label", "accuracy_space_group", "accuracy_ensemble"):
            assert 0 <= float(row[key]) <= 1
        if condition["control"] != condition["condition"]:
            loss = float(table[condition["control"]]["accuracy_label"]) - float(row["accuracy_label"])
            assert abs(float(row["loss_label"]) - loss) < 1e-9


def test_structures_come_as_cif_and_extended_xyz(study):
    for condition in rows(study.folder / "results/conditions.csv"):
        for suffix in ("cif", "extxyz"):
            assert (study.folder / f"results/structures/{condition['condition']}.{suffix}").stat().st_size > 200


def test_report_shows_the_reductions_and_every_figure(study):
    text = html.unescape((study.folder / "results/report.html").read_text())
    for line in yaml.safe_load((study.folder / study.config).read_text())["reductions"]:
        assert line in text
    figures = list((study.folder / "results/figures").glob("*.png"))
    assert len(re.findall(r'<img src="data:image/png', text)) == len(figures) >= 6
    assert not re.search(r'(src|href)="(?!data:|#)', text)


def test_a_survivor_is_named_and_its_death_clears_the_way(study):
    refusal = study.notes["refusal"]
    assert refusal.returncode == 2
    assert re.search(r"job relax:\S+, process \d+", refusal.stderr)
    for note in ("cleared", "cleared_again"):
        assert study.notes[note].returncode == 0, study.notes[note].stderr
        assert "removed the lock of a run that was killed" in study.notes[note].stdout


def test_a_killed_relaxation_went_on_where_it_was(study):
    path, text = study.notes["relax_state"]
    condition = Path(path).parts[2].removeprefix("relax-")
    whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    summary = json.loads((study.folder / f"results/first_principles/relax/{condition}.json").read_text())
    energies = [json.loads(line)["energy"] for line in whole[1:]]
    assert energies
    assert [entry["energy"] for entry in summary["history"]][: len(energies)] == energies


def test_a_killed_training_went_on_where_it_was(study):
    log = (study.folder / "logs/train/main-seed1.log").read_text()
    assert re.search(r"resum", log)
    history = rows(study.folder / "results/models/main-seed1/history.csv")
    config = yaml.safe_load((study.folder / study.config).read_text())
    assert len(history) == config["learning"]["epochs"]


def test_nothing_is_left_to_do_or_lying_about(study):
    assert study.planned() == {}
    results = study.folder / "results"
    assert not list(results.rglob(".*.tmp*"))
    assert not [p for p in (results / ".restart").rglob("*") if p.is_file()]


def test_every_result_has_a_record_and_verifies(study):
    results = study.folder / "results"
    recorded = set()
    for path in results.rglob("*.record.json"):
        record = json.loads(path.read_text())
        recorded |= {o["path"] for o in record["outputs"]} | {record["configuration"]["path"]}
    files = {
        str(p.relative_to(study.folder))
        for p in results.rglob("*")
        if p.is_file() and not any(part.startswith(".") for part in p.relative_to(results).parts)
    }
    assert {f for f in files if not f.endswith(".record.json")} == recorded
    assert study.defraction("verify").returncode == 0


def test_the_workflow_plans_in_the_exported_crate(study, tmp_path):
    """With the configuration that the crate brings, beside those of the repository."""
    done = study.defraction("export", "crate", str(tmp_path / "crate"))
    assert done.returncode == 0, done.stderr
    kept = [path.relative_to(tmp_path / "crate") for path in (tmp_path / "crate/results/configurations").iterdir()]
    assert kept
    for chosen in ([], ["--configfile", str(kept[0])]):
        command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", *chosen]
        done = subprocess.run(command, cwd=tmp_path / "crate", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_a_flipped_byte_is_found(study):
    victim = study.folder / "results/first_principles/relax/al-vacancy-2x1x1.extxyz"
    data = victim.read_bytes()
    victim.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    try:
        done = study.defraction("verify")
        assert done.returncode == 1
        assert "damaged: results/first_principles/relax/al-vacancy-2x1x1.extxyz" in done.stdout
        assert "results/structures/al-vacancy-2x1x1.cif" in done.stdout and "results/report.html" in done.stdout
    finally:
        victim.write_bytes(data)


def test_trace_goes_from_the_figure_to_the_first_principles_input(study):
    done = study.defraction("trace", "results/figures/accuracy.pdf", "--json")
    assert done.returncode == 0, done.stderr
    found = {file["path"] for file in json.loads(done.stdout)["files"]}
    for path in (
        "results/accuracy.csv",
        "results/predictions/main-seed1/al-vacancy-2x1x1.nc",
        "results/patterns/al-vacancy-2x1x1.nc",
        "results/structures/al-vacancy-2x1x1.cif",
        "results/first_principles/relax/al-vacancy-2x1x1.extxyz",
        "results/first_principles/relax/al-vacancy-2x1x1.gpaw.txt",
        "results/first_principles/lattice/Al.json",
        "resources/hosts.csv",
    ):
        assert path in found
