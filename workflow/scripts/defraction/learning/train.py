"""Training a network on clean patterns, from the split table to weights and card, top to bottom in this file.

All images of the training crystals lie in the memory of the device. A step draws labels uniformly and a pattern for
each, turns, shifts and scales the batch on the device and takes one optimiser step. Every draw comes from (seed, step)
and the learning rate is a function of the step, so a checkpoint needs nothing but weights, optimiser state and the
number of the step, and a run that was killed and resumed ends with the weights of an unbroken one.

The held-out crystals are looked at for monitoring only. Nothing is chosen by them: no early stop, no best epoch; the
weights that are kept are those of the last step.
"""

import csv
import hashlib
import json
import logging
import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

from defraction.dataset import Images, load_images, read_patterns, read_split
from defraction.learning import model
from defraction.learning.labels import LabelRow, axis_name, number_of_labels, read_labels

log = logging.getLogger(__name__)

HISTORY_COLUMNS = (
    "epoch", "step", "patterns", "learning_rate", "train_loss", "train_accuracy",
    "held_out_loss", "held_out_accuracy", "seconds",
)  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "architecture": "resnet101",
    "display": {"beam_stop": 2.0, "decades": 4.0},
    "augmentation": {"rotation": 180.0, "shift": 1.0, "scale": 0.02},
    "epochs": 10,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "warmup": 0.2,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "precision": "auto",
    "monitor": 1000,
}
CHECKPOINT = "checkpoint.pt"


