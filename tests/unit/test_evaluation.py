"""Accuracies from hand-made predictions with known answers."""

import csv
import math

import netCDF4
import numpy as np
import pytest

from defraction.evaluation.columns import ACCURACY, TABLES
from defraction.evaluation.credits import credit
from defraction.evaluation.ensembles import RULES, evidence
from defraction.evaluation.evaluate import evaluate, evaluate_files
from defraction.evaluation.intervals import Share, difference_interval, wilson
from defraction.evaluation.predictions import Predictions, read_predictions
from defraction.evaluation.scoring import Scorer
from defraction.learning import labels
from defraction.published import Published

AXES = [(0, 0, 1), (0, 1, 1), (1, 1, 1)]
TABLE = labels.label_table(zone_axes=AXES)
LABEL = labels.label_of(TABLE)
GROUPS = [213, 221, 225, 227, 229]
GIVEN = labels.space_group_given_label(TABLE)
SETTINGS = {"ensemble_sizes": [1, 2, 3, 4], "draws": 40, "confidence": 0.95, "calibration_bins": 15}


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


def score(found):
    return Scorer(TABLE, SETTINGS, 1).score(found)


def ensembles(found, sizes, draws, rule="mean_log"):
    """Accuracy of ensembles, shape (material, k)."""
    scorer = Scorer(TABLE, {**SETTINGS, "ensemble_sizes": sizes, "draws": draws}, 1)
    return scorer.score(found).ensembles[:, RULES.index(rule)]


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
    np.testing.assert_allclose(credit(scores, np.array([0, 0, 2])), [0.5, 0, 1 / 3])
    # three sums of the same numbers in another order are a tie
    a, b, c = 0.1, 0.2, 0.3
    assert credit(np.array([(a + b) + c, a + (b + c)]), np.array(0)) == 0.5


def test_perfect_labels_give_the_limit_of_geometry():
    """All labels known: by space group [001] is a guess among 4 groups, [011] is certain for 225, [111] one among 5."""
    found = predictions(right(), sure=1 - 1e-15)
    scored = score(found)
    assert scored.label.mean() == 1
    np.testing.assert_allclose(scored.space_group[0, :, 0, 0, 0], [1 / 4, 1, 1 / 5])
    every = [score(predictions(right(group=g), g, 1 - 1e-15)).space_group.mean() for g in GROUPS]
    assert np.mean(every) == pytest.approx(labels.single_pattern_limit(TABLE))


def test_space_group_probability_is_the_sum_over_labels():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(labels.number_of_labels(TABLE)), size=7)
    expected = np.zeros((7, 5))
    for row in TABLE:
        members = [other.space_group for other in TABLE if other.label == row.label]
        expected[:, GROUPS.index(row.space_group)] += p[:, row.label] / len(members)
    np.testing.assert_allclose(evidence(p, GIVEN, "mean"), expected)


def test_copies_are_averaged_and_not_counted():
    answers = right((1, 3, 2, 2, 1, 4))
    answers[..., 0] = LABEL[(213, (0, 0, 1))]  # one of four copies wrong everywhere
    found = predictions(answers)
    assert found.n_patterns == 12
    assert score(found).label.mean() == pytest.approx(0.75)
    rows = evaluate({"al-a": found}, conditions("al-a"), TABLE, SETTINGS, 1)["accuracy"]
    assert (rows[0]["n_patterns"], rows[0]["n_copies"]) == (12, 4)
    assert (rows[0]["accuracy_label_low"], rows[0]["accuracy_label_high"]) == wilson(0.75, 3)  # axes that are all alike
    assert rows[0]["n_effective"] == 3


def test_ensemble_of_all_axes_decides_what_one_pattern_cannot():
    found = predictions(right(), sure=0.99)
    for rule in RULES:
        curve = ensembles(found, [1, 2, 3], 400, rule)[0]
        assert curve[2] == 1
        assert curve[0] < curve[1] < curve[2]
    # k = 1 counts every pattern once: as single patterns do
    assert ensembles(found, [1], 1)[0, 0] == pytest.approx(score(found).space_group.mean())
    # k = 2: every pair of axes holds [011], or is [001] with [111], where 225 ties with the other three groups of [001]
    exact = ensembles(predictions(right(), sure=1 - 1e-15), [2], 4000)[0, 0]
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
    assert ensembles(found, [3], 5, "mean_log")[0, 0] == 0
    assert ensembles(found, [3], 5, "mean")[0, 0] == 1


