"""The article's numbers beside ours: stand-ins, bounds, pooled rows, spread over seeds."""

import csv
import math

import numpy as np
import pytest

from defraction import dataset, published
from defraction.evaluation import comparison, summary
from defraction.evaluation.columns import TABLES
from defraction.first_principles.tables import PRESETS
from defraction.published import OWN_PRESET, Published, stand_in

PATTERNS = {"main": {"pixels": 256, "zone_axes": 16, "voltages": 3, "camera_lengths": 3}}


def model(name="main", seed=1, **other):
    return {
        "model": f"{name}-seed{seed}", "name": name, "seed": seed, "network": "resnet101", "split_by": "material",
        "hosts": "train", "pattern_set": "main", "pixels": 256, "diffraction_model": "physical", "headline": seed == 1,
    } | other  # fmt: skip


def row(
    condition,
    accuracy,
    low=None,
    high=None,
    n=144,
    of="main-seed1",
    kind="vacancy",
    loss=(0.0, -0.02, 0.02),
    control="",
):
    return {
        "model": of, "condition": condition, "control": control, "host": condition[:2].capitalize(), "kind": kind,
        "n_patterns": n, "n_effective": n / 3,
        "n_copies": 4,
        "accuracy_label": accuracy, "accuracy_label_low": accuracy - 0.05 if low is None else low,
        "accuracy_label_high": accuracy + 0.05 if high is None else high,
        "accuracy_space_group": 0.5, "accuracy_ensemble": 1.0, "limit_space_group": 0.6, "limit_ensemble": 1.0,
        "loss_label": loss[0], "loss_label_low": loss[1], "loss_label_high": loss[2],
    }  # fmt: skip


def compare(entry, rows, models=None, reductions=()):
    models = models or [model()]
    trained = {m["model"]: {"Al", "Fe"} if m["hosts"] == "train" else set() for m in models}
    return comparison.compare([entry], rows, models, trained, PATTERNS, reductions)


def entry(condition, accuracy=0.9, relation="=", members=None):
    return Published(condition, members or (condition,), accuracy, "1", "text", "a note", relation)


@pytest.mark.parametrize(
    ("accuracy", "low", "high", "agrees"),
    [(0.9, 0.85, 0.95, "within"), (0.99, 0.95, 1, "above"), (0.5, 0.4, 0.6, "below")],
)
def test_a_printed_accuracy_is_within_above_or_below(accuracy, low, high, agrees):
    (found,) = compare(entry("al-pristine"), [row("al-pristine", accuracy, low, high)])
    assert found["agrees"] == agrees
    assert found["difference"] == pytest.approx(accuracy - 0.9)
    assert (found["settings"], found["remark"], found["n_copies"]) == ("as printed", "a note", 4)


@pytest.mark.parametrize(("low", "high", "agrees"), [(0.6, 0.7, "yes"), (0.85, 0.9, "no"), (0.75, 0.85, "undecided")])
def test_a_bound_holds_or_not(low, high, agrees):
    (found,) = compare(entry("al-strain-xx+4pct", 0.8, "<"), [row("al-strain-xx+4pct", 0.8, low, high)])
    assert found["agrees"] == agrees and found["difference"] is None


@pytest.mark.parametrize(("control", "agrees"), [(0.95, "yes"), (0.65, "control")])
def test_a_bound_says_nothing_where_the_control_is_below_it_too(control, agrees):
    strained = row("al-strain-xx+4pct", 0.6, 0.5, 0.7, loss=(control - 0.6, -0.1, 0.4), control="al-pristine")
    (found,) = compare(entry("al-strain-xx+4pct", 0.8, "<"), [strained, row("al-pristine", control)])
    assert (found["agrees"], found["control"]) == (agrees, "al-pristine")
    assert found["control_accuracy_label"] == pytest.approx(control)
    assert found["control_accuracy_label_high"] == pytest.approx(control + 0.05)


def test_a_control_that_is_not_surely_low_does_not_confirm():
    """Few axes, wide intervals: ignorance of the control confirms nothing."""
    for number, relation, loss in ((0.8, "<", (0.1, 0.02, 0.2)), (None, "flat", (0.0, -0.04, 0.04))):
        rows = [row("al-strain-xx+2pct", 0.6, 0.5, 0.7, loss=loss, control="al-pristine")]
        rows.append(row("al-pristine", 0.6 + loss[0], 0.5, 0.85))
        (found,) = compare(entry("al-strain-xx+2pct", number, relation), rows)
        assert found["agrees"] == "control"


