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
    rows = evaluation.evaluate({"al-a": found}, conditions("al-a"), TABLE, SETTINGS, 1)["accuracy"]
    assert (rows[0]["n_patterns"], rows[0]["n_copies"]) == (12, 4)
    assert (rows[0]["accuracy_label_low"], rows[0]["accuracy_label_high"]) == evaluation.wilson(0.75, 12)


def test_ensemble_of_all_axes_decides_what_one_pattern_cannot():
    found = predictions(right(), sure=0.99)
    for rule in evaluation.RULES:
        curve = evaluation.ensemble_accuracy(found, TABLE, [1, 2, 3], 400, 1, rule)[0]
        assert curve[2] == 1
        assert curve[0] < curve[1] < curve[2]
    # k = 1 counts every pattern once: as single patterns do
    _, single = evaluation.pattern_credits(found, TABLE)
    assert evaluation.ensemble_accuracy(found, TABLE, [1], 1, 1)[0, 0] == pytest.approx(single.mean())
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
    evidence = evaluation._evidence(p, *evaluation._factors(TABLE), "dempster")[0, :, 0, 0, 0, 0].sum(axis=0)
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
    rows = evaluation.evaluate(
        found, table, TABLE, SETTINGS, 1, published=[Published("al-vac", ("al-vac",), 0.9, "1", "text", "")]
    )["accuracy"]
    by_name = {row["condition"]: row for row in rows}
    assert set(by_name["al-vac"]) == set(evaluation.COLUMNS)
    row = by_name["al-vac"]
    assert row["loss_label"] == pytest.approx(1 / 3)
    assert 0 < row["loss_label_low"] < 1 / 3 < row["loss_label_high"]
    assert [by_name["al-perfect"][f"loss_label{tail}"] for tail in ("", "_low", "_high")] == [0, 0, 0]
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
    tables = evaluation.evaluate(found, table, TABLE, SETTINGS, 1, published=published)
    rows, curves = tables["accuracy"], tables["ensembles"]
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
    tables = evaluation.evaluate({}, [], TABLE, SETTINGS, 1, clean=clean)
    rows, curves, confusions = (tables[name] for name in ("accuracy", "ensembles", "confusion"))
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


