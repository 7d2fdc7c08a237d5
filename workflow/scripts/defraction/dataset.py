"""Patterns as the network sees them: which crystals train it, how intensities become grey values, arrays in memory.

A split is **by material** (every pattern of a crystal on one side), **by prototype** (every crystal of a prototype on
one side, as far as a space group has several) or **by image** (single patterns; near duplicates of held-out patterns
train). It is stratified by space group.
"""

import csv
import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from defraction.learning.labels import Axis, LabelRow, label_of
from defraction.pattern_files import read_patterns

log = logging.getLogger(__name__)

SPLIT_COLUMNS = (
    "material", "space_group", "prototype", "formula", "host", "part", "prototype_in_training", "by",
    "held_out_patterns", "validation_patterns", "drawn",
)  # fmt: skip
PARTS = ("train", "validation", "held_out")
BY_IMAGE = "image"  # what stands for the part of a crystal whose patterns lie in several
RULES = ("material", "prototype", "image")


# --- split -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SplitRow:
    """One crystal of the split table.

    `part` is `train`, `validation` (chooses a pass, `learning.keep` and `learning.early_stop`), `held_out`, or `image`
    for a crystal whose patterns are divided. `by` is the rule that decided: `material`, `prototype` or `image`; in a
    split by prototype it says `material` where a prototype had to be divided. `held_out_patterns` and
    `validation_patterns` are indices into the flattened grid (zone_axis, voltage, camera_length), of crystals of part
    `image` only. `drawn`: of a crystal drawn at random, not a measured one.
    """

    material: str
    space_group: int
    prototype: str
    formula: str
    host: bool
    part: str
    prototype_in_training: bool
    by: str = "material"
    held_out_patterns: tuple[int, ...] = ()
    validation_patterns: tuple[int, ...] = ()
    drawn: bool = False


