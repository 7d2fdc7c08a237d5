"""Accuracies from hand-made predictions with known answers."""

import csv
import math

import netCDF4
import numpy as np
import pytest

from defraction import evaluation
from defraction.evaluation import Predictions, Published
from defraction.learning import labels

AXES = [(0, 0, 1), (0, 1, 1), (1, 1, 1)]
TABLE = labels.label_table(zone_axes=AXES)
LABEL = labels.label_of(TABLE)
GROUPS = [213, 221, 225, 227, 229]
SETTINGS = {"ensemble_sizes": [1, 2, 3, 4], "draws": 40, "bootstrap": 500, "confidence": 0.95}


def predictions(answers, group=225, sure=0.999):
    """Answers: label for each pattern, shape (material, zone_axis, voltage, camera_length, snapshot, copy)."""
    answers = np.asarray(answers)
    count = labels.number_of_labels(TABLE)
    log_probability = np.full((*answers.shape, count), math.log((1 - sure) / (count - 1)))
    np.put_along_axis(log_probability, answers[..., None], math.log(sure), axis=-1)
    groups = np.broadcast_to(group, answers.shape[:1])
    true = np.array([[LABEL[(int(g), axis)] for axis in AXES] for g in groups])
    return Predictions(log_probability, true, np.array(groups), [f"m{i}" for i in range(len(groups))])


def right(shape=(1, 3, 2, 2, 1, 1), group=225):
    answers = np.zeros(shape, dtype=int)
    for i, axis in enumerate(AXES):
        answers[:, i] = LABEL[(group, axis)]
    return answers


def conditions(*names, control=None):
    return [
        {
            "condition": name,
            "control": control or name,
            "host": name[:2].title(),
            "kind": "vacancy",
            "parameter": name[3:],
        }
        for name in names
    ]


def test_credit_counts_ties_as_one_over_k():
    scores = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(evaluation.credit(scores, np.array([0, 0, 2])), [0.5, 0, 1 / 3])
    # three sums of the same numbers in another order are a tie
    a, b, c = 0.1, 0.2, 0.3
    assert evaluation.credit(np.array([(a + b) + c, a + (b + c)]), np.array(0)) == 0.5


def test_perfect_labels_give_the_limit_of_geometry():
    """All labels known: by space group [001] is a guess among 4 groups, [011] is certain for 225, [111] one among 5."""
    found = predictions(right(), sure=1 - 1e-15)
    by_label, by_group = evaluation.pattern_credits(found, TABLE)
    assert by_label.mean() == 1
    np.testing.assert_allclose(by_group[0, :, 0, 0, 0], [1 / 4, 1, 1 / 5])
    every = [evaluation.pattern_credits(predictions(right(group=g), g, 1 - 1e-15), TABLE)[1].mean() for g in GROUPS]
    assert np.mean(every) == pytest.approx(labels.single_pattern_limit(TABLE))


def test_space_group_probability_is_the_sum_over_labels():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(labels.number_of_labels(TABLE)), size=7)
    expected = np.zeros((7, 5))
    for row in TABLE:
        members = [other.space_group for other in TABLE if other.label == row.label]
        expected[:, GROUPS.index(row.space_group)] += p[:, row.label] / len(members)
    np.testing.assert_allclose(evaluation.space_group_probability(np.log(p), TABLE), expected)


def test_copies_are_averaged_and_not_counted():
    answers = right((1, 3, 2, 2, 1, 4))
    answers[..., 0] = LABEL[(213, (0, 0, 1))]  # one of four copies wrong everywhere
    found = predictions(answers)
    assert found.n_patterns == 12
    assert evaluation.pattern_credits(found, TABLE)[0].mean() == pytest.approx(0.75)
    rows, _, _ = evaluation.evaluate({"al-a": found}, conditions("al-a"), TABLE, SETTINGS, 1)
    assert rows[0]["n_patterns"] == 12
    assert (rows[0]["accuracy_label_low"], rows[0]["accuracy_label_high"]) == evaluation.wilson(0.75, 12)


def test_ensemble_of_all_axes_decides_what_one_pattern_cannot():
    found = predictions(right(), sure=0.99)
    for rule in evaluation.RULES:
        curve = evaluation.ensemble_accuracy(found, TABLE, [1, 2, 3], 400, 1, rule)[0]
        assert curve[2] == 1
        # k = 1: the mean of 1/4, 1, 1/5 but for ties, which the small rest of the probability breaks
        assert curve[0] < curve[1] < curve[2]
    # k = 2: every pair of axes holds [011], or is [001] with [111], where 225 ties with the other three groups of [001]
    exact = evaluation.ensemble_accuracy(predictions(right(), sure=1 - 1e-15), TABLE, [2], 4000, 1)[0, 0]
    assert exact == pytest.approx((1 + 1 + 1 / 4) / 3, abs=0.02)  # 4000 draws: standard error 0.006


