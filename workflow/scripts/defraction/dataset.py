"""Patterns as the network sees them: which crystals train it, how intensities become grey values, arrays in memory.

The split is **by material**: every pattern of a crystal is on one side. It is stratified by space group. It is not by
prototype: a held-out rock-salt crystal usually has another rock-salt crystal in training, and the column
`prototype_in_training` of the split table says for which crystals that holds.
"""

import csv
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

from defraction.learning.labels import Axis, LabelRow, label_of

log = logging.getLogger(__name__)

SPLIT_COLUMNS = ("material", "space_group", "prototype", "formula", "host", "part", "prototype_in_training")
PARTS = ("train", "held_out")
HOSTS = {"Al": 225, "Fe": 229}
PATTERN_DIMENSIONS = ("zone_axis", "voltage", "camera_length", "snapshot", "y", "x")


# --- split -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SplitRow:
    """One crystal of the split table; `part` is `train` or `held_out`."""

    material: str
    space_group: int
    prototype: str
    formula: str
    host: bool
    part: str
    prototype_in_training: bool


def split_table(
    materials: Iterable[Mapping[str, Any]],
    held_out: float,
    seed: int,
    hosts: str = "train",
    host_crystals: Mapping[str, int] = HOSTS,
) -> list[SplitRow]:
    """Divide crystals into training and held-out, stratified by space group.

    Args:
        materials: one mapping per crystal with `material` (id), `space_group` and, where known, `prototype`, `formula`.
        held_out: fraction of the crystals of each group that is held out, 0 to 1 exclusive.
        seed: another seed, another split.
        hosts: `train` or `held_out`: where the host crystals go, whatever the draw says.
        host_crystals: formula and space group of the host crystals.

    Within a group, crystals are ranked by a hash of seed and id and the first `round(held_out * n)` are held out, at
    least one and at most n - 1. So the order of the table is irrelevant, and adding or removing a crystal changes the
    part of at most one other crystal, of the same group.

    Raises ValueError for repeated ids, a fraction out of range or a group with a single crystal.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"learning.split.held_out is {held_out}; give a fraction between 0 and 1, such as 0.3")
    if hosts not in PARTS:
        raise ValueError(f"learning.split.hosts is {hosts!r}; allowed: {', '.join(PARTS)}")
    crystals = list(materials)
    ids = [str(crystal["material"]) for crystal in crystals]
    if len(set(ids)) != len(ids):
        raise ValueError(
            f"split: material id {next(i for i in ids if ids.count(i) > 1)!r} occurs twice; ids are unique"
        )

    part: dict[str, str] = {}
    is_host = {
        i: host_crystals.get(c.get("formula", "")) == int(c["space_group"]) for i, c in zip(ids, crystals, strict=True)
    }
    for group in sorted({int(crystal["space_group"]) for crystal in crystals}):
        members = [i for i, crystal in zip(ids, crystals, strict=True) if int(crystal["space_group"]) == group]
        if len(members) < 2:
            raise ValueError(
                f"split: space group {group} has one crystal ({members[0]}); it needs one to train on and one to hold "
                "out. Add crystals of this group or leave it out of materials.space_groups"
            )
        count = min(max(round(held_out * len(members)), 1), len(members) - 1)
        # False sorts before True: hosts first if they are held out, last if they train
        ranked = sorted(members, key=lambda i: (is_host[i] == (hosts == "train"), _draw(seed, i)))
        part.update({i: "held_out" if rank < count else "train" for rank, i in enumerate(ranked)})

    trained = {_prototype(crystal) for i, crystal in zip(ids, crystals, strict=True) if part[i] == "train"}
    rows = [
        SplitRow(
            material=i,
            space_group=int(crystal["space_group"]),
            prototype=str(crystal.get("prototype") or ""),
            formula=str(crystal.get("formula") or ""),
            host=is_host[i],
            part=part[i],
            prototype_in_training=_prototype(crystal) in trained,
        )
        for i, crystal in sorted(
            zip(ids, crystals, strict=True), key=lambda pair: (int(pair[1]["space_group"]), pair[0])
        )
    ]
    assert_disjoint(rows)
    return rows


def _draw(seed: int, material: str) -> str:
    return hashlib.sha256(f"{seed}:{material}".encode()).hexdigest()


def _prototype(crystal: Mapping[str, Any]) -> tuple[int, str]:
    return int(crystal["space_group"]), str(crystal.get("prototype") or "")


def assert_disjoint(rows: Sequence[SplitRow]) -> None:
    """Raise ValueError if a crystal is in both parts (by id, or by formula within a group) or if a part is empty."""
    parts = {part: [row for row in rows if row.part == part] for part in PARTS}
    for part, members in parts.items():
        if not members:
            raise ValueError(f"split: no crystal in part {part!r}; change learning.split.held_out or add crystals")
    for what, key in (
        ("material", lambda row: row.material),
        ("formula and space group", lambda row: (row.formula, row.space_group) if row.formula else row.material),
    ):
        both = {key(row) for row in parts["train"]} & {key(row) for row in parts["held_out"]}
        if both:
            raise ValueError(
                f"split: {what} {sorted(map(str, both))[0]} is in training and held out; keep one of the two"
            )


def write_split(path: Path | str, rows: Sequence[SplitRow]) -> None:
    """Write a split table as CSV with the columns of `SPLIT_COLUMNS` (booleans as 0 and 1)."""
    with Path(path).open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(SPLIT_COLUMNS)
        for row in rows:
            values = [getattr(row, column) for column in SPLIT_COLUMNS]
            writer.writerow([int(value) if isinstance(value, bool) else value for value in values])


def read_split(path: Path | str) -> list[SplitRow]:
    """Read a split table and check that its parts are disjoint; raises ValueError naming the file otherwise."""
    with Path(path).open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if tuple(reader.fieldnames or ()) != SPLIT_COLUMNS:
            raise ValueError(f"{path}: columns {reader.fieldnames}, expected {list(SPLIT_COLUMNS)}")
        rows = [
            SplitRow(
                material=row["material"],
                space_group=int(row["space_group"]),
                prototype=row["prototype"],
                formula=row["formula"],
                host=row["host"] == "1",
                part=row["part"],
                prototype_in_training=row["prototype_in_training"] == "1",
            )
            for row in reader
        ]
    assert_disjoint(rows)
    return rows


# --- patterns --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Patterns:
    """One pattern file in memory.

    Attributes:
        intensity: stored intensity, fraction of the incident beam, float32,
            shape (zone_axis, voltage, camera_length, snapshot, y, x).
        zone_axes: one (u, v, w) per index of the first dimension.
        voltages: kV. camera_lengths: m. x, y: pixel centres on the detector, mm.
    """

    intensity: np.ndarray
    zone_axes: list[Axis]
    voltages: np.ndarray
    camera_lengths: np.ndarray
    x: np.ndarray
    y: np.ndarray
    attributes: dict[str, Any] = field(default_factory=dict)


def read_patterns(path: Path | str) -> Patterns:
    """Read a pattern file; raises ValueError naming the file if it is not one or holds values that are not finite."""
    path = Path(path)
    with netCDF4.Dataset(path) as file:
        file.set_auto_mask(False)
        if "intensity" not in file.variables or file["intensity"].dimensions != PATTERN_DIMENSIONS:
            found = {name: variable.dimensions for name, variable in file.variables.items()}
            raise ValueError(f"{path}: no variable intensity{PATTERN_DIMENSIONS}; found {found}")
        patterns = Patterns(
            intensity=np.asarray(file["intensity"][:], dtype=np.float32),
            zone_axes=[tuple(int(v) for v in axis) for axis in np.asarray(file["uvw"][:])],
            voltages=np.asarray(file["voltage"][:], dtype=float),
            camera_lengths=np.asarray(file["camera_length"][:], dtype=float),
            x=np.asarray(file["x"][:], dtype=float),
            y=np.asarray(file["y"][:], dtype=float),
            attributes={name: file.getncattr(name) for name in file.ncattrs()},
        )
    if not np.isfinite(patterns.intensity).all():
        raise ValueError(f"{path}: intensities that are not finite; simulate the file again")
    return patterns


def display(
    intensity: np.ndarray, x: np.ndarray, y: np.ndarray, beam_stop: float, decades: float, dtype: type = np.float16
) -> np.ndarray:
    """Grey values in [0, 1] from stored intensities: beam stop, logarithm, scale.

    Args:
        intensity: fraction of the incident beam, shape (..., y, x), not negative.
        x, y: pixel centres, mm.
        beam_stop: radius of the disc around the optic axis that is masked, mm; pixels with centres inside become 0.
        decades: a pixel 10**-decades below the brightest unmasked pixel of its pattern, or darker, becomes 0.
        dtype: of the result.

    The grey value is 1 + log10(I / I_max) / decades, cut off below at 0; a pattern without any intensity outside the
    beam stop is 0 everywhere. Raises ValueError if the beam stop hides the whole detector.
    """
    open_pixels = np.hypot(*np.meshgrid(x, y)) >= beam_stop
    if not open_pixels.any():
        raise ValueError(
            f"learning.display.beam_stop of {beam_stop} mm hides all of a detector {np.ptp(x):.1f} mm wide"
        )
    values = np.where(open_pixels, intensity, 0).astype(np.float32)
    brightest = values.max(axis=(-2, -1), keepdims=True)
    floor = np.float32(10.0**-decades)
    relative = np.divide(values, brightest, out=np.zeros_like(values), where=brightest > 0)
    grey = 1 + np.log10(np.maximum(relative, floor)) / np.float32(decades)
    return np.clip(grey, 0, 1).astype(dtype)


def true_labels(rows: Sequence[LabelRow], space_group: int, zone_axes: Sequence[Axis]) -> np.ndarray:
    """Label of a perfect crystal of `space_group` for each axis, shape (zone_axis,), int64.

    Axes that differ by signs or order of the indices are equivalent in the cubic groups of the table. Raises ValueError
    for a pair that the label table does not hold.
    """
    known = {(group, tuple(sorted(map(abs, axis)))): label for (group, axis), label in label_of(rows).items()}
    out = []
    for axis in zone_axes:
        key = (space_group, tuple(sorted(abs(int(value)) for value in axis)))
        if key not in known:
            raise ValueError(
                f"no label for space group {space_group} and zone axis {list(axis)}: add both to the label table"
            )
        out.append(known[key])
    return np.array(out, dtype=np.int64)


@dataclass(frozen=True)
class Images:
    """Display images of many crystals in memory.

    Attributes:
        images: grey values, float16, shape (n, y, x). labels: (n,). material: index into `materials`, (n,).
        materials: ids in order. digest: sha256 over ids, labels and grey values.
    """

    images: np.ndarray
    labels: np.ndarray
    material: np.ndarray
    materials: list[str]
    space_groups: list[int]
    digest: str


def load_images(
    files: Mapping[str, Path | str],
    crystals: Sequence[SplitRow],
    labels: Sequence[LabelRow],
    beam_stop: float,
    decades: float,
) -> Images:
    """Read the pattern files of `crystals` and display them, crystal after crystal so that memory stays bounded.

    Args:
        files: pattern file by material id; files of other crystals are ignored.
        crystals: rows of the split table, all of which must have a file.

    Raises ValueError for a missing file or for files of different image sizes.
    """
    missing = [row.material for row in crystals if row.material not in files]
    if missing:
        raise ValueError(
            f"no pattern file for {len(missing)} crystals of the split table, first {missing[0]}: simulate them"
        )
    hasher = hashlib.sha256()
    images: np.ndarray | None = None
    all_labels, index, filled = [], [], 0
    for number, row in enumerate(crystals):
        patterns = read_patterns(files[row.material])
        grey = display(patterns.intensity, patterns.x, patterns.y, beam_stop, decades)
        grey = grey.reshape(-1, *grey.shape[-2:])
        if images is None:
            images = np.empty((len(grey) * len(crystals), *grey.shape[-2:]), dtype=grey.dtype)
        if grey.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"{files[row.material]}: images of {grey.shape[1:]} pixels, others have {images.shape[1:]}"
            )
        if filled + len(grey) > len(images):
            images = np.concatenate([images, np.empty_like(images, shape=(len(grey), *images.shape[1:]))])
        images[filled : filled + len(grey)] = grey
        filled += len(grey)
        per_axis = true_labels(labels, row.space_group, patterns.zone_axes)
        all_labels.append(np.repeat(per_axis, len(grey) // len(per_axis)))
        index.append(np.full(len(grey), number, dtype=np.int64))
        hasher.update(f"{row.material}:{row.space_group}:".encode())
        hasher.update(all_labels[-1].tobytes())
        hasher.update(grey.tobytes())
    if images is None:
        raise ValueError("no crystals to load: the split table part is empty")
    return Images(
        images=images[:filled],
        labels=np.concatenate(all_labels),
        material=np.concatenate(index),
        materials=[row.material for row in crystals],
        space_groups=[row.space_group for row in crystals],
        digest=hasher.hexdigest(),
    )
