"""The open-set score: laws of its parts on synthetic features, the table of unknown crystals, and the whole chain."""

import json
import math

import numpy as np
import pytest
import spglib
import torch
from ase.build import bulk
from ase.io import write

from defraction import dataset, unknown
from defraction.learning import labels, model, openset

RNG = np.random.default_rng(0)


def gaussian(n, centres, seed=0):
    """Features around label centres with the covariance diag(1, 4, 9, ...), and their labels."""
    rng = np.random.default_rng(seed)
    label = rng.integers(len(centres), size=n)
    return centres[label] + rng.normal(size=(n, centres.shape[1])) * np.arange(1, centres.shape[1] + 1), label


# --- AUROC -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 2.0])
def test_auroc_of_two_normal_distributions_is_what_theory_gives(shift):
    """P(Y > X) = Phi(shift / sqrt 2); four standard errors of 4000 draws are 0.03 at most."""
    rng = np.random.default_rng(5)
    found = openset.auroc(rng.normal(size=4000), rng.normal(shift, 1, size=4000))
    assert found == pytest.approx(0.5 * (1 + math.erf(shift / 2)), abs=0.03)


def test_auroc_counts_ties_half_and_equals_all_pairs():
    known, other = RNG.integers(0, 5, 60).astype(float), RNG.integers(1, 7, 40).astype(float)
    pairs = (other[None] > known[:, None]).mean() + 0.5 * (other[None] == known[:, None]).mean()
    assert openset.auroc(known, other) == pytest.approx(pairs)
    assert openset.auroc(known, np.full(3, 2.0)) + openset.auroc(np.full(3, 2.0), known) == pytest.approx(1)


def test_the_interval_covers_crystals_not_patterns():
    """Patterns of a crystal repeated ten times are no new crystals: the interval stays as wide."""
    rng = np.random.default_rng(2)
    known = [rng.normal(rng.normal(), 1, 5) for _ in range(12)]
    other = [rng.normal(1 + rng.normal(), 1, 5) for _ in range(12)]
    once = openset.auroc_interval(known, other, 300, 1)
    often = openset.auroc_interval([np.tile(v, 10) for v in known], [np.tile(v, 10) for v in other], 300, 1)
    assert once == pytest.approx(often)
    centre = openset.auroc(np.concatenate(known), np.concatenate(other))
    assert once[0] < centre < once[1] and once[1] - once[0] > 0.1


# --- scores ----------------------------------------------------------------------------------------------------------


def test_mahalanobis_is_the_squared_distance_in_deviations():
    """With all axes kept, many patterns and no shrinkage, known patterns score like chi squared with 6 degrees of
    freedom, less what the nearest of several centres takes; a pattern m deviations off scores m squared more."""
    centres = 40 * np.eye(6)[:3]
    found, label = gaussian(20_000, centres)
    logits = RNG.normal(size=(len(found), 3))
    fitted = openset.Statistics.fit(found, logits, label, axes=6, shrinkage=0.0)
    fresh, _ = gaussian(20_000, centres, seed=1)
    scores = fitted.scores(fresh, RNG.normal(size=(len(fresh), 3)))["mahalanobis"]
    assert scores.mean() == pytest.approx(6, abs=0.15)  # standard error sqrt(12 / 20000) = 0.024
    away = centres[:1] + np.array([[0, 0, 0, 0, 0, 60.0]])  # ten deviations along the widest axis
    assert fitted.scores(away, np.zeros((1, 3)))["mahalanobis"][0] == pytest.approx(100, rel=0.05)


