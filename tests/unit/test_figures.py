"""Every figure from small tables, with captions that hold the numbers; the report that collects them."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from ase.io import write
from netCDF4 import Dataset

from defraction import conditions, config, dataset, expansion, hosts, models, panels, published
from defraction.evaluation.columns import TABLES
from defraction.evaluation.evaluate import evaluate
from defraction.evaluation.predictions import Predictions
from defraction.evaluation.summary import summarise_files
from defraction.learning import labels
from defraction.tables import write_rows

AXES = [(0, 0, 1), (0, 1, 1), (1, 1, 1)]
LOOK = {"colour": "#1f6f8b", "pattern_decades": 4.0}
REDUCTIONS = ["small for a test"]
STUDY = {
    "conditions": [
        {"kind": "strain", "host": "Al", "component": "xx", "values": [0.025, 0.04]},
        {"kind": "strain", "host": "Al", "component": "xy", "values": [0.03]},
        {"kind": "strain", "host": "Al", "component": "xx", "values": [0.04], "elastic": "gpaw"},
        {"kind": "strain", "host": "Fe", "component": "xy", "values": [0.03]},
        {"kind": "thermal", "host": "Al", "supercell": [2, 2, 2], "temperatures": [300]},
        {"kind": "vacancy", "host": "Al", "supercell": [2, 2, 2]},
        {"kind": "vacancy", "host": "Fe", "supercell": [3, 3, 3]},
        {"kind": "interstitial", "host": "Al", "solute": "C", "site": "tetrahedral", "supercell": [2, 2, 2]},
        {"kind": "random_defects", "host": "Al", "concentrations": [0.1, 0.25]},
        {"kind": "twin", "host": "Al"},
    ],
    "pattern_sets": {"fine": {"pixels": 128}},
    "models": [{"name": "main", "seeds": [1, 2]}, {"name": "fine", "pattern_set": "fine"}],
}


def random_predictions(groups, names, table, seed):
    rng = np.random.default_rng(seed)
    label = labels.label_of(table)
    true = np.array([[label[(g, axis)] for axis in AXES] for g in groups])
    p = rng.dirichlet(np.full(labels.number_of_labels(table), 0.2), size=(len(groups), 3, 2, 2, 1, 2))
    names_ = tuple(labels.axis_name(axis) for axis in AXES)
    return Predictions(np.log(p + 1e-9), true, np.array(groups), names, names_, (200.0, 300.0), (0.5, 0.8))


@pytest.fixture(scope="module")
def study(tmp_path_factory, root):
    """Tables of two seeds and a second model."""
    folder = tmp_path_factory.mktemp("figures")
    checked = config.validate(STUDY)
    known = hosts.read_hosts(root / "resources/hosts.csv")
    found = expansion.expand(checked, known)
    conditions.write_table(found, folder / "conditions.csv")
    models.write_table(folder / "models.csv", models.rows(checked))
    table = labels.write_labels(folder / "labels.csv", zone_axes=AXES)
    crystals = [{"material": i, "space_group": 225, "formula": f} for i, f in (("a", "Al"), ("b", "Ni"))]
    dataset.write_split(folder / "split.csv", dataset.split_table(crystals, 0.5, 1, host_crystals={"Al": 225}))
    settings = {"ensemble_sizes": [1, 2, 3], "draws": 20, "confidence": 0.95, "calibration_bins": 5}
    tables = {name: [] for name in TABLES}
    with (folder / "conditions.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    for seed, (model, facts) in enumerate(models.expand(checked).items()):
        groups = [213, 221, 225, 227, 229] * 2
        out = evaluate(
            {c.id: random_predictions([known[c.host].space_group], [c.id], table, seed) for c in found.values()},
            rows, table, settings, 1,
            clean=random_predictions(groups, [f"m{i}" for i in range(10)], table, seed),
            published=published.read_published(root / "resources/paper/published.csv"),
            model=model, pattern_set=facts["pattern_set"],
        )  # fmt: skip
        for name, columns in TABLES.items():
            tables[name].append(folder / f"{name}-{model}.csv")
            write_rows(tables[name][-1], columns, out[name])
    outputs = {n: folder / f"{n}.csv" for n in (*TABLES, "comparison", "spread", "resolution", "classes")}
    shape = {"zone_axes": 3, "voltages": 2, "camera_lengths": 2}
    summarise_files(
        tables, [folder / "split.csv"] * len(tables["accuracy"]), folder / "models.csv",
        root / "resources/paper/published.csv", folder / "labels.csv", outputs,
        {"main": {"pixels": 256, **shape}, "fine": {"pixels": 128, **shape}}, REDUCTIONS,
    )  # fmt: skip
    (folder / "figures").mkdir()
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Coarse pictures: their content is tested, not their sharpness."""
    from defraction.figures import style

    monkeypatch.setitem(style.plt.rcParams, "savefig.dpi", 40)


