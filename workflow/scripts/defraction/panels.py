"""Which conditions of a study each figure of the article shows: the nearest of what the configuration holds.

No heavy imports: the workflow asks this when it plans.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from defraction.conditions import Condition
from defraction.published import SHOWN_AXES

PRINTED_STRAINS = {"xx": (0.02, 0.05), "xy": (0.015, 0.035)}  # Fig. 3; shear in rad
PRINTED_SUPERCELLS = {"Al": 2, "Fe": 3}  # Table 2, the higher concentration
POINT = ("vacancy", "substitution")


class Panel(NamedTuple):
    """One picture: condition, zone axis (three integers) and title; `shown`: of the file of the axes shown."""

    condition: str
    zone_axis: tuple[int, int, int]
    title: str
    shown: bool = False


def shown_axes(
    conditions: Mapping[str, Condition], structures: Mapping[str, str], zone_axes: Sequence[Sequence[int]]
) -> dict[str, list[list[int]]]:
    """Zone axes that the article shows of dislocations and twins, by condition (controls too).

    Only those that some of `zone_axes` is equivalent to, since only these have labels; `structures`: crystal structure
    by host.
    """
    known = {tuple(sorted(map(abs, axis))) for axis in zone_axes}
    out = {}
    for condition in conditions.values():
        axes = SHOWN_AXES.get((condition.family, structures[condition.host]), [])
        axes = [list(axis) for axis in axes if tuple(sorted(map(abs, axis))) in known]
        if axes:
            out[condition.id] = axes
    return out


def panels(
    conditions: Mapping[str, Condition],
    axes: Mapping[str, Sequence[Sequence[int]]],
    zone_axes: Sequence[Sequence[int]],
) -> dict[str, list[Panel]]:
    """Panels of the figures of patterns, by figure; a figure without its defect has none.

    Args:
        axes: of `shown_axes`. zone_axes: of the patterns; [001] is shown where it is one of them, else the first.
    """
    every = list(conditions.values())
    front = next((tuple(a) for a in zone_axes if tuple(sorted(map(abs, a))) == (0, 0, 1)), tuple(zone_axes[0]))
    out = {
        "strain_patterns": _strain(every, front),
        "thermal_patterns": _thermal(every, front),
        "point_patterns": _point(every, front),
        "interstitial": [Panel(c.id, front, c.parameter) for c in _relaxed(every, ("interstitial",))[:1]],
        "dislocation_patterns": [],
        "twin_patterns": [],
    }
    for kind in ("dislocation", "twin"):
        found = [c for c in every if c.kind == kind and c.id in axes]
        # one dislocation array as in the article, both hosts of the twins; further ones have the overview
        chosen = found[:1] if kind == "dislocation" else list({c.host: c for c in reversed(found)}.values())[::-1]
        defects = [Panel(c.id, tuple(axis), f"{c.host}, {c.parameter}", True) for c in chosen for axis in axes[c.id]]
        perfect = [
            Panel(c.control, tuple(axis), f"{c.host}, perfect", True)
            for c in chosen
            if c.control in conditions
            for axis in axes[c.id]
        ]
        out[f"{kind}_patterns"] = defects + perfect
    return {name: found for name, found in out.items() if found}


def figures(
    conditions: Mapping[str, Condition], found: Mapping[str, Sequence[Panel]], pixels: Sequence[int]
) -> list[str]:
    """Names of the figures that a study has, in the order of its report.

    Args:
        found: of `panels`. pixels: of the patterns of each model.
    """
    kinds = {c.kind for c in conditions.values()}
    single = any(c.kind == "strain" and "mode" not in c.settings for c in conditions.values())
    relaxed = bool(relaxed_point_defects(conditions))
    wanted = {
        "accuracy": True,
        "strain": single,
        "strain_patterns": "strain_patterns" in found,
        "thermal_displacements": "thermal" in kinds,
        "thermal_patterns": "thermal_patterns" in found,
        "point_displacements": relaxed,
        "point_patterns": "point_patterns" in found,
        "table2": bool(kinds & set(POINT)),
        "interstitial": "interstitial" in found,
        "dislocation_patterns": "dislocation_patterns" in found,
        "twin_patterns": "twin_patterns" in found,
        "sweeps": bool(kinds & {"random_defects", "random_displacements"}),
        "resolution": len(set(pixels)) > 1,
        "ensemble": True,
        "settings": True,
        "mistakes": True,
        "confusion": True,
        "calibration": True,
        "patterns": True,
        "learning": True,
    }
    return [name for name, there in wanted.items() if there]


def relaxed_point_defects(conditions: Mapping[str, Condition]) -> list[str]:
    """Relaxed vacancies and substitutions in the order of the article's Fig. 6: the vacancies first, Al before Fe."""
    found = _relaxed(list(conditions.values()), POINT)
    return [c.id for c in sorted(found, key=lambda c: (POINT.index(c.kind), c.host, -_cells(c)))]


