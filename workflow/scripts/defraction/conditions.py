"""The table of conditions: stable ids, matched controls, each condition's own settings.

How it follows from a configuration is in `expansion`; what is here is all that a job needs to read it.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

COLUMNS = ("condition", "control", "host", "kind", "parameter", "settings")


@dataclass(frozen=True)
class Condition:
    """One row of results/conditions.csv.

    Attributes:
        id: key of all files of this condition.
        control: id of the matched control; equal to `id` for a control.
        host: host crystal.
        kind: kind of defect, `pristine`, or `control`.
        parameter: the varied quantity, for people.
        settings: plain values that decide the structure (Å, K, fractions).
    """

    id: str
    control: str
    host: str
    kind: str
    parameter: str
    settings: dict[str, Any] = field(hash=False)

    @property
    def family(self) -> str:
        """Which builder makes the structure: strain, point, block, thermal, dislocation or twin."""
        return self.settings["family"]

    @property
    def relaxed(self) -> bool:
        return self.settings.get("relaxed", False)

    @property
    def computed(self) -> bool:
        """Whether the structure waits for a calculation from first principles of its own or of elastic constants."""
        return self.relaxed or self.family == "thermal" or self.settings.get("elastic") == "gpaw"


def rows(conditions: dict[str, Condition]) -> list[dict[str, Any]]:
    """The rows of the table: plain values, of a potential file its name without the folder."""
    out = []
    for condition in conditions.values():
        row = asdict(condition)
        if row["settings"].get("potential"):
            row["settings"]["potential"] = Path(row["settings"]["potential"]).name
        out.append(row)
    return out


def write_table(conditions: dict[str, Condition], path: Path) -> None:
    """Write results/conditions.csv."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows(conditions):
            columns = (row[key] for key in ("id", "control", "host", "kind", "parameter"))
            writer.writerow([*columns, json.dumps(row["settings"], sort_keys=True)])


def seed_of(seed: int, condition: str) -> int:
    """Seed of one condition, so that two conditions of one study do not share their random numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed} {condition}".encode()).digest()[:4], "big")


def digest(conditions: dict[str, Condition]) -> str:
    """Digest of the whole table as it is written, for the one rule that writes it."""
    text = json.dumps(rows(conditions), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def representatives(conditions: dict[str, Condition]) -> list[str]:
    """One id per host and kind for the picture of patterns: the last listed (the strongest strain, the highest
    temperature), relaxed rather than unrelaxed, no controls."""
    chosen = {}
    for c in conditions.values():
        if c.kind != "control" and not c.id.endswith("-unrelaxed"):
            chosen[c.host, c.kind, c.settings.get("mode"), c.settings.get("component")] = c.id
    return list(chosen.values())


def read_table(path: Path) -> dict[str, Condition]:
    """Read results/conditions.csv."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        r["condition"]: Condition(
            r["condition"], r["control"], r["host"], r["kind"], r["parameter"], json.loads(r["settings"])
        )
        for r in rows
    }
