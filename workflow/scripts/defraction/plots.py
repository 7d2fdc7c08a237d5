"""Figures from the result tables, apart from counting. Every figure is written as PNG and PDF.

All functions take paths and the `presentation` section of the configuration (`colour`, `pattern_decades`).
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

GREY = "#8a8f98"
ACCENT = "#c8553d"
DEFAULTS = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e3e5e8",
    "figure.dpi": 150,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
}
plt.rcParams.update(DEFAULTS)


def accuracy(table: Path, png: Path, pdf: Path, presentation: dict) -> None:
    """Label accuracy of every condition with its interval, beside the control's and the published value."""
    rows = read(table)
    shown = [r for r in rows if r["kind"] != "control"]
    control = {r["condition"]: number(r["accuracy_label"]) for r in rows}
    figure, axes = plt.subplots(figsize=(7.2, 0.26 * len(shown) + 1.4))
    for y, row in enumerate(shown):
        value = number(row["accuracy_label"])
        low, high = number(row["accuracy_label_low"]), number(row["accuracy_label_high"])
        axes.plot([low, high], [y, y], color=presentation["colour"], lw=1.5)
        axes.plot(value, y, "o", color=presentation["colour"], ms=5)
        if row["control"] != row["condition"] and row["control"] in control:
            axes.plot(control[row["control"]], y, "|", color=GREY, ms=10, mew=2)
        if row["published"]:
            axes.plot(number(row["published"]), y, "D", mfc="none", color=ACCENT, ms=5)
    axes.set_yticks(range(len(shown)), [r["condition"] for r in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("accuracy over labels")
    axes.plot([], [], "o-", color=presentation["colour"], label="this run, with interval")
    axes.plot([], [], "|", color=GREY, ms=10, mew=2, label="matched control")
    axes.plot([], [], "D", mfc="none", color=ACCENT, label="published (Jeong et al. 2024)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=3, frameon=False)
    save(figure, png, pdf)


def strain(table: Path, conditions: dict, png: Path, pdf: Path, presentation: dict) -> None:
    """Label accuracy against single strain components, one curve per host; zero strain is the pristine control."""
    rows = {r["condition"]: r for r in read(table)}
    groups: dict[tuple[str, str], list[tuple[float, dict]]] = {}
    for c in conditions.values():
        if c.kind == "strain" and "mode" not in c.settings and c.id in rows:
            groups.setdefault((c.settings["component"], c.host), []).append((c.settings["value"], rows[c.id]))
    components = sorted({component for component, _ in groups}) or ["xx"]
    figure, panels = plt.subplots(1, len(components), figsize=(3.6 * len(components), 3), sharey=True, squeeze=False)
    for panel, component in zip(panels[0], components, strict=True):
        normal = component[0] == component[1]
        hosts = sorted(host for c, host in groups if c == component)
        for host, colour, marker in zip(hosts, [presentation["colour"], ACCENT, GREY, "k"], "osD^", strict=False):
            points = list(groups[component, host])
            control = rows.get(f"{host.lower()}-pristine")
            if control:
                points.append((0.0, control))
            points.sort(key=lambda point: point[0])
            x = np.array([value for value, _ in points]) * (100 if normal else 1)
            y, low, high = (
                np.array([number(row[key]) for _, row in points])
                for key in ("accuracy_label", "accuracy_label_low", "accuracy_label_high")
            )
            panel.errorbar(x, y, [y - low, high - y], fmt=f"{marker}-", ms=4, capsize=2, color=colour, label=host)
        panel.set_xlabel(f"strain {component} [%]" if normal else f"shear strain {component} [rad]")
        panel.set_ylim(-0.02, 1.02)
        if hosts:
            panel.legend(frameon=False)
    panels[0][0].set_ylabel("accuracy over labels")
    save(figure, png, pdf)


def ensemble(table: Path, png: Path, pdf: Path, presentation: dict) -> None:
    """Space-group accuracy of ensembles of k zone axes: held-out clean crystals strong, conditions faint."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in read(table):
        if row["rule"] == "mean_log":
            curves.setdefault(row["condition"], []).append((int(row["k"]), number(row["accuracy"])))
    figure, axes = plt.subplots(figsize=(4.6, 3.2))
    for name, points in curves.items():
        k, value = zip(*sorted(points), strict=True)
        clean = name == "clean-held-out"
        style = (
            {"color": presentation["colour"], "lw": 2, "marker": "o", "zorder": 3}
            if clean
            else {"color": GREY, "lw": 0.6}
        )
        axes.plot(k, value, **style)
    axes.plot([], [], "o-", color=presentation["colour"], lw=2, label="clean crystals held out")
    axes.plot([], [], color=GREY, lw=0.6, label="conditions, one each")
    axes.set_xscale("log", base=2)
    ticks = sorted({k for points in curves.values() for k, _ in points})
    axes.set_xticks(ticks, map(str, ticks))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("zone axes in the ensemble")
    axes.set_ylabel("space-group accuracy")
    axes.legend(frameon=False)
    save(figure, png, pdf)


def patterns(files: Sequence[Path], names: Sequence[str], png: Path, pdf: Path, presentation: dict) -> None:
    """One pattern of each file on a logarithmic scale: the first zone axis, the middle voltage and camera length."""
    from netCDF4 import Dataset

    columns = min(5, len(files))
    lines = -(-len(files) // columns)
    figure, panels = plt.subplots(lines, columns, figsize=(1.9 * columns, 2.15 * lines), squeeze=False)
    for panel in panels.flat:
        panel.axis("off")
    for panel, file, name in zip(panels.flat, files, names, strict=False):
        with Dataset(file) as data:
            voltage, length = len(data["voltage"]) // 2, len(data["camera_length"]) // 2
            image = np.asarray(data["intensity"][0, voltage, length].mean(axis=0), float)
            axis = str(data["zone_axis"][0])
            caption = f"{axis} {data['voltage'][voltage]:g} kV {data['camera_length'][length]:g} m"
        n = len(image)
        distance = np.hypot(*np.meshgrid(*2 * [np.arange(n) - (n - 1) / 2]))
        top = image[distance > n / 16].max()
        panel.imshow(
            np.log10(np.maximum(image, 1e-300) / top), vmin=-presentation["pattern_decades"], vmax=0, cmap="gray"
        )
        panel.set_title(f"{name}\n{caption}", fontsize=5.5)
    save(figure, png, pdf)


def confusion(table: Path, png: Path, pdf: Path, presentation: dict) -> None:
    """Predicted against true space group, single patterns of held-out clean crystals, as fractions of each row."""
    rows = [r for r in read(table) if r["condition"] == "clean-held-out"]
    groups = sorted({int(r["true_space_group"]) for r in rows} | {int(r["predicted_space_group"]) for r in rows})
    matrix = np.zeros((len(groups), len(groups)))
    for row in rows:
        matrix[groups.index(int(row["true_space_group"])), groups.index(int(row["predicted_space_group"]))] = number(
            row["share"]
        )
    figure, axes = plt.subplots(figsize=(3.8, 3.4))
    colours = matplotlib.colors.LinearSegmentedColormap.from_list("one", ["white", presentation["colour"]])
    axes.imshow(matrix, vmin=0, vmax=1, cmap=colours)
    for (i, j), value in np.ndenumerate(matrix):
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else "black")
    axes.set_xticks(range(len(groups)), groups)
    axes.set_yticks(range(len(groups)), groups)
    axes.grid(False)
    axes.set_xlabel("predicted space group")
    axes.set_ylabel("true space group")
    save(figure, png, pdf)


def learning(history: Path, png: Path, pdf: Path, presentation: dict) -> None:
    """Training loss and label accuracy of held-out crystals against passes."""
    rows = read(history)
    epoch = [number(r["epoch"]) for r in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.8))
    left.plot(epoch, [number(r["train_loss"]) for r in rows], "o-", ms=3, color=presentation["colour"])
    left.set_ylabel("training loss")
    right.plot(epoch, [number(r["held_out_accuracy"]) for r in rows], "o-", ms=3, color=presentation["colour"])
    right.set_ylabel("label accuracy, held out")
    right.set_ylim(0, 1)
    for axes in (left, right):
        axes.set_xlabel("pass through the training set")
    save(figure, png, pdf)


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def number(text: str) -> float:
    """A table's number; an empty cell is NaN."""
    return float(text) if text else float("nan")


def save(figure, png: Path, pdf: Path) -> None:
    figure.savefig(png)
    figure.savefig(pdf, metadata={"CreationDate": None})
    plt.close(figure)
