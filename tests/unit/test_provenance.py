import json

import pytest

from defraction import provenance


@pytest.fixture
def study(tmp_path, monkeypatch):
    """source.txt -> results/a.txt -> results/b.txt, with records."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    for name in ("source.txt", "results/a.txt", "results/b.txt"):
        (tmp_path / name).write_text(name)

    def record(rule, source, target):
        facts = {
            "rule": rule,
            "params": {"code": "c0de", "strain": 0.02},
            "inputs": [provenance.entry(source, "source"), provenance.entry("source.txt", "code")],
            "outputs": [provenance.entry(target, "target")],
            "seconds": 1.0,
            "started": 0.0,
        }
        provenance.write_record(tmp_path / target.replace(".txt", ".record.json"), facts)

    record("first", "source.txt", "results/a.txt")
    record("second", "results/a.txt", "results/b.txt")
    return tmp_path


def test_verify_finds_a_flipped_byte_and_who_read_it(study):
    assert provenance.verify(provenance.read_records()) == []
    (study / "results/a.txt").write_text("results/A.txt")
    faults = provenance.verify(provenance.read_records())
    assert faults == [
        "results/a.txt: differs from what was written by results/a.record.json",
        "results/a.txt: differs from what was read by results/b.record.json",
    ]


def test_verify_finds_a_lost_file_and_a_second_version(study):
    (study / "results/b.txt").unlink()
    record = json.loads((study / "results/b.record.json").read_text())
    record["inputs"][0]["sha256"] = "0" * 64
    (study / "results/b.record.json").write_text(json.dumps(record))
    faults = "\n".join(provenance.verify(provenance.read_records()))
    assert "results/b.txt: is gone" in faults
    assert "read another version of results/a.txt" in faults


def test_trace_reaches_the_source(study):
    tree = provenance.trace(provenance.read_records(), "results/b.txt")
    assert tree["rule"] == "second" and tree["settings"]["strain"] == 0.02
    assert tree["inputs"][0]["rule"] == "first"
    assert tree["inputs"][0]["inputs"][0] == {
        "path": "source.txt",
        "sha256": provenance.sha256("source.txt"),
        "source": True,
    }
    drawn = provenance.draw(tree)
    assert [line.lstrip("└─ ").split()[0] for line in drawn] == ["results/b.txt", "results/a.txt", "source.txt"]


def test_trace_of_something_else_is_refused(study):
    with pytest.raises(ValueError, match="no record made this file"):
        provenance.trace(provenance.read_records(), "source.txt")


def test_cost_sums_by_rule(study):
    (row, other) = provenance.cost(provenance.read_records())
    assert {row["rule"], other["rule"]} == {"first", "second"}
    assert row["jobs"] == 1 and row["seconds"] == 1.0 and row["cpu_seconds"] > 0