def test_dempster_is_the_rule_on_sets():
    """Against Dempster's rule written out over all subsets of the groups."""
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(labels.number_of_labels(TABLE)), size=(1, 3, 1, 1, 1, 1))
    masses = []
    for i in range(3):
        mass = {}
        for label, value in enumerate(p[0, i, 0, 0, 0, 0]):
            focal = frozenset(np.flatnonzero(GIVEN[label]))
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
    found = np.exp(evidence(p, GIVEN, "dempster")[0, :, 0, 0, 0, 0].sum(axis=0))
    np.testing.assert_allclose(found / found.sum(), plausibility / plausibility.sum())


def test_loss_is_control_minus_condition_and_published_stands_beside():
    wrong = right()
    wrong[:, 0] = LABEL[(213, (0, 0, 1))]
    found = {"al-perfect": predictions(right()), "al-vac": predictions(wrong)}
    table = [*conditions("al-perfect"), *conditions("al-vac", control="al-perfect")]
    rows = evaluate(
        found, table, TABLE, SETTINGS, 1, published=[Published("al-vac", ("al-vac",), 0.9, "1", "text", "")]
    )["accuracy"]
    by_name = {row["condition"]: row for row in rows}
    assert set(by_name["al-vac"]) == set(ACCURACY)
    row = by_name["al-vac"]
    assert row["loss_label"] == pytest.approx(1 / 3)
    assert row["loss_label_low"] < 0 < 1 / 3 < row["loss_label_high"]  # one of three axes proves nothing
    assert row["n_effective"] == pytest.approx(2)  # of twelve patterns: each axis is wholly right or wrong
    for by in ("label", "space_group", "ensemble"):
        assert [by_name["al-perfect"][f"loss_{by}{tail}"] for tail in ("", "_low", "_high")] == [0, 0, 0]
    assert by_name["al-vac"]["published"] == 0.9 and by_name["al-perfect"]["published"] is None


def test_losses_by_space_group_have_the_interval_of_paired_credits():
    """Not what follows from labels: [011] is certain for 225, the others are guesses, of 4 groups and of 5."""
    wrong = right()
    wrong[:, 1] = LABEL[(213, (0, 1, 1))]
    found = {"al-perfect": predictions(right(), sure=1 - 1e-15), "al-vac": predictions(wrong, sure=1 - 1e-15)}
    table = [*conditions("al-perfect"), *conditions("al-vac", control="al-perfect")]
    row = evaluate(found, table, TABLE, SETTINGS, 1)["accuracy"][1]
    credits = [np.repeat([1 / 4, certain, 1 / 5], 4) for certain in (1, 0)]
    assert row["loss_space_group"] == pytest.approx(credits[0].mean() - credits[1].mean()) == pytest.approx(1 / 3)
    interval = difference_interval(*(Share.of([values.reshape(3, 4)]) for values in credits))
    assert (row["loss_space_group_low"], row["loss_space_group_high"]) == pytest.approx(interval)
    # one crystal, whose draws share their patterns, has no interval of ensembles
    assert row["loss_ensemble"] == 1
    assert row["loss_ensemble_low"] is None and row["loss_ensemble_high"] is None


def test_a_pool_of_three_crystals_has_an_interval_of_ensembles():
    names = ("al-a", "al-b", "al-c")
    wrong = np.full((1, 3, 2, 2, 1, 1), LABEL[(213, (0, 0, 1))])
    found = {"al-perfect": predictions(right())} | {
        name: predictions(wrong if name == "al-a" else right()) for name in names
    }
    table = [*conditions("al-perfect"), *conditions(*names, control="al-perfect")]
    pool = Published("pooled-three", names, 0.8, "1", "text", "")
    row = evaluate(found, table, TABLE, SETTINGS, 1, published=[pool])["accuracy"][-1]
    assert (row["condition"], row["loss_ensemble"]) == ("pooled-three", pytest.approx(1 / 3))
    assert (row["loss_ensemble_low"], row["loss_ensemble_high"]) == difference_interval(
        *(Share.of([np.array(values)]) for values in ([1.0, 1, 1], [0.0, 1, 1]))
    )