def split_table(
    materials: Iterable[Mapping[str, Any]],
    held_out: float,
    seed: int,
    by: str = "material",
    hosts: str = "train",
    validation: float = 0.0,
    host_crystals: Mapping[str, int] | None = None,
    grid: Sequence[int] | None = None,
    drawn: bool = True,
) -> list[SplitRow]:
    """Divide crystals, or their patterns, into training and held-out, stratified by space group.

    Args:
        materials: one mapping per crystal with `material` (id), `space_group` and, where known, `prototype`, `formula`;
            one without a prototype (`-`) has one of its own, its id. `drawn`: true for a crystal drawn at random, which
            trains whatever the rule.
        held_out: fraction of the crystals of each group that is held out, 0 to 1 exclusive; by image, of the patterns
            of each crystal.
        seed: another seed, another split.
        by: `material`, `prototype` or `image`.
        hosts: `train` or `held_out`: where the host crystals go, whatever the draw says.
        validation: fraction of the crystals (patterns) that are not held out which makes a third part; 0: none.
        host_crystals: formula and space group of the host crystals; None: there are none.
        grid: numbers of zone axes, voltages and camera lengths of each crystal; needed by image only.
        drawn: whether crystals drawn at random are in the table at all.

    **By material.** Within a group, crystals are ranked by a hash of seed and id and the first `round(held_out * n)`
    are held out, at least one and at most n - 1. So the order of the table is irrelevant, and adding or removing a
    crystal changes the part of at most one other crystal, of the same group (of two with a third part).

    **By prototype.** Prototypes of a group are ranked by a hash and held out as long as they fit into that number, but
    no more than half of them, at least one. A group of one prototype is divided by material, as is the prototype of a
    held-out host if more than half of the group belong to it; their rows say so in `by`.

    **By image.** Of every crystal, `round(held_out * n)` patterns of the grid, drawn at random; all specimens and
    snapshots at one point of the grid go together.

    Raises ValueError for repeated ids, a fraction out of range, an unknown rule, a group with a single crystal, a split
    by image without grid, or nothing left for the third part.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"learning.split.held_out is {held_out}; give a fraction between 0 and 1, such as 0.3")
    if not 0 <= validation < 1:
        raise ValueError(f"learning.split.validation is {validation}; give a fraction between 0 and 1, such as 0.1")
    if hosts not in ("train", "held_out"):
        raise ValueError(f"learning.split.hosts is {hosts!r}; allowed: train, held_out")
    if by not in RULES:
        raise ValueError(f"learning.split.by is {by!r}; allowed: {', '.join(RULES)}")
    if by == "image" and grid is None:
        raise ValueError("split by image: the numbers of zone axes, voltages and camera lengths are not given")
    crystals = {}
    for crystal in materials:
        if crystal.get("drawn") and not drawn:
            continue
        if str(crystal["material"]) in crystals:
            raise ValueError(f"split: material id {str(crystal['material'])!r} occurs twice; ids are unique")
        crystals[str(crystal["material"])] = crystal
    known = host_crystals or {}
    is_host = {i: known.get(c.get("formula", "")) == int(c["space_group"]) for i, c in crystals.items()}

    measured = {i: c for i, c in crystals.items() if not c.get("drawn")}
    part, rule = dict.fromkeys(crystals, "train"), dict.fromkeys(crystals, by)
    if by == "image":
        part |= {i: "held_out" if is_host[i] and hosts == "held_out" else BY_IMAGE for i in measured}
    else:
        for group in sorted({int(c["space_group"]) for c in crystals.values()}):
            group_ids = [i for i, c in measured.items() if int(c["space_group"]) == group]
            if len(group_ids) < 2:
                few = f"one crystal ({group_ids[0]})" if group_ids else "no crystal but drawn ones"
                raise ValueError(
                    f"split: space group {group} has {few}; it needs one to train on and one to hold out. Add crystals "
                    "of this group or leave it out of materials.space_groups"
                )
            out = [i for i in group_ids if is_host[i] and hosts == "held_out"]
            stay = [i for i in group_ids if is_host[i] and hosts == "train"]
            if by == "prototype":
                kinds = {i: _prototype(crystals[i]) for i in group_ids}
                chosen, divided = _choose_prototypes(kinds, held_out, seed, out, stay)
                rule.update(dict.fromkeys(divided, "material"))
            else:
                chosen = _choose(group_ids, held_out, seed, out, stay)
            rest = [i for i in group_ids if i not in chosen]
            if not chosen or not rest:
                mend = ", or set learning.split.by to material" if by == "prototype" else ""
                raise ValueError(
                    f"split: with learning.split.hosts {hosts}, no crystal of space group {group} is left to "
                    f"{'train on' if chosen else 'hold out'} ({', '.join(group_ids)}). Add crystals of this group{mend}"
                )
            part.update(dict.fromkeys(chosen, "held_out"))
            if validation and len(rest) > max(1, len(stay)):
                part.update(dict.fromkeys(_choose(rest, validation, f"{seed}:validation", (), stay), "validation"))

    trained = {_prototype(crystal) for i, crystal in crystals.items() if part[i] in ("train", BY_IMAGE)}
    rows = []
    for i, crystal in sorted(crystals.items(), key=lambda pair: (int(pair[1]["space_group"]), pair[0])):
        patterns = _choose_patterns(i, grid, held_out, validation, seed) if part[i] == BY_IMAGE else ((), ())
        rows.append(
            SplitRow(
                material=i,
                space_group=int(crystal["space_group"]),
                prototype=_prototype(crystal)[1],
                formula=str(crystal.get("formula") or ""),
                host=is_host[i],
                part=part[i],
                prototype_in_training=_prototype(crystal) in trained,
                by=rule[i],
                held_out_patterns=patterns[0],
                validation_patterns=patterns[1],
                drawn=bool(crystal.get("drawn")),
            )
        )
    assert_disjoint(rows)
    if validation and not members(rows, "validation"):
        raise ValueError(
            "split: too few crystals or patterns for a third part, which learning.keep or early_stop asks for; add "
            "some, or set keep to last and early_stop to 0"
        )
    log.info("split by %s: %s", by, describe_split(rows))
    return rows


def describe_split(rows: Sequence[SplitRow]) -> str:
    """One sentence on a split: how many crystals on each side, how many of them drawn, what could not be kept apart."""
    drawn = sum(row.drawn for row in rows)
    if any(row.part == BY_IMAGE for row in rows):
        count = sum(row.part == BY_IMAGE for row in rows)
        more = f"; {drawn} crystals drawn at random train" if drawn else ""
        return f"single patterns of {count} crystals held out, near duplicates of which train{more}"
    counts = Counter(row.part for row in rows)
    sides = [f"{counts[part]} crystals {part.replace('_', ' ')}" for part in PARTS if counts[part]]
    if drawn:
        sides[0] += f", {drawn} of them drawn at random"
    text = ", ".join(sides)
    mates = sum(row.part == "held_out" and row.prototype_in_training for row in rows)
    return f"{text}; of {mates} of the held-out ones another crystal of the prototype trains"


def _rank(seed: int | str, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _choose(
    members: Sequence[str], fraction: float, seed: int | str, first: Sequence[str], last: Sequence[str]
) -> set[str]:
    """About `fraction` of the members, at least one and not all, but whatever it is all of `first`, none of `last`."""
    count = min(max(round(fraction * len(members)), 1), len(members) - max(1, len(last)))
    count = max(count, len(first))
    ranked = sorted(members, key=lambda i: (i not in first, i in last, _rank(seed, i)))
    return set(ranked[:count])


def _choose_prototypes(
    kinds: Mapping[str, tuple[int, str]], fraction: float, seed: int, first: Sequence[str], last: Sequence[str]
) -> tuple[set[str], set[str]]:
    """Crystals of a group to hold out, prototype by prototype; and those whose prototype had to be divided."""
    sizes = Counter(kinds.values())
    count = min(max(round(fraction * len(kinds)), 1), len(kinds) - 1)
    if len(sizes) == len({kinds[i] for i in last}) or len(sizes) == 1:  # none is free to be held out
        return _choose(list(kinds), fraction, seed, first, last), set(kinds)
    chosen, divided = set(), set()
    for kind in {kinds[i] for i in first}:
        mates = {i for i in kinds if kinds[i] == kind}
        if 2 * len(mates) > len(kinds):
            chosen |= mates & set(first)
            divided |= mates
        else:
            chosen |= mates
    most = max(1, len(sizes) // 2)
    whole = {kinds[i] for i in chosen - divided}
    shut = whole | {kinds[i] for i in divided} | {kinds[i] for i in last}
    for kind in sorted((k for k in sizes if k not in shut), key=lambda k: _rank(seed, f"{k[0]} {k[1]}")):
        if len(whole) < most and len(chosen) + sizes[kind] <= count:
            chosen |= {i for i in kinds if kinds[i] == kind}
            whole.add(kind)
    if not chosen:  # no prototype is small enough: the smallest
        smallest = min((k for k in sizes if k not in shut), key=lambda k: (sizes[k], _rank(seed, f"{k[0]} {k[1]}")))
        chosen = {i for i in kinds if kinds[i] == smallest}
    return chosen, divided


def _choose_patterns(
    material: str, grid: Sequence[int], held_out: float, validation: float, seed: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Patterns of a crystal that are held out, and that make the third part: ascending indices into the flat grid."""
    total = int(np.prod(grid))
    count = min(max(round(held_out * total), 1), total - 1)
    third = min(max(1, round(validation * (total - count))), total - count - 1) if validation else 0
    order = np.random.default_rng(int(_rank(seed, material)[:16], 16)).permutation(total).tolist()
    return tuple(sorted(order[:count])), tuple(sorted(order[count : count + third]))


