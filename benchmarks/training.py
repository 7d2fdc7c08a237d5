"""Training throughput of this workflow against a plain loop over the same torchvision network, and the time that the
144 patterns of one condition take to predict, in one run.

    .venv/bin/python benchmarks/training.py                              # two CPU cores: about four minutes
    .venv/bin/python benchmarks/training.py --pixels 256 --batch 128 --steps 200 --workers 16      # on a GPU

The plain loop is what one writes first and does not do badly: torchvision's network with one grey channel, mixed
precision and channels-last where there is a GPU, a DataLoader with shuffling and many workers (CPU: none) that turns,
shifts and scales each pattern with torchvision. Ours is `learning.train` itself, with its watching, logging and
checkpoints. Both take turns, on the same random patterns. On a GPU, and on a CPU with --matrix, the achieved fraction
of the device's matrix rate is printed: counted operations of the network over the time, against the rate of one large
matrix product in the same precision.

The prediction is that of a `predict` job without its start: weights, patterns and display are read, one copy of each
pattern is answered and the file is written.

The last line is JSON; --write keeps it in benchmarks/results/training-{cpu,gpu}.json. Times count only on an idle
machine; the load average is printed beside them.
"""

import argparse
import csv
import json
import logging
import math
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

import netCDF4
import numpy as np
import torch
import torchvision
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

from defraction import config, dataset
from defraction.learning import infer, labels, model, resnet, train
from defraction.pattern_files import DIMENSIONS

RESULTS = Path(__file__).parent / "results"
ROUNDS = 3
CRYSTALS = 20
CONDITION = (len(labels.ZONE_AXES), 3, 3, 1)
"""Patterns of a condition: zone axes, voltages, camera lengths, snapshots; 144."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet101", choices=resnet.BLOCKS)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=30, help="steps of each round of each of the two")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--workers", type=int, default=None, help="of the plain loop's DataLoader (CPU 0, GPU 8)")
    parser.add_argument("--matrix", action="store_true", help="the fraction of the matrix rate on a CPU, too")
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results")
    return parser.parse_args()


def write_patterns(path: Path, points: tuple[int, int, int, int], pixels: int, rng: np.random.Generator) -> None:
    """Random patterns of all zone axes and so many voltages, camera lengths and snapshots."""
    shape = (*points, pixels, pixels)
    with netCDF4.Dataset(path, "w") as file:
        for dimension, size in zip(DIMENSIONS, shape, strict=True):
            file.createDimension(dimension, size)
        file.createDimension("index", 3)
        file.createVariable("intensity", "f4", DIMENSIONS)[:] = rng.random(shape, dtype=np.float32) ** 8
        file.createVariable("uvw", "i4", ("zone_axis", "index"))[:] = labels.ZONE_AXES
        file.createVariable("voltage", "f8", ("voltage",))[:] = 200.0 + np.arange(shape[1])
        file.createVariable("camera_length", "f8", ("camera_length",))[:] = np.arange(shape[2]) + 1.0
        for axis in ("x", "y"):
            file.createVariable(axis, "f8", (axis,))[:] = np.linspace(-24, 24, pixels)


def write_study(folder: Path, pixels: int, points: int) -> dict[str, Path]:
    """Random patterns of CRYSTALS crystals in training, `points` in all, and few held out; files by crystal."""
    rng = np.random.default_rng(0)
    axes = labels.ZONE_AXES
    lengths = max(1, round(points / CRYSTALS / len(axes)))
    files, rows = {}, []
    for number in range(CRYSTALS + 1):
        name = f"m{number}"
        files[name] = folder / f"{name}.nc"
        rows.append(dataset.SplitRow(name, 225, "", name, False, "train" if number else "held_out", True))
        write_patterns(files[name], (len(axes), 1, lengths if number else 1, 1), pixels, rng)
    dataset.write_split(folder / "split.csv", rows)
    labels.write_labels(folder / "labels.csv")
    return files


def ours(folder: Path, files: dict[str, Path], options: argparse.Namespace, settings: dict) -> tuple[float, float]:
    """Wall-clock and CPU seconds of one pass of `learning.train`, from its first step to its last."""
    out = {key: folder / f"{key}.out" for key in ("weights", "best", "last", "card", "history")}
    (folder / "restart" / train.CHECKPOINT).unlink(missing_ok=True)
    clock = Clock()
    logger = logging.getLogger("defraction.learning.train")
    logger.addFilter(clock)  # the first line is written when the data are there, the first step follows
    try:
        train.train(files, folder / "split.csv", folder / "labels.csv", **out, settings=settings, seed=1,
                    restart_dir=folder / "restart", threads=options.threads, deterministic=False)  # fmt: skip
    finally:
        logger.removeFilter(clock)
    with out["history"].open() as handle:
        seconds = float(list(csv.DictReader(handle))[-1]["seconds"])
    return seconds, clock.spent()


def inference(folder: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Wall-clock and CPU seconds to predict one condition with the network that `ours` trained in `folder`."""
    patterns = folder / "condition.nc"
    write_patterns(patterns, CONDITION, options.pixels, np.random.default_rng(1))
    started, cpu = time.monotonic(), time.process_time()
    infer.predict_condition(
        patterns, 225, folder / "weights.out", folder / "card.out", folder / "predictions.nc", threads=options.threads
    )
    return time.monotonic() - started, time.process_time() - cpu