def test_rules_differ_where_they_should():
    """One pattern surely wrong, two mildly right: the product is overruled by the sure one, the mean is not."""
    count = labels.number_of_labels(TABLE)
    p = np.full((1, 3, 1, 1, 1, 1, count), 1e-12)
    p[0, 0, ..., LABEL[(213, (0, 0, 1))]] = 1.0
    for axis in (1, 2):
        p[0, axis, ..., LABEL[(225, (0, 1, 1))]] = 0.9
        p[0, axis, ..., LABEL[(213, (0, 1, 1))]] = 0.1
    found = Predictions(np.log(p), predictions(right()).true_label, np.array([225]), ["m"])
    assert evaluation.ensemble_accuracy(found, TABLE, [3], 5, 1, "mean_log")[0, 0] == 0
    assert evaluation.ensemble_accuracy(found, TABLE, [3], 5, 1, "mean")[0, 0] == 1


def test_dempster_is_the_rule_on_sets():
    """Against Dempster's rule written out over all subsets of the groups."""
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(labels.number_of_labels(TABLE)), size=(1, 3, 1, 1, 1, 1))
    member = labels.space_group_given_label(TABLE) > 0
    masses = []
    for i in range(3):
        mass = {}
        for label, value in enumerate(p[0, i, 0, 0, 0, 0]):
            focal = frozenset(np.flatnonzero(member[label]))
            mass[focal] = mass.get(focal, 0) + value
        masses.append(mass)
    combined = masses[0]
    for mass in masses[1:]:
        joint = {}
        for a, x in combined.items():
            for b, y in mass.items():
                if a & b:
                    joint[a & b] = joint.get(a & b, 0) + x * y
        combined = {focal: value / sum(joint.values()) for focal, value in joint.items()}
    plausibility = np.array([sum(v for focal, v in combined.items() if g in focal) for g in range(5)])
    evidence = evaluation._evidence(np.log(p), TABLE, "dempster")[0, :, 0, 0, 0, 0].sum(axis=0)
    np.testing.assert_allclose(np.exp(evidence) / np.exp(evidence).sum(), plausibility / plausibility.sum())


def test_wilson_known_value_and_limits():
    # Newcombe 1998 (10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I: 81/263, 0/20
    assert evaluation.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert evaluation.wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert evaluation.wilson(1.0, 20)[1] == 1.0


def test_cluster_bootstrap_is_wider_than_counting_patterns():
    rng = np.random.default_rng(3)
    per_crystal = (rng.uniform(size=60) < 0.7).astype(float)  # crystals wholly right or wrong
    low, high = evaluation.cluster_bootstrap(per_crystal, 4000, 1)
    mean, error = per_crystal.mean(), per_crystal.std() / math.sqrt(60)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.02) and high == pytest.approx(mean + 1.96 * error, abs=0.02)
    naive = evaluation.wilson(mean, 60 * 144)
    assert high - low > 5 * (naive[1] - naive[0])
    assert evaluation.cluster_bootstrap(np.full(10, 0.4), 100, 1) == pytest.approx((0.4, 0.4))


def test_loss_is_control_minus_condition_and_published_stands_beside():
    wrong = right()
    wrong[:, 0] = LABEL[(213, (0, 0, 1))]
    found = {"al-perfect": predictions(right()), "al-vac": predictions(wrong)}
    table = [*conditions("al-perfect"), *conditions("al-vac", control="al-perfect")]
    rows, _, _ = evaluation.evaluate(
        found, table, TABLE, SETTINGS, 1, published=[Published("al-vac", ("al-vac",), 0.9, "1", "text", "")]
    )
    by_name = {row["condition"]: row for row in rows}
    assert list(by_name["al-vac"]) == list(evaluation.COLUMNS)
    assert by_name["al-vac"]["loss_label"] == pytest.approx(1 / 3)
    assert by_name["al-perfect"]["loss_label"] == 0
    assert by_name["al-vac"]["published"] == 0.9 and by_name["al-perfect"]["published"] is None


def test_pooled_rows_hold_the_patterns_of_both_members():
    half = right()
    half[:, 0] = LABEL[(213, (0, 0, 1))]
    found = {
        "al-vac": predictions(half),
        "fe-vac": predictions(right((1, 3, 2, 2, 2, 1), group=229), 229),
        "al-ok": predictions(right()),
        "fe-ok": predictions(right(group=229), 229),
    }
    table = [
        *conditions("al-ok", "fe-ok"),
        *conditions("al-vac", control="al-ok"),
        *conditions("fe-vac", control="fe-ok"),
    ]
    published = [
        Published("pooled-vacancy", ("al-vac", "fe-vac"), 0.8, "8", "Table 2", ""),
        Published("pooled-absent", ("al-vac", "fe-not-there"), 0.8, "8", "Table 2", ""),
    ]
    rows, curves, _ = evaluation.evaluate(found, table, TABLE, SETTINGS, 1, published=published)
    names = [row["condition"] for row in rows]
    assert "pooled-absent" not in names
    row = rows[names.index("pooled-vacancy")]
    assert row["n_patterns"] == 12 + 24
    assert row["accuracy_label"] == pytest.approx((8 + 24) / 36)  # patterns count, not members
    assert row["loss_label"] == pytest.approx(1 - 32 / 36)
    assert (row["host"], row["control"], row["kind"]) == ("Al+Fe", "al-ok;fe-ok", "vacancy")
    assert {curve["n_crystals"] for curve in curves if curve["condition"] == "pooled-vacancy"} == {2}


