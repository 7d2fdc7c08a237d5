"""What the network answered: ensembles, confusion, calibration, mistakes, accuracy by microscope setting, training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from defraction.conditions import Condition, representatives
from defraction.evaluation.names import CLEAN
from defraction.figures.style import (
    DOUBLE,
    GREY,
    KINDS,
    Sheet,
    headline,
    letter,
    number,
    percent,
    plt,
    read,
)

RULES = {"mean_log": "normalised product", "mean": "mean", "dempster": "Dempster"}
GROUP_COLOURS = ("#9fb8c8", "#c9b458", "#1f6f8b", "#7d9b52", "#c8553d", "#8a5a9e", "#3b3f46")
NAMED = 30  # labels that are still named along a matrix


def ensemble(table: Path, models: Path, sheet: Sheet) -> None:
    """Space-group accuracy of ensembles of k zone axes: three rules and their limit, and every condition."""
    model, _, facts = headline(models)
    rows = [r for r in read(table) if r["model"] == model]
    figure, (left, right) = plt.subplots(1, 2, figsize=(DOUBLE, 2.7), sharey=True)
    sentences = [f"Model {model}, {facts['pixels']} pixels."]
    clean = [r for r in rows if r["condition"] == CLEAN]
    for (rule, title), colour, marker in zip(RULES.items(), sheet.colours, "os^", strict=False):
        points = sorted((int(r["k"]), r) for r in clean if r["rule"] == rule) if clean else []
        if not points:
            continue
        k = [point[0] for point in points]
        y, low, high = (np.array([number(r[name]) for _, r in points]) for name in ("accuracy", "low", "high"))
        left.plot(k, y, f"{marker}-", color=colour, label=title)
        if rule == "mean_log":
            left.fill_between(k, low, high, color=colour, alpha=0.15, lw=0)
            limit = [number(r["limit"]) for _, r in points]
            left.plot(k, limit, "--", color=GREY, lw=1, label="all labels known")
            sentences.append(
                "Held-out perfect crystals, normalised product: "
                + ", ".join(f"{percent(r['accuracy'])} with {n}" for n, r in points)
                + f". Someone who knows every label would reach {percent(limit[0])} with one pattern and "
                f"{percent(limit[-1])} with {k[-1]}."
            )
    left.legend(loc="lower right")
    ticks = sorted({int(r["k"]) for r in rows})
    last = {}
    for name in dict.fromkeys(r["condition"] for r in rows if not r["condition"].startswith((CLEAN, "pooled"))):
        k, y, limit = zip(
            *sorted(
                (int(r["k"]), number(r["accuracy"]), number(r["limit"]))
                for r in rows
                if (r["condition"], r["rule"]) == (name, "mean_log")
            ),
            strict=True,
        )
        right.plot(k, y, color=sheet.colours[0], lw=0.7, alpha=0.35)
        right.plot(k, limit, "--", color=GREY, lw=0.7, alpha=0.35, zorder=1)
        if k[-1] == ticks[-1]:  # the article shows fewer axes of some
            last[name] = y[-1], limit[-1]
    right.plot([], [], color=sheet.colours[0], lw=0.7, label="one condition each")
    right.plot([], [], "--", color=GREY, lw=0.7, label="all labels known")
    right.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncol=2)  # curves may run anywhere
    for index, axes in enumerate((left, right)):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, map(str, ticks))
        axes.minorticks_off()
        axes.set_ylim(-0.02, 1.04)
        axes.set_xlabel("zone axes in the ensemble")
        letter(axes, index)
    left.set_ylabel("accuracy over space groups")
    sheet.save(figure)
    sentences.append("(a) Held-out perfect crystals, three rules; the band is the interval over crystals.")
    if last:
        low, high = min(last, key=last.get), max(last, key=last.get)
        limits = [percent(f(limit for _, limit in last.values())) for f in (min, max)]
        sentences.append(
            f"(b) The conditions and their controls, one crystal each, normalised product: with {ticks[-1]} axes from "
            f"{percent(last[low][0])} ({low}) to {percent(last[high][0])} ({high}); someone who knows every label: "
            f"{' to '.join(dict.fromkeys(limits))}."
        )
    sentences.append("Of each axis a random voltage, camera length, snapshot and copy is drawn.")
    sheet.describe("Space group from several zone axes.", sentences)


def confusion(groups: Path, labels: Path, accuracy: Path, models: Path, sheet: Sheet) -> None:
    """Predicted against true space group and label: single patterns of held-out perfect crystals, shares of a row.

    `accuracy`: results/accuracy.csv, for what is reached by someone who knows every label.
    """
    model, _, facts = headline(models)

    def matrix(path: Path, true: str, predicted: str, key: Any) -> tuple[list, np.ndarray]:
        rows = [r for r in read(path) if r["condition"] == CLEAN and r["model"] == model]
        names = list(dict.fromkeys([r[true] for r in rows] + [r[predicted] for r in rows]))
        names = sorted(names, key=key) if key else names
        out = np.zeros((len(names), len(names)))
        for row in rows:
            out[names.index(row[true]), names.index(row[predicted])] = number(row["share"])
        return names, out

    names, shares = matrix(groups, "true_space_group", "predicted_space_group", int)
    of_labels, label_shares = matrix(labels, "true_label", "predicted_label", None)
    figure, (left, right) = plt.subplots(1, 2, figsize=(DOUBLE, 3.3), width_ratios=(1, 1.12))
    left.imshow(shares, vmin=0, vmax=1, cmap=sheet.shades)
    for (i, j), value in np.ndenumerate(shares):
        left.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if value > 0.6 else "k")
    left.set_xticks(range(len(names)), names)
    left.set_yticks(range(len(names)), names)
    left.set_xlabel("predicted space group")
    left.set_ylabel("true space group")
    strong = matplotlib.colors.PowerNorm(0.5, 0, 1)  # so that rare mistakes are seen
    picture = right.imshow(label_shares, norm=strong, cmap=sheet.shades)
    if len(of_labels) <= NAMED:
        right.set_xticks(range(len(of_labels)), of_labels, rotation=90, fontsize=5)
        right.set_yticks(range(len(of_labels)), of_labels, fontsize=5)
    else:
        # the labels follow the zone axes: a name where the axis changes
        axes = [name.split(":")[0] for name in of_labels]
        first = [0]
        for i, axis in enumerate(axes):
            if axis != axes[i - 1] and i - first[-1] > 1:
                first.append(i)
        right.set_xticks(first, [axes[i] for i in first], rotation=90, fontsize=5.5)
        right.set_yticks(first, [axes[i] for i in first], fontsize=5.5)
    right.set_xlabel("predicted label")
    right.set_ylabel("true label")
    figure.colorbar(picture, ax=right, shrink=0.85, label="share of the row").outline.set_visible(False)
    for index, axes in enumerate((left, right)):
        axes.grid(False)
        axes.spines[:].set_visible(False)
        letter(axes, index)
    sheet.save(figure)
    diagonal = np.diag(label_shares)
    used = label_shares.sum(axis=1) > 0
    worst = np.argmin(np.where(used, diagonal, 2))
    known = _limits(accuracy, model)
    limit = np.mean([value for name, value in known.items() if name.startswith(f"{CLEAN}-")])
    sheet.describe(
        "Confusion of single patterns of held-out perfect crystals.",
        [
            f"Model {model}, {facts['pixels']} pixels. (a) Space groups: {percent(np.diag(shares).mean())} on the "
            f"diagonal when groups count alike, of {percent(limit)} for someone who knows every label: several groups "
            "look alike on many axes.",
            f"(b) {len(of_labels)} labels: {percent(diagonal[used].mean())} on the diagonal when labels count alike; "
            f"the worst is {of_labels[worst]} with {percent(diagonal[worst])}.",
        ],
    )


def _limits(accuracy: Path, model: str) -> dict[str, float]:
    """Accuracy over space groups of single patterns for someone who knows every label, by condition."""
    return {r["condition"]: number(r["limit_space_group"]) for r in read(accuracy) if r["model"] == model}


def calibration(
    reliability: Path, summary: Path, models: Path, conditions: Mapping[str, Condition], sheet: Sheet
) -> None:
    """Accuracy of the answers against their probability, for held-out perfect crystals and for all defects together."""
    model, _, facts = headline(models)
    bins = [r for r in read(reliability) if r["model"] == model]
    totals = {(r["condition"], r["answer"]): r for r in read(summary) if r["model"] == model}
    defects = [c.id for c in conditions.values() if c.kind not in ("control", "pristine")]
    sets = {"perfect, held out": [CLEAN], "all defects": defects}
    figure, panels = plt.subplots(1, 2, figsize=(DOUBLE * 0.86, 2.9), sharey=True)
    sentences = [f"Model {model}, {facts['pixels']} pixels, probabilities as the network gives them."]
    for index, (panel, answer) in enumerate(zip(panels, ("label", "space_group"), strict=True)):
        panel.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--")
        for (title, names), colour, marker in zip(sets.items(), sheet.colours, "os", strict=False):
            found = {name: totals[name, answer] for name in names if (name, answer) in totals}
            weights = {name: number(r["n_patterns"]) for name, r in found.items()}
            merged = _merged([r for r in bins if r["answer"] == answer and r["condition"] in found], weights)
            if merged.size:
                share, confidence, accuracy = merged.T
                error = float(np.sum(share * np.abs(accuracy - confidence)))
                panel.plot(
                    confidence, accuracy, f"{marker}-", color=colour, ms=3, lw=0.9, label=f"{title}: {error:.3f}"
                )
                panel.scatter(confidence, accuracy, s=220 * share, color=colour, alpha=0.25, lw=0)
                known = ""
                if answer == "space_group":
                    limit = np.average([number(r["limit"]) for r in found.values()], weights=list(weights.values()))
                    known = f" (all labels known: {percent(limit)})"
                sentences.append(
                    f"{'Labels' if answer == 'label' else 'Space groups'}, {title}: confidence "
                    f"{percent(np.sum(share * confidence))}, accuracy {percent(np.sum(share * accuracy))}{known}, "
                    f"expected calibration error {error:.3f}."
                )
        panel.set_xlabel(f"probability of the {answer.replace('_', ' ')} answered")
        panel.set_xlim(0, 1.03)
        panel.set_ylim(0, 1.03)
        panel.set_aspect("equal")
        panel.legend(loc="lower right", title="calibration error")
        letter(panel, index)
    panels[0].set_ylabel("share of right answers")
    sheet.save(figure)
    sentences.append("Areas of the discs: shares of the patterns. On the dashed line probabilities could be believed.")
    sheet.describe("Calibration.", sentences)


def _merged(rows: Sequence[Mapping[str, str]], weights: Mapping[str, float]) -> np.ndarray:
    """Bins of several conditions as one table (bin; share, confidence, accuracy), each pattern counting alike."""
    sums: dict[str, np.ndarray] = {}
    for row in rows:
        weight = number(row["share"]) * weights[row["condition"]]
        values = weight * np.array([1.0, number(row["confidence"]), number(row["accuracy"])])
        sums[row["low"]] = sums.get(row["low"], 0) + values
    table = np.array([sums[low] for low in sorted(sums, key=float)])
    if not len(table):
        return np.empty((0, 3))
    return np.column_stack([table[:, 0] / table[:, 0].sum(), table[:, 1] / table[:, 0], table[:, 2] / table[:, 0]])


def mistakes(
    confusions: Path, labels: Path, accuracy: Path, models: Path, conditions: Mapping[str, Condition], sheet: Sheet
) -> None:
    """What the crystals of each condition were called: shares of single patterns by space group answered, the right
    one first, beside what someone who knows every label would call right (`accuracy`: results/accuracy.csv)."""
    model, _, facts = headline(models)
    rows = [r for r in read(confusions) if r["model"] == model]
    names = [c.id for c in conditions.values() if c.kind == "pristine"]
    names += [name for name in representatives(dict(conditions)) if name not in names]
    present = {r["condition"] for r in rows}
    names = [name for name in names if name in present][:40]
    groups = sorted({int(r["predicted_space_group"]) for r in rows})
    colours = dict(zip(groups, GROUP_COLOURS, strict=False))
    share = {(r["condition"], int(r["predicted_space_group"])): number(r["share"]) for r in rows}
    truth = {r["condition"]: int(r["true_space_group"]) for r in rows}
    known = _limits(accuracy, model)
    figure, axes = plt.subplots(figsize=(DOUBLE, 0.2 * len(names) + 0.9))
    for y, name in enumerate(names):
        left = 0.0
        for group in sorted(colours, key=lambda group: (group != truth[name], group)):
            value = share.get((name, group), 0.0)
            axes.barh(y, value, left=left, height=0.72, color=colours[group])
            left += value
        axes.plot([known[name]] * 2, [y - 0.45, y + 0.45], color="k", lw=1.4)
    for group, colour in colours.items():
        axes.bar(0, 0, color=colour, label=str(group))
    axes.plot([], [], "|", color="k", ms=8, mew=1.4, ls="none", label="right with all labels known")
    axes.set_yticks(range(len(names)), [f"{name}  ({truth[name]})" for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.grid(False)
    axes.set_xlabel("share of single patterns")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncol=len(groups) + 1, title="called space group")
    sheet.save(figure)
    wrong = [r for r in read(labels) if r["model"] == model]
    sentences = [
        f"Model {model}, {facts['pixels']} pixels; true space group in brackets, its share on the left. Black "
        "line: what someone who knows every label would call right, since groups look alike on many axes; a network "
        "that prefers one group can pass it for crystals of that group."
    ]
    right = [f"{name} {percent(share.get((name, truth[name]), 0))} ({percent(known[name])})" for name in names]
    sentences.append(f"Called right (with all labels known): {', '.join(right)}.")
    strained = [c for c in conditions.values() if c.kind == "strain" and c.id in names]
    for c in strained[:2]:
        top = [r for r in wrong if r["condition"] == c.id][:2]
        if top:
            sentences.append(
                f"Most frequent wrong labels of {c.id}: "
                + "; ".join(
                    f"{r['zone_axis']} taken for {r['predicted_label']} ({percent(r['share'])} of all patterns)"
                    for r in top
                )
                + "."
            )
    sheet.describe("What the crystals were called.", sentences)


def settings(table: Path, models: Path, conditions: Mapping[str, Condition], sheet: Sheet) -> None:
    """Label accuracy by zone axis, voltage and camera length, for held-out perfect crystals and each kind of defect."""
    model, _, facts = headline(models)
    rows = [r for r in read(table) if r["model"] == model]
    kind = {c.id: c.kind for c in conditions.values() if c.kind != "control"} | {CLEAN: "clean"}
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if row["condition"] in kind:
            key = (row["by"], kind[row["condition"]], row["value"])
            found.setdefault(key, []).append(number(row["accuracy_label"]))
    kinds = [k for k in KINDS if any(key[1] == k for key in found)]
    values = {
        by: list(dict.fromkeys(key[2] for key in found if key[0] == by))
        for by in ("zone_axis", "voltage", "camera_length")
    }
    shown = [by for by in values if len(values[by]) > 1]
    figure, panels = plt.subplots(
        1, len(shown), figsize=(DOUBLE, 0.21 * len(kinds) + 1.3), squeeze=False,
        width_ratios=[max(3, len(values[by])) for by in shown], sharey=True,
    )  # fmt: skip
    unit = {"zone_axis": "zone axis", "voltage": "voltage\n[kV]", "camera_length": "camera\nlength [m]"}
    picture = None
    for index, (panel, by) in enumerate(zip(panels[0], shown, strict=True)):
        table_ = np.array([[np.mean(found.get((by, k, v), [np.nan])) for v in values[by]] for k in kinds])
        picture = panel.imshow(table_, vmin=0, vmax=1, cmap=sheet.shades, aspect="auto")
        for (i, j), value in np.ndenumerate(table_):
            if np.isfinite(value):
                panel.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=5.5,
                           color="w" if value > 0.6 else "k")  # fmt: skip
        panel.set_xticks(range(len(values[by])), values[by], rotation=90 if by == "zone_axis" else 0)
        panel.set_xlabel(unit[by])
        panel.grid(False)
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
        letter(panel, index)
    panels[0][0].set_yticks(range(len(kinds)), [KINDS[k] for k in kinds])
    bar = figure.colorbar(picture, ax=list(panels[0]), shrink=0.9, pad=0.01, label="accuracy over labels")
    bar.outline.set_visible(False)
    sheet.save(figure)
    axis = {
        v: np.mean(found["zone_axis", "clean", v]) for v in values["zone_axis"] if ("zone_axis", "clean", v) in found
    }
    sentences = [f"Model {model}, {facts['pixels']} pixels; numbers in per cent, mean over the conditions of a kind."]
    if axis:
        low, high = min(axis, key=axis.get), max(axis, key=axis.get)
        sentences.append(
            f"Perfect crystals held out: from {percent(axis[low])} along {low} to {percent(axis[high])} along {high}."
        )
    sheet.describe("Accuracy by zone axis, voltage and camera length.", sentences)


def learning(trained: Mapping[str, tuple[Path, Path]], accuracy: Path, sheet: Sheet) -> None:
    """Training loss and label accuracy of watched patterns against passes, a line for each model.

    Args:
        trained: history and card of each model. accuracy: results/accuracy.csv, for all held-out patterns.
    """
    everything = {r["model"]: r["accuracy_label"] for r in read(accuracy) if r["condition"] == CLEAN}
    figure, (left, right) = plt.subplots(1, 2, figsize=(DOUBLE, 2.4))
    sentences = []
    palette = sheet.colours
    for number_, (model, (path, card)) in enumerate(trained.items()):
        rows = read(path)
        watched = json.loads(Path(card).read_text(encoding="utf-8"))["metrics"]["held_out_patterns_watched"]
        epoch = [number(r["epoch"]) for r in rows]
        style = {"color": palette[number_ % len(palette)], "ms": 2.5, "lw": 1, "label": model}
        style["ls"] = ("-", "--", ":")[number_ // len(palette) % 3]
        left.plot(epoch, [number(r["train_loss"]) for r in rows], "o", **style)
        held_out = [number(r["held_out_accuracy"]) for r in rows]
        right.plot(epoch, held_out, "o", **style)
        sentences.append(
            f"{model}: {percent(held_out[-1])} of {watched} held-out patterns after {len(rows)} "
            f"pass{'es' if len(rows) > 1 else ''}; all of them, in the test copies: {percent(everything[model])}."
        )
    left.set_ylabel("training loss")
    right.set_ylabel("label accuracy, held out")
    right.set_ylim(0, 1.02)
    if len(trained) > 1:
        right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    for index, axes in enumerate((left, right)):
        axes.set_xlabel("pass through the training set")
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        letter(axes, index)
    sheet.save(figure)
    sentences.append("Watched patterns are drawn once at random, and turned, shifted and magnified as in training.")
    sheet.describe("Training.", sentences)
