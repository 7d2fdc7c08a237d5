"""Accuracies: all conditions, strain (the article's Fig. 2), its Table 2, sweeps of random disorder, resolution."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from defraction.conditions import Condition
from defraction.evaluation.names import CLEAN, SHOWN
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
from defraction.published import Published, is_article, stand_in

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
    printed = any(r["published"] for r in shown)
    if printed:
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
            f"Grey bars: the matched control; {'diamonds: the article; ' if printed else ''}lines: intervals over "
            "zone axes of one crystal, over crystals for the held-out ones.",
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
            if len(seeds) > 1:
                band = np.array(
                    [[number(rows[s, n]["accuracy_label"]) for s in seeds if (s, n) in rows] for _, n in points]
                )
                panel.fill_between(x, band.min(axis=1), band.max(axis=1), color=colour, alpha=0.15, lw=0)
            name = host + source
            y = _curve(panel, x, [rows[model, id_] for _, id_ in points], marker, colour, name)
            sentences.append(f"{name}, {component}: {percent(y[np.argmin(np.abs(x))])} without strain, ")
            sentences[-1] += f"{percent(y[-1])} at {x[-1]:.3g}{' %' if normal else ' rad'}."
        panel.set_xlabel(rf"normal strain $\varepsilon_{{{component}}}$ [%]" if normal else
                         rf"shear strain $\gamma_{{{component}}}$ [rad]")  # fmt: skip
        panel.set_ylim(-0.02, 1.04)
        letter(panel, index)
    printed = []
    for entry in published:
        condition = conditions.get(entry.members[0])
        if entry.relation == "=" and condition is not None and condition.kind == "strain" and len(entry.members) == 1:
            value = condition.settings["value"]
            place = components.index(condition.settings["component"])
            panels[0][place].plot(value, entry.accuracy, "D", mfc="none", color="k", zorder=4)
            printed.append(f"{percent(entry.accuracy)} at {value:g} rad")
    panels[0][0].set_ylabel("accuracy over labels")
    if printed:
        panels[0][0].plot([], [], "D", mfc="none", color="k", ls="none", label="Jeong et al. 2024")
    panels[0][0].legend(loc="lower left")
    sheet.save(figure)
    sentences.append(
        "Zero strain is the pristine control. Shaded: what the article's text says of its Fig. 2 (no noticeable effect "
        "up to 2.5 % and 0.015 rad; below 80 % above 3.5 %)"
        + (f"; diamond: its {', '.join(printed)}." if printed else ".")
        + " Bars are intervals over zone axes of one crystal."
    )
    if len(seeds) > 1:
        sentences.append(f"Bands: range of {len(seeds)} training seeds.")
    sheet.describe("Accuracy against uniform strain (the article's Fig. 2).", sentences)


def _printed(panel: Any, component: str) -> None:
    """What the article's text says of its Fig. 2: flat up to a strain, below 80 % from another on."""
    panel.axvspan(0, 2.5 if component == "xx" else 0.015, color=PALE, alpha=0.45, lw=0, zorder=0)
    if component == "xx":
        panel.fill_between([3.5, 5.2], 0, 0.8, color=PALE, alpha=0.45, lw=0, zorder=0)


