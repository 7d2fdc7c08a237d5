"""Training from tables and pattern files to weights, predictions and card, with a tiny network on tiny images."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import frozen_training
import netCDF4
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from defraction import config, dataset
from defraction.evaluation.predictions import read_predictions
from defraction.learning import infer, labels, model, parallel, train
from defraction.learning.resnet import BLOCKS, ResNet
from defraction.pattern_files import DIMENSIONS

AXES = [(0, 0, 1), (0, 1, 1)]
GROUPS = [221, 225]
SETTINGS = config.plain(
    config.Learning(
        architecture="resnet18",
        display={"beam_stop": 1.0, "decades": 3.0},
        augmentation={"rotation": 10.0, "shift": 1.0, "scale": 0.02},
        epochs=3,
        batch_size=8,
        learning_rate=2e-3,
        weight_decay=0.01,
        label_smoothing=0.0,
        precision="fp32",
        monitor=16,
    )
)
PIXELS = 32


def write_patterns(path, group, spacing):
    """Spots of the allowed reflections, `spacing` pixels per reciprocal lattice vector, at three camera lengths."""
    y, x = np.mgrid[:PIXELS, :PIXELS] - (PIXELS - 1) / 2
    images = np.full((len(AXES), 1, 3, 1, PIXELS, PIXELS), 1e-6)
    for i, axis in enumerate(AXES):
        across = np.cross(axis, (1, 0, 0)) / np.linalg.norm(np.cross(axis, (1, 0, 0)))
        for h in labels.allowed_reflections(group, axis, 6):
            for c in range(3):
                px, py = h[0] * spacing * (1 + 0.1 * c), h @ across * spacing * (1 + 0.1 * c)
                images[i, 0, c, 0] += np.exp(-((x - px) ** 2 + (y - py) ** 2) / 1.5)
    with netCDF4.Dataset(path, "w") as file:
        for name, size in zip(DIMENSIONS, images.shape, strict=True):
            file.createDimension(name, size)
        file.createDimension("index", 3)
        file.createVariable("intensity", "f4", DIMENSIONS)[:] = images
        file.createVariable("uvw", "i4", ("zone_axis", "index"))[:] = AXES
        file.createVariable("voltage", "f8", ("voltage",))[:] = [200.0]
        file.createVariable("camera_length", "f8", ("camera_length",))[:] = [0.8, 0.88, 0.96]
        for name in ("x", "y"):
            file.createVariable(name, "f8", (name,))[:] = x[0] / 2


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Eight crystals, their split and the label table; returns the folder and the pattern files."""
    folder = tmp_path_factory.mktemp("study")
    files, crystals = {}, []
    for group in GROUPS:
        for i, spacing in enumerate((3.0, 3.4, 3.8, 4.2)):
            name = f"m{group}-{i}"
            files[name] = folder / f"{name}.nc"
            write_patterns(files[name], group, spacing)
            crystals.append({"material": name, "space_group": group, "formula": name, "prototype": "p"})
    dataset.write_split(folder / "split.csv", dataset.split_table(crystals, 0.25, 1))
    labels.write_labels(folder / "labels.csv", GROUPS, AXES)
    return folder, files


def run(study, out, restart=None, **changes):
    folder, files = study
    out.mkdir(exist_ok=True)
    options = {"seed": 5, "threads": 1, "device": "cpu", "checkpoint_minutes": 0.0}
    options.update({key: changes.pop(key) for key in list(changes) if key in options})
    processes, split = changes.pop("processes", 1), changes.pop("split", folder / "split.csv")
    arguments = arguments_of(files, split, folder / "labels.csv", out) | {"settings": {**SETTINGS, **changes}} | options
    parallel.train_in_processes(processes, **arguments | {"restart_dir": restart or out / "restart"})
    return out / "model.safetensors", out / "card.json", out / "history.csv"


def arguments_of(files, split, table, out):
    """Arguments of `train`, as a job writes them."""
    names = {"weights": "model.safetensors", "best": "best.safetensors", "last": "last.safetensors"}
    names |= {"card": "card.json", "history": "history.csv", "restart_dir": "restart"}
    return {
        "patterns": {name: str(path) for name, path in files.items()},
        "split": str(split),
        "labels": str(table),
        "settings": SETTINGS,
        "seed": 5,
        "device": "cpu",
        "threads": 1,
        "checkpoint_minutes": 0.0,
        **{key: str(out / name) for key, name in names.items()},
    }