def test_two_crystals_have_no_interval_over_crystals():
    rows = evaluation.evaluate({}, [], TABLE, SETTINGS, 1, clean=predictions(right((2, 3, 2, 2, 1, 1))))["accuracy"]
    assert rows[0]["accuracy_label"] == 1
    assert rows[0]["accuracy_label_low"] is None and rows[0]["accuracy_label_high"] is None


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
    outputs = {name: tmp_path / f"{name}.csv" for name in evaluation.TABLES}
    evaluation.evaluate_files(
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
    for name, columns in evaluation.TABLES.items():
        assert tuple(csv.DictReader(outputs[name].open()).fieldnames) == columns
    assert [row["condition"] for row in found["accuracy"]] == ["al-a", "al-a@shown"]
    assert float(found["accuracy"][0]["accuracy_label"]) == pytest.approx(2 / 3, abs=1e-6)
    assert found["accuracy"][0]["published"] == ""
    assert len(found["ensembles"]) == 2 * 3 * len(evaluation.RULES)
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
        evaluation.read_predictions(tmp_path / "empty.nc")


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
    tables = [evaluation.evaluate({}, [], TABLE, settings, 1, clean=clean) for clean in (found, turned)]
    for one, other in zip(*(table["accuracy"] for table in tables), strict=True):
        for column in evaluation.COLUMNS:
            if column.startswith(("accuracy_ensemble", "limit_ensemble")):  # draws of voltage, camera length and copy
                assert one[column] == pytest.approx(other[column], abs=0.04)
            elif column.endswith(("low", "high")) and one[column] is not None:  # bootstrap samples differ
                assert one[column] == pytest.approx(other[column], abs=0.06)
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
    given = labels.space_group_given_label(TABLE)
    truth = evaluation.space_group_index(found, TABLE)
    one = Predictions(
        found.log_probability[..., :1, :1, :1, :1, :], found.true_label, found.space_group, found.materials
    )
    p = np.exp(one.log_probability[:, :, 0, 0, 0, 0]) @ given
    product = p.prod(axis=1)
    product /= product.sum(axis=1, keepdims=True)
    expected = product.argmax(axis=1) == truth
    np.testing.assert_array_equal(evaluation.ensemble_accuracy(one, TABLE, [3], 7, 1)[:, 0], expected)


def test_patterns_that_were_trained_on_do_not_count():
    counted = np.zeros((4, 3, 2, 2, 1), dtype=bool)
    counted[:, :, 1] = True  # one voltage of two
    counted[3, 0] = False  # and one axis of a crystal not at all
    found = random_predictions(counted=counted)
    spoiled = found.log_probability.copy()
    spoiled[~counted] = np.log(1e-9)
    spoiled = Predictions(spoiled, found.true_label, found.space_group, found.materials, counted=counted)
    rows = [evaluation.evaluate({}, [], TABLE, SETTINGS, 1, clean=clean) for clean in (found, spoiled)]
    for name in evaluation.TABLES:
        assert rows[0][name] == rows[1][name]
    by_label, by_group = evaluation.pattern_credits(found, TABLE)
    first = rows[0]["accuracy"][0]
    assert first["n_patterns"] == counted.sum() == 22
    assert first["accuracy_label"] == pytest.approx(by_label[counted].mean())
    assert first["accuracy_space_group"] == pytest.approx(by_group[counted].mean())
    assert np.isnan(evaluation.ensemble_accuracy(found, TABLE, [3], 5, 1)[3, 0])


def test_limits_are_what_known_labels_give():
    clean = random_predictions()
    known = predictions(np.concatenate([right(group=int(g)) for g in clean.space_group]), clean.space_group, 1 - 1e-15)
    settings = {**SETTINGS, "draws": 500}
    limit = evaluation.evaluate({}, [], TABLE, settings, 1, clean=clean)["accuracy"][0]
    reached = evaluation.evaluate({}, [], TABLE, settings, 1, clean=known)["accuracy"][0]
    for by in ("space_group", "extinction", "ensemble"):
        assert reached[f"accuracy_{by}"] == pytest.approx(limit[f"limit_{by}"], abs=1e-9)
    assert limit["limit_space_group_uniform"] == labels.single_pattern_limit(TABLE)


def test_extinction_classes_count_as_one():
    """Over [111] alone, F lattices are one class and all others another; over all three axes each group is its own."""
    table = labels.label_table(zone_axes=[(1, 1, 1)])
    label = labels.label_of(table)
    found = Predictions(np.zeros((5, 1, 1, 1, 1, 1, 1)), np.zeros((5, 1), dtype=int), np.array(GROUPS), list("abcde"))
    assert set(label.values()) == {0}
    row = evaluation.evaluate({}, [], table, {**SETTINGS, "ensemble_sizes": [1]}, 1, clean=found)["accuracy"][0]
    assert row["accuracy_space_group"] == pytest.approx(1 / 5)
    # P(213, 221, 229) = 3/5 beats P(225, 227) = 2/5, so three of five crystals are right
    assert row["accuracy_extinction"] == pytest.approx(3 / 5) == row["limit_extinction"]


def test_intervals_cover_what_they_should():
    """Of 95 % intervals 95 % hold the truth; 2,000 experiments: standard error 0.5 %. Score intervals are
    discrete, so their coverage swings about the nominal one, by less than 2 % here."""
    rng = np.random.default_rng(5)
    n, experiments = 144, 2000
    for p in (0.6, 0.9, 0.98):
        hits = rng.binomial(n, p, experiments)
        intervals = [evaluation.wilson(h / n, n) for h in hits]
        assert 0.93 < np.mean([low <= p <= high for low, high in intervals]) < 0.985
    # pairs: where the control is right the condition often is too
    ease = rng.uniform(size=(experiments, n))
    control, condition = (ease < 0.95).astype(float), (ease + rng.normal(0, 0.1, ease.shape) < 0.8).astype(float)
    truth = 0.95 - np.mean(condition)
    inside = []
    for first, second in zip(control, condition, strict=True):
        low, high = evaluation.difference_interval(first, second)
        inside.append(low <= truth <= high)
    assert 0.93 < np.mean(inside) < 0.985
    # crystals: means of 40 clusters; the percentile bootstrap is known to be a little short
    clusters = rng.beta(8, 2, size=(400, 40))
    found = [evaluation.cluster_bootstrap(values, 400, 1) for values in clusters]
    assert 0.89 < np.mean([low <= 0.8 <= high for low, high in found]) < 0.98


def test_a_difference_of_perfect_scores_has_a_width():
    low, high = evaluation.difference_interval(np.ones(144), np.ones(144))
    assert -0.05 < low < 0 < high < 0.05
    # Newcombe 1998, table I, first example: 56/70 - 48/80 of independent samples, 0.0524 to 0.3339
    first, second = np.repeat([1.0, 0.0], [56, 14]), np.repeat([1.0, 0.0], [48, 32])
    assert evaluation.difference_interval(first, second) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_weights_of_a_bootstrap_are_patterns():
    values, weights = np.array([1.0, 0.0]), np.array([3, 1])
    low, high = evaluation.cluster_bootstrap(values, 500, 1, weights=weights)
    assert (low, high) == (0, 1)
    low, high = evaluation.cluster_bootstrap(np.full(5, 0.3), 50, 1, weights=np.arange(1, 6))
    assert (low, high) == pytest.approx((0.3, 0.3))


def test_published_numbers(root):
    published = {row.condition: row for row in evaluation.read_published(root / "resources/paper/published.csv")}
    assert published["al-pristine"].accuracy == 0.9865
    assert published["pooled-vacancy-high"].members == ("al-vacancy-2x2x2", "fe-vacancy-3x3x3")
    assert published["al-strain-xx+2.5pct"].relation == "flat" and published["al-strain-xx+2.5pct"].accuracy is None
    assert all(row.page and row.where for row in published.values())