@pytest.fixture
def output(study):
    from defraction.figures.style import Sheet

    def make(name):
        folder = study / "figures"
        return Sheet(folder / f"{name}.png", folder / f"{name}.pdf", folder / f"{name}.rst", LOOK, REDUCTIONS)

    return make


def check(study, name):
    for suffix in ("png", "pdf"):
        assert (study / f"figures/{name}.{suffix}").stat().st_size > 1500
    text = (study / f"figures/{name}.rst").read_text()
    assert re.match(r"\*\*.+\.\*\* \S", text) and "small for a test" in text
    assert "nan" not in text
    return text


def accuracy_of(study, condition, column="accuracy_label"):
    with (study / "accuracy.csv").open() as handle:
        rows = csv.DictReader(handle)
        return next(float(r[column]) for r in rows if (r["model"], r["condition"]) == ("main-seed1", condition))


def test_figures_of_accuracies(study, output, root):
    from defraction.figures import accuracies

    found = conditions.read_table(study / "conditions.csv")
    numbers = published.read_published(root / "resources/paper/published.csv")
    table, catalogue = study / "accuracy.csv", study / "models.csv"
    accuracies.overview(table, catalogue, output("accuracy"))
    text = check(study, "accuracy")
    assert f"Perfect crystals held out: {100 * accuracy_of(study, 'clean-held-out'):.1f} %" in text
    assert "theirs is a training accuracy" in text  # hosts: train
    accuracies.strain(table, catalogue, found, numbers, output("strain"))
    text = check(study, "strain")
    assert f"{100 * accuracy_of(study, 'al-strain-xx+4pct'):.1f} % at 4 %" in text and "2 training seeds" in text
    computed = next(name for name, c in found.items() if c.settings.get("elastic") == "gpaw")
    assert f"Al, computed constants, xx: {100 * accuracy_of(study, 'al-pristine'):.1f} % without strain, " in text
    assert f"{100 * accuracy_of(study, computed):.1f} % at 4 %" in text
    accuracies.sweeps(table, catalogue, found, output("sweeps"))
    control, *measured = (
        100 * accuracy_of(study, name) for name in ("al-pristine", "al-random-vacancy-10pct", "al-random-vacancy-25pct")
    )
    said = "control al-pristine {:.1f} %, {:.1f} % at 10 %, {:.1f} % at 25 %.".format(control, *measured)
    assert said in check(study, "sweeps")
    accuracies.resolution(study / "resolution.csv", output("resolution"))
    assert "at 128 pixels" in check(study, "resolution")


def legend_of(monkeypatch, draw):
    """Entries of the legends of a figure, and the figure."""
    from defraction.figures import style

    kept = []
    monkeypatch.setattr(style.plt, "close", kept.append)
    draw()
    monkeypatch.undo()
    legends = [axes.get_legend() for axes in kept[0].axes if axes.get_legend()]
    return [text.get_text() for legend in legends for text in legend.get_texts()], kept[0]


def controlled(study, name):
    """An accuracy and that of its control, as captions say them."""
    accuracy, loss = (accuracy_of(study, name, f"{what}_label") for what in ("accuracy", "loss"))
    return f"{100 * accuracy:.1f} %, control {100 * (accuracy + loss):.1f} %"


def table2(study, root, output, comparison="comparison.csv"):
    from defraction.figures import accuracies

    numbers = published.read_published(root / "resources/paper/published.csv")
    tables = study / "accuracy.csv", study / comparison, study / "models.csv"
    return lambda: accuracies.table2(*tables, numbers, output("table2"))