def train(
    patterns: Mapping[str, Path | str],
    split: Path | str,
    labels: Path | str,
    weights: Path | str,
    card: Path | str,
    history: Path | str,
    settings: Mapping[str, Any],
    seed: int,
    restart_dir: Path | str,
    device: str = "auto",
    threads: int | None = None,
    checkpoint_minutes: float = 2.0,
    deterministic: bool = True,
) -> dict[str, Any]:
    """Train a network; write its weights, card and history; return the card.

    Args:
        patterns: pattern file by material id; must hold every crystal of the split table.
        split, labels: tables written by `dataset.write_split` and `labels.write_labels`.
        weights, card, history: outputs: safetensors, JSON, CSV with the columns `HISTORY_COLUMNS`.
        settings: the configuration's `learning` part; keys and defaults as in `DEFAULTS`.
        seed: of initial weights and every draw.
        restart_dir: folder for the checkpoint, `checkpoint.pt`. One of other settings, seed or data is not resumed.
        device: auto, cpu or gpu. threads: CPU threads of torch; None leaves torch's choice.
        checkpoint_minutes: longest time between checkpoints; one is also written after every epoch.
        deterministic: ask torch for deterministic algorithms (same seed, device and threads: same weights).

    Raises ValueError for settings out of range, missing patterns or images of different sizes.
    """
    options = _complete(settings)
    if threads:
        torch.set_num_threads(threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    target = model.choose_device(device)
    precision = _precision(options["precision"], target)

    crystals, table = read_split(split), read_labels(labels)
    training = [row for row in crystals if row.part == "train"]
    held_out = [row for row in crystals if row.part == "held_out"]
    shown = options["display"]["beam_stop"], options["display"]["decades"]
    data = load_images(patterns, training, table, *shown)
    watched = _subset(load_images(patterns, held_out, table, *shown), options["monitor"], seed)
    log.info(
        "%d patterns of %d crystals to train on, %d patterns of %d held-out crystals to watch; %s, %s, %d threads",
        len(data.images), len(training), len(watched.images), len(held_out), target, precision, torch.get_num_threads(),
    )  # fmt: skip
    fingerprint = _fingerprint(options, seed, data.digest, table, precision, target)

    torch.manual_seed(seed)
    network = model.build(options["architecture"], number_of_labels(table)).to(target)
    optimiser = torch.optim.AdamW(_decayed(network, options["weight_decay"]), lr=options["learning_rate"], fused=True)
    images = torch.from_numpy(data.images).to(target)
    truth = torch.from_numpy(data.labels).to(target)
    by_label = [np.flatnonzero(data.labels == label) for label in np.unique(data.labels)]

    epoch_steps = math.ceil(len(data.images) / options["batch_size"])
    steps = epoch_steps * options["epochs"]
    checkpoint = Path(restart_dir) / CHECKPOINT
    state = _resume(checkpoint, fingerprint, network, optimiser)
    records, first = state["history"], state["step"]
    loss_sum = torch.tensor(state["loss_sum"], dtype=torch.float64, device=target)
    correct = torch.tensor(state["correct"], dtype=torch.int64, device=target)

    network.train()
    started = saved = told = time.monotonic()
    for step in range(first, steps):
        rng = np.random.default_rng([seed, step])
        rate = one_cycle(step, steps, options["learning_rate"], options["warmup"])
        for group in optimiser.param_groups:
            group["lr"] = rate
        index = torch.from_numpy(_draw(by_label, options["batch_size"], rng)).to(target)
        batch = augment(images[index].float()[:, None], rng, options["augmentation"])
        with torch.autocast(target.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = network(batch.contiguous(memory_format=torch.channels_last)).float()
        loss = F.cross_entropy(logits, truth[index], label_smoothing=options["label_smoothing"])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        loss_sum += loss.detach()
        correct += (logits.argmax(1) == truth[index]).sum()

        now, done = time.monotonic(), step + 1
        within = (done - 1) % epoch_steps + 1
        seconds = state["seconds"] + now - started
        if now - told > 20 or within == epoch_steps:
            told = now
            log.info(
                "epoch %d/%d, step %d/%d: loss %.3f, label accuracy in training %.1f %%, %.0f patterns/s, %s left",
                step // epoch_steps + 1, options["epochs"], done, steps, loss_sum.item() / within,
                100 * correct.item() / (within * options["batch_size"]),
                (done - first) * options["batch_size"] / (now - started),
                _clock((now - started) / (done - first) * (steps - done)),
            )  # fmt: skip
        if within == epoch_steps:
            held_loss, held_accuracy = _watch(network, watched, target, precision)
            record = {
                "epoch": step // epoch_steps + 1,
                "step": done,
                "patterns": done * options["batch_size"],
                "learning_rate": rate,
                "train_loss": loss_sum.item() / within,
                "train_accuracy": correct.item() / (within * options["batch_size"]),
                "held_out_loss": held_loss,
                "held_out_accuracy": held_accuracy,
                "seconds": round(seconds, 1),
            }
            records.append(record)
            log.info(
                "epoch %d/%d: held-out label accuracy %.1f %%", record["epoch"], options["epochs"], 100 * held_accuracy
            )
            loss_sum.zero_()
            correct.zero_()
        if within == epoch_steps or now - saved > 60 * checkpoint_minutes:
            saved = now
            _save_checkpoint(
                checkpoint,
                {
                    "fingerprint": fingerprint,
                    "step": done,
                    "history": records,
                    "loss_sum": loss_sum.item(),
                    "correct": correct.item(),
                    "seconds": seconds,
                    "network": network.state_dict(),
                    # the finished state needs no optimiser: two thirds of the file
                    "optimiser": optimiser.state_dict() if done < steps else None,
                },
            )

    first_file = read_patterns(patterns[training[0].material])
    result = {
        "architecture": options["architecture"],
        "labels": _names(table),
        "label_table": [[row.space_group, axis_name(row.zone_axis), row.label] for row in table],
        "image": {"pixels": data.images.shape[-1], "pixel_size_mm": float(np.diff(first_file.x).mean())},
        "display": options["display"],
        "normalisation": "1 + log10(I / brightest unmasked pixel) / decades, cut off at 0; no mean subtracted",
        "settings": options,
        "seed": seed,
        "precision": precision,
        "data": {
            "training_digest": data.digest,
            "training_crystals": len(training),
            "training_patterns": len(data.images),
            "held_out_crystals": len(held_out),
        },
        "metrics": {**records[-1], "held_out_patterns_watched": len(watched.images)},
        "selection": "weights of the last step; held-out crystals were watched, nothing was chosen by them",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
        },
    }
    _write_history(history, records)
    model.save(network, result, weights, card)
    return result


def one_cycle(step: int, steps: int, highest: float, warmup: float) -> float:
    """Learning rate of a step: half a cosine up from highest/25 over `warmup` of all steps, then half a cosine to 0.

    After Smith & Topin 2017, arXiv:1708.07120.
    """
    rise = max(1.0, warmup * steps)
    if step < rise:
        low = highest / 25
        return low + (highest - low) * (1 - math.cos(math.pi * step / rise)) / 2
    return highest * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise))) / 2


def augment(images: torch.Tensor, rng: np.random.Generator, strength: Mapping[str, float]) -> torch.Tensor:
    """Turn, shift and magnify each image of a batch by its own random amount, bilinearly, with 0 outside.

    Args:
        images: grey values, shape (n, 1, y, x), square, on any device.
        rng: source of the draws; they are made on the CPU, so every device sees the same ones.
        strength: `rotation` in degrees, `shift` in pixels, `scale` as a fraction: uniform in +- each. All 0: unchanged.
    """
    if not any(strength[key] for key in ("rotation", "shift", "scale")):
        return images
    n, pixels = len(images), images.shape[-1]
    angle = np.radians(strength["rotation"]) * rng.uniform(-1, 1, n)
    shift = 2 / pixels * strength["shift"] * rng.uniform(-1, 1, (n, 2))
    scale = 1 + strength["scale"] * rng.uniform(-1, 1, n)
    return resample(images, angle, shift, scale)