def _prototype(crystal: Mapping[str, Any]) -> tuple[int, str]:
    known = crystal.get("prototype") not in (None, "", "-")
    return int(crystal["space_group"]), str(crystal["prototype" if known else "material"])


def trained_hosts(rows: Iterable[SplitRow]) -> set[str]:
    """Formulas of the host crystals of a split whose patterns, or some of them, train."""
    return {row.formula for row in rows if row.host and row.part in ("train", BY_IMAGE)}


def assert_disjoint(rows: Sequence[SplitRow]) -> None:
    """Raise ValueError unless the parts are apart, each in the sense of its rule, and neither side is empty.

    Crystals: no id, and no formula within a group, in two parts. Rows by prototype: no crystal of a held-out prototype
    in another part. Rows by image: every pattern of a crystal in one part.
    """
    for part in ("train", "held_out"):
        if not any(row.part in (part, BY_IMAGE) for row in rows):
            raise ValueError(f"split: no crystal in part {part!r}; change learning.split.held_out or add crystals")
    whole = [row for row in rows if row.part != BY_IMAGE]
    for what, key in (
        ("material", lambda row: row.material),
        ("formula and space group", lambda row: (row.formula, row.space_group) if row.formula else row.material),
    ):
        seen: dict[Any, str] = {}
        for row in whole:
            if seen.setdefault(key(row), row.part) != row.part:
                parts = " and ".join(sorted({seen[key(row)], row.part})).replace("_", " ").replace("train", "training")
                raise ValueError(f"split: {what} {key(row)} is in {parts}; keep one of the two")
    used = {(row.space_group, row.prototype) for row in whole if row.part != "held_out"}
    for row in whole:
        if row.by == "prototype" and row.part == "held_out" and (row.space_group, row.prototype) in used:
            raise ValueError(
                f"split: prototype {row.prototype} of {row.material} is held out and in training, though the split is "
                "by prototype; make the split again"
            )
    ids = Counter(row.material for row in rows)
    for row in rows:
        if row.part == BY_IMAGE:
            indices = (*row.held_out_patterns, *row.validation_patterns)
            if ids[row.material] > 1 or len(set(indices)) < len(indices) or not row.held_out_patterns:
                raise ValueError(
                    f"split: {row.material} is divided by image, but a pattern is in two parts or none is held out; "
                    "make the split again"
                )


