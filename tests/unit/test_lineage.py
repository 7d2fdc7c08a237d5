"""trace, verify and diff on small studies with true records."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import small_study
from rich.console import Console
from typer.testing import CliRunner

from defraction import cli, digest, provenance
from defraction.lineage import diff, prov, trace, verify
from defraction.lineage.study import Study

FIGURE = "results/figures/accuracy.png"


@pytest.fixture
def study(tmp_path, monkeypatch):
    small_study.build(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def faults(verdict):
    return verdict.damaged + verdict.outdated + verdict.sources


def shown(renderable) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


# --- verify -----------------------------------------------------------------------------------------------------------


def test_one_flipped_bit_anywhere_is_found_and_named(study):
    assert faults(verify.verify(Study.load())) == []
    records = provenance.read_records()
    files = {item["path"] for r in records for item in r["inputs"] + r["outputs"] if item["role"] != "code"}
    files |= {record["record"] for record in records}
    generator = random.Random(2)
    for name in sorted(files):
        whole = Path(name).read_bytes()
        changed = bytearray(whole)
        changed[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        Path(name).write_bytes(changed)
        found = verify.verify(Study.load())
        assert [fault.path for fault in faults(found)] == [name]
        assert bool(found.sources) == name.startswith("resources/")
        Path(name).write_bytes(whole)
    assert faults(verify.verify(Study.load())) == []


def test_what_is_below_a_changed_file_is_all_that_was_made_from_it(tmp_path, monkeypatch):
    """On random graphs of jobs, against reachability computed edge by edge."""
    monkeypatch.chdir(tmp_path)
    generator = random.Random(3)
    for graph in range(5):
        shutil.rmtree("results", ignore_errors=True)
        made: list[str] = []
        edges: dict[str, set[str]] = {}
        for number in range(12):
            name = f"results/f{number}.txt"
            small_study.write(name, f"{graph} {number}")
            inputs = generator.sample(made, k=min(len(made), generator.randrange(4)))
            small_study.record(f"rule{number}", {"file": inputs}, {"text": name})
            for item in inputs:
                edges.setdefault(item, set()).add(name)
            made.append(name)
        changed = generator.choice(made)
        reached, todo = set(), {changed}
        while todo:
            step = set().union(*(edges.get(name, set()) for name in todo))
            todo = step - reached
            reached |= step
        Path(changed).write_text("changed")
        (fault,) = verify.verify(Study.load()).damaged
        below = [record["outputs"][0]["path"] for record in fault.below]
        assert fault.path == changed and set(below) == reached and len(below) == len(reached)
        place = {name: i for i, name in enumerate(below)}
        assert all(place[a] < place[b] for a in reached for b in edges.get(a, set()) & reached)


def test_chain_in_words_ends_at_the_figure(study):
    Path("results/structures/al-1.cif").write_text("other")
    result = CliRunner().invoke(cli.app, ["verify"])
    lines = result.output.splitlines()
    assert result.exit_code == 1
    assert lines[0].startswith("damaged: results/structures/al-1.cif: not what structure wrote on 2023-11-14")
    assert [line.split()[1:3] for line in lines[1:4]] == [
        ["simulate", "results/patterns/al-1.nc"],
        ["evaluate", "results/accuracy.csv,"],
        ["figure", FIGURE],
    ]
    assert lines[-1].endswith("1 damaged, 0 out of date")


def test_lost_and_moved_files(study):
    Path("results/patterns/al-0.nc").unlink()
    Path("results/patterns/al-1.nc").rename("results/elsewhere.nc")
    texts = {fault.path: fault.text for fault in verify.verify(Study.load()).damaged}
    assert texts == {
        "results/patterns/al-0.nc": "gone",
        "results/patterns/al-1.nc": "gone; its content is now in results/elsewhere.nc",
    }


def test_lost_and_damaged_records(study):
    Path("results/patterns/al-0.record.json").unlink()
    Path("results/structures/al-2.record.json").write_text("{")
    found = {fault.path: fault for fault in verify.verify(Study.load()).damaged}
    assert set(found) == {"results/patterns/al-0.nc", "results/structures/al-2.record.json"}
    assert "its record is gone" in found["results/patterns/al-0.nc"].text
    assert "not readable as JSON" in found["results/structures/al-2.record.json"].text
    below = [record["rule"] for record in found["results/structures/al-2.record.json"].below]
    assert below == ["simulate", "evaluate", "figure"]


def test_a_result_made_from_another_version_is_out_of_date(study):
    small_study.write("results/structures/al-2.cif", "again\n")
    outputs = {"cif": "results/structures/al-2.cif", "log": "results/structures/al-2.gpaw.txt"}
    small_study.record("structure", {"sites": ["resources/sites.txt"]}, outputs)
    verdict = verify.verify(Study.load())
    (fault,) = verdict.outdated
    assert not verdict.damaged and fault.path == "results/structures/al-2.cif"
    assert [record["rule"] for record in fault.below] == ["simulate", "evaluate", "figure"]


def test_a_changed_source_is_told_apart_from_damage(study):
    Path("resources/sites.txt").write_text("Al 0 0 0.1\n")
    verdict = verify.verify(Study.load())
    assert not verdict.damaged and [f.path for f in verdict.sources] == ["resources/sites.txt"]
    assert "3 results made from what it was before" in verdict.sources[0].text
    run = CliRunner().invoke
    assert run(cli.app, ["verify"]).exit_code == 0
    assert run(cli.app, ["verify", "--strict"]).exit_code == 1


def test_rows_of_a_table_count_one_by_one(study, root):
    from dataclasses import asdict

    from defraction.hosts import read_hosts

    shutil.copy(root / "resources/hosts.csv", "resources/hosts.csv")
    hosts = read_hosts("resources/hosts.csv")
    for name in ("Al", "Fe"):
        small_study.write(f"results/lattice/{name}.json", name)
        outputs = {"json": f"results/lattice/{name}.json"}
        small_study.record("lattice", {"hosts": ["resources/hosts.csv"]}, outputs, {"host": asdict(hosts[name])})
    whole = Path("resources/hosts.csv").read_text()
    rows = whole.splitlines()
    iron = next(i for i, row in enumerate(rows) if row.startswith("Fe"))
    Path("resources/hosts.csv").write_text("\n".join([*rows, rows[iron].replace("Fe", "Mn", 1)]) + "\n")
    verdict = verify.verify(Study.load())
    assert faults(verdict) == [] and any("took a row from it" in note for note in verdict.notes)

    parameter = f"{hosts['Fe'].lattice_parameter:g}"
    assert parameter in rows[iron]
    rows[iron] = rows[iron].replace(parameter, "2.9", 1)
    Path("resources/hosts.csv").write_text("\n".join(rows) + "\n")
    (fault,) = faults(verify.verify(Study.load()))
    assert [record["record"] for record in fault.below] == ["results/lattice/Fe.record.json"]


def test_code_of_a_study_that_is_no_clone_is_that_of_this_one(tmp_path, monkeypatch):
    """The workflow as a module of another one, in another folder."""
    monkeypatch.chdir(tmp_path)
    small_study.write("results/a.txt", "a")
    code = digest.file_digests("labels.py")
    small_study.record("labels", {}, {"text": "results/a.txt"}, code=code)
    assert verify.verify(Study.load()).notes == []
    changed = min(code)
    small_study.record("labels", {}, {"text": "results/a.txt"}, code={**code, changed: 16 * "0"})
    assert [note.partition(" since")[0] for note in verify.verify(Study.load()).notes] == [f"{changed} (code) changed"]


def test_files_limit_the_check_to_what_is_behind_them(study):
    Path("results/patterns/al-1.nc").write_text("other")
    run = CliRunner().invoke
    assert run(cli.app, ["verify", "results/patterns/al-0.nc"]).exit_code == 0
    assert run(cli.app, ["verify", FIGURE]).exit_code == 1
    result = run(cli.app, ["verify", "resources/sites.txt"])
    assert isinstance(result.exception, ValueError) and "a source of this study" in str(result.exception)


def test_a_changed_shipped_source_is_found_by_the_record_beside_it(study):
    ship()
    small_study.record("structure", {"relaxed": ["resources/al.extxyz"]}, {"cif": "results/structures/al-0.cif"})
    Path("resources/al.extxyz").write_text("edited")
    small_study.record("structure", {"relaxed": ["resources/al.extxyz"]}, {"cif": "results/structures/al-0.cif"})
    (fault,) = verify.verify(Study.load()).sources
    assert "not what the record beside it" in fault.text


def ship():
    """A relaxed cell in resources/ with the record of the study that computed it, under the path it had there."""
    small_study.write("results/relax/al.extxyz", "relaxed")
    small_study.record("relax", {}, {"relaxed": "results/relax/al.extxyz"}, {"preset": "paper"}, seconds=500.0)
    Path("results/relax/al.extxyz").rename("resources/al.extxyz")
    record = provenance.read_record(Path("results/relax/al.record.json"))
    del record["host"]  # as published records may be
    Path("resources/al.record.json").write_text(provenance.sealed(record))
    Path("results/relax/al.record.json").unlink()


@pytest.fixture
def configured(study):
    """The study, its figure made anew by a run whose configuration was kept."""
    kept = provenance.keep_configuration({"seed": 7, "runtime": {"cache": "/private/shelf"}})
    outputs = {"png": FIGURE}
    small_study.record("figure", {"accuracy": ["results/accuracy.csv"]}, outputs, configuration=kept)
    return Path(kept["path"])


def test_the_configuration_of_a_run_is_kept_once_and_checked(configured):
    again = provenance.keep_configuration({"runtime": {"cache": "/private/shelf"}, "seed": 7})
    assert again["path"] == str(configured) and again["sha256"] == provenance.sha256(configured)
    other = provenance.keep_configuration({"seed": 8, "runtime": {"cache": "/private/shelf"}}, with_host=False)
    assert other["path"] != str(configured) and "private" not in Path(other["path"]).read_text()
    verdict = verify.verify(Study.load())
    assert faults(verdict) == [] and not any("configurations" in note for note in verdict.notes)
    for change in (lambda: configured.write_text("{}"), configured.unlink):
        change()
        (fault,) = verify.verify(Study.load()).damaged
        assert fault.path == str(configured) and "the configuration of 1 result" in fault.text
    provenance.keep_configuration({"seed": 7, "runtime": {"cache": "/private/shelf"}})
    assert faults(verify.verify(Study.load())) == []


def test_the_mark_of_a_result_in_segments_is_no_file_without_a_record(study):
    Path(FIGURE.replace(".png", ".segments")).touch()
    assert any("without a record: results/figures/accuracy.segments" in n for n in verify.verify(Study.load()).notes)
    small_study.record("figure", {"accuracy": ["results/accuracy.csv"]}, {"png": FIGURE}, segments=3)
    assert not any("without a record" in note for note in verify.verify(Study.load()).notes)


def test_trace_names_the_configuration_of_each_job(configured):
    traced = trace.trace(Study.load(), FIGURE)
    assert [job["configuration"] and job["configuration"]["path"] for job in traced["jobs"]][:2] == [
        str(configured),
        None,
    ]
    assert f"configuration of the run: {configured}" in shown(trace.draw(traced))


def test_jobs_of_an_earlier_study_are_followed_as_far_as_they_were_shipped(study):
    """A cell shipped from another study with its record, and the lattice constant that its job read; what that job read
    in its turn was not shipped."""
    small_study.write("before/results/lattice/Al.json", "4.04")
    small_study.write("before/results/relax/al.extxyz", "relaxed")
    small_study.write("before/resources/hosts.csv", "Al of then")
    os.chdir("before")
    small_study.record("lattice", {"hosts": ["resources/hosts.csv"]}, {"json": "results/lattice/Al.json"})
    small_study.record("relax", {"lattice": ["results/lattice/Al.json"]}, {"relaxed": "results/relax/al.extxyz"})
    os.chdir(study)
    library = Path("resources/structures")
    shutil.copytree("before/results/relax", library)
    (library / "lattice").mkdir()
    for suffix in ("json", "record.json"):
        shutil.copy(f"before/results/lattice/Al.{suffix}", library / f"lattice/Al-paper.{suffix}")
        shutil.copy(f"before/results/lattice/Al.{suffix}", library / f"lattice/Fe-paper.{suffix}")
    Path(library / "lattice/Fe-paper.json").write_text("other")
    small_study.write("results/structures/al.cif", "cell")
    small_study.record("structure", {"relaxed": [str(library / "al.extxyz")]}, {"cif": "results/structures/al.cif"})
    relax, lattice = Study.load().earlier
    assert (relax["rule"], lattice["rule"]) == ("relax", "lattice")
    assert relax["record"] == str(library / "al.record.json")
    assert sorted(relax["here"].values()) == [str(library / "al.extxyz"), str(library / "lattice/Al-paper.json")]
    assert lattice["record"] == str(library / "lattice/Al-paper.record.json")
    assert list(lattice["here"].values()) == [str(library / "lattice/Al-paper.json")]
    (library / "al.extxyz").write_text("changed since")
    small_study.record("structure", {"relaxed": [str(library / "al.extxyz")]}, {"cif": "results/structures/al.cif"})
    assert Study.load().earlier == [], "the record does not tell of the file that was read"


# --- trace ------------------------------------------------------------------------------------------------------------


def test_trace_has_every_job_and_file_behind_a_result_once(study):
    traced = trace.trace(*Study.holding(FIGURE))
    assert [job["rule"] for job in traced["jobs"]].count("simulate") == 3 and len(traced["jobs"]) == 8
    assert traced["jobs"][0]["record"] == traced["target_record"]
    assert {f["path"] for f in traced["files"] if f["made_by"] is None} == {"resources/sites.txt"}
    for file in traced["files"]:
        assert file["sha256"] == provenance.sha256(file["path"]) and file["bytes"] == os.path.getsize(file["path"])
    assert traced["total"]["seconds"] == 8.0
    assert json.loads(json.dumps(traced)) == traced


def test_cost_of_a_job_met_twice_counts_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "abcd":
        small_study.write(f"results/{name}.txt", name)
    small_study.record("first", {}, {"x": "results/a.txt"}, earlier=[{"started": 0, "seconds": 9, "cpu_seconds": 4}])
    small_study.record("left", {"x": ["results/a.txt"]}, {"x": "results/b.txt"})
    small_study.record("right", {"x": ["results/a.txt"]}, {"x": "results/c.txt"})
    small_study.record("last", {"x": ["results/b.txt", "results/c.txt"]}, {"x": "results/d.txt"})
    traced = trace.trace(*Study.holding("results/d.txt"))
    assert traced["total"]["jobs"] == 4 and traced["total"]["seconds"] == 13.0
    text = shown(trace.draw(traced))
    assert text.count("results/a.txt") == 2 and "first, see above" in text


def test_the_tree_folds_branches_of_one_kind(tmp_path, monkeypatch):
    small_study.build(tmp_path, conditions=30)
    monkeypatch.chdir(tmp_path)
    text = shown(trace.draw(trace.trace(*Study.holding(FIGURE))))
    assert "... and 29 more like it (simulate < structure): results/patterns/al-1.nc" in text
    assert len(text.splitlines()) < 30
    for part in ("resources/sites.txt", "diffraction=", "Python 3.", "numpy", "62 jobs behind it", "1 source", "log: "):
        assert part in text


def test_a_source_that_was_shipped_with_its_record_is_traced_on(study):
    ship()
    small_study.record("structure", {"relaxed": ["resources/al.extxyz"]}, {"cif": "results/structures/al-0.cif"})
    traced = trace.trace(*Study.holding("results/structures/al-0.cif"))
    (file,) = [file for file in traced["files"] if file["made_by"] is None]
    assert file["shipped"]["settings"] == {"preset": "paper"} and traced["total"]["shipped_jobs"] == 1
    assert "shipped with its record resources/al.record.json" in shown(trace.draw(traced))


def test_files_of_an_id_with_dots_find_their_record_and_no_others(study):
    """312.5 K and 312.25 K: the same up to the dot."""
    for kelvin in ("312.5K", "312.25K"):
        outputs = {"log": f"resources/al-{kelvin}.gpaw.txt", "snapshots": f"resources/al-{kelvin}.extxyz"}
        for name in outputs.values():
            small_study.write(name, f"{kelvin} {name}")
        small_study.record("aimd", {}, outputs)
    small_study.record("structure", {"snapshots": list(outputs.values())}, {"cif": "results/structures/al-0.cif"})
    found = Study.load()
    for name in outputs.values():
        assert found.shipped(name)["record"] == "resources/al-312.25K.record.json"
    assert found.beside("resources/al-312.25K.extxyz") == ["resources/al-312.25K.gpaw.txt"]
    assert found.beside("resources/al-312.5K.gpaw.txt") == ["resources/al-312.5K.extxyz"]
    assert [record["record"] for record in found.earlier] == ["resources/al-312.25K.record.json"]
    assert not faults(verify.verify(found))


def test_trace_of_what_no_job_made(study):
    with pytest.raises(ValueError, match="a source of this study"):
        trace.trace(*Study.holding("resources/sites.txt"))
    with pytest.raises(ValueError, match="no record made this file"):
        trace.trace(*Study.holding("results/nothing.txt"))


def test_graph_has_an_arrow_for_each_input_and_output(study):
    text = trace.dot(trace.trace(*Study.holding("results/patterns/al-0.nc")))
    assert text.count(" -> ") == 4
    assert '"results/structures/al-0.cif" -> "job results/patterns/al-0.record.json";' in text
    if shutil.which("dot"):
        drawn = subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, text=True, check=True)
        assert "<svg" in drawn.stdout


def test_trace_command_writes_each_form(study):
    run = CliRunner().invoke
    assert "accuracy.csv" in run(cli.app, ["trace", FIGURE]).output
    assert json.loads(run(cli.app, ["trace", FIGURE, "--json"]).output)["schema"] == trace.SCHEMA
    assert run(cli.app, ["trace", FIGURE, "--dot"]).output.startswith("digraph")
    assert run(cli.app, ["trace", FIGURE, "-o", "t.dot"]).exit_code == 0 and Path("t.dot").read_text()[:7] == "digraph"
    assert isinstance(run(cli.app, ["trace", FIGURE, "-o", "t.doc"]).exception, ValueError)


def test_graphviz_that_fails_is_one_clear_error(study, monkeypatch, capsys):
    dot = study / "bin/dot"
    small_study.write(str(dot), "#!/bin/sh\ncat > /dev/null\necho 'Format: \"svg\" not recognized.' >&2\nexit 1\n")
    dot.chmod(0o755)
    monkeypatch.setenv("PATH", f"{dot.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "argv", ["defraction", "trace", FIGURE, "-o", "t.svg"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('defraction: t.svg: dot of Graphviz failed: Format: "svg" not recognized.; mend that')


def test_the_forms_of_prov_are_those_that_the_help_names(study):
    command = CliRunner().invoke(cli.app, ["export", "prov", "--help"], terminal_width=200)
    assert set(re.findall(r"\((\.\w+)\)", command.output)) == set(prov.FORMATS)
    refused = CliRunner().invoke(cli.app, ["export", "prov", "study.xml"])
    assert isinstance(refused.exception, ValueError)
    assert str(refused.exception) == "study.xml: PROV is written as .json, .provn, .ttl"


# --- diff -------------------------------------------------------------------------------------------------------------


def mirrored(found: dict) -> dict:
    """A comparison with its sides exchanged; causes without order."""

    def rows(items):
        return [{**item, "a": item["b"], "b": item["a"]} for item in items]

    causes = [
        {**cause, "a": cause["b"], "b": cause["a"], **{kind: rows(cause[kind]) for kind in diff.OWN}}
        for cause in found["causes"]
    ]
    own = {kind: rows(found[kind]) for kind in (*diff.OWN, "inputs")}
    return {**found, "a": found["b"], "b": found["a"], **own, "causes": causes}


def test_diff_of_two_studies_names_the_setting_and_is_symmetric(tmp_path):
    small_study.build(tmp_path / "a")
    small_study.build(tmp_path / "b", pixels=128)
    a, b = (Study.holding(tmp_path / name / FIGURE) for name in "ab")
    found = diff.diff(a, b)
    assert not found["same_content"] and not found["settings"]
    (cause,) = found["causes"]
    assert cause["settings"] == [{"key": "diffraction.pixels", "a": 64, "b": 128}]
    assert cause["a"] == "results/patterns/al-0.nc" and len(cause["also"]) == 2
    assert diff.diff(b, a) == mirrored(found)
    text = "\n".join(diff.lines(found))
    assert "diffraction.pixels: 64 | 128" in text and "al-0.nc and 2 more: simulate differs in settings" in text


def test_diff_of_equal_results(tmp_path):
    for name in "ab":
        small_study.build(tmp_path / name)
    found = diff.diff(*(Study.holding(tmp_path / name / FIGURE) for name in "ab"))
    assert found["same_content"] and not found["causes"]
    assert diff.lines(found)[2:] == [
        "The contents are the same.",
        "Settings, code, environment and inputs are the same.",
    ]


def test_diff_names_module_package_and_source(tmp_path, monkeypatch):
    for name in "ab":
        small_study.build(tmp_path / name)
    monkeypatch.chdir(tmp_path / "b")
    small_study.write("resources/sites.txt", "Al 0.5 0 0\n")
    small_study.write("results/structures/al-0.cif", "moved\n")
    outputs = {"cif": "results/structures/al-0.cif", "log": "results/structures/al-0.gpaw.txt"}
    small_study.record("structure", {"sites": ["resources/sites.txt"]}, outputs, {"condition": "al-0"})
    small_study.write("results/patterns/al-0.nc", "other\n")
    monkeypatch.setattr(provenance, "packages", lambda: {"numpy": {"version": "9.9", "location": "numpy"}})
    code = {**small_study.CODE, "workflow/scripts/defraction/laue.py": "f" * 16}
    inputs = {"structure": ["results/structures/al-0.cif"]}
    params = {"diffraction": {"pixels": 64, "model": "physical"}}
    small_study.record("simulate", inputs, {"patterns": "results/patterns/al-0.nc"}, params, code)
    found = diff.diff(*(Study.holding(tmp_path / name / "results/patterns/al-0.nc") for name in "ab"))
    assert found["code"] == [{"key": "workflow/scripts/defraction/laue.py", "a": "b" * 16, "b": "f" * 16}]
    assert {row["key"]: row["b"] for row in found["environment"]}["numpy"] == "9.9"
    assert found["causes"][0]["reason"] == "sources with different contents"
    assert [cause["a"] for cause in found["causes"]] == ["resources/sites.txt", "results/patterns/al-0.nc"]


def test_diff_of_bytes_that_differ_without_a_recorded_reason(tmp_path):
    small_study.build(tmp_path / "a")
    small_study.build(tmp_path / "b", origin="other")
    found = diff.diff(*(Study.holding(tmp_path / name / FIGURE) for name in "ab"))
    assert found["same_content"]
    found = diff.diff(*(Study.holding(tmp_path / name / "results/structures/al-0.cif") for name in "ab"))
    assert not found["same_content"] and "something differs that no record holds" in diff.lines(found)[-1]
    found = diff.diff(*(Study.holding(tmp_path / name / "results/patterns/al-0.nc") for name in "ab"))
    assert found["causes"][0]["reason"] == "structure differs in nothing that is recorded"
