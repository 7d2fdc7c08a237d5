"""The cache between studies: keys, sound and damaged entries, several processes, jobs that take from it."""

import json
import os
import random
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from defraction import cache, provenance

INPUTS = [
    {"role": "lattice", "path": "results/lattice/Al.json", "sha256": "1" * 64},
    {"role": "code", "path": "workflow/scripts/relax.py", "sha256": "2" * 64},
    {"role": "hosts", "path": "resources/hosts.csv", "sha256": "3" * 64},
]
PARAMS = {"code": "abc", "supercell": (2, 2, 2), "first_principles": {"preset": "smoke"}}


def content(rule="relax", wildcards=None, params=None, inputs=None):
    return cache.content(rule, wildcards or {"condition": "al-vacancy"}, params or PARAMS, inputs or INPUTS)


def changed(**values) -> list[dict]:
    return [{**INPUTS[0], **values}, *INPUTS[1:]]


def targets(folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    return {"relaxed": folder / "x.extxyz", "log": folder / "x.txt"}


@pytest.fixture
def entry(tmp_path):
    """A cache with one entry."""
    outputs = targets(tmp_path / "made")
    outputs["relaxed"].write_text("atoms")
    outputs["log"].write_text("scf\n" * 1000)
    entry = cache.Entry(tmp_path / "cache", content())
    assert entry.store(outputs, {"rule": "relax", "seconds": 5})
    return entry


# --- keys -------------------------------------------------------------------------------------------------------------


def key(**arguments) -> str:
    return cache.Entry(Path("cache"), content(**arguments)).key


def test_key_is_that_of_the_content():
    same = [
        key(),
        key(params=dict(reversed(PARAMS.items()))),
        key(params={**PARAMS, "supercell": [2, 2, 2]}),
        key(rule="relax_segment", wildcards={"condition": "al-vacancy", "left": "3"}),
        key(inputs=INPUTS[::-1]),
        key(inputs=changed(path="elsewhere/Al.json")),
        key(inputs=[INPUTS[0], *({**item, "sha256": "9" * 64} for item in INPUTS[1:])]),
    ]
    assert len(set(same)) == 1


def test_key_changes_with_settings_code_inputs_and_versions(monkeypatch, tmp_path):
    keys = [
        key(),
        key(rule="aimd"),
        key(wildcards={"condition": "fe-vacancy"}),
        key(params={**PARAMS, "supercell": (2, 2, 3)}),
        key(params={**PARAMS, "first_principles": {"preset": "paper"}}),
        key(params={**PARAMS, "code": "abd"}),
        key(inputs=changed(sha256="4" * 64)),
        key(inputs=changed(role="relaxed")),
    ]
    version = cache.metadata.version
    monkeypatch.setattr(cache.metadata, "version", lambda name: "99" if name == "gpaw" else version(name))
    keys.append(key())
    monkeypatch.undo()
    (tmp_path / "Al.PBE.gz").write_text("own data set")
    monkeypatch.setenv("GPAW_SETUP_PATH", str(tmp_path))
    keys.append(key())
    (tmp_path / "Al.PBE.gz").write_text("another one")
    keys.append(key())
    assert len(set(keys)) == len(keys)


# --- entries ----------------------------------------------------------------------------------------------------------


def test_an_entry_gives_back_what_was_stored(entry, tmp_path):
    goal = targets(tmp_path / "other")
    assert entry.fetch(goal) == {"rule": "relax", "seconds": 5}
    assert goal["relaxed"].read_text() == "atoms" and goal["log"].read_text() == "scf\n" * 1000
    assert all(os.access(path, os.W_OK) for path in goal.values())
    assert all(path.stat().st_mode & 0o222 == 0 for path in entry.path.iterdir())
    assert cache.Entry(entry.folder, content(rule="aimd")).fetch(goal) is None


def test_a_flipped_bit_anywhere_in_an_entry_is_refused_and_the_entry_replaced(entry, tmp_path):
    generator = random.Random(4)
    made, goal = targets(tmp_path / "made"), targets(tmp_path / "other")
    for _ in range(60):
        path = generator.choice(sorted(entry.path.iterdir()))
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        path.chmod(0o644)
        path.write_bytes(flipped)
        facts = json.loads(whole) if path.suffix == ".json" else None
        try:
            harmless = facts is not None and json.loads(flipped) == facts
        except ValueError:
            harmless = False
        if not harmless:
            assert entry.fetch(goal) is None
            assert not any(file.exists() for file in goal.values())
        path.write_bytes(whole)
    path.write_bytes(flipped)
    assert entry.fetch(goal) is None
    assert entry.store(made, {"rule": "relax", "seconds": 6})
    assert entry.fetch(goal) == {"rule": "relax", "seconds": 6}
    assert len(list(entry.folder.glob(".damaged-*"))) == 1


def test_a_missing_file_and_other_outputs_are_refused(entry, tmp_path):
    goal = targets(tmp_path / "other")
    assert entry.fetch({"relaxed": goal["relaxed"]}) is None
    (entry.path / "log.txt").unlink()
    assert entry.fetch(goal) is None and not any(file.exists() for file in goal.values())


def test_the_first_of_two_equal_entries_stays(entry, tmp_path):
    assert not entry.store(targets(tmp_path / "made"), {"rule": "relax", "seconds": 7})
    assert entry.fetch(targets(tmp_path / "other"))["seconds"] == 5
    assert not list(entry.folder.glob(".new-*"))


def test_a_cache_that_cannot_be_written_costs_no_result(tmp_path):
    (tmp_path / "file").write_text("")
    entry = cache.Entry(tmp_path / "file", content())
    goal = targets(tmp_path / "made")
    for path in goal.values():
        path.write_text("x")
    assert not entry.store(goal, {})
    assert entry.fetch(targets(tmp_path / "other")) is None


def work(folder: str, number: int) -> int:
    """Store and fetch one entry over and over; the number of whole results that were fetched."""
    base = Path(folder)
    entry = cache.Entry(base / "cache", content())
    made, goal = targets(base / f"made{number}"), targets(base / f"goal{number}")
    made["relaxed"].write_text(str(number))
    made["log"].write_text(str(number) * 200_000)
    whole = 0
    for turn in range(30):
        if number == 0 and turn % 10 == 5:  # somebody damages the entry now and then
            for path in entry.path.glob("log.txt"):
                path.chmod(0o644)
                path.write_text("damaged")
        if entry.fetch(goal) is not None:
            text = goal["relaxed"].read_text()
            assert goal["log"].read_text() == text * 200_000
            whole += 1
        else:
            entry.store(made, {"by": number})
    return whole


def test_processes_at_once_never_see_half_an_entry(tmp_path):
    with ProcessPoolExecutor(4) as pool:
        counts = list(pool.map(work, [str(tmp_path)] * 4, range(4)))
    assert sum(counts) > 30
    assert not list((tmp_path / "cache").glob(".new-*"))


# --- jobs -------------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys
__file__ = "structure_strain.py"
from types import SimpleNamespace
sys.path.insert(0, {scripts!r})

class Names(dict):
    __getattr__ = dict.__getitem__

from defraction.digest import code_digest
from defraction.job import job
segment = {segment!r}
output = Names(segment="results/1.json") if segment else Names(relaxed="results/a.extxyz", log="results/a.gpaw.txt")
output["record"] = "results/1.record.json" if segment else "results/a.record.json"
snakemake = SimpleNamespace(
    rule="relax_segment" if segment else "relax", wildcards=Names(name="x", **(dict(left="1") if segment else dict())),
    threads=1, log=["logs/demo.log"], output=output, input=Names(source="source.txt"),
    params=Names(code=code_digest(__file__), value={value}),
    config={{"runtime": {{"cache": "../cache", "record_host": {host}}}}})
with job(snakemake, state=True) as run:
    run.reuse()
    print("computed")
    if {fail}:
        raise RuntimeError("wall time")
    if segment:
        run.output.segment.write_text("segment computed")
    else:
        run.output.relaxed.write_text("atoms")
        run.output.log.write_text("User: me@" + __import__("platform").node() + "\\\\n")
"""


@pytest.fixture
def start(tmp_path, root):
    def run(study: str, value: int = 3, segment: bool = False, host: bool = True, fail: bool = False) -> bool:
        """Run the job in a study; whether it computed."""
        folder = tmp_path / study
        (folder / "results").mkdir(parents=True, exist_ok=True)
        (folder / "source.txt").write_text("in")
        scripts = str(root / "workflow/scripts")
        text = PROGRAM.format(scripts=scripts, value=value, segment=segment, host=host, fail=fail).replace(
            "\\\\n", "\\n"
        )
        done = subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True)
        assert done.returncode == fail, done.stderr
        return "computed" in (folder / "logs/demo.log").read_text()

    return run


def test_a_job_takes_what_another_study_computed(start, tmp_path):
    assert start("one")
    assert not start("two")
    one, two = (provenance.read_record(tmp_path / study / "results/a.record.json") for study in ("one", "two"))
    assert two["cache"]["record"] == one
    assert [o["sha256"] for o in two["outputs"]] == [o["sha256"] for o in one["outputs"]]
    assert "cache" not in one and two["started"] > one["started"]
    assert start("three", value=4)
    assert not list((tmp_path / "two/results/.restart").rglob("*.json"))


def test_segments_of_a_job_in_the_cache_have_nothing_to_do(start, tmp_path):
    assert start("one", segment=True)
    assert (tmp_path / "one/results/1.json").read_text() == "segment computed"
    start("one")
    assert not start("two", segment=True)
    assert json.loads((tmp_path / "two/results/1.json").read_text()) == {"finished": True}


def test_earlier_runs_of_a_job_are_in_its_record(start, tmp_path):
    start("one", fail=True)
    start("one", segment=True)
    start("one")
    record = provenance.read_record(tmp_path / "one/results/a.record.json")
    assert len(record["earlier"]) == 2 and all(run["cpu_seconds"] > 0 for run in record["earlier"])
    assert provenance.spent(record, "seconds") > record["seconds"]


def test_names_of_hosts_stay_out_of_records_logs_and_cache(start, tmp_path):
    import platform

    start("one", host=False)
    start("two", host=False)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and ".running" not in path.parts]
    texts = {path: path.read_text() for path in files if path.suffix in (".json", ".txt") and "results" in path.parts}
    assert len(texts) == 6  # result log, record and configuration of each
    assert "User: left out" in (tmp_path / "two/results/a.gpaw.txt").read_text()
    for text in (*texts.values(), *(p.read_text() for p in (tmp_path / "cache").rglob("*.json"))):
        assert str(tmp_path) not in text and f'"{platform.node()}"' not in text and "me@" not in text


def test_rules_that_take_from_the_cache(root):
    """Each costly script asks the cache first; a segment has the settings of the job it belongs to, so the same key."""
    text = (root / "workflow/rules/first_principles.smk").read_text()
    rules = {block.split(":")[0]: block for block in text.split("\nrule ")[1:]}
    params = {
        name: re.search(r"params:\n(.*?)\n    script:", block, re.DOTALL).group(1) for name, block in rules.items()
    }
    for name in ("lattice", "relax", "aimd", "elastic"):
        script = (root / f"workflow/scripts/{name}.py").read_text()
        assert script.split("as run:\n")[1].startswith("    run.reuse()\n")
        assert params.get(f"{name}_segment", params[name]) == params[name]
    assert {name for name in rules if name.endswith("_segment")} == {"relax_segment", "aimd_segment"}