def test_scores_of_features_tell_unknown_from_known_in_features():
    """Unknown features lie off the centres in a direction that no label has; their logits are those of known ones."""
    centres = 40 * np.eye(12)[:5]
    found, label = gaussian(3000, centres)
    logits = 5 * np.eye(5)[label] + RNG.normal(size=(3000, 5))
    fitted = openset.Statistics.fit(found, logits, label, axes=8)
    fresh, fresh_label = gaussian(500, centres, seed=3)
    other = fresh + 60 * (np.eye(12)[9] + np.eye(12)[5])  # along a principal axis that is kept, and one that is not
    fresh_logits = 5 * np.eye(5)[fresh_label] + RNG.normal(size=(500, 5))
    known, odd = fitted.scores(fresh, fresh_logits), fitted.scores(other, fresh_logits)
    for name in openset.SCORES:
        found = openset.auroc(known[name], odd[name])
        if name in ("msp", "max_logit", "energy"):
            assert found == 0.5
        elif name != "relative_mahalanobis":  # it cancels what is as unlikely for all labels together
            assert found > 0.95, name


def test_scores_of_logits_follow_their_definitions():
    found, label = gaussian(100, 40 * np.eye(6)[:3])
    logits = RNG.normal(size=(100, 3))
    scores = openset.Statistics.fit(found, logits, label, axes=4).scores(found, logits)
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert scores["msp"] == pytest.approx(1 - probability.max(1))
    assert scores["energy"] == pytest.approx(-np.log(np.exp(logits).sum(1)))
    assert scores["max_logit"] == pytest.approx(-logits.max(1))


def test_statistics_come_back_from_their_file(tmp_path):
    found, label = gaussian(200, 40 * np.eye(6)[:3])
    logits = RNG.normal(size=(200, 3))
    fitted = openset.Statistics.fit(found, logits, label, axes=4)
    fitted.save(tmp_path / "s.safetensors")
    again = openset.Statistics.load(tmp_path / "s.safetensors").scores(found, logits)
    for name, values in fitted.scores(found, logits).items():
        assert np.array_equal(again[name], values)
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"bad\.safetensors"):
        openset.Statistics.load(tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match="principal axes"):
        openset.Statistics.fit(found[:4], logits[:4], label[:4], axes=4)


def test_the_temperature_makes_overconfident_ensembles_honest():
    """Every pattern of a crystal comes 4 times: their product counts each four times over, so T is near 4."""
    table = labels.label_table((221, 225, 229), ((0, 1, 2),))
    rng = np.random.default_rng(4)
    logits, truth, cluster, groups = [], [], [], []
    by_group = {row.space_group: row.label for row in table}
    width = max(by_group.values()) + 1
    for number in range(120):
        group = int(rng.choice([225, 229]))
        strength = rng.normal(1.0 if group == 229 else -1.0, 1.0)  # log odds 2 * strength are right for one pattern
        row = np.full(width, -20.0)
        row[by_group[229]], row[by_group[225]] = 2 * strength, 0.0
        logits += [row] * 2
        truth += [by_group[group]] * 2
        cluster += [number] * 2
        groups.append(group)
    found = openset.fit_temperature(np.array(logits), np.array(truth), np.array(cluster), table, groups, 0)
    assert 4 < found < 17  # ensembles of 1 to 16 copies of one pattern: T between their mean size and the largest


# --- unknown crystals ------------------------------------------------------------------------------------------------


def test_the_table_of_unknown_crystals_is_what_it_says(root):
    """Every row builds, has the space group it states by its atoms, stands in the right family, and is sourced."""
    rows = unknown.read_table(root / "resources/unknown_crystals.csv")
    assert len({row["material"] for row in rows}) == len(rows) > 50
    trained = {213, 221, 225, 227, 229}
    absences = {number: _absences(number) for number in trained}
    for row in rows:
        number = int(row["space_group"])
        assert number not in trained and row["reference"]
        atoms = unknown.unknown_crystal(row)
        found = spglib.get_spacegroup((atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers), symprec=0.02)
        assert found.endswith(f"({number})"), (row["material"], found)
        same = number >= 195 and _absences(number) in absences.values()
        family = "other_system" if number < 195 else "same_extinctions" if same else "other_extinctions"
        assert row["family"] == family, row["material"]


def _absences(number):
    """Which reflections of a cubic group are absent in general position, as bytes."""
    import gemmi

    hkl = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3, indexing="ij"), -1).reshape(-1, 3).astype(np.int32)
    return gemmi.find_spacegroup_by_number(number).operations().systematic_absences(hkl).tobytes()