def test_table_2_names_what_stands_in_for_the_article(study, output, root, monkeypatch):
    """The study has both members of `high`, of `low` other cells, of substitutions none."""
    legend, figure = legend_of(monkeypatch, table2(study, root, output))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    al, iron, free = "al-vacancy-2x2x2", "fe-vacancy-3x3x3", "unrelaxed"
    assert names == [
        "vacancy, low", f"{al} (for 3x3x3)", f"{iron} (for 4x4x4)", "vacancy, high", al, iron, f"{al}-{free}",
        f"{iron}-{free}",
    ]  # fmt: skip
    text = check(study, "table2")
    pooled = controlled(study, "pooled-vacancy-high")
    assert f"Vacancy, high: {pooled}, article 83.24 %, 24 patterns: {al} {controlled(study, al)}; {iron} " in text
    assert f"Vacancy, low: {pooled}, article 97.79 %, 24 patterns: {al} (for 3x3x3) {controlled(study, al)}; " in text
    assert "Substitution, low: not in this run." in text and f"{al}-{free} {controlled(study, f'{al}-{free}')}" in text
    assert "Jeong et al. 2024" in legend and "the same, stand-in" in legend


def test_no_legend_entry_without_a_mark(study, output, root, monkeypatch):
    """A run without a row of the article's table: neither its diamonds nor stand-ins."""
    with (study / "comparison.csv").open() as handle:
        rows = [row for row in csv.DictReader(handle) if not row["where"].startswith("Table 2")]
    write_rows(study / "no-table.csv", tuple(rows[0]), rows)
    legend, _ = legend_of(monkeypatch, table2(study, root, output, "no-table.csv"))
    assert legend == ["this run, with interval", "matched control"]
    assert "Vacancy, high: not in this run." in check(study, "table2")


def test_figures_of_answers(study, output):
    from defraction.figures import answers

    found, catalogue = conditions.read_table(study / "conditions.csv"), study / "models.csv"
    answers.ensemble(study / "ensembles.csv", catalogue, output("ensemble"))
    limit = labels.single_pattern_limit(labels.read_labels(study / "labels.csv"))
    text = check(study, "ensemble")
    assert f"would reach {100 * limit:.1f} % with one pattern" in text
    with (study / "ensembles.csv").open() as handle:
        last = [r for r in csv.DictReader(handle) if (r["model"], r["rule"], r["k"]) == ("main-seed1", "mean_log", "3")]
    last = [float(r["accuracy"]) for r in last if not r["condition"].startswith(("clean", "pooled"))]
    low, high = 100 * min(last), 100 * max(last)
    assert re.search(rf"with 3 axes from {low:.1f} % \([^)]+\) to {high:.1f} % \(", text)
    accuracy = study / "accuracy.csv"
    answers.confusion(study / "confusion.csv", study / "confusion_labels.csv", accuracy, catalogue, output("confusion"))
    groups = [accuracy_of(study, f"clean-held-out-{g}", "limit_space_group") for g in labels.SPACE_GROUPS]
    assert f"of {100 * np.mean(groups):.1f} % for someone who knows every label" in check(study, "confusion")
    answers.calibration(study / "reliability.csv", study / "calibration.csv", catalogue, found, output("calibration"))
    with (study / "calibration.csv").open() as handle:
        row = next(r for r in csv.DictReader(handle) if (r["condition"], r["answer"]) == ("clean-held-out", "label"))
    error = float(row["expected_calibration_error"])
    text = check(study, "calibration")
    assert f"expected calibration error {error:.3f}" in text
    limit = 100 * accuracy_of(study, "clean-held-out", "limit_space_group")
    assert re.search(rf"Space groups, perfect, held out: [^;]+\(all labels known: {limit:.1f} %\)", text)
    answers.mistakes(study / "confusion.csv", study / "mistakes.csv", accuracy, catalogue, found, output("mistakes"))
    text = check(study, "mistakes")
    assert "Most frequent wrong labels of al-strain-xx+4pct" in text
    reached, limit = (100 * accuracy_of(study, "al-twin", f"{what}_space_group") for what in ("accuracy", "limit"))
    assert f"al-twin {reached:.1f} % ({limit:.1f} %)" in text
    answers.settings(study / "accuracy_by.csv", catalogue, found, output("settings"))
    assert re.search(r"along \[\d{3}\] to", check(study, "settings"))
    history = study / "history.csv"
    history.write_text("epoch,train_loss,held_out_accuracy\n1,2.0,0.3\n2,1.0,0.55\n")
    card = study / "card.json"
    card.write_text(json.dumps({"metrics": {"held_out_patterns_watched": 240}}))
    answers.learning({"main-seed1": (history, card)}, accuracy, output("learning"))
    text = check(study, "learning")
    everything = 100 * accuracy_of(study, "clean-held-out")
    assert "55.0 % of 240 held-out patterns after 2 passes" in text and f"test copies: {everything:.1f} %" in text


