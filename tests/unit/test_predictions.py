"""Which patterns of the perfect crystals a prediction file holds, and which of them count."""

import netCDF4
import numpy as np
import pytest
import scipy.ndimage
import torch

from defraction import dataset
from defraction.evaluation.evaluate import evaluate
from defraction.evaluation.predictions import read_predictions
from defraction.learning import infer, labels, model
from defraction.pattern_files import DIMENSIONS

AXES = [(0, 0, 1), (0, 1, 1)]
GRID = (2, 1, 3)
PIXELS = 16
SETTINGS = {"ensemble_sizes": [1, 2], "draws": 5, "confidence": 0.95, "calibration_bins": 5}


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

    def make(rows, specimens="all", copies=1):
        names = {row.label: row.name for row in table}
        card = {
            "labels": [names[i] for i in sorted(names)],
            "label_table": [(row.space_group, labels.axis_name(row.zone_axis), row.label) for row in table],
            "settings": {"augmentation": {"rotation": 20.0, "shift": 1.5, "scale": 0.1}, "specimens": specimens},
            "seed": 3,
            "image": {"pixels": PIXELS, "pixel_size_mm": 1.0},
            "display": {"beam_stop": 1.0, "decades": 3.0},
            "precision": "fp32",
            "architecture": "sums",
            "data": {"training_digest": ""},
        }
        monkeypatch.setattr(model, "load", lambda weights, path: (Sums(), card))
        dataset.write_split(tmp_path / "split.csv", rows)
        infer.predict_clean(files, tmp_path / "split.csv", "", "", tmp_path / "clean.nc", copies, device="cpu")
        return tmp_path / "clean.nc"

    return make


def row(name, group, part, patterns=()):
    return dataset.SplitRow(name, group, "p", name, False, part, True, "image" if patterns else "material", patterns)


def test_of_divided_crystals_only_the_patterns_held_out_count(predict):
    path = predict([row("a", 221, "image", (0, 4)), row("b", 225, "image", (1, 2, 5))])
    found = read_predictions(path)
    assert found.counted.shape == (2, *GRID, 2)
    assert np.flatnonzero(found.counted[0, ..., 0]).tolist() == [0, 4]
    assert np.flatnonzero(found.counted[1, ..., 1]).tolist() == [1, 2, 5]
    table = labels.label_table([221, 225], AXES)
    rows = evaluate({}, [], table, SETTINGS, 1, clean=path)["accuracy"]
    assert rows[0]["n_patterns"] == found.n_patterns == 2 * 5  # two specimens each


def test_of_whole_crystals_all_patterns_count(predict):
    found = read_predictions(predict([row("a", 221, "train"), row("b", 225, "held_out")]))
    assert found.materials == ["b"] and found.counted is None and found.n_patterns == 6 * 2


def test_a_network_of_blocks_is_shown_blocks(predict):
    found = read_predictions(predict([row("a", 221, "train"), row("b", 225, "held_out")], "block"))
    assert found.log_probability.shape[4] == 1 and found.n_patterns == 6


def test_the_file_says_what_each_copy_is(predict, tmp_path):
    """Turned, shifted and magnified as the file says, the patterns give the answers of the file; the first copy is the
    pattern as it is, and the other crystal has the same copies."""
    split = [row("a", 221, "train"), row("b", 225, "held_out")]
    plain = read_predictions(predict(split)).log_probability
    with netCDF4.Dataset(predict(split, copies=4)) as file:
        found = np.asarray(file["log_probability"][0])
        angle, scale = np.asarray(file["copy"]), np.asarray(file["scale"])
        shift = np.stack([np.asarray(file["shift_x"]), np.asarray(file["shift_y"])], axis=-1)
        assert [file[name].units for name in ("copy", "shift_x", "scale")] == ["degree", "pixel", "1"]
    assert angle[0] == 0 and scale[0] == 1 and not shift[0].any()
    assert np.abs(angle).max() <= 20 and 0 < np.abs(shift).max() <= 1.5 and 0 < np.abs(scale - 1).max() <= 0.1
    np.testing.assert_array_equal(found[:, :, :, :, :1], plain[0])
    patterns = dataset.load_patterns(tmp_path / "b.nc")
    grey = dataset.display(patterns.intensity, patterns.x, patterns.y, 1.0, 3.0)
    for number in range(1, 4):
        total = moved_sum(grey[0, 0, 0, 0].astype(float), np.radians(angle[number]), shift[number], scale[number])
        logits = total / 100 * np.arange(1, found.shape[-1] + 1)
        expected = logits - np.log(np.exp(logits).sum())
        np.testing.assert_allclose(found[0, 0, 0, 0, number], expected, atol=1e-4)


def moved_sum(image, angle, shift, scale):
    """Sum of an image turned by `angle` [rad, x towards y], magnified and shifted [pixel; x, y], 0 outside."""
    middle = (PIXELS - 1) / 2
    y, x = np.mgrid[:PIXELS, :PIXELS] - middle
    x, y = x - shift[0], y - shift[1]
    old_x = (np.cos(angle) * x + np.sin(angle) * y) / scale
    old_y = (-np.sin(angle) * x + np.cos(angle) * y) / scale
    places = [old_y + middle, old_x + middle]
    return scipy.ndimage.map_coordinates(np.pad(image, 1), [p + 1 for p in places], order=1, cval=0.0).sum()
