"""Labels by appearance: which zone-axis patterns of which space groups have the same spot geometry.

A label is the scale-free arrangement of the allowed reflections of a zero-order Laue zone (ZOLZ). Two pairs (space
group, zone axis) whose arrangements are equal up to a rotation or mirror image in the detector plane and a scale carry
one label. (Mirror images count as equal because which of the two is seen depends on the variant of the axis, [123] or
[132].) The extinctions are those of the general position, taken from the operations of the space group; absences that
come only from special positions or from equal scatterers are a matter of the crystal, not of the group, and left out.

All groups here are cubic, so positions are compared in exact integer arithmetic and no tolerance enters.
"""

import csv
import logging
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import gemmi
import numpy as np

log = logging.getLogger(__name__)

SPACE_GROUPS = (213, 221, 225, 227, 229)
# Coprime 0 <= u <= v <= w with u^2 + v^2 + w^2 <= 22: sixteen axes, from [001] to [233].
ZONE_AXES = (
    (0, 0, 1),
    (0, 1, 1),
    (1, 1, 1),
    (0, 1, 2),
    (1, 1, 2),
    (1, 2, 2),
    (0, 1, 3),
    (1, 1, 3),
    (0, 2, 3),
    (1, 2, 3),
    (0, 1, 4),
    (2, 2, 3),
    (1, 1, 4),
    (1, 3, 3),
    (1, 2, 4),
    (2, 3, 3),
)
COLUMNS = ("space_group", "zone_axis", "label", "name")
RADIUS = 8  # compare reflections out to this many times the shortest allowed one (48 classes for 6 to 10)
REACH = 12  # largest index of the reflections that tell extinction classes apart

Axis = tuple[int, int, int]
Point = tuple[Fraction, int, Fraction]


class LabelRow(NamedTuple):
    """One pair of the label table: `zone_axis` is a tuple of three integers, `label` counts from 0."""

    space_group: int
    zone_axis: Axis
    label: int
    name: str


def axis_name(zone_axis: Sequence[int]) -> str:
    """Zone axis as text: `[001]`, `[-110]`; spaces separate indices beyond one digit: `[1 0 12]`."""
    indices = [int(value) for value in zone_axis]
    return "[" + (" " if max(map(abs, indices)) > 9 else "").join(str(value) for value in indices) + "]"


def parse_axis(text: str) -> Axis:
    """Inverse of `axis_name`; raises ValueError for anything that is not three integers."""
    body = text.strip().strip("[]").replace(",", " ")
    if " " in body.strip():
        indices = [int(part) for part in body.split()]
    else:
        indices, sign = [], 1
        for character in body:
            if character == "-":
                sign = -1
            elif character.isdigit():
                indices.append(sign * int(character))
                sign = 1
            else:
                raise ValueError(f"zone axis {text!r}: {character!r} is no index; write it as [001] or [-1 1 0]")
    if len(indices) != 3:
        raise ValueError(f"zone axis {text!r} has {len(indices)} indices, not 3; write it as [001] or [-1 1 0]")
    return tuple(indices)