def write_pattern(path, axes, pixels=64):
    with Dataset(path, "w") as file:
        sizes = {"zone_axis": len(axes), "voltage": 1, "camera_length": 1, "snapshot": 1, "y": pixels, "x": pixels}
        for name, size in (sizes | {"index": 3}).items():
            file.createDimension(name, size)
        file.createVariable("uvw", "i4", ("zone_axis", "index"))[:] = axes
        names = np.array(["[" + " ".join(map(str, axis)) + "]" for axis in axes], dtype=object)
        file.createVariable("zone_axis", str, ("zone_axis",))[:] = names
        for name, value in (("voltage", 200.0), ("camera_length", 0.8)):
            file.createVariable(name, "f8", (name,))[:] = value
        file.createVariable("wavelength", "f8", ("voltage",))[:] = 0.025079
        file.createVariable("x", "f8", ("x",))[:] = (np.arange(pixels) - (pixels - 1) / 2) * 63.5 / pixels
        rng = np.random.default_rng(1)
        file.createVariable("intensity", "f4", tuple(sizes))[:] = rng.uniform(size=tuple(sizes.values())) ** 8


def test_figures_of_patterns(study, output):
    from defraction.figures import crystals

    write_pattern(study / "p.nc", [(0, 0, 1), (-1, 1, 0)])
    shown = [panels.Panel("al-pristine", (0, 0, 1), "Al"), panels.Panel("al-twin", (-1, 1, 0), "Al, twin")]
    tables = study / "accuracy.csv", study / "models.csv"
    texts = "Patterns.", "A remark.", 2, output("strain_patterns")
    crystals.patterns([study / "p.nc"] * 2, shown, *tables, 3.0, *texts)
    text = check(study, "strain_patterns")
    assert "over 4 decades" in text and "saw the upper 3 decades only" in text
    assert (
        "(a) al-pristine, [001]; (b) al-twin, [-110]; beam along" in text
        and "64 x 64 pixels" in text
        and "A remark." in text
    )
    pristine, twin, control = (
        f"{name} {100 * accuracy_of(study, name):.1f} %" for name in ("al-pristine", "al-twin", "al-twin-control")
    )
    assert f"of main-seed1, over all zone axes: control {pristine}; control {control}, {twin}." in text
    crystals.patterns([study / "p.nc"] * 2, shown, *tables, 4.0, *texts)
    text = check(study, "strain_patterns")
    assert "The network saw 4 decades." in text and "only" not in text
    crystals.overview([study / "p.nc"] * 7, [f"condition-{i}" for i in range(7)], output("patterns"))
    assert "Beam along [001]" in check(study, "patterns")
    picture = crystals.read_picture(study / "p.nc", (-1, 1, 0))
    # small angles: one pixel is its width over wavelength times camera length
    assert picture.pixel == pytest.approx(63.5 / 64 / (0.025079 * 800), rel=1e-6)
    with pytest.raises(ValueError, match=r"no zone axis \[1, 1, 2\]"):
        crystals.read_picture(study / "p.nc", (1, 1, 2))


