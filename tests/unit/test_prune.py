"""`defraction prune` lists what the records say belongs to no condition or model of the configuration, and no more."""

import json
import shutil
from pathlib import Path

import pytest
import small_study
import yaml
from typer.testing import CliRunner

from defraction import prune_command
from defraction.cli import app

CONFIG = {
    "conditions": [
        {"kind": "strain", "host": "Al", "component": "xx", "values": [0.02]},
        {"kind": "vacancy", "host": "Al", "supercell": [2, 1, 1], "preset": "smoke"},
    ]
}


def made(rule: str, wildcards: dict, *files: str) -> list[str]:
    """Write files and their record as a job would; returns all names."""
    record = str(Path(files[0]).with_suffix(".record.json"))
    log = f"logs/{rule}/{'-'.join(wildcards.values())}.log"
    for name in (*files, log):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"{name}, 3 KiB\n".ljust(3072))
    outputs = [{"path": name, "role": "any", "sha256": "0" * 64, "bytes": 3072} for name in files]
    facts = {"schema": "defraction-record/1", "rule": rule, "wildcards": wildcards, "inputs": [], "outputs": outputs}
    Path(record).write_text(json.dumps({**facts, "params": {}, "log": log, "seconds": 1.0, "cpu_seconds": 1.0}))
    return [*files, record, log]


