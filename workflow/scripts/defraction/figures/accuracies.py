"""Accuracies: all conditions, strain (the article's Fig. 2), its Table 2, sweeps of random disorder, resolution."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from defraction.conditions import Condition
from defraction.evaluation.names import CLEAN
from defraction.figures.style import (
    ACCENT,
    DOUBLE,
    GREY,
    KINDS,
    PALE,
    SINGLE,
    Sheet,
    headline,
    letter,
    number,
    percent,
    plt,
    read,
)
from defraction.published import Published

MOST = 60  # rows of the overview; of longer sweeps only the last value is shown

Row = dict[str, str]


def overview(table: Path, models: Path, sheet: Sheet) -> None:
    """Label accuracy of every condition with its interval, the seeds, the matched control and the article's value."""
    model, seeds, facts = headline(models)
    every = read(table)
    rows = [r for r in every if r["model"] == model]
    accuracy = {(r["model"], r["condition"]): number(r["accuracy_label"]) for r in every}
    shown = [r for r in rows if r["kind"] != "control"]
    shown = _shortened(shown) if len(shown) > MOST else shown
    order = list(KINDS)
    shown.sort(key=lambda r: order.index(r["kind"]) if r["kind"] in order else len(order))
    colour = sheet.colours[0]
    figure, axes = plt.subplots(figsize=(DOUBLE, 0.16 * len(shown) + 0.9))
    last = None
    for y, row in enumerate(shown):
        value, low, high = (number(row[f"accuracy_label{tail}"]) for tail in ("", "_low", "_high"))
        if row["kind"] != last and last is not None:
            axes.axhline(y - 0.5, color=PALE, lw=0.8, zorder=0)
        last = row["kind"]
        found = [accuracy[s, row["condition"]] for s in seeds if (s, row["condition"]) in accuracy]
        if len(found) > 1:
            axes.plot([min(found), max(found)], [y, y], color=colour, lw=5, alpha=0.25, solid_capstyle="butt")
        axes.plot([low, high], [y, y], color=colour, lw=1.2)
        axes.plot(value, y, "o", color=colour)
        controls = [accuracy.get((model, name)) for name in row["control"].split(";")]
        if row["control"] != row["condition"] and row["control"] and None not in controls:
            axes.plot(np.mean(controls), y, "|", color=GREY, ms=8, mew=1.8)
        if row["published"]:
            axes.plot(number(row["published"]), y, "D", mfc="none", color=ACCENT)
    axes.set_yticks(range(len(shown)), [r["condition"] for r in shown], fontsize=6.5)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("accuracy over labels")
    axes.plot([], [], "o-", color=colour, label="this run, with interval")
    if len(seeds) > 1:
        axes.plot([], [], color=colour, lw=5, alpha=0.25, label=f"range of {len(seeds)} seeds")
    axes.plot([], [], "|", color=GREY, ms=8, mew=1.8, ls="none", label="matched control")
    axes.plot([], [], "D", mfc="none", color=ACCENT, ls="none", label="Jeong et al. 2024")
    axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncol=4)
    sheet.save(figure)
    tested = [r for r in shown if r["kind"] != "clean"]
    clean = [r for r in rows if r["condition"] == CLEAN]
    lowest, highest = (f(tested, key=lambda r: number(r["accuracy_label"])) for f in (min, max)) if tested else (0, 0)
    sheet.describe(
        "Accuracy over labels by condition.",
        [
            f"Model {model} ({facts['network']}, {facts['pixels']} pixels, diffraction model "
            f"{facts['diffraction_model']}).",
            f"Perfect crystals held out: {percent(clean[0]['accuracy_label'])}." if clean else "",
            f"Conditions: from {percent(lowest['accuracy_label'])} ({lowest['condition']}) to "
            f"{percent(highest['accuracy_label'])} ({highest['condition']})."
            if tested
            else "",
            "Patterns of the pristine hosts are among those that train this network: theirs is a training accuracy."
            if facts["hosts"] == "train" and any(r["kind"] == "pristine" for r in rows)
            else "",
            "Grey bars: the matched control; diamonds: the article; lines: intervals over patterns of one crystal, "
            "over crystals for the held-out ones.",
        ],
    )


def _shortened(rows: Sequence[Row]) -> list[Row]:
    """Of conditions that differ in one number only, the last."""
    found: dict[tuple, Row] = {}
    for row in rows:
        series = row["published"] == "" and row["kind"] in ("strain", "random_defects", "random_displacements")
        name = re.sub(r"[\d.]+(pct|rad|GPa)$", "", row["condition"]) if series else row["condition"]
        found[row["kind"], name] = row
    return list(found.values())


