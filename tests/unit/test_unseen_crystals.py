"""benchmarks/unseen_crystals.py: which crystals it takes, and how it counts the answers of a model."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest

from defraction.learning.labels import label_table, space_group_given_label

AXES = ((0, 0, 1), (1, 1, 1), (0, 1, 2))
TABLE = label_table((221, 225, 229), AXES)
LABELS = {(row.space_group, row.zone_axis): row.label for row in TABLE}
SETTINGS = {
    "pixels": 32, "detector_width": 48.0, "zone_axes": [list(axis) for axis in AXES], "voltages": [120.0, 200.0],
    "camera_lengths": [0.8], "debye_waller": {}, "average_snapshots": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def unseen(root):
    path = root / "benchmarks/unseen_crystals.py"
    module = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location(path.stem, path))
    spec.loader.exec_module(module)
    return module


def crystal(formula, group, sites, a="4.0"):
    return {
        "formula": formula, "space_group": str(group), "setting": "1", "prototype": "p", "prototype_name": "",
        "a_angstrom": a, "sites": sites,
    }  # fmt: skip


def test_crystals_of_the_training_table_are_left_out_however_written(unseen, root, tmp_path):
    rows = [
        crystal("ClNa", 225, "Na:4+a:0,0,0;Cl:4+b:0.5,0.5,0.5"),
        crystal("Na2Cl2", 221, "Na:1+a:0,0,0;Cl:1+b:0.5,0.5,0.5"),
        crystal("Al4", 225, "Al:4+a:0,0,0"),
    ]
    with (tmp_path / "table.csv").open("w") as file:
        file.write(",".join(rows[0]) + "\n" + "".join(",".join(f'"{v}"' for v in row.values()) + "\n" for row in rows))
    found, inside = unseen.read(tmp_path / "table.csv", root / "resources/materials.csv")
    assert inside == 2 and [row["formula"] for row in found] == ["Na2Cl2"]  # in that space group nobody trained on it


class Model:
    """Answers of which everything is known: every label right in the first copy; in the second, [001] always."""

    def __init__(self, group):
        self.frame, self.table = SimpleNamespace(pixel_mm=48 / 31), TABLE
        self.card, self.openset = {"display": {"beam_stop": 2.0, "decades": 3.0}}, {"threshold": 1.0}
        self.truth = np.repeat([LABELS[group, axis] for axis in AXES], 2)  # two voltages

    def look(self, grey, copies):
        assert grey.shape == (6, 32, 32) and grey.min() >= 0 and grey.max() == 1
        answers = np.array([self.truth, np.full(6, LABELS[229, (0, 0, 1)])])[:copies]
        logs = np.full((copies, 6, max(LABELS.values()) + 1), -60.0)
        np.put_along_axis(logs, answers[..., None], 0.0, axis=-1)
        return logs, np.array([0, 2, 2, 0, 0, 0])


def test_answers_are_counted_as_the_workflow_counts(unseen):
    """The three groups share [001] and [111], so a third of each is right; [012] of a bcc crystal is its own."""
    row = crystal("W", 229, "W:2+a:0,0,0", a="3.16")
    one = unseen.measure([row], Model(229), SETTINGS, (6, 6, 6), 1, "cpu")[0]
    two = unseen.measure([row], Model(229), SETTINGS, (6, 6, 6), 2, "cpu")[0]
    given = space_group_given_label(TABLE)
    credit = [given[LABELS[229, axis]][2] for axis in AXES]  # even shares where groups share a label
    assert one["patterns"] == 6 and one["label"] == 1 and one["flagged"] == pytest.approx(2 / 6)
    assert one["group"] == one["limit"] == pytest.approx(np.mean(credit))
    assert one["ensemble"] == 1  # [012] decides
    assert two["label"] == pytest.approx((1 + 1 / 3) / 2)
    assert two["group"] == pytest.approx((np.mean(credit) + credit[0]) / 2)
    assert two["limit"] == one["limit"] and two["flagged"] == one["flagged"]
    assert 0.3 < two["ensemble"] < 0.95  # the pattern of [012] is the second copy in half of the draws


def test_the_table_has_a_limit_beside_every_accuracy(unseen):
    row = crystal("W", 229, "W:2+a:0,0,0")
    record = {"row": row, "patterns": 6, "unresolved": 0, "label": 0.5, "resolved": 0.5, "group": 0.4, "limit": 0.6}
    table = unseen.summarise([record | {"ensemble": 1.0, "flagged": 0.1}] * 3)
    assert [(line["by"], line["crystals"]) for line in table] == [("all", 3), ("space_group", 3), ("prototype", 3)]
    for line in table:
        assert line["accuracy_space_group"] <= line["limit_space_group"] == 0.6
        assert line["accuracy_ensemble_low"] < 1 == line["accuracy_ensemble_high"]  # three right ones prove little


def test_two_crystals_have_no_interval(unseen):
    row = crystal("W", 229, "W:2+a:0,0,0")
    record = {"row": row, "patterns": 6, "unresolved": 0, "label": 0.5, "resolved": 0.5, "group": 0.4, "limit": 0.6}
    table = unseen.summarise([record | {"ensemble": 1.0, "flagged": 0.1}] * 2)
    assert [line["by"] for line in table] == ["all", "space_group"]
    assert {
        line[f"accuracy_{by}_{end}"] for line in table for by in ("label", "ensemble") for end in ("low", "high")
    } == {None}
    assert unseen.with_interval(table[0], "accuracy_label").split() == ["50.0%", "(few", "crystals)"]
