"""Training a network on clean patterns, from the split table to weights and card, top to bottom in this file.

All images of the training crystals lie in the memory of the device. A step draws labels uniformly and a pattern for
each, turns, shifts and scales the batch on the device and takes one optimiser step. Every draw comes from (seed, step)
and the learning rate is a function of the step, so a checkpoint needs nothing but weights, optimiser state and the
number of the step, and a run that was killed and resumed ends with the weights of an unbroken one.

The held-out crystals are looked at for monitoring only, turned, shifted and magnified like the training patterns;
no pass is chosen by them. Where a pass is to be chosen (`keep`, `early_stop`), the split has a third part for it,
`validation`.

On several processes (`parallel`) each takes its share of every batch; the first one alone watches, logs and writes.
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
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import distributed

from defraction.dataset import Images, describe_split, load_images, load_patterns, members, read_split
from defraction.learning import model
from defraction.learning.labels import LabelRow, axis_name, number_of_labels, read_labels

log = logging.getLogger(__name__)

HISTORY_COLUMNS = (
    "epoch", "step", "patterns", "learning_rate", "train_loss", "train_accuracy",
    "held_out_loss", "held_out_accuracy", "validation_loss", "validation_accuracy", "seconds",
)  # fmt: skip
CHECKPOINT = "checkpoint.pt"
TOLD_EVERY = 20.0  # [s] between two lines on progress
WATCHED_AT_ONCE = 128  # patterns


def train(
    patterns: Mapping[str, Path | str],
    split: Path | str,
    labels: Path | str,
    weights: Path | str,
    best: Path | str,
    last: Path | str,
    card: Path | str,
    history: Path | str,
    settings: Mapping[str, Any],
    seed: int,
    restart_dir: Path | str,
    device: str = "auto",
    threads: int | None = None,
    checkpoint_minutes: float = 2.0,
    deterministic: bool = True,
    tensorboard: Path | str | None = None,
    name: str = "",
) -> dict[str, Any]:
    """Train a network; write its weights, card and history; return the card.

    Args:
        patterns: pattern file by material id; must hold every crystal of the split table.
        split, labels: tables written by `dataset.write_split` and `labels.write_labels`.
        weights, best, last: outputs: safetensors of the weights that predict (`keep`), of the pass with the lowest
            validation loss, and of the last step; links to one file where they are the same. Without a validation part
            the best are the last.
        card, history: outputs: JSON, and CSV with the columns `HISTORY_COLUMNS`.
        settings: the section `learning` of the configuration, complete; without its `split`, which the table holds.
        seed: of initial weights and every draw.
        restart_dir: folder for the checkpoint, `checkpoint.pt`. One of other settings, seed or data is not resumed.
        device: auto, cpu or gpu. threads: CPU threads of torch; None leaves torch's choice.
        checkpoint_minutes: longest time between checkpoints; one is also written after every epoch.
        deterministic: ask torch for deterministic algorithms (same seed, device, threads, processes: same weights).
        tensorboard: folder for a TensorBoard log; None: none. name: of the model, kept in the card.

    Raises ValueError for missing patterns, images of different sizes, or a split without the part that is to choose.
    """
    options = {key: value for key, value in settings.items() if key != "split"}
    if threads:
        torch.set_num_threads(threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    target = model.choose_device(device)
    # on a GPU an operation without a deterministic kernel is named in the log rather than refused
    torch.use_deterministic_algorithms(deterministic, warn_only=target.type == "cuda")
    torch.utils.deterministic.fill_uninitialized_memory = False  # all is written; NaNs first cost a GPU time
    torch.backends.cudnn.benchmark = not deterministic
    precision = choose_precision(options["precision"], target)
    rank, count = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)

    rows, table = read_split(split), read_labels(labels)
    shown = options["display"]["beam_stop"], options["display"]["decades"]
    chooses = options["keep"] == "best" or options["early_stop"] > 0
    if chooses and not members(rows, "validation"):
        raise ValueError(f"{split}: no crystals of part validation, by which learning.keep or early_stop could choose")
    watched = {
        part: Watched.of(load_images(patterns, rows, table, *shown, part, options["specimens"]), options, seed)
        for part in (("held_out", "validation") if chooses else ("held_out",))
        if rank == 0
    }
    data = load_images(patterns, rows, table, *shown, "train", options["specimens"])
    log.info(
        "%s; %d patterns to train on, %s; %s, %s, %d process(es) of %d threads", describe_split(rows), len(data.images),
        ", ".join(f"{len(found.labels)} {part.replace('_', ' ')} patterns watched" for part, found in watched.items()),
        target, precision, count, torch.get_num_threads(),
    )  # fmt: skip
    fingerprint = _fingerprint(options, seed, data.digest, table, precision, target)

    torch.manual_seed(seed)
    network = model.build(options["architecture"], number_of_labels(table)).to(target)
    if count > 1 and target.type == "cuda":
        network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    optimiser = torch.optim.AdamW(decayed(network, options["weight_decay"]), lr=options["learning_rate"], fused=True)
    images = torch.from_numpy(data.images).to(target)
    truth = torch.from_numpy(data.labels).to(target)
    drawer = Drawer.of(data.labels)

    epoch_steps = math.ceil(data.points / options["batch_size"])
    steps = epoch_steps * options["epochs"]
    checkpoint = Path(restart_dir) / CHECKPOINT
    sums = {"processes": count, "threads": torch.get_num_threads(), "deterministic": deterministic}
    state = _resume(checkpoint, fingerprint, sums, network, optimiser)
    records, first, chosen = state["history"], state["step"], state["best"]
    loss_sum = torch.tensor(state["loss_sum"], dtype=torch.float64, device=target)
    correct = torch.tensor(state["correct"], dtype=torch.int64, device=target)
    board = _board(tensorboard, first) if rank == 0 else None
    trained = torch.nn.parallel.DistributedDataParallel(network) if count > 1 else network
    share = options["batch_size"] // count  # patterns of this process in each batch

    network.train()
    ended = state["ended"]
    started = saved = told = time.monotonic()
    for step in range(first, steps if not ended else first):
        rate = learning_rate(step, steps, options)
        index, changes = drawer.draw(step, seed, options["batch_size"], images.shape[-1], options["augmentation"])
        index, changes = share_of(index, changes, rank, count)
        index = on_device(index, target)
        batch = resample(images[index].float()[:, None], *changes) if changes.any else images[index].float()[:, None]
        logits, loss = training_step(trained, optimiser, batch, truth[index], rate, precision, options)
        loss_sum += loss
        correct += (logits.argmax(1) == truth[index]).sum()
        if rank:
            if (step + 1) % epoch_steps == 0 and options["early_stop"] and _agreed(False, target):
                break
            continue

        done, within = step + 1, step % epoch_steps + 1
        if within == epoch_steps and target.type == "cuda":
            torch.cuda.synchronize()  # what is queued is not done: the time of a pass is written down
        now = time.monotonic()
        seconds = state["seconds"] + now - started
        if now - told > TOLD_EVERY or within == epoch_steps:
            told = now
            speed = (done - first) * options["batch_size"] / (now - started)
            numbers = {"loss": loss_sum.item() / within, "accuracy": correct.item() / (within * share)}
            log.info(
                "epoch %d/%d, step %d/%d: loss %.3f, label accuracy in training %.1f %%, %.0f patterns/s, %s left",
                step // epoch_steps + 1, options["epochs"], done, steps, numbers["loss"], 100 * numbers["accuracy"],
                speed, _clock((now - started) / (done - first) * (steps - done)),
            )  # fmt: skip
            _tell(board, done, {f"train/{k}": v for k, v in numbers.items()} | {"learning_rate": rate, "speed": speed})
        if within == epoch_steps:
            seen = {part: watch(network, found, target, precision) for part, found in watched.items()}
            held_out, validation = seen["held_out"], seen.get("validation", (None, None))
            record = {
                "epoch": step // epoch_steps + 1,
                "step": done,
                "patterns": done * options["batch_size"],
                "learning_rate": rate,
                "train_loss": loss_sum.item() / within,
                "train_accuracy": correct.item() / (within * share),
                "held_out_loss": held_out[0],
                "held_out_accuracy": held_out[1],
                "validation_loss": validation[0],
                "validation_accuracy": validation[1],
                "seconds": round(seconds, 1),
            }
            records.append(record)
            log.info(
                "epoch %d/%d: %s", record["epoch"], options["epochs"],
                ", ".join(f"{part.replace('_', '-')} label accuracy {100 * v[1]:.1f} %" for part, v in seen.items()),
            )  # fmt: skip
            _tell(board, done, {f"{part}/loss": v[0] for part, v in seen.items()})
            _tell(board, done, {f"{part}/accuracy": v[1] for part, v in seen.items()})
            if chooses and (chosen is None or validation[0] < chosen["loss"]):
                chosen = {"epoch": record["epoch"], "loss": validation[0], "network": _copy(network)}
            passes = options["early_stop"]
            ended = bool(passes) and record["epoch"] - chosen["epoch"] >= passes
            if ended:
                log.info("no lower validation loss for %d passes: training ends", passes)
            loss_sum.zero_()
            correct.zero_()
        if within == epoch_steps or now - saved > 60 * checkpoint_minutes:
            saved = now
            _save_checkpoint(
                checkpoint,
                {
                    "fingerprint": fingerprint,
                    "sums": sums,
                    "step": done,
                    "history": records,
                    "loss_sum": loss_sum.item(),
                    "correct": correct.item(),
                    "seconds": seconds,
                    "best": chosen,
                    "ended": ended,
                    "network": network.state_dict(),
                    # the finished state needs no optimiser: two thirds of the file
                    "optimiser": optimiser.state_dict() if done < steps and not ended else None,
                },
            )
        if within == epoch_steps and options["early_stop"] and _agreed(ended, target):
            break

    if rank:
        return {}
    if board is not None:
        board.close()
    final = _copy(network)
    keeps_best = options["keep"] == "best"
    kept = next(record for record in records if record["epoch"] == chosen["epoch"]) if keeps_best else records[-1]
    result = {
        "model": name,
        "architecture": options["architecture"],
        "labels": _names(table),
        "label_table": [[row.space_group, axis_name(row.zone_axis), row.label] for row in table],
        "image": _image(patterns[data.materials[0]]),
        "display": options["display"],
        "normalisation": "1 + log10(I / brightest unmasked pixel) / decades, cut off at 0; no mean subtracted",
        "settings": options,
        "seed": seed,
        "precision": precision,
        "device": torch.cuda.get_device_name(target) if target.type == "cuda" else "cpu",
        "processes": count,
        "data": {
            "training_digest": data.digest,
            "training_crystals": len(data.materials),
            "training_patterns": len(data.images),
            "held_out_crystals": len(members(rows, "held_out")),
            "validation_crystals": len(members(rows, "validation")),
            "split": describe_split(rows),
            "split_by": sorted({row.by for row in rows}),
        },
        "metrics": {**kept, **{f"{part}_patterns_watched": len(found.labels) for part, found in watched.items()}},
        "selection": "held-out crystals were watched, no pass was chosen by them; "
        + ("weights of the pass with the lowest validation loss" if keeps_best else "weights of the last step")
        + (f"; stopped after {len(records)} of {options['epochs']} passes" if len(records) < options["epochs"] else ""),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": version("torchvision"),
            "numpy": np.__version__,
        },
    }
    _write_history(history, records)
    model.write_weights(final, options["architecture"], last)
    if chosen is None:
        _link(last, best)
    else:
        model.write_weights(chosen["network"], options["architecture"], best)
    _link(best if keeps_best else last, weights)
    model.write_card(result, card)
    return result


def training_step(
    network: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: torch.Tensor,
    truth: torch.Tensor,
    rate: float,
    precision: str,
    options: Mapping[str, Any],
) -> tuple[torch.Tensor, torch.Tensor]:
    """One optimiser step at learning rate `rate`; returns logits (n, label) and the loss, both on the device."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = network(batch.contiguous(memory_format=torch.channels_last)).float()
    loss = F.cross_entropy(logits, truth, label_smoothing=options["label_smoothing"])
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return logits.detach(), loss.detach()