class Clock(logging.Filter):
    """CPU seconds between the first and the last line of a logger."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def filter(self, record: logging.LogRecord) -> bool:
        self.times.append(time.process_time())
        return True

    def spent(self) -> float:
        return self.times[-1] - self.times[0]


class Plain(Dataset):
    """Grey images with their labels, each changed at random when it is taken."""

    def __init__(self, images: np.ndarray, truth: np.ndarray, augmentation: dict) -> None:
        self.images, self.truth = images, truth
        shift, scale = augmentation["shift"] / images.shape[-1], augmentation["scale"]
        bilinear = v2.InterpolationMode.BILINEAR
        self.change = v2.RandomAffine(
            augmentation["rotation"], (shift, shift), (1 - scale, 1 + scale), interpolation=bilinear
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.change(torch.from_numpy(self.images[index]).float()[None]), int(self.truth[index])


def plain(data: dataset.Images, options: argparse.Namespace, settings: dict, device: torch.device, precision: str):
    """Wall-clock and CPU seconds of as many steps of the plain loop."""
    torch.manual_seed(1)
    network = getattr(torchvision.models, options.network)(num_classes=48)
    network.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    network = network.to(device, memory_format=layout)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    workers = options.workers if options.workers is not None else (8 if device.type == "cuda" else 0)
    loader = DataLoader(
        Plain(data.images, data.labels, settings["augmentation"]), options.batch, shuffle=True, drop_last=True,
        num_workers=workers, pin_memory=device.type == "cuda", persistent_workers=workers > 0,
    )  # fmt: skip
    batches = endless(loader)
    first = next(batches)  # the workers have started
    started, cpu = time.monotonic(), time.process_time()
    for _ in range(options.steps):
        batch, truth = first if first is not None else next(batches)
        first = None
        batch = batch.to(device, non_blocking=True, memory_format=layout)
        truth = truth.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = torch.nn.functional.cross_entropy(network(batch), truth, label_smoothing=settings["label_smoothing"])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - started, time.process_time() - cpu


def endless(loader: DataLoader):
    while True:
        yield from loader


def matrix_rate(device: torch.device, precision: str) -> float:
    """Floating-point operations per second of one large matrix product, the best of several."""
    size = 8192 if device.type == "cuda" else 2048
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, dtype=kind, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        started = time.monotonic()
        for _ in range(5):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.monotonic() - started) / 5)
    return 2 * size**3 / best


def operations(options: argparse.Namespace) -> float:
    """Floating-point operations of one pattern, forwards and backwards, as torch counts them."""
    network = model.build(options.network, 48)
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(2, 1, options.pixels, options.pixels)).sum().backward()
    return counter.get_total_flops() / 2


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    device = model.choose_device("auto")
    precision = train.choose_precision("auto", device)
    load = os.getloadavg()[0]
    settings = config.plain(
        config.Learning(architecture=options.network, epochs=1, batch_size=options.batch, monitor=16)
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_study(folder, options.pixels, options.batch * options.steps)
        rows, table = dataset.read_split(folder / "split.csv"), labels.read_labels(folder / "labels.csv")
        data = dataset.load_images(files, rows, table, 2.0, 3.0)
        patterns = {"ours": data.points, "plain": options.batch * options.steps}
        logging.getLogger("defraction.learning.train").setLevel(logging.INFO)
        wall, cpu = {"ours": [], "plain": []}, {"ours": [], "plain": []}
        warm = argparse.Namespace(**{**vars(options), "steps": 3})
        plain(data, warm, settings, device, precision)
        for _ in range(ROUNDS):
            for who, seconds in (
                ("plain", plain(data, options, settings, device, precision)),
                ("ours", ours(folder, files, options, settings)),
            ):
                wall[who].append(seconds[0] / patterns[who])
                cpu[who].append(seconds[1] / patterns[who])
        predicted = [inference(folder, options) for _ in range(ROUNDS)]
    result = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {options.threads} threads",
        "machine": platform.machine(),
        "torch": torch.__version__,
        "network": options.network,
        "pixels": options.pixels,
        "batch": options.batch,
        "steps": options.steps,
        "precision": precision,
        "load_average_before": round(load, 2),
        "patterns_per_second": round(1 / min(wall["ours"]), 1),
        "patterns_per_second_plain": round(1 / min(wall["plain"]), 1),
        "ratio": round(min(wall["plain"]) / min(wall["ours"]), 3),
        "ratio_cpu_seconds": round(min(cpu["plain"]) / min(cpu["ours"]), 3),
        "inference_patterns": math.prod(CONDITION),
        "inference_seconds": round(min(wall for wall, _ in predicted), 2),
        "inference_cpu_seconds": round(min(cpu for _, cpu in predicted), 2),
    }
    if device.type == "cuda" or options.matrix:
        per_pattern = operations(options)
        result["operations_per_pattern"] = per_pattern
        result["fraction_of_matrix_rate"] = round(per_pattern / min(wall["ours"]) / matrix_rate(device, precision), 3)
    print(f"ours {result['patterns_per_second']} patterns/s, plain loop {result['patterns_per_second_plain']}: "
          f"{result['ratio']} times ({result['ratio_cpu_seconds']} times by CPU time); {result['inference_patterns']} "
          f"patterns predicted in {result['inference_seconds']} s")  # fmt: skip
    print(json.dumps(result))
    if options.write:
        kind = "gpu" if device.type == "cuda" else "cpu"
        (RESULTS / f"training-{kind}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