def resample(images: torch.Tensor, angle: np.ndarray, shift: np.ndarray, scale: np.ndarray) -> torch.Tensor:
    """Images turned by `angle` [rad, x to y], magnified by `scale`, shifted by `shift` [half image widths; x, y]."""
    # affine_grid wants the map from the new image to the old one
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    linear = np.stack([np.stack([cosine, sine], -1), np.stack([-sine, cosine], -1)], -2)
    offset = -np.einsum("nij,nj->ni", linear, shift)
    matrix = torch.from_numpy(np.concatenate([linear, offset[:, :, None]], -1).astype(np.float32)).to(images.device)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: settings.get(key, value) for key, value in DEFAULTS.items()}
    for part in ("display", "augmentation"):
        options[part] = {**DEFAULTS[part], **options[part]}
    for key, low in (("epochs", 1), ("batch_size", 2), ("monitor", 1)):
        if int(options[key]) < low:
            raise ValueError(f"learning.{key} is {options[key]}; it must be at least {low}")
    if options["learning_rate"] <= 0:
        raise ValueError(f"learning.learning_rate is {options['learning_rate']}; it must be positive")
    return options


def _precision(wanted: str, target: torch.device) -> str:
    """bf16 or fp32; `auto` takes bf16 on a GPU and on CPUs with instructions for it (elsewhere it is slower)."""
    if wanted in ("bf16", "fp32"):
        return wanted
    if wanted != "auto":
        raise ValueError(f"learning.precision is {wanted!r}; allowed: auto, bf16, fp32")
    if target.type == "cuda":
        return "bf16"
    flags = Path("/proc/cpuinfo")
    words = set(flags.read_text().split()) if flags.exists() else set()
    return "bf16" if words & {"avx512_bf16", "amx_bf16", "bf16"} else "fp32"


def _subset(images: Images, most: int, seed: int) -> Images:
    if len(images.images) <= most:
        return images
    chosen = np.sort(np.random.default_rng(seed).choice(len(images.images), most, replace=False))
    return Images(
        images.images[chosen], images.labels[chosen], images.material[chosen],
        images.materials, images.space_groups, images.digest,
    )  # fmt: skip


def _fingerprint(
    options: Mapping[str, Any], seed: int, digest: str, table: Sequence[LabelRow], precision: str, target: torch.device
) -> str:
    content = [options, seed, digest, [list(row) for row in table], precision, target.type, torch.__version__]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _decayed(network: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on convolutions and the last layer's matrix, not on biases and batch norms."""
    matrices = [value for value in network.parameters() if value.ndim > 1]
    vectors = [value for value in network.parameters() if value.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _draw(by_label: Sequence[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    labels = rng.integers(len(by_label), size=size)
    return np.array([by_label[label][rng.integers(len(by_label[label]))] for label in labels])


def _watch(network: torch.nn.Module, watched: Images, target: torch.device, precision: str) -> tuple[float, float]:
    network.eval()
    loss, correct = 0.0, 0
    with torch.inference_mode(), torch.autocast(target.type, torch.bfloat16, enabled=precision == "bf16"):
        for start in range(0, len(watched.images), 128):
            batch = torch.from_numpy(watched.images[start : start + 128]).to(target).float()[:, None]
            truth = torch.from_numpy(watched.labels[start : start + 128]).to(target)
            logits = network(batch.contiguous(memory_format=torch.channels_last)).float()
            loss += F.cross_entropy(logits, truth, reduction="sum").item()
            correct += int((logits.argmax(1) == truth).sum())
    network.train()
    return loss / len(watched.images), correct / len(watched.images)


def _resume(
    checkpoint: Path, fingerprint: str, network: torch.nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    fresh = {"step": 0, "history": [], "loss_sum": 0.0, "correct": 0, "seconds": 0.0}
    if not checkpoint.exists():
        return fresh
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if state["fingerprint"] != fingerprint:
        log.warning("%s belongs to other settings, seed or data; training starts anew", checkpoint)
        return fresh
    network.load_state_dict(state["network"])
    if state["optimiser"] is not None:
        optimiser.load_state_dict(state["optimiser"])
    log.info("resumed from %s at step %d", checkpoint, state["step"])
    return state


def _save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as handle:
        torch.save(dict(state), handle)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def _names(table: Sequence[LabelRow]) -> list[str]:
    names = {row.label: row.name for row in table}
    return [names[label] for label in range(len(names))]


def _write_history(path: Path | str, records: Sequence[Mapping[str, Any]]) -> None:
    with Path(path).open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, HISTORY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