def test_the_control_of_a_pair_is_pooled_too():
    pair = entry("pooled-twin", 0.338, members=("al-twin", "fe-twin"))
    rows = [
        row("al-twin", 0.2, n=100, loss=(0.3, 0.2, 0.4), control="al-twin-control"),
        row("fe-twin", 0.4, n=300, loss=(0.5, 0.4, 0.6), control="fe-twin-control"),
        row("al-twin-control", 0.5, 0.3, 0.7, n=100),
        row("fe-twin-control", 0.9, 0.8, 0.95, n=300),
    ]
    (found,) = compare(pair, rows)
    assert found["control"] == "al-twin-control;fe-twin-control"
    assert found["control_accuracy_label"] == pytest.approx((0.5 * 100 + 0.9 * 300) / 400)
    assert found["control_accuracy_label_low"] == pytest.approx(0.8 - math.hypot(0.25 * 0.2, 0.75 * 0.1))
    assert found["control_accuracy_label_high"] == pytest.approx(0.8 + math.hypot(0.25 * 0.2, 0.75 * 0.05))
    assert compare(pair, rows[:2])[0]["control_accuracy_label_low"] is None  # how sure the controls are is not known
    (perfect,) = compare(entry("al-pristine"), [row("al-pristine", 0.9, control="al-pristine")])
    assert (perfect["control"], perfect["control_accuracy_label"]) == ("", None)


@pytest.mark.parametrize(
    ("loss", "control", "agrees"),
    [
        ((0.01, -0.01, 0.03), 0.95, "yes"),
        ((-0.06, -0.1, -0.02), 0.95, "yes"),  # better than without strain
        ((0.1, 0.05, 0.15), 0.95, "no"),
        ((0.02, 0.005, 0.035), 0.95, "no"),  # small, but sure
        ((0.0, -0.2, 0.2), 0.95, "undecided"),  # so few patterns that anything may be
        ((0.02, -0.01, 0.05), 0.95, "undecided"),
        ((0.01, -0.01, 0.03), 0.5, "control"),  # a network that hardly knows the crystal loses nothing
        ((0.1, 0.05, 0.15), 0.5, "no"),  # what it loses all the same, it loses
        ((0.0, -0.2, 0.2), 0.5, "undecided"),
        ((None, None, None), 0.95, ""),
    ],
)
def test_no_effect_wants_a_loss_that_is_surely_small_from_a_crystal_that_is_known(loss, control, agrees):
    strained = row("al-strain-xx+2.5pct", control - (loss[0] or 0.0), loss=loss, control="al-pristine")
    found = compare(entry("al-strain-xx+2.5pct", None, "flat"), [strained, row("al-pristine", control)])
    assert [r["agrees"] for r in found] == [agrees]
    assert found[0]["difference"] is None