def learning_rate(step: int, steps: int, options: Mapping[str, Any]) -> float:
    """Learning rate of a step under `schedule`.

    one-cycle: half a cosine up from a 25th of `learning_rate` over `warmup` of all steps, then half a cosine down to 0,
    after Smith & Topin 2017, arXiv:1708.07120. cosine: half a cosine down to 0 (Loshchilov & Hutter 2017,
    arXiv:1608.03983, without restarts). constant. Raises ValueError for another schedule.
    """
    highest = options["learning_rate"]
    if options["schedule"] == "constant":
        return highest
    if options["schedule"] not in ("one-cycle", "cosine"):
        raise ValueError(f"learning.schedule is {options['schedule']!r}; allowed: one-cycle, cosine, constant")
    rise = max(1.0, options["warmup"] * steps) if options["schedule"] == "one-cycle" else 0.0
    if step < rise:
        low = highest / 25
        return low + (highest - low) * (1 - math.cos(math.pi * step / rise)) / 2
    return highest * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise))) / 2


@dataclass(frozen=True)
class Changes:
    """How each image of a batch is changed: `angle` [rad], `shift` (n, 2) [half widths], `scale`, `mirror` (+1, -1)."""

    angle: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    mirror: np.ndarray
    any: bool = True

    def __iter__(self):
        return iter((self.angle, self.shift, self.scale, self.mirror))

    def of(self, part: slice) -> "Changes":
        """The changes of some of the images."""
        return Changes(*(values[part] for values in self), self.any)