@pytest.mark.parametrize("preset", ["", "-paper"])
def test_pooled_rows_hold_the_patterns_of_both_members(preset):
    """Also where a member has a preset of its own in the run."""
    half = right()
    half[:, 0] = LABEL[(213, (0, 0, 1))]
    found = {
        "al-vac": predictions(half),
        f"fe-vac{preset}": predictions(right((1, 3, 2, 2, 2, 1), group=229), 229),
        "al-ok": predictions(right()),
        "fe-ok": predictions(right(group=229), 229),
    }
    table = [
        *conditions("al-ok", "fe-ok"),
        *conditions("al-vac", control="al-ok"),
        *conditions(f"fe-vac{preset}", control="fe-ok"),
    ]
    published = [
        Published("fe-vac", ("fe-vac",), 0.7, "8", "Table 2", ""),
        Published("pooled-vacancy", ("al-vac", "fe-vac"), 0.8, "8", "Table 2", ""),
        Published("pooled-absent", ("al-vac", "fe-not-there"), 0.8, "8", "Table 2", ""),
    ]
    tables = evaluate(found, table, TABLE, SETTINGS, 1, published=published)
    rows, curves = tables["accuracy"], tables["ensembles"]
    names = [row["condition"] for row in rows]
    assert "pooled-absent" not in names and rows[names.index(f"fe-vac{preset}")]["published"] == 0.7
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
    tables = evaluate({}, [], TABLE, SETTINGS, 1, clean=clean)
    rows, curves, confusions = (tables[name] for name in ("accuracy", "ensembles", "confusion"))
    assert [row["condition"] for row in rows] == ["clean-held-out", "clean-held-out-213", "clean-held-out-225"]
    everything, _, last = rows
    assert everything["n_patterns"] == 9 * 12
    assert everything["accuracy_label"] == pytest.approx(7 / 9)
    per_crystal = np.repeat([1.0, 0.0], [7, 2])
    expected = Share.of([np.repeat(per_crystal[:, None], 12, axis=1)]).interval()
    assert everything["n_effective"] == pytest.approx(8)
    assert (everything["accuracy_label_low"], everything["accuracy_label_high"]) == pytest.approx(expected)
    assert last["accuracy_label"] == pytest.approx(4 / 6) and last["accuracy_ensemble"] == pytest.approx(4 / 6)
    share = {(row["true_space_group"], row["predicted_space_group"]): row["share"] for row in confusions}
    assert share[(213, 213)] + share[(213, 221)] + share[(213, 225)] + share[(213, 227)] + share[(213, 229)] == 1
    assert {row["k"] for row in curves} == {1, 2, 3}  # no ensemble of 4 from 3 axes


def test_two_crystals_have_no_interval_over_crystals():
    rows = evaluate({}, [], TABLE, SETTINGS, 1, clean=predictions(right((2, 3, 2, 2, 1, 1))))["accuracy"]
    assert rows[0]["accuracy_label"] == 1
    assert rows[0]["accuracy_label_low"] is None and rows[0]["accuracy_label_high"] is None


def test_fewer_than_three_axes_have_no_interval():
    """As the axes that the article shows of a twin: one."""
    wrong = right()
    wrong[:, 0] = LABEL[(213, (0, 0, 1))]
    one_axis = [Predictions(p.log_probability[:, :1], p.true_label[:, :1], p.space_group, p.materials, ("[001]",))
                for p in (predictions(right()), predictions(wrong))]  # fmt: skip
    table = [*conditions("al-perfect"), *conditions("al-twin", control="al-perfect")]
    every = {"al-perfect": predictions(right()), "al-twin": predictions(wrong)}
    tables = evaluate(every, table, TABLE, SETTINGS, 1, shown=dict(zip(every, one_axis, strict=True)))
    row = next(row for row in tables["accuracy"] if row["condition"] == "al-twin@shown")
    assert (row["accuracy_label"], row["loss_label"], row["n_patterns"]) == (0, 1, 4)
    for column in ("n_effective", "accuracy_label_low", "accuracy_space_group_high", "loss_label_low"):
        assert row[column] is None
    by = [r for r in tables["accuracy_by"] if r["condition"] == "al-twin"]
    assert {r["by"] for r in by if r["accuracy_label_low"] is None} == set()
    axis = [r for r in tables["accuracy_by"] if r["by"] == "zone_axis"]
    assert all(r["accuracy_label_low"] is None for r in axis)


def test_unknown_names_and_sizes_are_refused():
    found = predictions(right())
    with pytest.raises(ValueError, match="not in the table of conditions"):
        evaluate({"al-new": found}, [], TABLE, SETTINGS, 1)
    with pytest.raises(ValueError, match="each must be 1 to 3"):
        ensembles(found, [0], 5)
    with pytest.raises(ValueError, match="ensemble rule"):
        evidence(np.exp(found.log_probability), GIVEN, "best")
    with pytest.raises(ValueError, match="space group 216 of odd is not in the label table"):
        two = np.repeat(found.log_probability, 2, axis=0), np.repeat(found.true_label, 2, axis=0)
        score(Predictions(*two, np.array([225, 216]), ["even", "odd"]))
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate({}, [], TABLE, SETTINGS, 1)