def test_stand_ins_are_the_nearest_and_are_named():
    known = [
        "al-thermal-300K-2x2x2",
        "al-thermal-300K-1x1x2",
        "al-thermal-equilibrated-300K-4x4x4",
        "al-vacancy-2x2x2-unrelaxed",
    ]
    assert stand_in("al-thermal-300K-3x3x3", "=", known) == "al-thermal-300K-2x2x2"
    assert stand_in("al-vacancy-3x3x3", "=", known) is None  # unrelaxed is another condition
    assert ("", *(f"-{preset}" for preset in PRESETS)) == OWN_PRESET
    known += ["al-vacancy-4x4x4-smoke", "al-vacancy-3x3x3-smoke", "al-vacancy-3x3x3-laptop"]
    assert stand_in("al-vacancy-3x3x3", "=", known) == "al-vacancy-3x3x3-laptop"  # the article's cell
    assert stand_in("al-vacancy-2x2x2", "=", known) == "al-vacancy-4x4x4-smoke"
    (found,) = compare(entry("al-vacancy-3x3x3"), [row("al-vacancy-3x3x3-paper", 0.9)])
    assert (found["settings"], found["condition"]) == ("as printed", "al-vacancy-3x3x3-paper")
    strains = [f"al-strain-xx+{v}pct" for v in ("2", "3", "4.5", "5")]
    assert stand_in("al-strain-xx+4pct", "<", strains) == "al-strain-xx+4.5pct"
    assert stand_in("al-strain-xx+2.5pct", "flat", strains) == "al-strain-xx+2pct"
    assert stand_in("al-strain-xx+2.5pct", "=", strains) is None  # an accuracy belongs to its strain
    assert stand_in("al-dislocation-edge-4", "=", ["al-dislocation-edge-2", "al-dislocation-edge-2-control"]) == (
        "al-dislocation-edge-2"
    )
    for numbers, nearest in (((5, 10), 5), ((10, 30), 10), ((1, 30), 1), ((3, 5), 5), ((4, 40), 4)):
        edges = [f"al-dislocation-edge-{number}" for number in numbers]
        assert stand_in("al-dislocation-edge-4", "=", edges) == f"al-dislocation-edge-{nearest}"
    (found,) = compare(entry("al-thermal-300K-3x3x3"), [row("al-thermal-300K-2x2x2", 0.9)], reductions=["small"])
    assert found["settings"] == "reduced"
    assert "measured on al-thermal-300K-2x2x2 instead of al-thermal-300K-3x3x3" in found["remark"]


def test_pairs_are_pooled_pattern_by_pattern():
    pair = entry("pooled-vacancy-high", 0.8, members=("al-vacancy-2x2x2", "fe-vacancy-3x3x3"))
    rows = [row("al-vacancy-2x2x2", 0.9, n=100), row("fe-vacancy-3x3x3", 0.6, n=300)]
    (found,) = compare(pair, rows)
    assert (found["n_patterns"], found["accuracy_label"]) == (400, pytest.approx(0.675))
    assert found["settings"] == "as printed"
    assert found["n_effective"] == pytest.approx(400 / 3, abs=0.05)
    (found,) = compare(pair, rows[:1])
    assert found["accuracy_label"] == 0.9 and "instead of al-vacancy-2x2x2 and fe-vacancy-3x3x3" in found["remark"]
    assert compare(pair, []) == []


def test_stand_ins_of_a_pair_lose_with_an_interval():
    """Every number of the article's Table 2 in a run of smaller cells: a loss without one could not be read."""
    pair = entry("pooled-vacancy-high", 0.8, members=("al-vacancy-2x2x2", "fe-vacancy-3x3x3"))
    rows = [
        row("al-vacancy-2x2x2", 0.6, n=144, loss=(0.1, -0.03, 0.2), control="al-perfect-2x2x2"),
        row("fe-vacancy-2x2x2", 0.4, n=144, loss=(0.2, 0.1, 0.26), control="fe-perfect-2x2x2"),
    ]
    (found,) = compare(pair, rows)
    assert found["loss_label"] == pytest.approx(0.15) and "instead of" in found["remark"]
    assert found["loss_label_low"] == pytest.approx(0.15 - math.hypot(0.13, 0.1) / 2)
    assert found["loss_label_high"] == pytest.approx(0.15 + math.hypot(0.1, 0.06) / 2)
    assert found["accuracy_label_low"] == pytest.approx(0.5 - math.hypot(0.05, 0.05) / 2)
    whole = row("pooled-vacancy-high", 0.5, 0.41, 0.6, n=288, kind="vacancy+vacancy", loss=(0.15, 0.02, 0.3))
    (found,) = compare(pair, [*rows, whole])  # of the members themselves a row of their patterns is to be had
    assert (found["accuracy_label_low"], found["loss_label_low"]) == (0.41, 0.02)


def test_without_an_interval_nothing_is_said():
    rows = [row("al-twin", 0.4), row("al-twin@shown", 0.2, n=9)]
    rows[1] |= dict.fromkeys(("n_effective", "accuracy_label_low", "accuracy_label_high"))
    found = compare(entry("al-twin", 0.2), rows)
    assert [(r["agrees"], r["n_effective"]) for r in found] == [("above", 48), ("", None)]


