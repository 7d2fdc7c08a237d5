import json
import platform
import random
from pathlib import Path

import pytest
import small_study

from defraction import provenance


@pytest.fixture
def study(tmp_path, monkeypatch):
    small_study.build(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_any_changed_byte_of_a_record_is_found(study):
    path = study / "results/accuracy.record.json"
    whole = path.read_bytes()
    generator = random.Random(1)
    for _ in range(150):
        changed = bytearray(whole)
        changed[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(ValueError):
            provenance.read_record(path)
    path.write_bytes(whole)
    assert provenance.read_record(path)["rule"] == "evaluate"


def test_a_record_that_cannot_be_read_is_named(study):
    (study / "results/accuracy.record.json").write_text('{"schema": "defraction-record/2"}')
    with pytest.raises(
        ValueError, match=r"results/accuracy.record.json: not whole: inputs, outputs, params, rule missing"
    ):
        provenance.read_records()


def test_records_of_the_first_format_are_read(study):
    path = study / "results/accuracy.record.json"
    record = json.loads(path.read_text())
    del record["digest"]
    path.write_text(json.dumps({**record, "schema": "defraction-record/1"}))
    assert provenance.read_record(path)["rule"] == "evaluate"


def test_cost_sums_by_rule_with_the_runs_before(study):
    records = provenance.read_records()
    records[0]["earlier"] = [{"started": 0.0, "seconds": 100.0, "cpu_seconds": 50.0}]
    rows = {row["rule"]: row for row in provenance.cost(records)}
    assert {rule: row["jobs"] for rule, row in rows.items()} == {
        "structure": 3,
        "simulate": 3,
        "evaluate": 1,
        "figure": 1,
    }
    assert sum(row["seconds"] for row in rows.values()) == 108.0
    assert sum(row["cpu_seconds"] for row in rows.values()) > 50.0


def test_host_and_private_folders_are_left_out_on_request(study, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    inside = small_study.record("r", {}, {"csv": "results/accuracy.csv"}, with_host=True)
    assert inside["host"]["name"] == platform.node() and inside["environment"]["slurm_job"] == "4711"
    bare = small_study.record("r", {}, {"csv": "results/accuracy.csv"}, with_host=False)
    bare.pop("record")
    text = json.dumps({k: v for k, v in bare.items() if k != "with_host"})
    assert "name" not in bare["host"] and "4711" not in text and str(Path.home()) not in text
    assert bare["environment"]["packages"]["numpy"]["version"]
    assert bare["host"]["machine"] == platform.machine()


def test_a_calculators_log_loses_user_host_and_folders(study):
    log = Path("gpaw.txt")
    log.write_text(f"User:   me@node07\nCWD:    {study}\ngpaw: {study}/lib\nhost node07, node071\nenergy -3.7\n")
    provenance.strip_log(log, {"node07"})
    assert log.read_text() == "User: left out\nCWD: left out\ngpaw: ./lib\nhost left out, node071\nenergy -3.7\n"