@pytest.mark.parametrize("kind", openset.MADE_UP)
def test_made_up_pictures_are_grey_and_repeat(kind):
    images = openset.made_up(kind, 3, 32, 1)
    assert images.shape == (3, 32, 32) and images.min() >= 0 and images.max() == 1
    assert np.array_equal(images, openset.made_up(kind, 3, 32, 1))
    assert not np.array_equal(images[0], images[1])


# --- the whole -------------------------------------------------------------------------------------------------------


def test_axes_that_have_a_label_are_not_unknown():
    assert [5, 1, 1] not in unknown.other_axes([]) and [1, 1, 5] in unknown.other_axes([(0, 0, 1), (3, 3, 4)])
    assert [1, 1, 5] not in unknown.other_axes([(1, 5, -1)])
    with pytest.raises(ValueError, match="leave one out"):
        unknown.other_axes(unknown.OTHER_AXES)


def test_from_files_to_threshold(tmp_path, root):
    """Two structure types, a random network: every family is measured and every number is in its range."""
    settings = {
        "pixels": 24, "detector_width": 48.0, "zone_axes": [[0, 0, 1], [0, 1, 1]], "voltages": [120.0, 200.0],
        "camera_lengths": [0.5, 0.8], "response_sigma": 0.5, "model": "physical", "scattering_factors": "c4322",
        "method": "auto", "tilt": [0.0, 0.0], "rotation": 0.0, "convergence": 0.0, "shape": "block",
    }  # fmt: skip
    from defraction.diffraction.patterns import simulate

    files, rows, structures = {}, [], {}
    for group, structure, edges in ((225, "fcc", (3.6, 3.8, 4.05, 4.3)), (229, "bcc", (2.9, 3.1, 3.3, 3.5))):
        for number, a in enumerate(edges):
            atoms = bulk("Al", structure, a=a, cubic=True)
            name = f"{structure}{number}"
            simulate(atoms, settings, "cpu", repeat=(6, 6, 6)).to_netcdf(tmp_path / f"{name}.nc")
            files[name] = tmp_path / f"{name}.nc"
            part = "held_out" if number > 1 else "train"
            rows.append(dataset.SplitRow(name, group, name, name, False, part, False))
            atoms.info["repeat"] = [6, 6, 6]
            structures[name] = tmp_path / f"{name}.xyz"
            write(structures[name], atoms)
    dataset.write_split(tmp_path / "split.csv", rows)
    lines = (root / "resources/unknown_crystals.csv").read_text().splitlines()
    few = [
        line for line in lines if line.startswith(("Mg-194", "Zn-194", "FeS2-205", "RuS2-205", "ZnS-216", "CuCl-216"))
    ]
    (tmp_path / "unknown.csv").write_text("\n".join([lines[0], *few]) + "\n")
    unknown.simulate_unknown(
        tmp_path / "unknown.csv", structures, tmp_path / "split.csv", tmp_path / "unknown.nc", settings, (6, 6, 6), 1,
        "cpu", patterns=4,
    )  # fmt: skip
    families = openset.read_unknown(tmp_path / "unknown.nc")
    assert set(families) == {*unknown.FAMILIES, "other_axes", *(f"tilted_{t:g}_mrad" for t in unknown.TILTS)}
    held_out = {row.material for row in rows if row.part == "held_out"}
    for family, found in families.items():
        names = {patterns.attributes["crystal"] for patterns in found}
        assert names == held_out if family not in unknown.FAMILIES else len(names) == 2
        assert all(patterns.intensity.shape[1:] == (24, 24) for patterns in found)

    table = labels.label_table((225, 229), ((0, 0, 1), (0, 1, 1)))
    names = {row.label: row.name for row in table}
    card = {
        "architecture": "resnet18",
        "labels": [names[n] for n in range(len(names))],
        "label_table": [[row.space_group, labels.axis_name(row.zone_axis), row.label] for row in table],
        "image": {"pixels": 24, "pixel_size_mm": 2.0},
        "display": {"beam_stop": 2.0, "decades": 3.0},
        "settings": {"augmentation": {"rotation": 0.0, "shift": 0.0, "scale": 0.0}},
        "precision": "bf16",
        "data": {"training_digest": "digest"},
    }
    model.save(model.build("resnet18", len(names)), card, tmp_path / "m.safetensors", tmp_path / "card.json")
    result = openset.measure(
        files, tmp_path / "split.csv", tmp_path / "m.safetensors", tmp_path / "card.json", tmp_path / "unknown.nc",
        tmp_path / "openset.json", tmp_path / "openset.safetensors", {"axes": 4, "pictures": 4, "bootstrap": 50}, 1,
        "cpu",
    )  # fmt: skip
    assert json.loads((tmp_path / "openset.json").read_text()) == json.loads(json.dumps(result))
    assert set(result["families"]) == {*families, "two_crystals", *openset.MADE_UP}
    for row in result["families"].values():
        assert 0 <= row["auroc_low"] <= row["auroc"] + 1e-9 and row["auroc"] - 1e-9 <= row["auroc_high"] <= 1
        assert set(row["auroc_by_score"]) == set(openset.SCORES)
    assert result["score"] in openset.SCORES and result["known"]["patterns"] == 4 * 8
    assert np.all(np.diff(result["quantiles"]) >= 0)
    assert result["quantiles"][0] <= result["threshold"] <= result["quantiles"][-1]

    # the threshold is the one of single precision, in which `classify` compares with it, whatever training used
    network, _ = model.load(tmp_path / "m.safetensors", tmp_path / "card.json")
    shown = [
        dataset.display(found.intensity.reshape(-1, 24, 24), found.x, found.y, 2.0, 3.0)
        for found in (dataset.load_patterns(files[row.material]) for row in rows if row.part == "held_out")
    ]
    found, logits = openset.features(network, torch.from_numpy(np.concatenate(shown))[:, None])
    scores = openset.Statistics.load(tmp_path / "openset.safetensors").scores(found, logits)[result["score"]]
    assert np.quantile(scores, 0.95) == pytest.approx(result["threshold"], rel=1e-4)

    assert openset.belongs(result, card, tmp_path / "m.safetensors")
    model.save(model.build("resnet18", len(names)), card, tmp_path / "other.safetensors", tmp_path / "card.json")
    assert not openset.belongs(result, card, tmp_path / "other.safetensors")  # another seed on the same patterns
    assert not openset.belongs(result, {"data": {"training_digest": "another"}}, tmp_path / "m.safetensors")