def _primitive(zone_axis: Sequence[int]) -> Axis:
    axis = tuple(int(value) for value in zone_axis)
    if len(axis) != 3 or axis == (0, 0, 0):
        raise ValueError(f"zone axis {list(zone_axis)}: needs three integers, not all zero")
    common = int(np.gcd.reduce(np.abs(axis)))
    return tuple(value // common for value in axis)


def allowed_reflections(space_group: int, zone_axis: Sequence[int], radius: int = RADIUS) -> np.ndarray:
    """Reflections of the zero-order Laue zone that the general position allows, out to `radius` times the shortest.

    Returns integers of shape (n, 3) without (000), sorted by length. Raises ValueError for a group that is not cubic.
    """
    group = gemmi.find_spacegroup_by_number(space_group)
    if group is None or group.crystal_system() != gemmi.CrystalSystem.Cubic:
        raise ValueError(f"space group {space_group} is not cubic: labels are derived for groups 195 to 230")
    axis = np.array(_primitive(zone_axis))
    operations = group.operations()
    reach = 8
    while True:
        line = np.arange(-reach, reach + 1)
        hkl = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
        squared = (hkl**2).sum(axis=1)
        hkl = hkl[(hkl @ axis == 0) & (squared > 0) & (squared <= reach**2)]
        hkl = hkl[~operations.systematic_absences(hkl.astype(np.int32))]
        if len(hkl):
            squared = (hkl**2).sum(axis=1)
            limit = radius**2 * squared.min()
            if limit <= reach**2:
                keep = squared <= limit
                return hkl[keep][np.argsort(squared[keep], kind="stable")]
        reach *= 2


def extinction_classes(
    space_groups: Sequence[int] = SPACE_GROUPS, zone_axes: Sequence[Sequence[int]] = ZONE_AXES, reach: int = REACH
) -> list[tuple[int, ...]]:
    """Space groups that no reflection condition tells apart in the zones given: ascending, ordered by first member.

    Two groups share a class if the same reflections (hkl) of the zero-order zones of `zone_axes` are absent for the
    general position, |h|, |k|, |l| up to `reach`. Over all directions these are the groups of one extinction symbol
    (International Tables A, 3.1.4); over few zones more groups fall together. Indices count, not only the scale-free
    geometry: an F and a P lattice differ here in every zone that holds a mixed reflection.
    Raises ValueError for a group that does not exist.
    """
    line = np.arange(-reach, reach + 1)
    hkl = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
    axes = np.array([_primitive(axis) for axis in zone_axes])
    hkl = hkl[(hkl @ axes.T == 0).any(axis=1) & hkl.any(axis=1)].astype(np.int32)
    found: dict[bytes, list[int]] = {}
    for number in sorted(space_groups):
        group = gemmi.find_spacegroup_by_number(number)
        if group is None:
            raise ValueError(f"there is no space group {number}")
        found.setdefault(np.asarray(group.operations().systematic_absences(hkl)).tobytes(), []).append(number)
    return [tuple(members) for members in found.values()]


def appearance(space_group: int, zone_axis: Sequence[int], radius: int = RADIUS) -> tuple[Point, ...]:
    """Canonical form of the spot geometry: equal for two zones exactly if they agree up to rotation, mirror and scale.

    Coordinates are along and across the shortest reflection g0, in units of |g0|: g.g0 / g0.g0 is rational and the
    part across is m sqrt(N) / g0.g0 with integers m and N = u^2 + v^2 + w^2, so its sign and square are kept. Of the
    possible choices of g0, and of the two mirror images, the one with the smallest list is taken.
    """
    axis = np.array(_primitive(zone_axis))
    norm = int(axis @ axis)
    hkl = allowed_reflections(space_group, zone_axis, radius)
    squared = (hkl**2).sum(axis=1)
    forms = []
    for g0 in hkl[squared == squared[0]]:
        length = int(g0 @ g0)
        along = hkl @ g0
        across = (np.cross(g0, hkl) @ axis) // norm  # g0 x g is an integer multiple of the primitive axis
        for side in (across, -across):
            points = zip(along.tolist(), side.tolist(), strict=True)
            # integers over the common denominator length**2: exact, and quicker to sort than fractions
            forms.append(tuple(sorted((p * length, (m > 0) - (m < 0), m * m * norm) for p, m in points)))
    smallest, length = min(forms), int(squared[0])
    return tuple((Fraction(p, length**2), sign, Fraction(m, length**2)) for p, sign, m in smallest)


def label_table(
    space_groups: Sequence[int] = SPACE_GROUPS, zone_axes: Sequence[Sequence[int]] = ZONE_AXES, radius: int = RADIUS
) -> list[LabelRow]:
    """Label of every pair, ordered by zone axis, then group; labels are numbered in the order of first appearance.

    The name of a label lists its members, as in `[014]:221,225 [223]:229`. Raises ValueError for repeated groups or
    axes.
    """
    groups = [int(group) for group in space_groups]
    axes = [tuple(int(value) for value in axis) for axis in zone_axes]
    for what, values in (("space group", groups), ("zone axis", axes)):
        if len(set(values)) != len(values) or not values:
            raise ValueError(f"label table: each {what} must be given once, got {values}")
    numbers: dict[tuple[Point, ...], int] = {}
    members: dict[int, dict[Axis, list[int]]] = {}
    pairs = []
    for axis in axes:
        for group in groups:
            label = numbers.setdefault(appearance(group, axis, radius), len(numbers))
            members.setdefault(label, {}).setdefault(axis, []).append(group)
            pairs.append((group, axis, label))
    names = {
        label: " ".join(f"{axis_name(axis)}:{','.join(map(str, found))}" for axis, found in of_label.items())
        for label, of_label in members.items()
    }
    log.info("%d labels for %d space groups and %d zone axes", len(numbers), len(groups), len(axes))
    return [LabelRow(group, axis, label, names[label]) for group, axis, label in pairs]


def write_labels(
    path: Path | str,
    space_groups: Sequence[int] = SPACE_GROUPS,
    zone_axes: Sequence[Sequence[int]] = ZONE_AXES,
    radius: int = RADIUS,
) -> list[LabelRow]:
    """Write the label table as CSV with columns `space_group, zone_axis, label, name`; returns its rows."""
    rows = label_table(space_groups, zone_axes, radius)
    with Path(path).open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow((row.space_group, axis_name(row.zone_axis), row.label, row.name))
    return rows


def read_labels(path: Path | str) -> list[LabelRow]:
    """Read a table written by `write_labels`; raises ValueError naming the file if columns or labels are wrong."""
    with Path(path).open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f"{path}: columns {reader.fieldnames}, expected {list(COLUMNS)}; write it with write_labels"
            )
        rows = [
            LabelRow(int(row["space_group"]), parse_axis(row["zone_axis"]), int(row["label"]), row["name"])
            for row in reader
        ]
    if sorted({row.label for row in rows}) != list(range(number_of_labels(rows))):
        raise ValueError(f"{path}: labels must run from 0 without gaps; write it with write_labels")
    return rows