def draw_changes(n: int, pixels: int, rng: np.random.Generator, strength: Mapping[str, float]) -> Changes:
    """Random changes of `n` images of `pixels` by `pixels`.

    Args:
        rng: source of the draws, made on the CPU, so that every device sees the same ones.
        strength: `rotation` in degrees, `shift` in pixels, `scale` as a fraction: uniform in +- each; `mirror`: whether
            every second image, drawn at random, is mirrored. Nothing of it: the images stay as they are.
    """
    return Changes(
        np.radians(strength["rotation"]) * rng.uniform(-1, 1, n),
        2 / pixels * strength["shift"] * rng.uniform(-1, 1, (n, 2)),
        1 + strength["scale"] * rng.uniform(-1, 1, n),
        np.where(rng.random(n) < 0.5, -1.0, 1.0) if strength["mirror"] else np.ones(n),
        any(strength[key] for key in ("rotation", "shift", "scale", "mirror")),
    )


@dataclass(frozen=True)
class Drawer:
    """Draws batches in which every label is equally likely: `order` sorts the images by label, `first` and `count` say
    where the images of each label lie in it."""

    order: np.ndarray
    first: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray) -> "Drawer":
        """For images with these labels; a label without images is never drawn."""
        _, first, count = np.unique(np.sort(labels), return_index=True, return_counts=True)
        return cls(np.argsort(labels, kind="stable"), first, count)

    def draw(
        self, step: int, seed: int, size: int, pixels: int, strength: Mapping[str, float]
    ) -> tuple[np.ndarray, Changes]:
        """Indices of the images of a step, shape (size,), and their changes: a function of seed and step alone."""
        rng = np.random.default_rng([seed, step])
        label = rng.integers(len(self.first), size=size)
        index = self.order[self.first[label] + rng.integers(self.count[label])]
        return index, draw_changes(size, pixels, rng, strength)


