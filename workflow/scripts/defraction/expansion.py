"""From the configuration to the table of conditions.

Ids are made from host, kind and parameters and never from a position in a list, so editing one entry leaves the files
of all others where they are. Controls are conditions too and are added by themselves (architecture: loss is control
minus condition).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from typing import Any

from defraction import config as schema
from defraction.conditions import Condition, seed_of
from defraction.hosts import Host, unit_cell

LATTICE_DEFECTS = {"dislocation": ("fcc", "bcc"), "twin": ("fcc", "bcc")}
"""Crystal structures in which they are built (`defects.dislocation.FRAMES`, `defects.twin.FRAMES`)."""

PROTOCOLS = {"published": "short run", "equilibrated": "equilibrium"}
"""Protocols of molecular dynamics for people: beside a picture, "published" would read as a picture of the article."""


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
        host = hosts[entry.host]
        if host.space_group not in config.materials.space_groups:
            raise schema.ConfigError(
                f"{where}.host: {entry.host} has space group {host.space_group}, which is not among "
                f"materials.space_groups ({', '.join(map(str, config.materials.space_groups))}): no network would know "
                "it; add the group or remove the condition"
            )
        if entry.kind in LATTICE_DEFECTS and host.crystal_structure not in LATTICE_DEFECTS[entry.kind]:
            known = " and ".join(LATTICE_DEFECTS[entry.kind])
            raise schema.ConfigError(
                f"{where}.host: a {entry.kind} is built in {known} crystals; {entry.host} is {host.crystal_structure}"
            )
        _check_point_defects(entry, host, config, where)
        for condition in _conditions(entry, config):
            known = out.get(condition.id)
            if known is not None and known != condition:
                raise schema.ConfigError(f"{where}: the id {condition.id} has two meanings; change one of the entries")
            if known is not None and condition.kind not in ("control", "pristine"):
                raise schema.ConfigError(f"{where}: {condition.id} is already a condition; remove one of the two")
            out[condition.id] = condition
    return out


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
    if entry.kind in ("random_defects", "random_displacements"):
        return _random_block(entry, pristine, repeat)
    if entry.kind in ("dislocation", "twin"):
        return _lattice_defect(entry)

    cells = list(entry.supercell)
    size = "x".join(map(str, cells))
    common = {"supercell": cells, "repeat": supercell_repeat}
    if entry.preset is not None:
        size += f"-{entry.preset}"
        common["preset"] = entry.preset
    perfect_id = f"{prefix}-perfect-{size}"
    perfect = Condition(
        perfect_id, perfect_id, host, "control", f"perfect {size}", _settings("point", defect=None, **common)
    )
    if entry.kind == "thermal":
        name = "thermal" if entry.protocol == "published" else f"thermal-{entry.protocol}"
        several = ""
        if entry.flights is not None:
            common["flights"] = entry.flights
            several = f", {entry.flights} flights"
        return [perfect] + [
            Condition(
                f"{prefix}-{name}-{t:g}K-{size}", perfect_id, host, "thermal",
                f"{t:g} K, {PROTOCOLS[entry.protocol]}{several}",
                _settings("thermal", temperature=t, protocol=entry.protocol, **common),
            )
            for t in entry.temperatures
        ]  # fmt: skip

    parts, defect, at_random = (_several if entry.kind == "point_defects" else _alike)(entry)
    base = "-".join([prefix, *(p.lower() for p in parts), size])
    if at_random:
        defect |= {**at_random, "seed": seed_of(config.seed, base)}
    if entry.minimum_separation is not None:
        defect["minimum_separation"] = entry.minimum_separation
    if entry.cell == "relaxed":
        base += "-cell"
        common["cell"] = "relaxed"
    named = [" + ".join(parts[1:-1])] if entry.kind == "point_defects" else parts[1:]
    parameter = " ".join([*named, size, *(["cell relaxed"] if entry.cell == "relaxed" else [])])
    out = [
        perfect,
        Condition(
            base, perfect_id, host, entry.kind, parameter, _settings("point", defect=defect, relaxed=True, **common)
        ),
    ]
    if entry.unrelaxed and entry.cell == "fixed":
        out.append(
            Condition(
                f"{base}-unrelaxed", perfect_id, host, entry.kind, f"{parameter}, unrelaxed",
                _settings("point", defect=defect, relaxed=False, **common),
            )
        )  # fmt: skip
    return out


def _alike(entry) -> tuple[list[str], dict, dict]:
    """Parts of the id, the defect as `defects.point` takes it, and what of it is random."""
    parts = [entry.kind] + [getattr(entry, k) for k in ("solute", "site") if hasattr(entry, k)]
    defect = {"kind": entry.kind, "solute": getattr(entry, "solute", None), "site": getattr(entry, "site", None)}
    if entry.count > 1:
        parts.append(f"x{entry.count}")
    if entry.positions is not None:
        defect["position"] = [list(position) for position in entry.positions]
        parts.append("at" + _short_hash(defect["position"]))
    return parts, defect, {"count": entry.count} if entry.count > 1 else {}


def _several(entry) -> tuple[list[str], dict, dict]:
    """As `_alike`, of a list of defects: a hash in the id stands for where they are."""
    defects = []
    for one in entry.defects:
        given = {key: value for key, value in schema.plain(one).items() if value is not None}
        if "positions" in given:
            given["position"] = given.pop("positions")
        defects.append(dict(sorted(given.items())))
    names = ["-".join(filter(None, (one.solute, one.site))) or one.kind for one in entry.defects]
    at_random = any("count" in one or "concentration" in one for one in defects)
    defect = {} if at_random else {"defects": defects}
    return ["defects", *names, _short_hash(defects)], defect, {"defects": defects} if at_random else {}


def _short_hash(values) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:6]


def _strain(entry, value: float, pristine: Condition, repeat: list[int]) -> Condition:
    name, parameter, settings = _deformation(entry, value)
    if entry.elastic == "gpaw":
        settings["elastic"] = "gpaw"
        name, parameter = f"{name}-gpaw", f"{parameter}, constants by GPAW"
        if entry.preset is not None:
            settings["preset"] = entry.preset
            name, parameter = f"{name}-{entry.preset}", f"{parameter} ({entry.preset})"
    return Condition(
        f"{entry.host.lower()}-strain-{name}",
        pristine.id,
        entry.host,
        "strain",
        parameter,
        _settings("strain", repeat=repeat, **settings),
    )


def _deformation(entry, value: float) -> tuple[str, str, dict]:
    """A strain in its id and for people, and the settings of `defects.strain`."""
    if entry.mode in ("stress", "tensor"):
        given = getattr(entry, entry.mode)
        components = {entry.component: value} if given is None else given.times(value)
        parts = [(component, f"{number:+.6g}") for component, number in components.items()]
        unit = ("GPa", " GPa") if entry.mode == "stress" else ("", "")
        return (
            f"{entry.mode}-{'-'.join(component + number for component, number in parts)}{unit[0]}",
            f"{entry.mode} {' '.join(f'{component} {number}' for component, number in parts)}{unit[1]}",
            {"mode": entry.mode, entry.mode: components},
        )
    if entry.mode == "pressure":
        text = f"{value:+.6g}GPa"
    elif entry.mode == "component" and entry.component[0] != entry.component[1]:
        text = f"{value:+.6g}rad"
    else:
        text = f"{100 * value:+.6g}pct"
    plane = entry.plane or (0, 0, 1)
    name, settings = {
        "component": (entry.component, {"component": entry.component, "value": value}),
        "biaxial": (
            "biaxial-" + "".join(map(str, plane)),
            {"mode": "biaxial", "plane": list(plane), "value": value},
        ),
        "hydrostatic": ("hydrostatic", {"mode": "hydrostatic", "value": value}),
        "pressure": ("pressure", {"mode": "stress", "pressure": value}),
    }[entry.mode]
    number = text.replace("pct", " %").replace("rad", " rad").replace("GPa", " GPa")
    return f"{name}{text}", f"{name.replace('-', ' ')} {number}", settings


def _random_block(entry, pristine: Condition, block: list[int]) -> list[Condition]:
    out = [pristine]
    common = {"block": block, "samples": entry.samples}
    prefix = entry.host.lower()
    if entry.kind == "random_displacements":
        for fraction in entry.fractions:
            text = f"{100 * fraction:.6g}pct"
            settings = {"displacement": {"distribution": entry.distribution, "fraction": fraction}, **common}
            out.append(
                Condition(
                    f"{prefix}-displaced-{entry.distribution}-{text}", pristine.id, entry.host, entry.kind,
                    f"{entry.distribution} {100 * fraction:.6g} %", _settings("block", **settings),
                )
            )  # fmt: skip
        return out
    parts = [p for p in (entry.defect, entry.solute, entry.site) if p]
    for concentration in entry.concentrations:
        defect = {"kind": entry.defect, "solute": entry.solute, "site": entry.site, "concentration": concentration}
        out.append(
            Condition(
                "-".join([prefix, "random", *(p.lower() for p in parts), f"{100 * concentration:.6g}pct"]),
                pristine.id, entry.host, entry.kind, f"{' '.join(parts)} {100 * concentration:.6g} %",
                _settings("block", defects=[defect], **common),
            )
        )  # fmt: skip
    return out


def _lattice_defect(entry) -> list[Condition]:
    settings = {k: v for k, v in schema.plain(entry).items() if k not in ("host", "kind") and v is not None}
    relaxed = {k: settings.pop(k) for k in ("potential", "fmax", "rim") if k in settings}
    outline = dict(settings)
    block = f"{entry.host.lower()}-{entry.kind}"
    if entry.kind == "dislocation":
        method = outline.pop("method")
        block += f"-{entry.character}-{entry.count}"
        apart = "evenly" if entry.spacing is None else f"{entry.spacing:g} Å apart"
        parameter = f"{entry.count} {entry.character}, {apart}"
        if entry.periodic:
            block += "-row"
            parameter += ", endless row"
        name = block if method == "elastic" else f"{block}-{method}"
        parameter += "" if method == "elastic" else f", {method}"
    else:
        parameter = "one boundary"
        if entry.thickness is not None:
            block += f"-stack-{entry.thickness:g}A"
            parameter = f"stack of {entry.thickness:g} Å"
        name = block
    if entry.potential is not None:
        settings |= relaxed
        name += "-relaxed"
        parameter += ", relaxed"
    control = f"{block}-control"
    return [
        Condition(
            control,
            control,
            entry.host,
            "control",
            f"control of {block}",
            _settings(entry.kind, perfect=True, **outline),
        ),
        Condition(name, control, entry.host, entry.kind, parameter, _settings(entry.kind, perfect=False, **settings)),
    ]


def _settings(family: str, **values) -> dict[str, Any]:
    return dict(sorted({"family": family, **values}.items()))


def _point_defects(entry) -> list[tuple[str, dict[str, Any]]]:
    """The point defects of an entry as `defects.point` takes them, each with where it stands below the entry."""
    keys = ("kind", "solute", "site", "concentration")
    if entry.kind == "point_defects":
        return [(f".defects[{i}]", {key: getattr(one, key) for key in keys}) for i, one in enumerate(entry.defects)]
    if entry.kind == "random_defects":
        one = {"kind": entry.defect, "solute": entry.solute, "site": entry.site}
        return [("", {**one, "concentration": concentration}) for concentration in entry.concentrations]
    if entry.kind in ("vacancy", "substitution", "interstitial"):
        return [("", {key: getattr(entry, key, None) for key in keys})]
    return []


def _check_point_defects(entry, host: Host, config: schema.Config, where: str) -> None:
    """Raise ConfigError for a point defect that the host cannot have, or a concentration that is not one defect."""
    defects = _point_defects(entry)
    if not defects:
        return
    from defraction.defects.point import check_entry, wanted

    unit = unit_cell(host)
    cells = config.specimen.repeat if entry.kind == "random_defects" else entry.supercell
    for path, defect in defects:
        try:
            check_entry(defect, unit)
            wanted(defect, math.prod(cells) * len(unit))
        except ValueError as error:
            raise schema.ConfigError(f"{where}{path}: {error}") from error
