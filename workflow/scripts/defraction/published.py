"""The article's numbers: resources/paper/published.csv (accuracies) and displacements.csv, with page and place."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("condition", "members", "relation", "accuracy", "page", "where", "note")
DISPLACEMENT_COLUMNS = ("condition", "quantity", "value", "page", "where", "note")
RELATIONS = ("=", "<", "flat")
SHOWN_AXES = {
    ("dislocation", "fcc"): [(1, 1, -2), (1, 1, 1), (-1, 1, 0)],
    ("dislocation", "bcc"): [(1, 1, -2), (1, -1, 0), (1, 1, 1)],
    ("twin", "fcc"): [(-1, 1, 0)],
    ("twin", "bcc"): [(-1, 0, 1)],
}
"""Zone axes that the article shows of dislocations (its Fig. 9: along the line, the normal of the slip plane and the
Burgers vector) and twins (Fig. 10), overbars restored (docs/conventions.md); the same directions for bcc edges."""


OWN_PRESET = ("", "-smoke", "-laptop", "-paper")
"""How ids end, by the preset that a condition names for itself, if it does; the better the later."""


@dataclass(frozen=True)
class Published:
    """One published statement about an accuracy.

    Attributes:
        condition: id of the row. members: the conditions that it pools (itself if it pools nothing).
        accuracy: fraction; None where the article gives no number.
        relation: `=` this accuracy, `<` an accuracy below this, `flat` no noticeable loss against the pristine crystal.
        page, where: place in the article. note: what the reader has to know.
    """

    condition: str
    members: tuple[str, ...]
    accuracy: float | None
    page: str
    where: str
    note: str
    relation: str = "="


@dataclass(frozen=True)
class PublishedDisplacement:
    """One published number about displacements: `largest` or `x_largest` [Å], or `atoms:low:high` or
    `x_atoms:low:high`, the number of atoms displaced by low to high [Å], in all or along x."""

    condition: str
    quantity: str
    value: float
    page: str
    where: str
    note: str


def read_published(path: Path | str) -> list[Published]:
    """Read published accuracies; raises ValueError naming file and row for what is not a fraction or a relation."""
    rows = []
    for row in _read(path, COLUMNS):
        where = f"{path}: {row['condition']}"
        if row["relation"] not in RELATIONS:
            raise ValueError(f"{where}: relation {row['relation']!r}; write one of {' '.join(RELATIONS)}")
        accuracy = float(row["accuracy"]) if row["accuracy"] else None
        if (accuracy is None) != (row["relation"] == "flat"):
            raise ValueError(f"{where}: an accuracy is given with = and <, and only with them")
        if accuracy is not None and not 0 <= accuracy <= 1:
            raise ValueError(f"{where}: accuracy {accuracy}; write a fraction, 0 to 1")
        members = tuple(row["members"].split(";")) if row["members"] else (row["condition"],)
        rows.append(
            Published(row["condition"], members, accuracy, row["page"], row["where"], row["note"], row["relation"])
        )
    return rows


def read_displacements(path: Path | str) -> list[PublishedDisplacement]:
    """Read published displacements; raises ValueError naming the file for columns that are not those expected."""
    return [PublishedDisplacement(**{**row, "value": float(row["value"])}) for row in _read(path, DISPLACEMENT_COLUMNS)]


def is_article(name: str, condition: str) -> bool:
    """Whether a condition of a run is one of the article: by its id, or by its id and the preset of its own."""
    return name in [condition + end for end in OWN_PRESET]


def stand_in(condition: str, relation: str, known: Sequence[str]) -> str | None:
    """The condition of a run that is nearest to one of the article: itself, with a preset of its own or without, else
    the same defect in another supercell (the largest), the nearest number of dislocations (of two as near, the larger),
    or for bounds on strains the next strain for which the bound speaks."""
    if condition in known:
        return condition
    if match := re.fullmatch(r"(.+-)\d+x\d+x\d+", condition):
        pattern = re.compile(re.escape(match[1]) + rf"(\d+)x(\d+)x(\d+)({'|'.join(OWN_PRESET)})")
        cells = [
            (is_article(name, condition), int(m[1]) * int(m[2]) * int(m[3]), OWN_PRESET.index(m[4]), name)
            for name in known
            if (m := pattern.fullmatch(name))
        ]
        return max(cells)[-1] if cells else None
    if match := re.fullmatch(r"(.+-dislocation-[a-z]+-)(\d+)", condition):
        pattern = re.compile(re.escape(match[1]) + r"(\d+)")
        rows = [(abs(int(m[1]) - int(match[2])), -int(m[1]), name) for name in known if (m := pattern.fullmatch(name))]
        return min(rows)[-1] if rows else None
    if (match := re.fullmatch(r"(.+-strain-[a-z]+\+)([\d.]+)(pct|rad)", condition)) and relation != "=":
        pattern = re.compile(re.escape(match[1]) + r"([\d.]+)" + match[3])
        strains = sorted((float(m[1]), name) for name in known if (m := pattern.fullmatch(name)))
        limit = float(match[2])
        if relation == "<":
            return next((name for value, name in strains if value >= limit), None)
        return next((name for value, name in reversed(strains) if value <= limit), None)
    return None


def _read(path: Path | str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if tuple(reader.fieldnames or ()) != columns:
            raise ValueError(f"{path}: columns {reader.fieldnames}, expected {list(columns)}")
        return list(reader)