def table2(table: Path, comparison: Path, models: Path, published: Sequence[Published], sheet: Sheet) -> None:
    """Point defects by concentration: the rows of the article's Table 2 in its order, below each the conditions that
    it was measured on, then all further vacancies and substitutions.

    Args:
        table, comparison: results/accuracy.csv and results/comparison.csv. Where a condition of the article is not in
            the run, its row and the condition that stands in for it are drawn hollow, and the caption names both.
    """
    model, _, facts = headline(models)
    rows = {r["condition"]: r for r in read(table) if r["model"] == model}
    plain = [name for name in rows if not name.endswith(SHOWN)]
    found = {r["item"]: r for r in read(comparison) if (r["model"], r["axes"]) == (model, "all")}
    lines: list[_Line] = []
    sentences = [f"Model {model}, {facts['pixels']} pixels, diffraction model {facts['diffraction_model']}."]
    named: set[str] = set()
    for entry in published:
        if not entry.where.startswith("Table 2"):
            continue
        title = entry.condition.removeprefix("pooled-").replace("-", ", ")
        row = found.get(entry.condition)
        if row is None:
            sentences.append(f"{title.capitalize()}: not in this run.")
            continue
        members = {member: stand_in(member, entry.relation, plain) for member in entry.members}
        own = [
            _Line.of(_stands(name, member), rows[name], is_article(name, member))
            for member, name in members.items()
            if name
        ]
        exact = len(own) == len(members) and all(line.exact for line in own)
        whole = _Line.of_comparison(title, row, exact)
        lines += [whole, *own]
        named.update(filter(None, members.values()))
        absent = [f"no {member}" for member, name in members.items() if name is None]
        sentences.append(
            f"{title.capitalize()}: {whole.words}, article {percent(entry.accuracy, 2)}, {row['n_patterns']} patterns: "
            + "; ".join([f"{line.title} {line.words}" for line in own] + absent)
            + "."
        )
    further = [name for name in plain if rows[name]["kind"] in ("vacancy", "substitution") and name not in named]
    further = [name for name in further if not name.startswith("pooled")]
    further.sort(key=lambda name: (rows[name]["kind"] != "vacancy", rows[name]["host"]))
    others = [_Line.of(name, rows[name], True) for name in further]
    lines += others
    figure, axes = plt.subplots(figsize=(0.8 * DOUBLE, 0.22 * len(lines) + 0.9))
    pair = sheet.colours
    for y, line in enumerate(lines):
        colour = {"Al": pair[0], "Fe": pair[2]}.get(line.host, "k")
        if y and (np.isfinite(line.article) or line is (others or [None])[0]):
            axes.axhline(y - 0.5, color=PALE, lw=0.8, zorder=0)
        axes.plot([line.low, line.high], [y, y], color=colour, zorder=1)
        face = colour if line.exact else "w"
        axes.plot(line.accuracy, y, "o" if np.isnan(line.article) else "s", color=colour, mfc=face)
        axes.plot(line.control, y, "|", color=GREY, ms=8, mew=1.8)
        axes.plot(line.article, y, "D", mfc="none", color=ACCENT)
    axes.set_yticks(range(len(lines)), [line.title for line in lines])
    for text, line in zip(axes.get_yticklabels(), lines, strict=True):
        text.set_fontweight("bold" if np.isfinite(line.article) else "normal")
    axes.set_ylim(len(lines) - 0.4, -0.6)
    lowest = np.nanmin([(line.accuracy, line.low, line.control) for line in lines])
    axes.set_xlim(max(-0.02, min(0.6, lowest - 0.05)), 1.01)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("accuracy over labels")
    for exact, face, label in ((True, "k", "this run, with interval"), (False, "w", "the same, stand-in")):
        if any(line.exact is exact for line in lines):
            axes.plot([], [], "o-", color="k", mfc=face, label=label)
    if np.isfinite([line.control for line in lines]).any():
        axes.plot([], [], "|", color=GREY, ms=8, mew=1.8, ls="none", label="matched control")
    if any(np.isfinite(line.article) for line in lines):
        axes.plot([], [], "D", mfc="none", color=ACCENT, ls="none", label="Jeong et al. 2024")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncol=4)
    sheet.save(figure)
    if others:
        sentences.append(f"Beside the table: {'; '.join(f'{line.title} {line.words}' for line in others)}.")
    sentences.append(
        "The article prints one number for Al and Fe together (bold). Hollow: another cell stands in for the "
        "article's, which is named in brackets. Names that end in unrelaxed keep all atoms on ideal sites. Lines are "
        "intervals over zone axes."
    )
    sheet.describe("Point defects (the article's Table 2).", sentences)


def _stands(name: str, member: str) -> str:
    """A condition of this run, with the supercell of the article that it stands in for."""
    return name if is_article(name, member) else f"{name} (for {member.rsplit('-', 1)[-1]})"


class _Line(NamedTuple):
    """One line of `table2`: accuracy with interval, control and the article's number, each NaN where there is none;
    `exact`: measured on what the article names."""

    title: str
    host: str
    accuracy: float
    low: float
    high: float
    control: float
    article: float
    exact: bool

    @classmethod
    def of(cls, name: str, row: Row, exact: bool) -> "_Line":
        """Of a row of the accuracy table."""
        accuracy, low, high = _interval(row)
        return cls(name, row["host"], accuracy, low, high, accuracy + number(row["loss_label"]), np.nan, exact)

    @classmethod
    def of_comparison(cls, title: str, row: Row, exact: bool) -> "_Line":
        """Of a row of the comparison with the article."""
        control, article = number(row["control_accuracy_label"]), number(row["published"])
        return cls(title, "Al+Fe", *_interval(row), control, article, exact)

    @property
    def words(self) -> str:
        return percent(self.accuracy) + (f", control {percent(self.control)}" if np.isfinite(self.control) else "")


def _interval(row: Row) -> tuple[float, float, float]:
    accuracy, low, high = (number(row[f"accuracy_label{tail}"]) for tail in ("", "_low", "_high"))
    return accuracy, low, high


def _curve(panel: Any, x: np.ndarray, rows: Sequence[Row], marker: str, colour: Any, label: str) -> np.ndarray:
    """Draw label accuracies with their intervals and return them."""
    y, low, high = np.array([_interval(row) for row in rows]).T
    panel.errorbar(x, y, [y - low, high - y], fmt=f"{marker}-", capsize=2, elinewidth=0.8, color=colour, label=label)
    return y


def sweeps(table: Path, models: Path, conditions: Mapping[str, Condition], sheet: Sheet) -> None:
    """Label accuracy against the concentration of random point defects and against random displacements; at zero the
    matched control."""
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
            control = points[0][1]["control"]
            points = [(0.0, rows[control])] * (control in rows) + points
            x = 100 * np.array([value for value, _ in points])
            y = _curve(panel, x, [row for _, row in points], marker, colour, name)
            measured = [f"{percent(value)} at {at:.3g} %" for at, value in zip(x, y, strict=True) if at]
            beside = f"control {control} {percent(y[0])}, " if x[0] == 0 else ""
            sentences.append(f"{name}: {beside}{', '.join(measured)}.")
        panel.set_xlabel(axis[kind])
        panel.set_ylim(-0.02, 1.04)
        panel.set_xlim(left=0)
        panel.legend(loc="lower left")
        letter(panel, index)
    panels[0][0].set_ylabel("accuracy over labels")
    sheet.save(figure)
    sentences.append(
        "Not in the article: others tested vacancies up to 25 % and random displacements of some per cent. "
        "Defects are unrelaxed, at random over the whole specimen; bars are intervals over zone axes."
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