def write_split(path: Path | str, rows: Sequence[SplitRow]) -> None:
    """Write a split table as CSV with the columns of `SPLIT_COLUMNS`: booleans as 0 and 1, indices apart by spaces."""
    with Path(path).open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(SPLIT_COLUMNS)
        for row in rows:
            writer.writerow([_text(getattr(row, column)) for column in SPLIT_COLUMNS])


def _text(value: Any) -> Any:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return int(value) if isinstance(value, bool) else value


def read_split(path: Path | str) -> list[SplitRow]:
    """Read a split table and check that its parts are disjoint; raises ValueError naming the file otherwise.

    A table without the column `drawn`, from before there were drawn crystals, holds none.
    """
    with Path(path).open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if tuple(reader.fieldnames or ()) not in (SPLIT_COLUMNS, SPLIT_COLUMNS[:-1]):
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
                by=row["by"],
                held_out_patterns=tuple(map(int, row["held_out_patterns"].split())),
                validation_patterns=tuple(map(int, row["validation_patterns"].split())),
                drawn=row.get("drawn") == "1",
            )
            for row in reader
        ]
    assert_disjoint(rows)
    return rows


def members(rows: Sequence[SplitRow], part: str) -> list[SplitRow]:
    """The crystals of which at least one pattern lies in `part`."""
    if part not in PARTS:
        raise ValueError(f"part {part!r} of a split; there are: {', '.join(PARTS)}")
    divided = {"train": lambda row: True, "held_out": lambda row: row.held_out_patterns}
    inside = divided.get(part, lambda row: row.validation_patterns)
    return [row for row in rows if row.part == part or (row.part == BY_IMAGE and inside(row))]


