"""From the configuration to the table of conditions: stable ids, matched controls, each condition's own settings.

Ids are made from host, kind and parameters and never from a position in a list, so editing one entry leaves the files
of all others where they are. Controls are conditions too and are added by themselves (architecture: loss is control
minus condition).
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from defraction import config as schema

POINT_DEFECTS = ("vacancy", "substitution", "interstitial")
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
        """Which builder makes the structure: strain, point, thermal, dislocation or twin."""
        return self.settings["family"]

    @property
    def relaxed(self) -> bool:
        return self.settings.get("relaxed", False)


def expand(config: schema.Config, hosts: dict) -> dict[str, Condition]:
    """All conditions of a configuration with their controls, keyed by id, in the order of the configuration.

    Args:
        config: a checked configuration.
        hosts: known hosts by name.

    Raises:
        schema.ConfigError: unknown host or element, or two entries that mean the same condition.
    """
    out: dict[str, Condition] = {}
    for i, entry in enumerate(config.conditions):
        where = f"conditions[{i}]"
        if entry.host not in hosts:
            near = difflib.get_close_matches(entry.host, hosts, n=1, cutoff=0.4)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise schema.ConfigError(
                f"{where}.host: unknown host '{entry.host}'; {hint}"
                f"Known hosts (resources/hosts.csv): {', '.join(hosts)}"
            )
        if hasattr(entry, "solute"):
            _check_element(entry.solute, f"{where}.solute")
        for condition in _conditions(entry, config):
            known = out.get(condition.id)
            if known is not None and known != condition:
                raise schema.ConfigError(f"{where}: the id {condition.id} has two meanings; change one of the entries")
            if known is not None and condition.kind not in ("control", "pristine"):
                raise schema.ConfigError(f"{where}: {condition.id} is already a condition; remove one of the two")
            out[condition.id] = condition
    return out


def write_table(conditions: dict[str, Condition], path: Path) -> None:
    """Write results/conditions.csv."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for c in conditions.values():
            writer.writerow([c.id, c.control, c.host, c.kind, c.parameter, json.dumps(c.settings, sort_keys=True)])


def seed_of(seed: int, condition: str) -> int:
    """Seed of one condition, so that two conditions of one study do not share their random numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed} {condition}".encode()).digest()[:4], "big")


def digest(conditions: dict[str, Condition]) -> str:
    """Digest of the whole table, for the one rule that writes it."""
    text = json.dumps([asdict(c) for c in conditions.values()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def representatives(conditions: dict[str, Condition]) -> list[str]:
    """One id per host and kind for the picture of patterns: the last listed (the strongest strain, the highest
    temperature), relaxed rather than unrelaxed, no controls."""
    chosen = {}
    for c in conditions.values():
        if c.kind != "control" and not c.id.endswith("-unrelaxed"):
            chosen[c.host, c.kind, c.settings.get("component")] = c.id
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


def _conditions(entry, config: schema.Config) -> list[Condition]:
    host, prefix = entry.host, entry.host.lower()
    repeat, supercell_repeat = list(config.specimen.repeat), list(config.specimen.supercell_repeat)
    pristine = Condition(
        f"{prefix}-pristine", f"{prefix}-pristine", host, "pristine", "", _settings("strain", repeat=repeat)
    )
    if entry.kind == "pristine":
        return [pristine]
    if entry.kind == "strain":
        return [pristine, *(_strain(entry, value, pristine, repeat) for value in entry.numbers())]
    if entry.kind in ("dislocation", "twin"):
        return _lattice_defect(entry)

    cells = list(entry.supercell)
    size = "x".join(map(str, cells))
    perfect_id = f"{prefix}-perfect-{size}"
    common = {"supercell": cells, "repeat": supercell_repeat}
    perfect = Condition(
        perfect_id, perfect_id, host, "control", f"perfect {size}", _settings("point", defect=None, **common)
    )
    if entry.kind == "thermal":
        name = "thermal" if entry.protocol == "published" else f"thermal-{entry.protocol}"
        return [perfect] + [
            Condition(
                f"{prefix}-{name}-{t:g}K-{size}", perfect_id, host, "thermal", f"{t:g} K, {entry.protocol}",
                _settings("thermal", temperature=t, protocol=entry.protocol, **common),
            )
            for t in entry.temperatures
        ]  # fmt: skip

    parts = [entry.kind] + [getattr(entry, k) for k in ("solute", "site") if hasattr(entry, k)]
    base = "-".join([prefix, *(p.lower() for p in parts), size])
    defect = {"kind": entry.kind, "solute": getattr(entry, "solute", None), "site": getattr(entry, "site", None)}
    parameter = " ".join([*parts[1:], size])
    out = [
        perfect,
        Condition(
            base, perfect_id, host, entry.kind, parameter, _settings("point", defect=defect, relaxed=True, **common)
        ),
    ]
    if entry.unrelaxed:
        out.append(
            Condition(
                f"{base}-unrelaxed", perfect_id, host, entry.kind, f"{parameter}, unrelaxed",
                _settings("point", defect=defect, relaxed=False, **common),
            )
        )  # fmt: skip
    return out


def _strain(entry, value: float, pristine: Condition, repeat: list[int]) -> Condition:
    normal = entry.component[0] == entry.component[1]
    text = f"{100 * value:+.6g}pct" if normal else f"{value:+.6g}rad"
    return Condition(
        f"{entry.host.lower()}-strain-{entry.component}{text}",
        pristine.id,
        entry.host,
        "strain",
        f"{entry.component} {text.replace('pct', ' %').replace('rad', ' rad')}",
        _settings("strain", component=entry.component, value=value, repeat=repeat),
    )


def _lattice_defect(entry) -> list[Condition]:
    settings = {k: v for k, v in schema.plain(entry).items() if k not in ("host", "kind")}
    name = f"{entry.host.lower()}-{entry.kind}"
    parameter = "one boundary"
    if entry.kind == "dislocation":
        name += f"-edge-{entry.count}"
        parameter = f"{entry.count} edges, {entry.spacing:g} Å apart"
    control = f"{name}-control"
    return [
        Condition(
            control,
            control,
            entry.host,
            "control",
            f"control of {name}",
            _settings(entry.kind, perfect=True, **settings),
        ),
        Condition(name, control, entry.host, entry.kind, parameter, _settings(entry.kind, perfect=False, **settings)),
    ]


def _settings(family: str, **values) -> dict[str, Any]:
    return dict(sorted({"family": family, **values}.items()))


def _check_element(symbol: str, where: str) -> None:
    from ase.data import chemical_symbols

    if symbol not in chemical_symbols[1:]:
        near = difflib.get_close_matches(symbol.capitalize(), chemical_symbols[1:], n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise schema.ConfigError(f"{where}: '{symbol}' is no chemical element{hint}")