def test_captions_of_patterns_state_the_axes_shown_too(tmp_path):
    """And each condition once, behind its own control."""
    from defraction.figures import crystals

    names = ("twin", "twin-control", "strain", "pristine")
    rows = [
        {"model": model, "condition": name + tail, "control": control + tail, "accuracy_label": value - below}
        for model, below in (("main-seed2", 0.0), ("other-seed1", 0.05))
        for tail, shift in (("", 0.0), ("@shown", 0.2))
        for name, control, value in (
            ("twin", "twin-control", 0.5 - shift),
            ("twin-control", "twin-control", 0.75 - shift),
            ("strain", "pristine", 0.875),
            ("pristine", "pristine", 1.0),
        )
        if not (tail and name in names[2:])
    ]
    write_rows(tmp_path / "accuracy.csv", tuple(rows[0]), rows)
    catalogue = [
        {"model": "main-seed2", "name": "main", "headline": "1"},
        {"model": "other-seed1", "name": "other", "headline": "0"},
    ]
    write_rows(tmp_path / "models.csv", ("model", "name", "headline"), catalogue)

    def said(*shown):
        return crystals.accuracies_of(shown, tmp_path / "accuracy.csv", tmp_path / "models.csv")

    twins = [panels.Panel(name, axis, "", True) for name in names[:2] for axis in [(1, 1, 1), (0, 1, 1)]]
    assert said(*twins) == (
        "Accuracy over labels of main-seed2, over all zone axes (over those that the article shows): "
        "control twin-control 75.0 % (55.0 %), twin 50.0 % (30.0 %)."
    )
    assert said(panels.Panel("pristine", (0, 0, 1), ""), panels.Panel("strain", (0, 0, 1), "")) == (
        "Accuracy over labels of main-seed2, over all zone axes: control pristine 100.0 %, strain 87.5 %."
    )


def test_figures_of_displacements(study, output, root):
    from defraction import site_displacements
    from defraction.defects import point
    from defraction.figures import crystals

    aluminium = hosts.read_hosts(root / "resources/hosts.csv")["Al"]
    rng = np.random.default_rng(1)
    snapshots = []
    for _ in range(2):
        atoms = point.build(aluminium, {"supercell": [2, 2, 2]})
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        snapshots.append(atoms)
    write(study / "thermal.extxyz", snapshots)
    carbon = {"kind": "interstitial", "solute": "C", "site": "tetrahedral"}
    atoms = point.build(aluminium, {"supercell": [2, 2, 2], "defect": carbon})
    atoms.positions += rng.normal(0, 0.01, atoms.positions.shape)
    write(study / "carbon.extxyz", atoms)
    relaxed = {"al-vacancy-2x2x2": root / "resources/structures/al-vacancy-2x2x2.extxyz"}
    files = {"al-thermal-300K-2x2x2": study / "thermal.extxyz", **relaxed}
    numbers = root / "resources/paper/displacements.csv"
    of = dict.fromkeys(files, ("fcc", "Al"))
    warm = {"al-thermal-300K-2x2x2": (300, 412.0)}
    site_displacements.write_table(files, of, warm, numbers, study / "displacements.csv")
    thermal = {"al-thermal-300K-2x2x2": study / "thermal.extxyz"}
    crystals.thermal_displacements(
        thermal,
        {"al-thermal-300K-2x2x2": "Al, 300 K"},
        of,
        study / "displacements.csv",
        output("thermal_displacements"),
    )
    assert "of 32 atoms (article 88 of 108)" in check(study, "thermal_displacements")
    crystals.point_displacements(relaxed, of, published.read_displacements(numbers), output("point_displacements"))
    text = check(study, "point_displacements")
    assert "largest 0.0494 Å (article 0.036 Å)" in text  # resources/structures/README.md
    write_pattern(study / "c.nc", [(0, 0, 1)])
    panel = panels.Panel("al-interstitial-c-tetrahedral-2x2x2", (0, 0, 1), "C")
    tables = study / "accuracy.csv", study / "models.csv"
    carbon = study / "carbon.extxyz", ("fcc", "Al"), study / "c.nc", panel
    crystals.interstitial(*carbon, *tables, 3.0, output("interstitial"))
    number = 100 * accuracy_of(study, panel.condition)
    text = check(study, "interstitial")
    assert f"{panel.condition} {number:.1f} %." in text and "pattern along [001]" in text and "upper 3 decades" in text