def write_predictions(path, found):
    with netCDF4.Dataset(path, "w") as file:
        names = ("material", "zone_axis", "voltage", "camera_length", "snapshot", "copy", "label")
        for name, size in zip(names, found.log_probability.shape, strict=True):
            file.createDimension(name, size)
        file.createVariable("material", str, ("material",))[:] = np.array(found.materials, dtype=object)
        file.createVariable("zone_axis", str, ("zone_axis",))[:] = np.array(["[001]", "[011]", "[111]"], dtype=object)
        file.createVariable("voltage", "f8", ("voltage",))[:] = [200, 300]
        file.createVariable("log_probability", "f4", names)[:] = found.log_probability
        file.createVariable("true_label", "i4", names[:2])[:] = found.true_label
        file.createVariable("space_group", "i4", names[:1])[:] = found.space_group


def test_files_to_files(tmp_path):
    answers = right()
    answers[:, 0] = LABEL[(213, (0, 0, 1))]
    write_predictions(tmp_path / "al-a.nc", predictions(answers))
    table = conditions("al-a", "al-not-predicted")
    with (tmp_path / "conditions.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, table[0])
        writer.writeheader()
        writer.writerows(table)
    labels.write_labels(tmp_path / "labels.csv", zone_axes=AXES)
    outputs = {name: tmp_path / f"{name}.csv" for name in TABLES}
    evaluate_files(
        {"al-a": tmp_path / "al-a.nc"},
        tmp_path / "conditions.csv",
        tmp_path / "labels.csv",
        outputs,
        SETTINGS,
        1,
        shown={"al-a": tmp_path / "al-a.nc"},
        model="main-seed1",
    )
    found = {name: list(csv.DictReader(path.open())) for name, path in outputs.items()}
    for name, columns in TABLES.items():
        assert tuple(csv.DictReader(outputs[name].open()).fieldnames) == columns
    assert [row["condition"] for row in found["accuracy"]] == ["al-a", "al-a@shown"]
    assert float(found["accuracy"][0]["accuracy_label"]) == pytest.approx(2 / 3, abs=1e-6)
    assert found["accuracy"][0]["published"] == ""
    assert len(found["ensembles"]) == 2 * 3 * len(RULES)
    by = {(row["condition"], row["by"], row["value"]): row for row in found["accuracy_by"]}
    assert {key[1:] for key in by if key[0] == "al-a"} == {
        ("zone_axis", "[001]"), ("zone_axis", "[011]"), ("zone_axis", "[111]"), ("voltage", "200"), ("voltage", "300"),
    }  # fmt: skip
    assert float(by["al-a", "zone_axis", "[001]"]["accuracy_label"]) == 0
    assert float(by["al-a", "zone_axis", "[001]"]["limit_space_group"]) == 0.25
    mistake = next(row for row in found["mistakes"] if row["condition"] == "al-a")
    assert (mistake["zone_axis"], mistake["predicted_label"]) == ("[001]", "[001]:213")
    assert (float(mistake["share"]), float(mistake["share_of_mistakes"])) == pytest.approx((1 / 3, 1), abs=1e-6)


def test_files_that_are_no_predictions_are_named(tmp_path):
    with netCDF4.Dataset(tmp_path / "empty.nc", "w"):
        pass
    with pytest.raises(ValueError, match=r"empty\.nc: not a prediction file"):
        read_predictions(tmp_path / "empty.nc")


def random_predictions(materials=4, seed=0, counted=None):
    rng = np.random.default_rng(seed)
    groups = rng.choice(GROUPS, materials)
    count = labels.number_of_labels(TABLE)
    p = rng.dirichlet(np.full(count, 0.3), size=(materials, 3, 2, 2, 1, 2))
    true = np.array([[LABEL[(int(g), axis)] for axis in AXES] for g in groups])
    return Predictions(np.log(p), true, groups, [f"m{i}" for i in range(materials)], counted=counted)


def test_the_order_of_axes_and_crystals_is_irrelevant():
    found = random_predictions()
    axes, crystals = [2, 0, 1], [3, 1, 0, 2]
    turned = Predictions(
        found.log_probability[crystals][:, axes],
        found.true_label[crystals][:, axes],
        found.space_group[crystals],
        [found.materials[i] for i in crystals],
    )
    settings = {**SETTINGS, "ensemble_sizes": [1, 3], "draws": 4000}
    tables = [evaluate({}, [], TABLE, settings, 1, clean=clean) for clean in (found, turned)]
    for one, other in zip(*(table["accuracy"] for table in tables), strict=True):
        for column in ACCURACY:
            if column.startswith(("accuracy_ensemble", "limit_ensemble")):  # draws of voltage, camera length and copy
                assert one[column] == pytest.approx(other[column], abs=0.04)
            elif isinstance(one[column], float):
                assert one[column] == pytest.approx(other[column], abs=1e-12)
    for name in ("confusion", "calibration", "confusion_labels"):
        values = [
            sorted(tuple(round(v, 9) if isinstance(v, float) else v for v in row.values()) for row in table[name])
            for table in tables
        ]
        assert values[0] == values[1]


def test_mean_log_is_the_normalised_product():
    found = random_predictions(seed=3)
    truth = [GROUPS.index(group) for group in found.space_group]
    one = Predictions(
        found.log_probability[..., :1, :1, :1, :1, :], found.true_label, found.space_group, found.materials
    )
    p = np.exp(one.log_probability[:, :, 0, 0, 0, 0]) @ GIVEN
    product = p.prod(axis=1)
    product /= product.sum(axis=1, keepdims=True)
    expected = product.argmax(axis=1) == truth
    np.testing.assert_array_equal(ensembles(one, [3], 7)[:, 0], expected)


def test_patterns_that_were_trained_on_do_not_count():
    counted = np.zeros((4, 3, 2, 2, 1), dtype=bool)
    counted[:, :, 1] = True  # one voltage of two
    counted[3, 0] = False  # and one axis of a crystal not at all
    found = random_predictions(counted=counted)
    spoiled = found.log_probability.copy()
    spoiled[~counted] = np.log(1e-9)
    spoiled = Predictions(spoiled, found.true_label, found.space_group, found.materials, counted=counted)
    rows = [evaluate({}, [], TABLE, SETTINGS, 1, clean=clean) for clean in (found, spoiled)]
    for name in TABLES:
        assert rows[0][name] == rows[1][name]
    labelled = found.log_probability.argmax(axis=-1) == found.true_label[:, :, None, None, None, None]
    truth = np.array([GROUPS.index(group) for group in found.space_group])
    grouped = credit(np.exp(found.log_probability) @ GIVEN, truth[:, None, None, None, None, None])
    first = rows[0]["accuracy"][0]
    assert first["n_patterns"] == counted.sum() == 22
    assert first["accuracy_label"] == pytest.approx(labelled[counted].mean())
    assert first["accuracy_space_group"] == pytest.approx(grouped[counted].mean())
    assert np.isnan(ensembles(found, [3], 5)[3, 0])


def test_limits_are_what_known_labels_give():
    clean = random_predictions()
    known = predictions(np.concatenate([right(group=int(g)) for g in clean.space_group]), clean.space_group, 1 - 1e-15)
    settings = {**SETTINGS, "draws": 500}
    tables = evaluate({}, [], TABLE, settings, 1, clean=clean)
    limit = tables["accuracy"][0]
    reached = evaluate({}, [], TABLE, settings, 1, clean=known)["accuracy"][0]
    for by in ("space_group", "extinction", "ensemble"):
        assert reached[f"accuracy_{by}"] == pytest.approx(limit[f"limit_{by}"], abs=1e-9)
    assert limit["limit_space_group_uniform"] == labels.single_pattern_limit(TABLE)
    by_answer = {row["answer"]: row["limit"] for row in tables["calibration"]}
    assert by_answer == {"label": None, "space_group": limit["limit_space_group"]}


def test_extinction_classes_count_as_one():
    """Over [111] alone, F lattices are one class and all others another; over all three axes each group is its own."""
    table = labels.label_table(zone_axes=[(1, 1, 1)])
    label = labels.label_of(table)
    found = Predictions(np.zeros((5, 1, 1, 1, 1, 1, 1)), np.zeros((5, 1), dtype=int), np.array(GROUPS), list("abcde"))
    assert set(label.values()) == {0}
    row = evaluate({}, [], table, {**SETTINGS, "ensemble_sizes": [1]}, 1, clean=found)["accuracy"][0]
    assert row["accuracy_space_group"] == pytest.approx(1 / 5)
    # P(213, 221, 229) = 3/5 beats P(225, 227) = 2/5, so three of five crystals are right
    assert row["accuracy_extinction"] == pytest.approx(3 / 5) == row["limit_extinction"]
