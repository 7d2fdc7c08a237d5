"""Label probabilities of a trained network for pattern files, written as netCDF for the evaluation.

Prediction file: `log_probability (material, zone_axis, voltage, camera_length, snapshot, copy, label)`, natural
logarithms; `true_label (material, zone_axis)`; `space_group (material)`; what each test copy is, in `copy` (its angle),
`shift_x`, `shift_y` and `scale`. A file of one condition has one material; the file of the held-out crystals has
`held_out (material, zone_axis, voltage, camera_length, snapshot)` where a split by image left the other patterns of the
same crystals to the training.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import torch

from defraction.dataset import SplitRow, display, load_patterns, members, pattern_mask, read_split, true_labels
from defraction.learning import model
from defraction.learning.labels import axis_name, table_of_card
from defraction.learning.train import Changes, resample

log = logging.getLogger(__name__)

DIMENSIONS = ("material", "zone_axis", "voltage", "camera_length", "snapshot", "copy", "label")


def predict_condition(
    patterns: Path | str,
    space_group: int,
    weights: Path | str,
    card: Path | str,
    output: Path | str,
    copies: int = 1,
    device: str = "auto",
    threads: int | None = None,
    batch: int = 128,
    condition: str = "",
) -> None:
    """Predict every pattern of one condition; `space_group` is that of the perfect host, whose labels are the truth.

    Args:
        patterns: pattern file of the condition. weights, card: what `train` wrote. output: netCDF to write.
        copies: test copies of each pattern, the first as it is, the others turned, shifted and magnified within the
            ranges that the network was trained for (`copy_changes`).
        device: auto, cpu or gpu. threads: CPU threads. batch: patterns at a time.
        condition: name kept in the file; default: the stem of `patterns`.

    Raises ValueError if image size or pixel size differ from those the network was trained on.
    """
    _predict(
        {condition or Path(patterns).stem: (patterns, space_group)},
        weights,
        card,
        output,
        copies,
        device,
        threads,
        batch,
    )


def predict_clean(
    patterns: Mapping[str, Path | str],
    split: Path | str,
    weights: Path | str,
    card: Path | str,
    output: Path | str,
    copies: int = 1,
    device: str = "auto",
    threads: int | None = None,
    batch: int = 128,
    part: str = "held_out",
) -> None:
    """Predict the perfect crystals of one part of the split table into one file; arguments as `predict_condition`.

    Of a crystal whose patterns were divided all are predicted, and `held_out` says which lie in the part. A network
    that was trained on one outline of specimens only (`specimens: block`) gets the patterns of that one.
    Raises ValueError if a crystal of the part has no file in `patterns`.
    """
    crystals = members(read_split(split), part)
    missing = [row.material for row in crystals if row.material not in patterns]
    if missing:
        raise ValueError(
            f"no pattern file for {len(missing)} crystals of part {part!r}, first {missing[0]}: simulate them"
        )
    jobs = {row.material: (patterns[row.material], row.space_group) for row in crystals}
    _predict(jobs, weights, card, output, copies, device, threads, batch, part, {row.material: row for row in crystals})


def copy_changes(copies: int, strength: Mapping[str, float], pixels: int, seed: int) -> Changes:
    """Test copies of a pattern: one change each; they are the same for every pattern, so conditions compare pairwise.

    The first copy is the pattern as it is. The others are turned by multiples of a step, +1, -1, +2 ..., so that all
    divide the range of training evenly: a full turn over 180 degrees only, because the zero-order zone has a two-fold
    axis and a pattern turned by 180 degrees shows the same again. Besides, each is shifted and magnified at random.

    Args:
        copies: how many. A network trained on patterns as they are gets one.
        strength: `rotation` [degree], `shift` [pixel] and `scale` of the training, as `train.draw_changes` has them.
        pixels: of an edge of the pattern. seed: of the network; shift and scale of a copy are drawn from it and the
            number of the copy, so that more copies leave the first ones as they were.

    Raises ValueError below one copy.
    """
    if copies < 1:
        raise ValueError(f"evaluation.rotated_copies is {copies}; it must be at least 1")
    if not any(strength[key] for key in ("rotation", "shift", "scale")):
        copies = 1
    number = np.arange(copies)
    multiple = np.where(number % 2, 1, -1) * ((number + 1) // 2)
    shift, scale = np.zeros((copies, 2)), np.ones(copies)
    for copy in number[1:]:
        rng = np.random.default_rng([seed, copy])
        shift[copy] = 2 / pixels * strength["shift"] * rng.uniform(-1, 1, 2)
        scale[copy] += strength["scale"] * rng.uniform(-1, 1)
    angle = np.radians(2 * min(strength["rotation"], 90.0) / copies * multiple)
    return Changes(angle, shift, scale, np.ones(copies), copies > 1)


def copied(images: torch.Tensor, copies: Changes, number: int) -> torch.Tensor:
    """One test copy of each image, (n, 1, y, x); the first copy is the images themselves."""
    if not number:
        return images
    return resample(images, *(np.repeat(value, len(images), axis=0) for value in copies.of(slice(number, number + 1))))


def _predict(
    jobs: Mapping[str, tuple[Path | str, int]],
    weights: Path | str,
    card_path: Path | str,
    output: Path | str,
    copies: int,
    device: str,
    threads: int | None,
    batch: int,
    part: str = "",
    rows: Mapping[str, SplitRow] | None = None,
) -> None:
    if threads:
        torch.set_num_threads(threads)
    target = model.choose_device(device)
    network, card = model.load(weights, card_path)
    network = network.to(target)
    table = table_of_card(card)
    pixels = card["image"]["pixels"]
    changes = copy_changes(copies, card["settings"]["augmentation"], pixels, card["seed"])
    number_of_copies = len(changes.angle)
    if number_of_copies < copies:
        log.info("the network was trained on patterns as they are: one copy of each instead of %d", copies)

    predictions, truths, counted, first = [], [], [], None
    for name, (path, space_group) in jobs.items():
        found = load_patterns(path, "all" if rows is None else card["settings"].get("specimens", "all"))
        check_image(path, found.x, card["image"])
        if first is not None and found.intensity.shape != first.intensity.shape:
            raise ValueError(f"{path}: shape {found.intensity.shape}, others have {first.intensity.shape}")
        first = found if first is None else first
        grey = display(found.intensity, found.x, found.y, card["display"]["beam_stop"], card["display"]["decades"])
        flat = torch.from_numpy(grey.reshape(-1, 1, *grey.shape[-2:]))
        logs = _forward(network, flat, changes, target, card["precision"], batch)
        predictions.append(logs.reshape(*grey.shape[:4], number_of_copies, -1))
        truths.append(true_labels(table, space_group, found.zone_axes))
        if rows is not None:
            inside = pattern_mask(rows[name], part, grey.shape[:3])
            counted.append(np.broadcast_to(inside[..., None], grey.shape[:4]))
        log.info("predicted %s: %d patterns, %d copies", name, len(flat), number_of_copies)

    with netCDF4.Dataset(output, "w") as file:
        file.title = "label probabilities of diffraction patterns"
        file.architecture = card["architecture"]
        file.training_data_digest = card["data"]["training_digest"]
        sizes = (len(jobs), *first.intensity.shape[:4], number_of_copies, len(card["labels"]))
        for name, size in zip(DIMENSIONS, sizes, strict=True):
            file.createDimension(name, size)
        _variable(file, "material", str, ("material",), list(jobs), "crystal or condition")
        _variable(
            file, "zone_axis", str, ("zone_axis",), [axis_name(axis) for axis in first.zone_axes], "zone axis [uvw]"
        )
        _variable(file, "voltage", "f8", ("voltage",), first.voltages, "accelerating voltage", "kV")
        _variable(file, "camera_length", "f8", ("camera_length",), first.camera_lengths, "camera length", "m")
        turned = np.degrees(changes.angle)
        _variable(file, "copy", "f8", ("copy",), turned, "in-plane rotation of the copy, x towards y", "degree")
        for axis, values in zip("xy", changes.shift.T * pixels / 2, strict=True):
            _variable(file, f"shift_{axis}", "f8", ("copy",), values, f"shift of the copy along {axis}", "pixel")
        _variable(file, "scale", "f8", ("copy",), changes.scale, "magnification of the copy", "1")
        _variable(file, "label", str, ("label",), card["labels"], "label: members of the appearance class")
        groups = [space_group for _, space_group in jobs.values()]
        _variable(file, "space_group", "i4", ("material",), groups, "space group of the perfect crystal")
        _variable(
            file, "true_label", "i4", ("material", "zone_axis"), np.stack(truths), "label of the perfect crystal", "1"
        )
        if counted and not np.all(counted):
            _variable(file, "held_out", "i1", DIMENSIONS[:5], np.stack(counted), "1: the pattern lies in the part", "1")
        _variable(
            file, "log_probability", "f4", DIMENSIONS, np.stack(predictions), "natural log of P(label | pattern)", "1"
        )
        file["log_probability"].coordinates = "shift_x shift_y scale space_group"


def check_image(path: Path | str, x: np.ndarray, image: Mapping[str, Any]) -> None:
    pixel = float(np.diff(x).mean())
    if len(x) != image["pixels"] or not np.isclose(pixel, image["pixel_size_mm"], rtol=1e-3):
        raise ValueError(
            f"{path}: {len(x)} pixels of {pixel:.4f} mm, the network was trained on {image['pixels']} of "
            f"{image['pixel_size_mm']:.4f} mm; simulate with the detector of the training or train again"
        )


def _forward(
    network: torch.nn.Module, images: torch.Tensor, copies: Changes, target: torch.device, precision: str, batch: int
) -> np.ndarray:
    """Log probabilities of every copy of every image, shape (image, copy, label)."""
    out = []
    with torch.inference_mode(), torch.autocast(target.type, torch.bfloat16, enabled=precision == "bf16"):
        for start in range(0, len(images), batch):
            part = images[start : start + batch].to(target).float()
            logs = []
            for number in range(len(copies.angle)):
                shown = copied(part, copies, number).contiguous(memory_format=torch.channels_last)
                logs.append(torch.log_softmax(network(shown).float(), dim=1))
            out.append(torch.stack(logs, dim=1).cpu().numpy())
    return np.concatenate(out)


def _variable(
    file: netCDF4.Dataset, name: str, kind: Any, dimensions: Sequence[str], values: Any, long_name: str, units: str = ""
) -> None:
    variable = file.createVariable(name, kind, dimensions)
    variable[:] = np.array(values, dtype=object) if kind is str else np.asarray(values)
    variable.long_name = long_name
    if units:
        variable.units = units