@pytest.fixture
def folder(tmp_path, monkeypatch, root):
    """A study with results of two conditions and models that the configuration has, and of some that it has not."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(root / "resources", "resources", ignore=shutil.ignore_patterns("structures", "models"))
    Path("one.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


@pytest.fixture
def kept(folder):
    kept = made("conditions_table", {}, "results/conditions.csv")
    kept += made("structure_strain", {"condition": "al-strain-xx+2pct"}, "results/structures/al-strain-xx+2pct.cif")
    kept += made("simulate", {"condition": "al-strain-xx+2pct"}, "results/patterns/al-strain-xx+2pct.nc")
    kept += made("lattice", {"host": "Al-smoke"}, "results/first_principles/lattice/Al-smoke.json")
    kept += made("simulate_clean", {"material": "Al-225"}, "results/patterns/clean/Al-225.nc")
    kept += made("train", {"model": "main-seed1"}, "results/models/main-seed1/model.safetensors")
    kept += made("evaluate", {}, "results/accuracy.csv")
    kept += made("figure_accuracy", {}, "results/figures/accuracy.png")
    kept += made("displacements", {}, "results/displacements.csv")
    for name in (
        "results/notes.txt",
        "results/structures/mine.cif",
        "results/.restart/relax-al-vacancy-2x1x1-smoke/a/x",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("no record speaks of this")
        kept.append(name)
    return set(kept)


@pytest.fixture
def orphaned(folder):
    both = {"model": "main-seed1", "condition": "al-strain-xx+9pct"}
    files = made("structure_strain", {"condition": "al-strain-xx+9pct"}, "results/structures/al-strain-xx+9pct.cif")
    files += made("predict", both, "results/predictions/main-seed1/al-strain-xx+9pct.nc")
    files += made("train", {"model": "old-seed7"}, "results/models/old-seed7/model.safetensors")
    files += made("simulate_clean", {"material": "Unobtainium-225"}, "results/patterns/clean/Unobtainium-225.nc")
    files += made("lattice", {"host": "Cu"}, "results/first_principles/lattice/Cu.json")
    wildcards = {"pattern_set": "fine", "condition": "al-strain-xx+2pct"}
    files += made("simulate_set", wildcards, "results/pattern_sets/fine/al-strain-xx+2pct.nc")
    files += made("figure_interstitial", {}, "results/figures/interstitial.png")
    cold = "al-thermal-9K-1x1x1"
    files += made("aimd", {"condition": cold}, f"results/first_principles/aimd/{cold}.json")
    for name in (
        "logs/tensorboard/old-seed7/events",
        "results/.restart/relax-al-vacancy-9x1x1/a/relax.jsonl",
        f"logs/aimd/{cold}.1.log",
        f"logs/aimd/{cold}.12.log",
        f"results/first_principles/aimd/{cold}.segments",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("state")
        files.append(name)
    return set(files)


def prune(*arguments, **options):
    done = CliRunner().invoke(app, ["prune", "--config", "one.yaml", *arguments], catch_exceptions=False, **options)
    assert done.exit_code == 0
    return done.output


def present(names):
    return {name for name in names if Path(name).exists()}


def listed(output):
    return {line.split()[-1] for line in output.splitlines() if line.startswith("  ")}


def test_lists_and_deletes_nothing_unless_asked(kept, orphaned):
    output = prune()
    assert listed(output) == orphaned
    assert f"{len(orphaned)} files of 10 jobs" in output
    assert present(kept | orphaned) == kept | orphaned


def test_asks_before_it_deletes(kept, orphaned):
    assert "Nothing was deleted" in prune("--delete", input="n\n")
    assert present(kept | orphaned) == kept | orphaned


def test_deletes_the_orphans_and_their_empty_folders_alone(kept, orphaned):
    prune("--delete", "--yes")
    assert present(kept) == kept
    assert not present(orphaned)
    for folder in ("results/models/old-seed7", "results/pattern_sets", "results/.restart/relax-al-vacancy-9x1x1"):
        assert not Path(folder).exists()
    assert "no file belongs" in prune()


def test_what_another_configuration_needs_stays(kept, orphaned):
    more = {**CONFIG, "pattern_sets": {"fine": {"pixels": 64}}}
    more["conditions"] = [{"kind": "strain", "host": "Al", "component": "xx", "values": [0.02, 0.09]}]
    Path("two.yaml").write_text(yaml.safe_dump(more))
    left = listed(prune("--config", "two.yaml"))
    assert left == {name for name in orphaned if "9pct" not in name and "fine" not in name}


def test_a_prediction_stays_only_if_one_configuration_has_both_its_model_and_its_condition(folder):
    other = {"conditions": [{"kind": "pristine", "host": "Fe"}], "models": [{"name": "second"}]}
    Path("two.yaml").write_text(yaml.safe_dump(other))
    neither = made("predict", {"model": "second-seed1", "condition": "al-pristine"}, "results/predictions/a/x.nc")
    made("predict", {"model": "second-seed1", "condition": "fe-pristine"}, "results/predictions/a/y.nc")
    assert listed(prune("--config", "two.yaml")) == set(neither)


def test_what_only_some_studies_have_stays_with_what_it_is_made_of(folder):
    """Figures and tables have no wildcard: whether a configuration makes them follows from its conditions and axes."""
    dislocation = {"kind": "dislocation", "host": "Al", "count": 2, "spacing": 20, "size": [48, 32], "line_repeat": 3}
    name, axes = "al-dislocation-edge-2", [[0, 0, 1], [1, 1, 2]]
    files = made("simulate_shown", {"folder": "patterns", "condition": name}, f"results/patterns/shown/{name}.nc")
    both = {"model": "main-seed1", "condition": name}
    files += made("predict_shown", both, f"results/predictions/main-seed1/shown/{name}.nc")
    files += made("figure_dislocation_patterns", {}, "results/figures/dislocation_patterns.png")
    set_and_name = {"folder": "pattern_sets/fine", "condition": name}
    fine = made("simulate_shown", set_and_name, f"results/pattern_sets/fine/shown/{name}.nc")
    displacements = made("displacements", {}, "results/displacements.csv")
    resolution = made("figure_resolution", {}, "results/figures/resolution.png")

    def left(**config):
        Path("one.yaml").write_text(yaml.safe_dump(config))
        return listed(prune())

    vacancy = CONFIG["conditions"][1]
    both_axes, models = {"zone_axes": axes}, [{"name": "main"}, {"name": "fine", "pattern_set": "fine"}]
    sets = {"pattern_sets": {"fine": {"pixels": 64}}, "models": models}
    assert left(conditions=[dislocation], diffraction=both_axes) == {*displacements, *resolution, *fine}
    assert left(conditions=[dislocation], diffraction=both_axes, **sets) == {*displacements}
    assert left(conditions=[vacancy], diffraction=both_axes, **sets) == {*files, *fine}
    # the article shows the dislocation along [112], which has no labels here
    narrow = {"zone_axes": axes[:1]}
    assert left(conditions=[dislocation, vacancy], diffraction=narrow) == {*files, *fine, *resolution}


def test_after_pruning_and_the_next_run_every_file_is_as_recorded(folder):
    """Nothing is left that read what was deleted and that no run makes again."""
    kept, gone = "al-strain-xx+2pct", "al-dislocation-edge-2"

    def record(rule, wildcards, inputs, name):
        small_study.write(name, f"{rule} {wildcards} {inputs}")
        outputs = {Path(name).suffix[1:]: name}
        small_study.record(rule, {"any": inputs}, outputs, wildcards=wildcards, log=f"logs/{rule}.log")

    def summary(conditions):
        """What every run makes again."""
        record("evaluate", {}, [f"results/patterns/{name}.nc" for name in conditions], "results/accuracy.csv")
        record("figure_accuracy", {}, ["results/accuracy.csv"], "results/figures/accuracy.png")

    for name in (kept, gone):
        record("structure", {"condition": name}, [], f"results/structures/{name}.cif")
        record("simulate", {"condition": name}, [f"results/structures/{name}.cif"], f"results/patterns/{name}.nc")
    shown = f"results/patterns/shown/{gone}.nc"
    folder_and_name = {"folder": "patterns", "condition": gone}
    record("simulate_shown", folder_and_name, [f"results/structures/{gone}.cif"], shown)
    record("figure_dislocation_patterns", {}, [shown], "results/figures/dislocation_patterns.png")
    summary([kept, gone])

    verify = ["verify"]
    assert CliRunner().invoke(app, verify).exit_code == 0
    prune("--delete", "--yes")
    assert CliRunner().invoke(app, verify).exit_code == 1
    summary([kept])
    done = CliRunner().invoke(app, verify)
    assert done.exit_code == 0, done.output


def test_a_record_cannot_name_files_elsewhere(folder):
    outside = folder / "precious.txt"
    files = made("simulate", {"condition": "gone"}, "results/patterns/gone.nc")
    outside.write_text("precious")
    record = Path("results/patterns/gone.record.json")
    facts = json.loads(record.read_text())
    facts["outputs"] += [{"path": name, "sha256": "", "bytes": 8} for name in (str(outside), "results/../precious.txt")]
    record.write_text(json.dumps(facts))
    assert listed(prune("--delete", "--yes")) == set(files)
    assert outside.exists()


def test_refuses_while_a_run_works_here(kept, orphaned, monkeypatch):
    from defraction import preflight

    monkeypatch.setattr(preflight, "running", lambda folder: ["job simulate, process 1"])
    with pytest.raises(preflight.Survivor, match="process 1"):
        prune("--delete", "--yes")
    assert present(orphaned) == orphaned


def test_the_rules_that_keep_state_are_those_known(root):
    """Restart state has no record, so these rules are listed by name."""
    found = {p.stem for p in (root / "workflow/scripts").glob("*.py") if "state=True" in p.read_text()}
    assert found == set(prune_command.STATEFUL)