def share_of(index: np.ndarray, changes: Changes, rank: int, count: int) -> tuple[np.ndarray, Changes]:
    """What process `rank` of `count` takes of a batch: every `count`-th image and its change."""
    part = slice(rank, None, count)
    return index[part], changes.of(part)


@dataclass(frozen=True)
class Watched:
    """Patterns by which progress is told: images (n, y, x), labels (n,), and how each is changed, the same every time.

    They are changed as in training, because a network that has seen nothing but resampled patterns is not known by its
    answers to untouched ones.
    """

    images: np.ndarray
    labels: np.ndarray
    changes: Changes

    @classmethod
    def of(cls, found: Images, options: Mapping[str, Any], seed: int) -> "Watched":
        """At most `monitor` of the patterns found, drawn at random."""
        rng = np.random.default_rng([seed, 0, 1])  # apart from those of the steps
        chosen = np.arange(len(found.labels))
        if len(chosen) > options["monitor"]:
            chosen = np.sort(rng.choice(chosen, options["monitor"], replace=False))
        changes = draw_changes(len(chosen), found.images.shape[-1], rng, options["augmentation"])
        return cls(found.images[chosen], found.labels[chosen], changes)


def watch(network: torch.nn.Module, watched: Watched, target: torch.device, precision: str) -> tuple[float, float]:
    """Mean loss (without label smoothing) and label accuracy of the watched patterns."""
    network.eval()
    loss, correct = 0.0, 0
    with torch.inference_mode(), torch.autocast(target.type, torch.bfloat16, enabled=precision == "bf16"):
        for start in range(0, len(watched.labels), WATCHED_AT_ONCE):
            part = slice(start, start + WATCHED_AT_ONCE)
            batch = on_device(watched.images[part], target).float()[:, None]
            batch = resample(batch, *watched.changes.of(part)) if watched.changes.any else batch
            truth = on_device(watched.labels[part], target)
            logits = network(batch.contiguous(memory_format=torch.channels_last)).float()
            loss += F.cross_entropy(logits, truth, reduction="sum").item()
            correct += int((logits.argmax(1) == truth).sum())
    network.train()
    return loss / len(watched.labels), correct / len(watched.labels)