def strain(
    table: Path, models: Path, conditions: Mapping[str, Condition], published: Sequence[Published], sheet: Sheet
) -> None:
    """Label accuracy against single strain components, one curve per host and source of its elastic constants; zero
    strain is the pristine control."""
    model, seeds, facts = headline(models)
    every = read(table)
    rows = {(r["model"], r["condition"]): r for r in every}
    groups: dict[tuple[str, str, str], list[tuple[float, str]]] = {}
    for c in conditions.values():
        if c.kind == "strain" and "mode" not in c.settings and (model, c.id) in rows:
            source = ", computed constants" if c.settings.get("elastic") == "gpaw" else ""
            groups.setdefault((c.settings["component"], c.host, source), []).append((c.settings["value"], c.id))
    components = sorted({component for component, _, _ in groups}, key=lambda c: (c[0] != c[1], c))
    curves = sorted({key[1:] for key in groups})
    figure, panels = plt.subplots(
        1, len(components), figsize=(min(DOUBLE, 3.5 * len(components)), 2.7), sharey=True, squeeze=False
    )
    sentences = [f"Model {model}, {facts['pixels']} pixels, diffraction model {facts['diffraction_model']}."]
    for index, (panel, component) in enumerate(zip(panels[0], components, strict=True)):
        normal = component[0] == component[1]
        unit = 100 if normal else 1
        if component in ("xx", "xy"):
            _printed(panel, component)
        for (host, source), colour, marker in zip(curves, sheet.colours, "os^Dvp", strict=False):
            if (component, host, source) not in groups:
                continue
            points = list(groups[component, host, source])
            if (model, f"{host.lower()}-pristine") in rows:
                points.append((0.0, f"{host.lower()}-pristine"))
            points.sort()
            x = unit * np.array([value for value, _ in points])
            y, low, high = (
                np.array([number(rows[model, name][f"accuracy_label{tail}"]) for _, name in points])
                for tail in ("", "_low", "_high")
            )
            if len(seeds) > 1:
                band = np.array(
                    [[number(rows[s, n]["accuracy_label"]) for s in seeds if (s, n) in rows] for _, n in points]
                )
                panel.fill_between(x, band.min(axis=1), band.max(axis=1), color=colour, alpha=0.15, lw=0)
            panel.errorbar(
                x,
                y,
                [y - low, high - y],
                fmt=f"{marker}-",
                capsize=2,
                elinewidth=0.8,
                color=colour,
                label=host + source,
            )
            sentences.append(f"{host}{source}, {component}: {percent(y[np.argmin(np.abs(x))])} without strain, ")
            sentences[-1] += f"{percent(y[-1])} at {x[-1]:.3g}{' %' if normal else ' rad'}."
        panel.set_xlabel(rf"normal strain $\varepsilon_{{{component}}}$ [%]" if normal else
                         rf"shear strain $\gamma_{{{component}}}$ [rad]")  # fmt: skip
        panel.set_ylim(-0.02, 1.04)
        letter(panel, index)
    for entry in published:
        condition = conditions.get(entry.members[0])
        if entry.relation == "=" and condition is not None and condition.kind == "strain" and len(entry.members) == 1:
            place = components.index(condition.settings["component"])
            panels[0][place].plot(condition.settings["value"], entry.accuracy, "D", mfc="none", color="k", zorder=4)
    panels[0][0].set_ylabel("accuracy over labels")
    panels[0][0].plot([], [], "D", mfc="none", color="k", ls="none", label="Jeong et al. 2024")
    panels[0][0].legend(loc="lower left")
    sheet.save(figure)
    sentences.append(
        "Zero strain is the pristine control. Shaded: what the article's text says of its Fig. 2 (no noticeable effect "
        "up to 2.5 % and 0.015 rad; below 80 % above 3.5 %); diamond: its 69.8 % at 0.03 rad. Bars are intervals over "
        "patterns of one crystal."
    )
    if len(seeds) > 1:
        sentences.append(f"Bands: range of {len(seeds)} training seeds.")
    sheet.describe("Accuracy against uniform strain (the article's Fig. 2).", sentences)