@pytest.mark.parametrize(("specimens", "expected"), [("all", 4), ("block", 2)])
def test_a_network_is_measured_on_the_specimens_that_trained_it(tmp_path, specimens, expected):
    from defraction.diffraction.patterns import simulate

    images = [bulk("Al", "fcc", a=4.05, cubic=True) * size for size in ((6, 6, 6), (4, 5, 6))]
    settings = {"pixels": 24, "detector_width": 48.0}
    simulate(images, settings, "cpu", zone_axes=[[0, 0, 1], [0, 1, 1]], voltages=[200.0],
             camera_lengths=[0.8]).to_netcdf(tmp_path / "al.nc")  # fmt: skip
    card = {
        "display": {"beam_stop": 2.0, "decades": 3.0},
        "settings": {"specimens": specimens, "augmentation": {"rotation": 0.0, "shift": 0.0, "scale": 0.0}},
    }
    table = labels.label_table((225, 229), ((0, 0, 1), (0, 1, 1)))
    network = model.build("resnet18", labels.number_of_labels(table)).eval()
    reader = openset._Reader(network, card, table, openset.DEFAULTS, 1)
    row = dataset.SplitRow("al", 225, "p", "Al", False, "held_out", False)
    found, logits, truth, _ = reader.files({"al": tmp_path / "al.nc"}, [row], "held_out", None)
    assert len(found) == len(logits) == len(truth) == expected