def _relaxed(every: Sequence[Condition], kinds: Sequence[str]) -> list[Condition]:
    return [c for c in every if c.kind in kinds and c.relaxed]


def _cells(condition: Condition) -> int:
    a, b, c = condition.settings["supercell"]
    return a * b * c


def _strain(every: Sequence[Condition], axis: tuple) -> list[Panel]:
    single = [c for c in every if c.kind == "strain" and "mode" not in c.settings and c.settings["value"] > 0]
    hosts = [host for host in dict.fromkeys(["Al", *(c.host for c in single)]) if any(c.host == host for c in single)]
    if not hosts:
        return []
    host, chosen = hosts[0], []
    for component, printed in PRINTED_STRAINS.items():
        offered = [c for c in single if c.host == host and c.settings["component"] == component]
        for value in printed:
            if offered:
                chosen.append(min(offered, key=lambda c: abs(c.settings["value"] - value)))
    chosen = list({c.id: c for c in chosen}.values())
    pristine = [c for c in every if c.host == host and c.kind == "pristine"]
    return [Panel(c.id, axis, _title(c)) for c in [*pristine, *chosen]] if chosen else []


def _title(condition: Condition) -> str:
    if condition.kind == "pristine":
        return f"{condition.host}, no strain"
    component, value = condition.settings["component"], condition.settings["value"]
    normal = component[0] == component[1]
    symbol = rf"$\varepsilon_{{{component}}}$" if normal else rf"$\gamma_{{{component}}}$"
    return f"{condition.host}, {symbol} = " + (f"{100 * value:.3g} %" if normal else f"{value:.3g} rad")


def _thermal(every: Sequence[Condition], axis: tuple) -> list[Panel]:
    found = [c for c in every if c.kind == "thermal"]
    if not found:
        return []
    host = found[0].host
    largest: dict[tuple, Condition] = {}
    for c in sorted((c for c in found if c.host == host), key=_cells):
        largest[c.settings["protocol"] != "published", c.settings["temperature"]] = c
    ordered = [largest[key] for key in sorted(largest)]
    still = [Panel(ordered[0].control, axis, f"{host}, at rest")]
    return still + [Panel(c.id, axis, f"{host}, {c.parameter}") for c in ordered[:5]]


def _point(every: Sequence[Condition], axis: tuple) -> list[Panel]:
    out = []
    for host in sorted({c.host for c in _relaxed(every, POINT)}, reverse=True):
        wanted = PRINTED_SUPERCELLS.get(host, 2) ** 3
        row, control = [], None
        for kind in POINT:
            found = [c for c in _relaxed(every, (kind,)) if c.host == host]
            if found:
                best = min(found, key=lambda c: abs(_cells(c) - wanted))
                control = control or best.control
                solute = (best.settings["defect"].get("solute") or "").capitalize()
                row.append(Panel(best.id, axis, f"{host}, {solute or kind}, {best.parameter.split()[-1]}"))
        out += [Panel(control, axis, f"{host}, perfect"), *row]
    return out