def _printed(panel: Any, component: str) -> None:
    """What the article's text says of its Fig. 2: flat up to a strain, below 80 % from another on."""
    panel.axvspan(0, 2.5 if component == "xx" else 0.015, color=PALE, alpha=0.45, lw=0, zorder=0)
    if component == "xx":
        panel.fill_between([3.5, 5.2], 0, 0.8, color=PALE, alpha=0.45, lw=0, zorder=0)


def table2(table: Path, models: Path, published: Sequence[Published], sheet: Sheet) -> None:
    """Point defects by concentration: members and pooled pairs beside the article's Table 2."""
    model, _, facts = headline(models)
    rows = {r["condition"]: r for r in read(table) if r["model"] == model}
    printed = [e for e in published if e.condition.startswith(("pooled-vacancy", "pooled-substitution"))]
    lines: list[tuple[str, Row, float | None]] = []
    for entry in printed:
        for member in entry.members:
            if member in rows:
                lines.append((member, rows[member], None))
        if entry.condition in rows:
            lines.append((f"both ({entry.condition.removeprefix('pooled-')})", rows[entry.condition], entry.accuracy))
    named = {member for entry in printed for member in entry.members}
    for name, row in rows.items():
        if row["kind"] in ("vacancy", "substitution") and name not in named and not name.startswith("pooled"):
            lines.append((name, row, None))
    figure, axes = plt.subplots(figsize=(0.8 * DOUBLE, 0.24 * len(lines) + 0.9))
    pair = sheet.colours
    for y, (_, row, value) in enumerate(lines):
        colour = pair[0] if row["host"] == "Al" else pair[2] if "+" not in row["host"] else "k"
        low, high = number(row["accuracy_label_low"]), number(row["accuracy_label_high"])
        axes.plot([low, high], [y, y], color=colour)
        axes.plot(number(row["accuracy_label"]), y, "o" if "+" not in row["host"] else "s", color=colour)
        if row["loss_label"] and row["kind"] != "control":
            axes.plot(number(row["accuracy_label"]) + number(row["loss_label"]), y, "|", color=GREY, ms=8, mew=1.8)
        if value is not None:
            axes.plot(value, y, "D", mfc="none", color=ACCENT)
    axes.set_yticks(range(len(lines)), [name for name, *_ in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlim(min(0.6, min(number(row["accuracy_label_low"]) for _, row, _ in lines) - 0.05), 1.01)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("accuracy over labels")
    axes.plot([], [], "|", color=GREY, ms=8, mew=1.8, ls="none", label="matched control")
    axes.plot([], [], "D", mfc="none", color=ACCENT, ls="none", label="Jeong et al. 2024, Al and Fe together")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncol=2)
    sheet.save(figure)
    pooled = [(e, rows[e.condition]) for e in printed if e.condition in rows]
    missing = [e.condition.removeprefix("pooled-") for e in printed if e.condition not in rows]
    sheet.describe(
        "Point defects (the article's Table 2).",
        [
            f"Model {model}, {facts['pixels']} pixels, diffraction model {facts['diffraction_model']}.",
            *(
                f"{e.condition.removeprefix('pooled-')}: {percent(r['accuracy_label'])} of {r['n_patterns']} patterns, "
                f"article {percent(e.accuracy, 2)}."
                for e, r in pooled
            ),
            f"Not in this run: {', '.join(missing)} of the table." if missing else "",
            "The article prints one number for Al and Fe together. Names that end in unrelaxed keep all atoms on ideal "
            "sites. Lines are intervals over patterns.",
        ],
    )


def sweeps(table: Path, models: Path, conditions: Mapping[str, Condition], sheet: Sheet) -> None:
    """Label accuracy against the concentration of random point defects and against random displacements."""
    model, _, facts = headline(models)
    rows = {r["condition"]: r for r in read(table) if r["model"] == model}
    series: dict[tuple[str, str], list[tuple[float, Row]]] = {}
    for c in conditions.values():
        if c.id not in rows:
            continue
        if c.kind == "random_defects":
            defect = c.settings["defects"][0]
            name = " ".join(
                filter(None, [c.host, defect.get("solute") or "", defect["kind"], defect.get("site") or ""])
            )
            series.setdefault(("defects", name), []).append((defect["concentration"], rows[c.id]))
        elif c.kind == "random_displacements":
            moved = c.settings["displacement"]
            series.setdefault(("displacements", f"{c.host}, {moved['distribution']}"), []).append(
                (moved["fraction"], rows[c.id])
            )
    shown = [kind for kind in ("defects", "displacements") if any(k == kind for k, _ in series)]
    figure, panels = plt.subplots(1, len(shown), figsize=(SINGLE * len(shown), 2.6), sharey=True, squeeze=False)
    axis = {
        "defects": "defects per lattice site [%]",
        "displacements": "displacement / nearest-neighbour distance [%]",
    }
    sentences = [f"Model {model}, {facts['pixels']} pixels, diffraction model {facts['diffraction_model']}."]
    for index, (panel, kind) in enumerate(zip(panels[0], shown, strict=True)):
        names = [name for k, name in series if k == kind]
        for name, colour, marker in zip(names, sheet.colours, "os^Dvp", strict=False):
            points = sorted(series[kind, name], key=lambda point: point[0])
            x = 100 * np.array([value for value, _ in points])
            y, low, high = (
                np.array([number(row[f"accuracy_label{tail}"]) for _, row in points]) for tail in ("", "_low", "_high")
            )
            panel.errorbar(
                x, y, [y - low, high - y], fmt=f"{marker}-", capsize=2, elinewidth=0.8, color=colour, label=name
            )
            sentences.append(f"{name}: {percent(y[-1])} at {x[-1]:.3g} %.")
        panel.set_xlabel(axis[kind])
        panel.set_ylim(-0.02, 1.04)
        panel.set_xlim(left=0)
        panel.legend(loc="lower left")
        letter(panel, index)
    panels[0][0].set_ylabel("accuracy over labels")
    sheet.save(figure)
    sentences.append(
        "Not in the article: its predecessors tested vacancies up to 25 % and random displacements of some per cent. "
        "Defects are unrelaxed, at random over the whole specimen; bars are intervals over patterns."
    )
    sheet.describe("Accuracy against random disorder.", sentences)


def resolution(table: Path, sheet: Sheet) -> None:
    """Label accuracy against the pixels of the patterns, by kind of condition, one panel for each diffraction model.

    Models of the network, split and hosts of the first; of several with equal patterns the first.
    """
    rows = read(table)
    like = ("network", "split_by", "hosts")
    rows = [r for r in rows if all(r[key] == rows[0][key] for key in like)]
    first = {(r["diffraction_model"], r["pixels"]): r["name"] for r in reversed(rows)}
    rows = [r for r in rows if first[r["diffraction_model"], r["pixels"]] == r["name"]]
    models = list(dict.fromkeys(r["diffraction_model"] for r in rows))
    models = [m for m in models if len({r["pixels"] for r in rows if r["diffraction_model"] == m}) > 1] or models[:1]
    figure, panels = plt.subplots(1, len(models), figsize=(SINGLE * len(models) + 1.2, 2.8), sharey=True, squeeze=False)
    sentences = []
    order = {CLEAN: KINDS["clean"]} | {k: v for k, v in KINDS.items() if k != "clean"}
    for index, (panel, model) in enumerate(zip(panels[0], models, strict=True)):
        drawn = 0
        for group, title in order.items():
            points = sorted(
                (int(r["pixels"]), *(number(r[f"accuracy_label{tail}"]) for tail in ("", "_min", "_max")))
                for r in rows
                if r["group"] == group and r["diffraction_model"] == model
            )
            if not points:
                continue
            x, y, low, high = np.array(points).T
            palette = sheet.colours
            colour, style = palette[drawn % len(palette)], "-" if drawn < len(palette) else "--"
            panel.errorbar(
                x, y, [y - low, high - y], fmt=f"o{style}", capsize=2, color=colour, label=title, ms=3, elinewidth=0.8
            )
            drawn += 1
            if group == CLEAN:
                sentences.append(
                    f"Perfect crystals held out, diffraction model {model}: "
                    + ", ".join(f"{percent(v)} at {int(p)} pixels" for p, v in zip(x, y, strict=True))
                    + "."
                )
        panel.set_xscale("log", base=2)
        ticks = sorted({int(r["pixels"]) for r in rows})
        panel.set_xticks(ticks, [str(t) for t in ticks])
        panel.minorticks_off()
        panel.set_xlabel("pixels along the edge")
        panel.set_ylim(-0.02, 1.04)
        if len(models) > 1:
            panel.set_title(model, loc="right")
            letter(panel, index)
    panels[0][0].set_ylabel("accuracy over labels")
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    sheet.save(figure)
    sentences.append(
        "The article only mentions it: more than 256 pixels made its network more sensitive to defects, fewer cost "
        "accuracy on clean patterns. Each kind is the mean over its conditions; bars span the seeds."
    )
    sheet.describe("Accuracy against the resolution of the patterns.", sentences)