@pytest.fixture(scope="module")
def unbroken(study, tmp_path_factory):
    return run(study, tmp_path_factory.mktemp("unbroken"))


def same_weights(first, second):
    a, b = load_file(first), load_file(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


KILLED_AT = 7  # of 15 steps, 5 a pass
CHILD = f"""
import json, os, signal, sys
from defraction.learning import train

save = train._save_checkpoint

def save_and_die(path, state):
    save(path, state)
    if state["step"] == {KILLED_AT}:
        os.kill(os.getpid(), signal.SIGKILL)

train._save_checkpoint = save_and_die
train.train(**json.loads(sys.argv[1]))
"""
CHILD_OF_TWO = """
import json, sys
from defraction.learning import parallel
parallel.train_in_processes(2, **json.loads(sys.argv[1]))
"""


def wait_for_step(step, checkpoint, child):
    """Until a run in another process has kept this step, has ended, or two minutes are over."""
    until = time.monotonic() + 120
    while time.monotonic() < until and child.poll() is None:
        if checkpoint.exists() and torch.load(checkpoint, weights_only=True)["step"] >= step:
            break
        time.sleep(0.01)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_killed_in_mid_pass_resumes_to_the_same_bits(study, tmp_path, root, caplog, precision):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, files = study
    unbroken = run(study, tmp_path / "unbroken", precision=precision)
    arguments = arguments_of(files, folder / "split.csv", folder / "labels.csv", tmp_path)
    arguments |= {"settings": {**SETTINGS, "precision": precision}, "tensorboard": str(tmp_path / "board")}
    environment = {**os.environ, "PYTHONPATH": str(root / "workflow/scripts")}
    done = subprocess.run([sys.executable, "-c", CHILD, json.dumps(arguments)], env=environment, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert torch.load(tmp_path / "restart" / train.CHECKPOINT, weights_only=True)["step"] == KILLED_AT
    assert not (tmp_path / "model.safetensors").exists()

    (tmp_path / "resumed").mkdir()
    resumed = arguments_of(files, folder / "split.csv", folder / "labels.csv", tmp_path / "resumed")
    with caplog.at_level("INFO"):
        train.train(**arguments | resumed | {"restart_dir": tmp_path / "restart", "settings": arguments["settings"]})
    assert f"at step {KILLED_AT}" in caplog.text and "0 min 00 s left" in caplog.text
    assert same_weights(tmp_path / "resumed/model.safetensors", unbroken[0])
    kept = [column for column in train.HISTORY_COLUMNS if column != "seconds"]
    histories = [
        [[row[c] for c in kept] for row in csv.DictReader(path.open())]
        for path in (tmp_path / "resumed/history.csv", unbroken[2])
    ]
    assert histories[0] == histories[1]
    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    assert [event.step for event in board.Scalars("held_out/accuracy")] == [5, 10, 15]


def test_a_run_that_goes_on_with_other_threads_says_so(study, unbroken, tmp_path, caplog):
    restart = tmp_path / "restart"
    restart.mkdir()
    (restart / train.CHECKPOINT).write_bytes((unbroken[0].parent / "restart" / train.CHECKPOINT).read_bytes())
    run(study, tmp_path / "same", restart=restart)
    assert "was written with" not in caplog.text
    run(study, tmp_path / "other", restart=restart, threads=2)
    assert "was written with threads = 1, now it is 2" in caplog.text


def test_same_seed_same_predictions_other_seed_others(study, unbroken, tmp_path):
    folder, files = study
    again, other = run(study, tmp_path / "again"), run(study, tmp_path / "other", seed=6)
    assert same_weights(again[0], unbroken[0])
    assert not same_weights(other[0], unbroken[0])
    found = []
    for outputs in (unbroken, again, other):
        target = tmp_path / "predictions.nc"
        infer.predict_clean(files, folder / "split.csv", *outputs[:2], target, copies=2, device="cpu", threads=1)
        found.append(read_predictions(target))
    np.testing.assert_array_equal(found[0].log_probability, found[1].log_probability)
    assert not np.array_equal(found[0].log_probability, found[2].log_probability)
    held_out = [row for row in dataset.read_split(folder / "split.csv") if row.part == "held_out"]
    assert found[0].materials == [row.material for row in held_out]
    assert found[0].log_probability.shape == (
        2,
        2,
        1,
        3,
        1,
        2,
        labels.number_of_labels(labels.label_table(GROUPS, AXES)),
    )
    np.testing.assert_allclose(np.exp(found[0].log_probability).sum(axis=-1), 1, atol=1e-5)


def test_checkpoints_of_other_settings_are_not_resumed(study, unbroken, tmp_path, caplog):
    restart = unbroken[0].parent / "restart"
    before = (restart / train.CHECKPOINT).read_bytes()
    copy = tmp_path / "restart"
    copy.mkdir()
    (copy / train.CHECKPOINT).write_bytes(before)
    outputs = run(study, tmp_path / "changed", restart=copy, weight_decay=0.5, epochs=1)
    assert "belongs to other settings" in caplog.text
    assert len(list(csv.DictReader(outputs[2].open()))) == 1


def test_a_small_set_is_learned_by_heart(study, tmp_path):
    folder, files = study
    quiet = {"rotation": 0.0, "shift": 0.0, "scale": 0.0, "mirror": False}
    outputs = run(study, tmp_path / "fit", epochs=12, augmentation=quiet, checkpoint_minutes=9.0)
    target = tmp_path / "train.nc"
    infer.predict_clean(
        files, folder / "split.csv", *outputs[:2], target, copies=4, device="cpu", threads=1, part="train"
    )
    found = read_predictions(target)
    assert found.log_probability.shape[5] == 1  # no rotation learned, none tested
    assert (found.log_probability.argmax(axis=-1) == found.true_label[:, :, None, None, None, None]).all()


def test_card_and_weights_round_trip(unbroken, tmp_path):
    network, card = model.load(*unbroken[:2])
    assert card["architecture"] == "resnet18" and not network.training
    assert (
        card["settings"]["epochs"] == 3 and card["image"]["pixels"] == PIXELS and card["image"]["pixel_size_mm"] == 0.5
    )
    assert len(card["data"]["training_digest"]) == 64 and "no pass was chosen" in card["selection"]
    assert card["image"]["voltages"] == [200] and card["seed"] == 5
    for other in ("best", "last"):  # without a third part all are the weights of the last step, kept once
        assert (unbroken[0].parent / f"{other}.safetensors").samefile(unbroken[0])
    model.save(network, card, tmp_path / "m.safetensors", tmp_path / "m.json")
    assert same_weights(tmp_path / "m.safetensors", unbroken[0])
    card["labels"] = card["labels"][:-1]
    (tmp_path / "m.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="train again"):
        model.load(tmp_path / "m.safetensors", tmp_path / "m.json")


def test_a_pattern_of_another_detector_is_refused(unbroken, tmp_path, study):
    _, files = study
    _, card = model.load(*unbroken[:2])
    card["image"]["pixel_size_mm"] = 0.25
    (tmp_path / "card.json").write_text(json.dumps(card))
    source = next(iter(files.values()))
    with pytest.raises(ValueError, match=r"0\.5000 mm, the network was trained on"):
        infer.predict_condition(source, 225, unbroken[0], tmp_path / "card.json", tmp_path / "p.nc", device="cpu")


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_networks_take_one_channel_and_start_as_identity(architecture):
    torch.manual_seed(0)
    network = model.build(architecture, 48)
    assert network.conv1.in_channels == 1 and network.fc.out_features == 48
    last = "bn2" if architecture == "resnet18" else "bn3"
    blocks = [block for layer in (network.layer1, network.layer4) for block in layer]
    assert all(not getattr(block, last).weight.any() for block in blocks)
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 48)
    with pytest.raises(ValueError, match="resnet101"):
        model.build("resnet20", 48)


def test_labels_do_not_tie_by_the_rounding_of_bfloat16():
    """The last layer is in single precision, in training and in prediction; answers rounded to bfloat16 would tie."""
    torch.manual_seed(2)
    images = torch.rand(256, 1, 32, 32)
    still = train.Changes(np.zeros(1), np.zeros((1, 2)), np.ones(1), np.ones(1), False)
    read = ResNet("resnet18", 48).eval()
    logs = torch.from_numpy(infer._forward(read, images, still, torch.device("cpu"), "bf16", 128)[:, 0])
    trained = model.build("resnet18", 48)
    optimiser = torch.optim.SGD(trained.parameters(), lr=0.0)
    truth = torch.zeros(128, dtype=torch.int64)
    logits, _ = train.training_step(trained, optimiser, images[:128], truth, 0.0, "bf16", {"label_smoothing": 0.0})
    for found in (logs, logits):
        top = found.topk(2).values
        assert (top[:, 0] > top[:, 1]).all()
        assert not torch.equal(found, found.bfloat16().float())
        coarse = found.bfloat16().topk(2).values
        assert (coarse[:, 0] == coarse[:, 1]).any()
    # all but the last layer are in bfloat16 as before
    seen = []
    read.avgpool.register_forward_hook(lambda module, given, result: seen.append(result.dtype))
    infer._forward(read, images[:2], still, torch.device("cpu"), "bf16", 2)
    infer._forward(read, images[:2], still, torch.device("cpu"), "fp32", 2)
    assert seen == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("architecture", list(BLOCKS))
def test_trained_weights_read_back_as_the_network_that_was_trained(architecture, tmp_path):
    """The network for reading against torchvision's: the same names, and the same numbers to the last bit."""
    torch.manual_seed(1)
    trained = model.build(architecture, 5)
    for part in trained.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for values, low, high in ((part.weight, 0.5, 1.5), (part.bias, -0.5, 0.5), (part.running_var, 0.5, 2)):
                torch.nn.init.uniform_(values, low, high)
            torch.nn.init.normal_(part.running_mean, std=0.1)
    card = {"architecture": architecture, "labels": ["a", "b", "c", "d", "e"]}
    model.save(trained, card, tmp_path / "m.safetensors", tmp_path / "m.json")
    read, _ = model.load(tmp_path / "m.safetensors", tmp_path / "m.json")
    assert list(read.state_dict()) == list(trained.state_dict())
    images = torch.rand(3, 1, 64, 64).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        for training in (False, True):
            assert torch.equal(read.train(training)(images), trained.train(training)(images))
    (tmp_path / "m.json").write_text(json.dumps(card | {"architecture": "resnet20"}))
    with pytest.raises(ValueError, match="resnet20"):
        model.load(tmp_path / "m.safetensors", tmp_path / "m.json")


def test_resampling_turns_shifts_and_magnifies_as_documented():
    """A spot at (x, y) = (+8, 0) px turned by 90 degrees (x towards y) comes to (0, +8): downwards as drawn."""
    image = torch.zeros(1, 1, 33, 33)
    image[0, 0, 16, 24] = 1.0  # row y, column x

    def moved(angle=0.0, shift=(0.0, 0.0), scale=1.0):
        out = train.resample(image, np.array([angle]), np.array([shift]), np.array([scale]))[0, 0]
        row, column = divmod(int(out.argmax()), 33)
        return column - 16, row - 16

    assert moved() == (8, 0)
    assert moved(angle=np.pi / 2) == (0, 8)
    assert moved(shift=(2 / 33 * 3, 2 / 33 * -2)) == (11, -2)
    assert moved(scale=1.5) == (12, 0)
    assert moved(np.pi / 2, (2 / 33, 0.0), 1.5) == (1, 12)


def test_resampling_does_not_depend_on_the_precision_of_the_network():
    """Under autocast PyTorch computes grids in bfloat16, whose places are wrong by up to half a pixel."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.random((3, 1, 64, 64), dtype=np.float32))
    changes = np.radians([3.0, 50.0, -170.0]), rng.uniform(-0.05, 0.05, (3, 2)), np.array([1.02, 0.98, 1.0])
    plain = train.resample(images, *changes)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(train.resample(images, *changes), plain, rtol=0, atol=0)


def test_mirrored_images_are_mirrored_before_they_are_turned():
    image = torch.zeros(1, 1, 33, 33)
    image[0, 0, 16, 24] = 1.0  # (x, y) = (+8, 0)
    for mirror, place in ((1.0, (24, 16)), (-1.0, (8, 16))):  # rows: (0, +8) is downwards, (0, -8) upwards
        out = train.resample(image, np.array([np.pi / 2]), np.zeros((1, 2)), np.ones(1), np.array([mirror]))
        assert divmod(int(out.argmax()), 33) == place


def test_draws_are_balanced_and_functions_of_seed_and_step():
    truth = np.repeat([0, 2, 5], [1, 9, 90])
    drawer = train.Drawer.of(truth)
    strength = {"rotation": 20.0, "shift": 1.0, "scale": 0.1, "mirror": True}
    index, changes = drawer.draw(3, 1, 9000, 32, strength)
    # each third of 9000 within five standard deviations (45) of its mean
    assert all(abs(int((truth[index] == label).sum()) - 3000) < 225 for label in (0, 2, 5))
    assert set(index[truth[index] == 2]) == set(range(1, 10))
    assert np.abs(changes.angle).max() <= np.radians(20) and np.abs(changes.shift).max() <= 2 / 32
    assert abs((changes.mirror < 0).mean() - 0.5) < 0.03
    again, same = drawer.draw(3, 1, 9000, 32, strength)
    np.testing.assert_array_equal(index, again)
    np.testing.assert_array_equal(changes.angle, same.angle)
    assert not np.array_equal(index, drawer.draw(4, 1, 9000, 32, strength)[0])
    none = {"rotation": 0.0, "shift": 0.0, "scale": 0.0, "mirror": False}
    assert not drawer.draw(3, 1, 8, 32, none)[1].any


def test_learning_rate_rises_once_and_falls_to_zero():
    options = {"schedule": "one-cycle", "learning_rate": 1e-3, "warmup": 0.2}
    rates = [train.learning_rate(step, 100, options) for step in range(100)]
    assert rates[0] == pytest.approx(1e-3 / 25) and max(rates) == rates[20] == pytest.approx(1e-3)
    assert rates[-1] < 1e-3 / 500
    assert (np.diff(rates[:21]) > 0).all() and (np.diff(rates[20:]) < 0).all()
    falling = [train.learning_rate(step, 100, options | {"schedule": "cosine"}) for step in range(100)]
    assert falling[0] == 1e-3 and falling[50] == pytest.approx(5e-4) and (np.diff(falling) < 0).all()
    assert {train.learning_rate(step, 100, options | {"schedule": "constant"}) for step in range(100)} == {1e-3}
    with pytest.raises(ValueError, match="one-cycle, cosine, constant"):
        train.learning_rate(0, 1, options | {"schedule": "cosin"})


STRENGTH = {"rotation": 180.0, "shift": 2.0, "scale": 0.05, "mirror": True}


def test_copies_spread_over_the_trained_range():
    def angles(copies, rotation):
        found = infer.copy_changes(copies, STRENGTH | {"rotation": rotation}, 64, 1)
        return np.sort(np.degrees(found.angle))

    np.testing.assert_allclose(angles(4, 180), [-45, 0, 45, 90])
    np.testing.assert_allclose(np.diff(angles(40, 180)), 4.5)  # with the gap from 90 to -85.5, which is the same turn
    np.testing.assert_allclose(angles(3, 15), [-10, 0, 10])
    np.testing.assert_allclose(angles(2, 15), [0, 15])
    none = {"rotation": 0.0, "shift": 0.0, "scale": 0.0, "mirror": False}
    assert len(infer.copy_changes(4, none, 64, 1).angle) == 1
    with pytest.raises(ValueError, match="at least 1"):
        infer.copy_changes(0, STRENGTH, 64, 1)


def test_copies_are_shifted_and_magnified_within_the_trained_range():
    many, few, other = (infer.copy_changes(n, STRENGTH, 64, seed) for n, seed in ((400, 1), (5, 1), (5, 2)))
    shift = many.shift * 32  # pixels
    assert not shift[0].any() and many.scale[0] == 1 and many.angle[0] == 0
    # 399 draws of a uniform distribution reach beyond 98 % of its range but for a chance of 0.03 %, and not beyond it
    assert 1.9 < np.abs(shift).max() <= 2 and 0.045 < np.abs(many.scale - 1).max() <= 0.05
    assert (many.mirror == 1).all()
    np.testing.assert_array_equal(many.shift[:5], few.shift)
    np.testing.assert_array_equal(many.scale[:5], few.scale)
    assert not np.isclose(other.shift[1:], few.shift[1:]).any()


def test_the_first_copy_is_the_pattern_and_the_others_are_changed_as_stated():
    image = torch.zeros(2, 1, 33, 33)
    image[0, 0, 16, 24] = image[1, 0, 16, 20] = 1.0  # (x, y) = (+8, 0) and (+4, 0)
    changes = train.Changes(np.radians([0, 90]), 2 / 33 * np.array([[0, 0], [2, 1]]), np.array([1, 1.5]), np.ones(2))
    assert infer.copied(image, changes, 0) is image
    turned = infer.copied(image, changes, 1)  # to (0, +8), (0, +12), (2, +13); and (0, +4), (0, +6), (2, +7)
    assert [divmod(int(one.argmax()), 33) for one in turned] == [(29, 18), (23, 18)]


def test_progress_is_told_by_changed_patterns_the_same_ones_every_time():
    """A network that says 1 where most of the light is on the right knows every untouched pattern of a spot there, and
    half of them turned at random."""

    class Right(torch.nn.Module):
        def forward(self, images):
            left, right = images[..., :16].sum((1, 2, 3)), images[..., 17:].sum((1, 2, 3))
            return 50 * torch.stack([left, right], dim=1)

    images = np.zeros((1000, 33, 33), dtype=np.float16)
    images[:, 16, 24] = 1
    found = dataset.Images(images, np.ones(1000, dtype=np.int64), np.zeros(1000), ["a"], [225], 1000, "")
    accuracies = {}
    for rotation in (0.0, 180.0):
        strength = {"rotation": rotation, "shift": 0.0, "scale": 0.0, "mirror": False}
        watched = train.Watched.of(found, {"monitor": 400, "augmentation": strength}, 7)
        assert len(watched.labels) == 400
        first, again = (train.watch(Right(), watched, torch.device("cpu"), "fp32") for _ in range(2))
        assert first == again
        accuracies[rotation] = first[1]
    assert accuracies[0] == 1
    assert abs(accuracies[180] - 0.5) < 0.125  # five standard deviations of 400


def test_evaluation_and_labels_do_not_load_torch(root):
    names = ("evaluation.evaluate", "evaluation.summary", "dataset", "learning.labels")
    modules = ", ".join(f"defraction.{name}" for name in names)
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(root / "workflow/scripts")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.fixture(scope="module")
def three_parts(study):
    """The study's split with a third part."""
    folder, files = study
    crystals = [
        {"material": name, "space_group": int(name[1:4]), "formula": name, "prototype": f"p{name[-1]}"}
        for name in files
    ]
    dataset.write_split(folder / "three.csv", dataset.split_table(crystals, 0.25, 1, validation=0.3))
    return folder / "three.csv"


def test_the_best_pass_is_chosen_by_the_third_part_and_training_stops(study, three_parts, tmp_path):
    outputs = run(study, tmp_path / "stopped", split=three_parts, keep="best", early_stop=1, epochs=30,
                  schedule="constant", learning_rate=0.02)  # fmt: skip
    history = list(csv.DictReader(outputs[2].open()))
    losses = [float(row["validation_loss"]) for row in history]
    best = int(np.argmin(losses))
    assert best == len(losses) - 2 < 28  # one pass without a lower loss
    card = json.loads(outputs[1].read_text())
    assert card["metrics"]["epoch"] == best + 1 and card["data"]["validation_crystals"] == 2
    assert "stopped after" in card["selection"]
    folder = outputs[0].parent
    assert same_weights(outputs[0], folder / "best.safetensors")
    assert not same_weights(outputs[0], folder / "last.safetensors")
    # finished: a second start trains nothing and writes the same
    before = load_file(outputs[0])
    again = run(study, tmp_path / "again", restart=folder / "restart", split=three_parts, keep="best", early_stop=1,
                epochs=30, schedule="constant", learning_rate=0.02)  # fmt: skip
    assert all(torch.equal(before[key], value) for key, value in load_file(again[0]).items())


def test_a_choice_without_a_third_part_is_refused(study, tmp_path):
    with pytest.raises(ValueError, match="part validation"):
        run(study, tmp_path / "refused", keep="best")


def test_tensorboard_log_holds_what_the_history_holds(study, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, files = study
    arguments = arguments_of(files, folder / "split.csv", folder / "labels.csv", tmp_path)
    train.train(**arguments | {"settings": {**SETTINGS, "epochs": 2}, "tensorboard": tmp_path / "board"})
    found = EventAccumulator(str(tmp_path / "board"))
    found.Reload()
    history = list(csv.DictReader((tmp_path / "history.csv").open()))
    for tag, column in (("held_out/accuracy", "held_out_accuracy"), ("train/loss", "train_loss")):
        assert [e.step for e in found.Scalars(tag)] == [int(row["step"]) for row in history]
        np.testing.assert_allclose(
            [e.value for e in found.Scalars(tag)], [float(r[column]) for r in history], rtol=1e-6
        )


@pytest.fixture(scope="module")
def unbroken_by_two(study, tmp_path_factory):
    return run(study, tmp_path_factory.mktemp("unbroken_by_two"), processes=2, threads=2)


def test_two_processes_train_as_one_does(study, unbroken, unbroken_by_two, tmp_path):
    """As many steps, weights of the same names; batch norm is over half the batch, so the weights are others. That both
    take the same draws and gradients: below."""
    outputs = unbroken_by_two
    assert json.loads(outputs[1].read_text())["processes"] == 2
    histories = [list(csv.DictReader(path.open())) for path in (outputs[2], unbroken[2])]
    assert [row["step"] for row in histories[0]] == [row["step"] for row in histories[1]]
    start = model.build("resnet18", labels.number_of_labels(labels.label_table(GROUPS, AXES)))
    assert load_file(outputs[0]).keys() == start.state_dict().keys()  # of the network, not of its wrapper
    with pytest.raises(ValueError, match="share evenly"):
        run(study, tmp_path / "uneven", processes=3)


def test_two_killed_processes_resume_to_the_same_bits(study, unbroken_by_two, tmp_path, root):
    psutil = pytest.importorskip("psutil")
    folder, files = study
    arguments = arguments_of(files, folder / "split.csv", folder / "labels.csv", tmp_path) | {"threads": 2}
    environment = {**os.environ, "PYTHONPATH": str(root / "workflow/scripts")}
    child = subprocess.Popen([sys.executable, "-c", CHILD_OF_TWO, json.dumps(arguments)], env=environment)
    checkpoint = tmp_path / "restart" / train.CHECKPOINT
    wait_for_step(3, checkpoint, child)
    family = psutil.Process(child.pid).children(recursive=True)
    for process in (*family, psutil.Process(child.pid)):
        process.kill()
    assert child.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert not psutil.wait_procs(family, timeout=30)[1]
    reached = torch.load(checkpoint, weights_only=True)["step"]
    assert 3 <= reached < int(list(csv.DictReader(unbroken_by_two[2].open()))[-1]["step"])

    outputs = run(study, tmp_path / "resumed", restart=tmp_path / "restart", processes=2, threads=2)
    assert json.loads(outputs[1].read_text())["processes"] == 2
    assert same_weights(outputs[0], unbroken_by_two[0])
    kept = [column for column in train.HISTORY_COLUMNS if column != "seconds"]
    histories = [
        [[row[c] for c in kept] for row in csv.DictReader(path.open())] for path in (outputs[2], unbroken_by_two[2])
    ]
    assert histories[0] == histories[1]


def test_two_processes_end_together_when_the_first_stops_early(study, three_parts, tmp_path):
    outputs = run(study, tmp_path / "stopped", split=three_parts, keep="best", early_stop=1, epochs=30,
                  schedule="constant", learning_rate=0.05, processes=2, threads=2)  # fmt: skip
    card = json.loads(outputs[1].read_text())
    assert card["processes"] == 2 and "stopped after" in card["selection"]
    assert len(list(csv.DictReader(outputs[2].open()))) < 30


def test_the_shares_of_all_processes_are_the_batch():
    truth = np.repeat([0, 1], 50)
    index, changes = train.Drawer.of(truth).draw(3, 1, 12, 32, STRENGTH)
    shares = [train.share_of(index, changes, rank, 3) for rank in range(3)]
    assert {len(part) for part, _ in shares} == {4}

    def rows(index, changes):
        return sorted(zip(index, *changes.shift.T, changes.angle, changes.scale, changes.mirror, strict=True))

    assert sorted(row for share in shares for row in rows(*share)) == rows(index, changes)


def test_two_processes_take_the_step_of_one(study, tmp_path, monkeypatch, root):
    """Batch norms left aside, the mean gradient of the shares is the gradient of the batch: one step of plain descent
    ends with the same weights, to what the order of sums changes in single precision. (Where both processes take the
    same share, the difference is as large as the step.)"""
    whole = {"epochs": 1, "batch_size": 36, "schedule": "constant", "learning_rate": 1.0, "weight_decay": 0.0}
    monkeypatch.setattr(parallel, "worker", SimpleNamespace(__spec__=SimpleNamespace(name="frozen_training")))
    monkeypatch.setenv("PYTHONPATH", str(root / "tests/unit"))
    two = run(study, tmp_path / "two", processes=2, threads=2, **whole)
    frozen_training.freeze(monkeypatch.setattr)
    one = run(study, tmp_path / "one", **whole)
    assert [json.loads(card.read_text())["processes"] for _, card, _ in (one, two)] == [1, 2]
    assert [row["step"] for row in csv.DictReader(two[2].open())] == ["1"]
    torch.manual_seed(5)
    start = model.build("resnet18", labels.number_of_labels(labels.label_table(GROUPS, AXES))).state_dict()
    first, second = load_file(one[0]), load_file(two[0])
    for name, value in start.items():
        if value.is_floating_point() and "running" not in name:
            step = (first[name] - value).abs().max()
            assert (first[name] - second[name]).abs().max() < 1e-3 * step + 1e-6, name  # weights are of order one
            assert step > 1e-4, name


def test_batch_norms_of_several_gpus_have_the_names_of_one():
    """So that weights and checkpoints of both fit."""
    network = model.build("resnet18", 5)
    names = list(network.state_dict())
    assert list(torch.nn.SyncBatchNorm.convert_sync_batchnorm(network).state_dict()) == names


def test_no_training_process_outlives_the_job(study, tmp_path, root):
    psutil = pytest.importorskip("psutil")
    folder, files = study
    arguments = arguments_of(files, folder / "split.csv", folder / "labels.csv", tmp_path)
    arguments["settings"] = {**SETTINGS, "epochs": 500}
    environment = {**os.environ, "PYTHONPATH": str(root / "workflow/scripts")}
    child = subprocess.Popen([sys.executable, "-c", CHILD_OF_TWO, json.dumps(arguments)], env=environment)
    checkpoint = tmp_path / "restart" / train.CHECKPOINT
    wait_for_step(0, checkpoint, child)
    family = psutil.Process(child.pid).children(recursive=True)
    assert len(family) >= 3  # torchrun and two workers
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive


# --- on a GPU --------------------------------------------------------------------------------------------------------

GPU = "gpu"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no NVIDIA GPU")
QUIET = {"rotation": 0.0, "shift": 0.0, "scale": 0.0, "mirror": False}


@pytest.fixture(scope="module")
def learned_on_gpu(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu")
    return run(study, out, device=GPU, precision="bf16", epochs=12, augmentation=QUIET, checkpoint_minutes=9.0)


def predicted(study, weights, card, target, device):
    """Probabilities of the training patterns."""
    folder, files = study
    infer.predict_clean(files, folder / "split.csv", weights, card, target, device=device, threads=1, part="train")
    return read_predictions(target)


@needs_gpu
def test_a_gpu_learns_a_small_set_by_heart(study, learned_on_gpu, tmp_path):
    found = predicted(study, *learned_on_gpu[:2], tmp_path / "train.nc", GPU)
    assert (found.log_probability.argmax(axis=-1) == found.true_label[:, :, None, None, None, None]).all()
    assert json.loads(learned_on_gpu[1].read_text())["precision"] == "bf16"


@needs_gpu
def test_a_gpu_predicts_what_a_cpu_predicts(study, learned_on_gpu, tmp_path):
    """bfloat16 has eight bits, the single precision of a GPU's convolutions eleven (TF32), a CPU's 24."""
    weights, card = learned_on_gpu[:2]
    single = tmp_path / "card.json"
    single.write_text(json.dumps(json.loads(card.read_text()) | {"precision": "fp32"}))
    found = {
        name: np.exp(predicted(study, weights, which, tmp_path / f"{name}.nc", device).log_probability)
        for name, which, device in (("bf16", card, GPU), ("fp32", single, GPU), ("cpu", single, "cpu"))
    }
    assert np.abs(found["fp32"] - found["cpu"]).max() < 0.01
    assert np.abs(found["bf16"] - found["cpu"]).max() < 0.1
    assert np.abs(found["bf16"] - found["cpu"]).mean() < 0.005


@needs_gpu
def test_a_training_on_a_gpu_goes_on_where_it_stopped(study, tmp_path, monkeypatch):
    """Not every operation has a deterministic kernel there, so the losses are compared, not the bits."""
    unbroken = run(study, tmp_path / "unbroken", device=GPU)
    save = train._save_checkpoint

    def stop(path, state):
        save(path, state)
        if state["step"] == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "_save_checkpoint", stop)
        run(study, tmp_path / "stopped", device=GPU)
    resumed = run(study, tmp_path / "resumed", restart=tmp_path / "stopped/restart", device=GPU)
    losses = [[float(row["train_loss"]) for row in csv.DictReader(path.open())] for path in (unbroken[2], resumed[2])]
    assert len(losses[0]) == len(losses[1]) == 3
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two NVIDIA GPUs")
def test_two_gpus_train_one_network(study, tmp_path):
    outputs = run(study, tmp_path / "two", processes=2, threads=2, device=GPU)
    one = run(study, tmp_path / "one", device=GPU)
    assert json.loads(outputs[1].read_text())["processes"] == 2
    assert load_file(outputs[0]).keys() == load_file(one[0]).keys()
    losses = [[float(row["train_loss"]) for row in csv.DictReader(path.open())] for path in (outputs[2], one[2])]
    # the loss of a share stands for that of its batch, with batch norm over the whole of it
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.3)