def pattern_mask(row: SplitRow, part: str, grid: Sequence[int]) -> np.ndarray:
    """Which patterns of a crystal lie in `part`: bool of shape `grid`, (zone_axis, voltage, camera_length).

    Raises ValueError if the crystal was divided by image on a larger grid.
    """
    if row.part != BY_IMAGE:
        return np.full(tuple(grid), row.part == part)
    flat = np.zeros(int(np.prod(grid)), dtype=bool)
    others = [*row.held_out_patterns, *row.validation_patterns]
    if others and max(others) >= len(flat):
        raise ValueError(
            f"split: pattern {max(others)} of {row.material} is held out, but its file holds {len(flat)} patterns; "
            "make the split again"
        )
    if part == "train":
        flat[:] = True
        flat[others] = False
    else:
        flat[list(row.held_out_patterns if part == "held_out" else row.validation_patterns)] = True
    return flat.reshape(tuple(grid))


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


def load_patterns(path: Path | str, specimens: str = "all") -> Patterns:
    """Read a pattern file; of a clean crystal `all` specimens (snapshots), or the `block` alone, which is the first.

    Raises ValueError naming the file if it is none or holds values that are not finite.
    """
    wanted = slice(1) if specimens == "block" else slice(None)
    with read_patterns(path) as file:
        patterns = Patterns(
            intensity=np.asarray(file["intensity"][:, :, :, wanted], dtype=np.float32),
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
        materials: ids in order. points: number of patterns, where all specimens of a crystal at one zone axis, voltage
            and camera length count as one. digest: sha256 over ids, labels and grey values.
    """

    images: np.ndarray
    labels: np.ndarray
    material: np.ndarray
    materials: list[str]
    space_groups: list[int]
    points: int
    digest: str


def load_images(
    files: Mapping[str, Path | str],
    split: Sequence[SplitRow],
    labels: Sequence[LabelRow],
    beam_stop: float,
    decades: float,
    part: str = "train",
    specimens: str = "all",
) -> Images:
    """Read the patterns of one part of a split and display them, crystal after crystal so that memory stays bounded.

    Args:
        files: pattern file by material id; files of crystals outside the part are ignored.
        split: rows of the split table; every crystal of the part must have a file.
        part: train, validation or held_out.
        specimens: `all` or `block`, as in `load_patterns`.

    Raises ValueError for an empty part, a missing file or files of different image sizes.
    """
    crystals = members(split, part)
    missing = [row.material for row in crystals if row.material not in files]
    if missing:
        raise ValueError(
            f"no pattern file for {len(missing)} crystals of the split table, first {missing[0]}: simulate them"
        )
    hasher = hashlib.sha256()
    images: np.ndarray | None = None
    all_labels, index, filled, points = [], [], 0, 0
    for number, row in enumerate(crystals):
        patterns = load_patterns(files[row.material], specimens)
        intensity = patterns.intensity
        chosen = np.flatnonzero(pattern_mask(row, part, intensity.shape[:3]))
        flat = intensity.reshape(-1, *intensity.shape[3:])[chosen]
        grey = display(flat, patterns.x, patterns.y, beam_stop, decades).reshape(-1, *flat.shape[-2:])
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
        points += len(chosen)
        per_axis = true_labels(labels, row.space_group, patterns.zone_axes)
        per_point = np.repeat(per_axis, intensity[0, :, :, 0, 0, 0].size)[chosen]
        all_labels.append(np.repeat(per_point, intensity.shape[3]))
        index.append(np.full(len(grey), number, dtype=np.int64))
        hasher.update(f"{row.material}:{row.space_group}:".encode())
        hasher.update(all_labels[-1].tobytes())
        hasher.update(grey.tobytes())
    if images is None:
        raise ValueError(f"no crystals to load: part {part!r} of the split table is empty")
    return Images(
        images=images[:filled],
        labels=np.concatenate(all_labels),
        material=np.concatenate(index),
        materials=[row.material for row in crystals],
        space_groups=[row.space_group for row in crystals],
        points=points,
        digest=hasher.hexdigest(),
    )