def resample(
    images: torch.Tensor, angle: np.ndarray, shift: np.ndarray, scale: np.ndarray, mirror: np.ndarray | None = None
) -> torch.Tensor:
    """Images mirrored (x to -x where `mirror` is -1), then turned by `angle` [rad, x to y], magnified by `scale`,
    shifted by `shift` [half image widths; x, y]; bilinearly, with 0 outside.

    `images` are square, of shape (n, 1, y, x), on any device; the rest is of length n. The places are computed in
    single precision whatever the network runs in: bfloat16 would round them by up to half a pixel.
    """
    # affine_grid wants the map from the new image to the old one
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    side = np.ones(len(images)) if mirror is None else mirror
    linear = np.stack([np.stack([side * cosine, side * sine], -1), np.stack([-sine, cosine], -1)], -2)
    offset = -np.einsum("nij,nj->ni", linear, shift)
    matrix = on_device(np.concatenate([linear, offset[:, :, None]], -1).astype(np.float32), images.device)
    with torch.autocast(images.device.type, enabled=False):
        grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def on_device(values: np.ndarray, target: torch.device) -> torch.Tensor:
    """A tensor of `values` on a device. To a GPU from pinned memory, which waits for nothing that is queued there."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(target, non_blocking=True) if target.type == "cuda" else tensor


def choose_precision(wanted: str, target: torch.device) -> str:
    """bf16 or fp32; `auto` takes bf16 on GPUs and CPUs with instructions for it (elsewhere it is slower)."""
    if wanted in ("bf16", "fp32"):
        return wanted
    if wanted != "auto":
        raise ValueError(f"learning.precision is {wanted!r}; allowed: auto, bf16, fp32")
    if target.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    flags = Path("/proc/cpuinfo")
    words = set(flags.read_text().split()) if flags.exists() else set()
    return "bf16" if words & {"avx512_bf16", "amx_bf16", "bf16"} else "fp32"


def decayed(network: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups with weight decay on convolutions and the last layer's matrix, not on biases and batch norms."""
    matrices = [value for value in network.parameters() if value.ndim > 1]
    vectors = [value for value in network.parameters() if value.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _image(path: Path | str) -> dict[str, Any]:
    """What the images are: size and scale, and the settings with which the first file of them was simulated."""
    found = load_patterns(path)
    return {
        "pixels": len(found.x),
        "pixel_size_mm": float(np.diff(found.x).mean()),
        "voltages": found.voltages.tolist(),
        "camera_lengths": found.camera_lengths.tolist(),
        "diffraction": json.loads(found.attributes.get("settings", "{}")),
    }


def _copy(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def _link(source: Path | str, name: Path | str) -> None:
    """A second name for a file; both are written once and never changed."""
    Path(name).unlink(missing_ok=True)
    os.link(source, name)


def _agreed(ended: bool, target: torch.device) -> bool:
    """Whether the first process, which alone watches, says that training ends."""
    if not distributed.is_initialized():
        return ended
    flag = torch.tensor(int(ended), device=target)
    distributed.broadcast(flag, 0)
    return bool(flag)


def _board(folder: Path | str | None, first: int):
    """A TensorBoard writer that goes on at step `first`; a fresh run starts a fresh log."""
    if folder is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    if first == 0:
        for old in Path(folder).glob("events.out.tfevents.*"):
            old.unlink()
    return SummaryWriter(str(folder), purge_step=first or None)


def _tell(board: Any, step: int, numbers: Mapping[str, float]) -> None:
    if board is not None:
        for name, value in numbers.items():
            board.add_scalar(name, value, step)
        board.flush()


def _fingerprint(
    options: Mapping[str, Any], seed: int, digest: str, table: Sequence[LabelRow], precision: str, target: torch.device
) -> str:
    content = [options, seed, digest, [list(row) for row in table], precision, target.type, torch.__version__]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _resume(
    checkpoint: Path,
    fingerprint: str,
    sums: Mapping[str, Any],
    network: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
) -> dict[str, Any]:
    """The state to go on from. `sums`: what decides the order of sums, and so the last bits of an unbroken run."""
    fresh = {"step": 0, "history": [], "loss_sum": 0.0, "correct": 0, "seconds": 0.0, "best": None, "ended": False}
    if not checkpoint.exists():
        return fresh
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if state["fingerprint"] != fingerprint:
        log.warning("%s belongs to other settings, seed or data; training starts anew", checkpoint)
        return fresh
    network.load_state_dict(state["network"])
    if state["optimiser"] is not None:
        optimiser.load_state_dict(state["optimiser"])
    for key, value in sums.items():
        if (before := state.get("sums", {}).get(key, value)) != value:
            log.warning(
                "%s was written with %s = %s, now it is %s: the run goes on, and ends with other last bits than an "
                "unbroken one", checkpoint, key, before, value,
            )  # fmt: skip
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
