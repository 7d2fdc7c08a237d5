"""Which patterns of the perfect crystals a prediction file holds, and which of them count."""

import netCDF4
import numpy as np
import pytest
import torch

from defraction import dataset, evaluation
from defraction.learning import infer, labels, model
from defraction.pattern_files import DIMENSIONS

AXES = [(0, 0, 1), (0, 1, 1)]
GRID = (2, 1, 3)
PIXELS = 16
SETTINGS = {"ensemble_sizes": [1, 2], "draws": 5, "bootstrap": 20}


def write_patterns(path, seed, specimens=2):
    shape = (*GRID, specimens, PIXELS, PIXELS)
    with netCDF4.Dataset(path, "w") as file:
        for name, size in zip(DIMENSIONS, shape, strict=True):
            file.createDimension(name, size)
        file.createDimension("index", 3)
        file.createVariable("intensity", "f4", DIMENSIONS)[:] = np.random.default_rng(seed).random(shape)
        file.createVariable("uvw", "i4", ("zone_axis", "index"))[:] = AXES
        file.createVariable("voltage", "f8", ("voltage",))[:] = [200.0]
        file.createVariable("camera_length", "f8", ("camera_length",))[:] = [0.5, 0.8, 1.2]
        for name in ("x", "y"):
            file.createVariable(name, "f8", (name,))[:] = np.arange(PIXELS) - (PIXELS - 1) / 2


@pytest.fixture
def predict(tmp_path, monkeypatch):
    """Predict two crystals under a split, with a network that sums pixels; returns the file."""
    table = labels.label_table([221, 225], AXES)

    class Sums(torch.nn.Module):
        def forward(self, images):
            total = images.sum(dim=(1, 2, 3)) / 100
            return torch.stack([total * (i + 1) for i in range(labels.number_of_labels(table))], dim=1)

    files = {}
    for seed, name in enumerate(("a", "b")):
        files[name] = tmp_path / f"{name}.nc"
        write_patterns(files[name], seed)

    def make(rows, specimens="all"):
        names = {row.label: row.name for row in table}
        card = {
            "labels": [names[i] for i in sorted(names)],
            "label_table": [(row.space_group, labels.axis_name(row.zone_axis), row.label) for row in table],
            "settings": {"augmentation": {"rotation": 0.0}, "specimens": specimens},
            "image": {"pixels": PIXELS, "pixel_size_mm": 1.0},
            "display": {"beam_stop": 1.0, "decades": 3.0},
            "precision": "fp32",
            "architecture": "sums",
            "data": {"training_digest": ""},
        }
        monkeypatch.setattr(model, "load", lambda weights, path: (Sums(), card))
        dataset.write_split(tmp_path / "split.csv", rows)
        infer.predict_clean(files, tmp_path / "split.csv", "", "", tmp_path / "clean.nc", device="cpu")
        return tmp_path / "clean.nc"

    return make


def row(name, group, part, patterns=()):
    return dataset.SplitRow(name, group, "p", name, False, part, True, "image" if patterns else "material", patterns)


def test_of_divided_crystals_only_the_patterns_held_out_count(predict):
    path = predict([row("a", 221, "image", (0, 4)), row("b", 225, "image", (1, 2, 5))])
    found = evaluation.read_predictions(path)
    assert found.counted.shape == (2, *GRID, 2)
    assert np.flatnonzero(found.counted[0, ..., 0]).tolist() == [0, 4]
    assert np.flatnonzero(found.counted[1, ..., 1]).tolist() == [1, 2, 5]
    table = labels.label_table([221, 225], AXES)
    rows = evaluation.evaluate({}, [], table, SETTINGS, 1, clean=path)["accuracy"]
    assert rows[0]["n_patterns"] == found.n_patterns == 2 * 5  # two specimens each


def test_of_whole_crystals_all_patterns_count(predict):
    found = evaluation.read_predictions(predict([row("a", 221, "train"), row("b", 225, "held_out")]))
    assert found.materials == ["b"] and found.counted is None and found.n_patterns == 6 * 2


def test_a_network_of_blocks_is_shown_blocks(predict):
    found = evaluation.read_predictions(predict([row("a", 221, "train"), row("b", 225, "held_out")], "block"))
    assert found.log_probability.shape[4] == 1 and found.n_patterns == 6