def table_of_card(card: Mapping[str, Any]) -> list[LabelRow]:
    """The label table that a network's card holds."""
    names = card["labels"]
    return [LabelRow(group, parse_axis(axis), label, names[label]) for group, axis, label in card["label_table"]]


def number_of_labels(rows: Sequence[LabelRow]) -> int:
    """Number of labels in a table; raises ValueError for an empty one."""
    if not rows:
        raise ValueError("the label table is empty: give at least one space group and one zone axis")
    return max(row.label for row in rows) + 1


def label_of(rows: Sequence[LabelRow]) -> dict[tuple[int, Axis], int]:
    """Label by (space group, zone axis)."""
    return {(row.space_group, row.zone_axis): row.label for row in rows}


def space_groups_of(rows: Sequence[LabelRow]) -> list[int]:
    """Space groups of a table, ascending."""
    return sorted({row.space_group for row in rows})


def space_group_given_label(rows: Sequence[LabelRow]) -> np.ndarray:
    """P(space group | label), uniform prior over groups and zone axes; shape (label, space group), rows sum to 1."""
    groups = space_groups_of(rows)
    counts = np.zeros((number_of_labels(rows), len(groups)))
    for row in rows:
        counts[row.label, groups.index(row.space_group)] += 1
    return counts / counts.sum(axis=1, keepdims=True)


def single_pattern_limit(rows: Sequence[LabelRow]) -> float:
    """Best possible accuracy over space groups from one pattern when only its label is known (Bayes, uniform prior).

    Every label is answered with its likeliest group: sum over labels of P(label) max P(space group | label). For the
    five groups and sixteen axes of the default it is 48/80 = 0.6.
    """
    counts = np.bincount([row.label for row in rows], minlength=number_of_labels(rows))
    return float((counts / counts.sum() * space_group_given_label(rows).max(axis=1)).sum())