def test_axes_shown_have_a_row_of_their_own():
    rows = [row("al-twin", 0.4, kind="twin"), row("al-twin@shown", 0.2, n=9, kind="twin")]
    found = compare(entry("al-twin", 0.338), rows)
    assert [(r["axes"], r["accuracy_label"]) for r in found] == [("all", 0.4), ("shown in the article", 0.2)]


def test_the_control_of_axes_shown_is_that_over_the_same_axes():
    """As `evaluate` writes it: the column `control` of a row `@shown` names a row `@shown`."""
    rows = [
        row("al-twin", 0.4, control="al-twin-control"),
        row("al-twin-control", 0.9, 0.8, 0.95, control="al-twin-control"),
        row("al-twin@shown", 0.2, n=9, loss=(0.3, 0.1, 0.5), control="al-twin-control@shown"),
        row("al-twin-control@shown", 0.5, 0.21, 0.77, n=9, control="al-twin-control@shown"),
    ]
    shown = compare(entry("al-twin", 0.338), rows)[1]
    assert (shown["condition"], shown["control"]) == ("al-twin", "al-twin-control")
    assert shown["control_accuracy_label"] == pytest.approx(0.5)
    assert [shown[f"control_accuracy_label_{end}"] for end in ("low", "high")] == pytest.approx([0.21, 0.77])


@pytest.mark.parametrize(
    ("other", "remark"),
    [
        ({}, "its patterns train the network; held out in no model of this run; a note"),
        ({"split_by": "image"}, "part of its patterns trains the network; held out in no model of this run; a note"),
        ({"hosts": "held_out"}, "a note"),
    ],
)
def test_a_host_of_the_training_is_named_as_such(other, remark):
    (found,) = compare(entry("al-pristine"), [row("al-pristine", 0.9, kind="pristine")], [model(**other)])
    assert found["remark"] == remark
    (strained,) = compare(entry("al-strain-xx+2pct"), [row("al-strain-xx+2pct", 0.9)], [model(**other)])
    assert strained["remark"] == "a note"


def test_the_model_that_holds_the_hosts_out_is_named():
    models = [model(), model("strict", hosts="held_out"), model("strict", 2, hosts="held_out")]
    found = compare(
        entry("al-pristine"), [row("al-pristine", 0.9, kind="pristine", of=m["model"]) for m in models], models
    )
    assert [r["remark"] for r in found] == ["its patterns train the network; held out in strict; a note"] + [
        "a note"
    ] * 2


@pytest.mark.parametrize("hosts", [set(), {"Fe"}, {"Al", "Fe"}])
def test_a_host_trains_where_the_split_says_so_whatever_the_setting(hosts):
    """A table of crystals without Al leaves it out of the training that is said to hold the hosts."""
    rows = [row("al-pristine", 0.9, kind="pristine"), row("fe-pristine", 0.9, kind="pristine")]
    for item in ("al-pristine", "fe-pristine"):
        trained = {"main-seed1": hosts}
        (found,) = comparison.compare([entry(item)], rows, [model()], trained, PATTERNS, ())
        assert ("train the network" in found["remark"]) == (item[:2].capitalize() in hosts)


def test_seeds_are_those_of_one_name():
    models = [model(seed=1), model(seed=2), model("article", 1, diffraction_model="article")]
    values = {"main-seed1": 0.9, "main-seed2": 0.8, "article-seed1": 0.7}
    rows = [row("al-pristine", v, of=name, kind="pristine") for name, v in values.items()]
    found = compare(entry("al-pristine"), rows, models)
    assert [(r["seeds"], r["seeds_mean"], r["seeds_min"]) for r in found] == [(2, pytest.approx(0.85), 0.8)] * 2 + [
        (1, 0.7, 0.7)
    ]
    spread = {(r["name"], r["quantity"]): r for r in summary.spread(rows, models)}
    main = spread["main", "accuracy_label"]
    assert (main["mean"], main["sd"]) == pytest.approx((0.85, np.std([0.9, 0.8], ddof=1)))
    assert spread["article", "accuracy_label"]["sd"] is None
    assert [spread["main", f"accuracy_{by}"]["limit"] for by in ("label", "space_group", "ensemble")] == [None, 0.6, 1]
    grouped = summary.resolution(rows, models)
    assert [(r["name"], r["group"], r["seeds"]) for r in grouped] == [
        ("main", "pristine", 2),
        ("article", "pristine", 1),
    ]
    assert {r["limit_ensemble"] for r in grouped} == {1.0}


