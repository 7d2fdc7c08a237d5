"""Extinction classes: the space groups that no reflection condition tells apart over the zone axes of a study."""

from collections.abc import Sequence
from pathlib import Path

from defraction.learning.labels import LabelRow, extinction_classes, read_labels, space_groups_of
from defraction.tables import write_rows

COLUMNS = ("extinction_class", "space_groups")


def classes_of(labels: Sequence[LabelRow]) -> list[tuple[int, ...]]:
    """Classes of a label table's groups over its zone axes: space groups, ordered by the first of each class."""
    axes = list(dict.fromkeys(row.zone_axis for row in labels))
    return extinction_classes(space_groups_of(labels), axes)


def write_classes(path: Path | str, labels: Path | str) -> None:
    """Write the extinction classes of a label table as CSV (`COLUMNS`)."""
    rows = [
        {"extinction_class": number, "space_groups": " ".join(map(str, members))}
        for number, members in enumerate(classes_of(read_labels(labels)))
    ]
    write_rows(path, COLUMNS, rows)