def test_clean_rows_have_intervals_over_crystals():
    groups = np.repeat([213, 225], [3, 6])
    answers = np.concatenate([right(group=int(g)) for g in groups])
    answers[-2:] = LABEL[(213, (0, 0, 1))]  # two crystals wholly wrong
    clean = predictions(answers, groups)
    rows, curves, confusions = evaluation.evaluate({}, [], TABLE, SETTINGS, 1, clean=clean)
    assert [row["condition"] for row in rows] == ["clean-held-out", "clean-held-out-213", "clean-held-out-225"]
    everything, _, last = rows
    assert everything["n_patterns"] == 9 * 12
    assert everything["accuracy_label"] == pytest.approx(7 / 9)
    per_crystal = np.repeat([1.0, 0.0], [7, 2])
    expected = evaluation.cluster_bootstrap(per_crystal, 500, 1)
    assert (everything["accuracy_label_low"], everything["accuracy_label_high"]) == pytest.approx(expected)
    assert last["accuracy_label"] == pytest.approx(4 / 6) and last["accuracy_ensemble"] == pytest.approx(4 / 6)
    share = {(row["true_space_group"], row["predicted_space_group"]): row["share"] for row in confusions}
    assert share[(213, 213)] + share[(213, 221)] + share[(213, 225)] + share[(213, 227)] + share[(213, 229)] == 1
    assert {row["k"] for row in curves} == {1, 2, 3}  # no ensemble of 4 from 3 axes


def test_unknown_names_and_sizes_are_refused():
    found = predictions(right())
    with pytest.raises(ValueError, match="not in the table of conditions"):
        evaluation.evaluate({"al-new": found}, [], TABLE, SETTINGS, 1)
    with pytest.raises(ValueError, match="each must be 1 to 3"):
        evaluation.ensemble_accuracy(found, TABLE, [4], 5, 1)
    with pytest.raises(ValueError, match="ensemble rule"):
        evaluation.ensemble_accuracy(found, TABLE, [1], 5, 1, "best")
    with pytest.raises(ValueError, match="not in the label table"):
        evaluation.pattern_credits(Predictions(found.log_probability, found.true_label, np.array([216]), ["m"]), TABLE)
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluation.evaluate({}, [], TABLE, SETTINGS, 1)


def write_predictions(path, found):
    with netCDF4.Dataset(path, "w") as file:
        names = ("material", "zone_axis", "voltage", "camera_length", "snapshot", "copy", "label")
        for name, size in zip(names, found.log_probability.shape, strict=True):
            file.createDimension(name, size)
        file.createVariable("material", str, ("material",))[:] = np.array(found.materials, dtype=object)
        file.createVariable("log_probability", "f4", names)[:] = found.log_probability
        file.createVariable("true_label", "i4", names[:2])[:] = found.true_label
        file.createVariable("space_group", "i4", names[:1])[:] = found.space_group


def test_files_to_files(tmp_path):
    write_predictions(tmp_path / "al-a.nc", predictions(right()))
    table = conditions("al-a", "al-not-predicted")
    with (tmp_path / "conditions.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, table[0])
        writer.writeheader()
        writer.writerows(table)
    labels.write_labels(tmp_path / "labels.csv", zone_axes=AXES)
    outputs = [tmp_path / name for name in ("accuracy.csv", "ensemble.csv", "confusion.csv")]
    evaluation.evaluate_files(
        {"al-a": tmp_path / "al-a.nc"}, tmp_path / "conditions.csv", tmp_path / "labels.csv", *outputs, SETTINGS, 1
    )
    rows = list(csv.DictReader(outputs[0].open()))
    assert tuple(rows[0]) == evaluation.COLUMNS
    assert [row["condition"] for row in rows] == ["al-a"]
    assert float(rows[0]["accuracy_label"]) == 1 and rows[0]["published"] == ""
    assert len(list(csv.DictReader(outputs[1].open()))) == 3 * len(evaluation.RULES)
    assert sum(float(row["share"]) for row in csv.DictReader(outputs[2].open())) == pytest.approx(1, abs=1e-5)


def test_files_that_are_no_predictions_are_named(tmp_path):
    with netCDF4.Dataset(tmp_path / "empty.nc", "w"):
        pass
    with pytest.raises(ValueError, match=r"empty\.nc: not a prediction file"):
        evaluation.read_predictions(tmp_path / "empty.nc")


def test_published_numbers(root):
    published = {row.condition: row for row in evaluation.read_published(root / "resources/paper/published.csv")}
    assert published["al-pristine"].accuracy == 0.9865
    assert published["pooled-vacancy-high"].members == ("al-vacancy-2x2x2", "fe-vacancy-3x3x3")
    assert all(row.page and row.where for row in published.values())