def test_the_published_tables_are_sound(root):
    folder = root / "resources/paper"
    rows = published.read_published(folder / "published.csv")
    assert len({r.condition for r in rows}) == len(rows)
    assert {r.accuracy for r in rows if "Table 2" in r.where} == {0.9779, 0.8324, 0.9755, 0.9490}
    moved = published.read_displacements(folder / "displacements.csv")
    per_cell = {r.condition: 0.0 for r in moved}
    for r in moved:
        if r.quantity.startswith("atoms:"):
            per_cell[r.condition] += r.value
    assert per_cell["al-vacancy-2x2x2"] == 31 and per_cell["fe-vacancy-3x3x3"] == 53  # as many as the cells hold


def test_published_numbers(root):
    found = {row.condition: row for row in published.read_published(root / "resources/paper/published.csv")}
    assert found["al-pristine"].accuracy == 0.9865
    assert found["pooled-vacancy-high"].members == ("al-vacancy-2x2x2", "fe-vacancy-3x3x3")
    assert found["al-strain-xx+2.5pct"].relation == "flat" and found["al-strain-xx+2.5pct"].accuracy is None
    assert all(row.page and row.where for row in found.values())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("al-a,,~,0.9,1,text,", "relation '~'"),
        ("al-a,,=,,1,text,", "an accuracy is given with"),
        ("al-a,,=,98.65,1,text,", "write a fraction"),
    ],
)
def test_bad_published_rows_are_named(tmp_path, line, message):
    path = tmp_path / "published.csv"
    path.write_text(",".join(published.COLUMNS) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=message):
        published.read_published(path)


def test_shown_axes_lie_in_the_frames_of_the_builders():
    """The beam of a twin is normal to twin plane and direction; dislocations are seen along the axes of their block."""
    from defraction.defects import dislocation, twin

    for structure, (vectors, _) in twin.FRAMES.items():
        for axis in published.SHOWN_AXES["twin", structure]:
            assert np.allclose(vectors[:2] @ axis, 0)
    for structure, vectors in dislocation.FRAMES.items():
        for axis, vector in zip(published.SHOWN_AXES["dislocation", structure], vectors[[2, 1, 0]], strict=True):
            assert np.allclose(np.cross(axis, vector), 0)


def test_tables_of_models_are_joined(tmp_path, root):
    from defraction import models
    from defraction.learning import labels
    from defraction.tables import write_rows

    labels.write_labels(tmp_path / "labels.csv", zone_axes=[(0, 0, 1)])
    models.write_table(tmp_path / "models.csv", [model() | {"headline": 1}, model(seed=2) | {"headline": 0}])
    split = dataset.split_table(
        [{"material": i, "space_group": 225, "formula": f} for i, f in (("a", "Al"), ("b", "Ni"))], 0.5, 1,
        host_crystals={"Al": 225},
    )  # fmt: skip
    dataset.write_split(tmp_path / "split.csv", split)
    tables = {name: [] for name in TABLES}
    for seed in (1, 2):
        for name, columns in TABLES.items():
            path = tmp_path / f"{name}-{seed}.csv"
            line = dict.fromkeys(columns) | row("al-pristine", 0.9, of=f"main-seed{seed}", kind="pristine")
            line |= {"control": "al-pristine"}
            write_rows(path, columns, [line] if name == "accuracy" else [])
            tables[name].append(path)
    outputs = {n: tmp_path / f"{n}.csv" for n in (*TABLES, "comparison", "spread", "resolution", "classes")}
    summary.summarise_files(
        tables, [tmp_path / "split.csv"] * 2, tmp_path / "models.csv", root / "resources/paper/published.csv",
        tmp_path / "labels.csv", outputs, PATTERNS, [],
    )  # fmt: skip
    with outputs["accuracy"].open() as handle:
        assert [r["model"] for r in csv.DictReader(handle)] == ["main-seed1", "main-seed2"]
    with outputs["comparison"].open() as handle:
        joined = list(csv.DictReader(handle))
    assert {(r["item"], r["published"]) for r in joined} == {("al-pristine", "0.986500")}
    assert all("its patterns train the network" in r["remark"] for r in joined)
