"""Planning a large study: bounded CPU time and memory, and no result is opened while the graph is built."""

import re

import pytest
import yaml

CONDITIONS = 1000
WATCH = '''
"""Notes which files the interpreter opens."""
import os, sys

def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and "/results/" in os.path.abspath(arguments[0]):
        os.write(noted, (arguments[0] + "\\n").encode())

noted = os.open(os.environ["NOTED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.addaudithook(note)
'''


@pytest.fixture
def planning(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import planning

    return planning


def test_cpu_time_and_memory(planning, tmp_path):
    """The limits of benchmarks/planning.py at a tenth of its size; CPU time, so other work counts little."""
    rows = {row["what"]: row for row in planning.measure(tmp_path, [CONDITIONS], finished=False, plain=False)}
    plan = rows["workflow"]
    assert plan["jobs"] > 3 * CONDITIONS
    assert rows["workflow, one job"]["cpu"] - rows["empty Snakefile"]["cpu"] < planning.PARSING
    assert plan["cpu"] < planning.START + planning.PER_JOB / 1000 * plan["jobs"]
    assert plan["memory"] < planning.MEMORY / 4  # of which 0.1 is Snakemake's start


def test_no_result_is_opened(planning, tmp_path, monkeypatch):
    """Ten conditions, all there: names and times of results are looked at, contents are not."""
    planning.measure(tmp_path, [], finished=False)
    copy = tmp_path / "defraction"
    planning.write_config(copy, 20)
    planning.dry_run(copy)
    planning.make(copy)
    watch = tmp_path / "watch"
    watch.mkdir()
    (watch / "sitecustomize.py").write_text(WATCH)
    monkeypatch.setenv("PYTHONPATH", str(watch))
    monkeypatch.setenv("NOTED", str(watch / "noted"))
    assert planning.dry_run(copy)["jobs"] == 0
    assert (watch / "noted").read_text().split() == []

    # Where calculations may come in segments, the record says in how many a finished one was made.
    config = copy / "config/config.yaml"
    raw = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**raw, "runtime": {"segments": 2, "walltime": 3600.0}}))
    planning.dry_run(copy)
    opened = (watch / "noted").read_text().split()
    record = re.compile(r".*results/first_principles/\w+/[^/]+\.record\.json")
    assert opened and all(map(record.fullmatch, opened)), opened