def test_a_colour_changes_the_figure_and_not_the_caption(study, output, tmp_path):
    from defraction.figures import accuracies

    first = replace(output("accuracy"), png=tmp_path / "a.png", pdf=tmp_path / "a.pdf", caption=tmp_path / "a.rst")
    other = replace(
        first, png=tmp_path / "b.png", caption=tmp_path / "b.rst", presentation=LOOK | {"colour": "#a01020"}
    )
    for sheet in (first, other):
        accuracies.overview(study / "accuracy.csv", study / "models.csv", sheet)
    assert first.png.read_bytes() != other.png.read_bytes()
    assert first.caption.read_text() == other.caption.read_text()


def test_the_report_holds_everything_and_needs_nothing(study, output, root):
    from defraction.figures import accuracies
    from defraction.report import Sources, write_report

    accuracies.overview(study / "accuracy.csv", study / "models.csv", output("accuracy"))
    (study / "split.csv").write_text("material,part,drawn\na,train,0\nb,train,1\nc,held_out,0\n")
    summary = {"steps": 3, "largest_force": 0.01, "converged": True, "displacements": {"largest": 0.05}, "rung": 0}
    (study / "al-vacancy-2x2x2.json").write_text(json.dumps(summary))
    summary = {"times": [20.0], "snapshots": [1], "mean": {"length_largest": 0.1, "x_rms": 0.05}}
    (study / "thermal.json").write_text(json.dumps(summary))
    names = (
        "accuracy",
        "comparison",
        "spread",
        "calibration",
        "mistakes",
        "ensembles",
        "classes",
        "models",
        "labels",
        "split",
    )
    sources = Sources(
        **{name: study / f"{name}.csv" for name in names},
        displacements=[],
        relaxations={"al-vacancy-2x2x2-paper": study / "al-vacancy-2x2x2.json"},
        dynamics={"al-thermal-300K-2x2x2-paper": study / "thermal.json"},
        figures=[study / "figures/accuracy.png"],
        captions=[study / "figures/accuracy.rst"],
    )
    section = json.loads(config.validate(STUDY).diffraction.model_dump_json())
    write_report(
        root / "workflow/report/report.html.j2", study / "report.html", sources,
        conditions.read_table(study / "conditions.csv"), ["less <than> the article"], section,
        {"augmentation": {"rotation": 180}}, 0.95, {"commit": "0123456789abcdef", "dirty": False},
    )  # fmt: skip
    page = (study / "report.html").read_text()
    assert "less &lt;than&gt; the article" in page and "commit 0123456789ab" in page
    assert "trained on patterns of 2 perfect crystals (1 of them drawn at random) of space groups" in page
    for name in ("al-vacancy-2x2x2-paper", "al-thermal-300K-2x2x2-paper"):  # not the names of the files
        assert f"<tr><td>{name}</td>" in page
    assert page.count("<img ") == 1 and not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<strong>Accuracy over labels by condition.</strong>" in page
    for condition in ("clean-held-out", "al-strain-xx+4pct", "pooled-vacancy-high"):
        assert f"{100 * accuracy_of(study, condition):.1f} %" in page
    for row in ("perfect crystals", "Al, xx 2.5 %", "vacancy, high", "fine", "±"):
        assert row in page
    # perfect crystals, Al, strain (two readings of one number), 300 K, two of vacancies, C in Al, twins
    for row in ("Al, xy 0.03 rad", "Al and Fe, xy 0.03 rad"):
        assert row in page
    assert re.search(r"<b>\d of 8</b>accuracies of the article", page)
    for by in ("space_group", "extinction", "ensemble"):
        accuracy, limit = (100 * accuracy_of(study, "al-twin", f"{kind}_{by}") for kind in ("accuracy", "limit"))
        assert f"<td>{accuracy:.1f} %<br><small>of {limit:.1f} %</small></td>" in page
    low, high = (100 * accuracy_of(study, "al-pristine", f"accuracy_label_{side}") for side in ("low", "high"))
    worth = accuracy_of(study, "al-pristine", "n_effective")
    assert f"<small>{low:.1f} to {high:.1f}</small><br><small>n = 12, worth {worth:.0f}</small>" in page
    assert "nan" not in re.sub(r'base64,[^"]+', "", page)
