"""How the figures look, and what they share: fonts, colours, reading of tables, captions. Written as PNG and PDF."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SINGLE, DOUBLE = 3.4, 7.0  # widths of one and of two columns [inch]
GREY, PALE, ACCENT = "#7d838c", "#d9dce1", "#c8553d"
FURTHER = ("#5d7a3a", "#8a5a9e", "#b8892b", "#3b3f46")
plt.rcParams.update(
    {
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "legend.fontsize": 7,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "axes.linewidth": 0.7,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "lines.linewidth": 1.2,
        "lines.markersize": 4,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": "#e8eaed",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "savefig.dpi": 220,
        "savefig.bbox": "tight",
        "savefig.pad_inches": 0.04,
        "pdf.fonttype": 42,
        "figure.constrained_layout.use": True,
    }
)
CLEAN = "clean-held-out"
KINDS = {
    "clean": "perfect, held out",
    "pristine": "pristine host",
    "strain": "strain",
    "thermal": "thermal motion",
    "vacancy": "vacancy",
    "substitution": "substitution",
    "interstitial": "interstitial",
    "random_defects": "random point defects",
    "random_displacements": "random displacements",
    "dislocation": "dislocations",
    "twin": "twin",
}
"""Kinds of conditions in the order in which they are shown."""


def colours(presentation: Mapping[str, Any]) -> list[str]:
    """Colours of series, the main one first."""
    return [presentation["colour"], ACCENT, *FURTHER]


def shades(presentation: Mapping[str, Any]) -> Any:
    """Colour map from white to the main colour."""
    return matplotlib.colors.LinearSegmentedColormap.from_list("main", ["white", presentation["colour"]])


def read(path: Path | str) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def number(text: str) -> float:
    """A table's number; an empty cell is NaN."""
    return float(text) if text else float("nan")


def percent(value: float | str, digits: int = 1) -> str:
    """A fraction as text, in percent."""
    return f"{100 * float(value):.{digits}f} %"


def headline(models: Path | str) -> tuple[str, list[str], dict[str, str]]:
    """Id of the headline model, the ids of all its seeds (itself first) and its row of results/models.csv."""
    rows = read(models)
    first = next(row for row in rows if row["headline"] == "1")
    seeds = [row["model"] for row in rows if row["name"] == first["name"] and row is not first]
    return first["model"], [first["model"], *seeds], first


def letter(axes: Any, index: int) -> None:
    """(a), (b), ... above the upper left corner of a panel."""
    axes.set_title(f"({chr(ord('a') + index)})", loc="left", fontweight="bold", fontsize=8)


def save(figure: Any, png: Path | str, pdf: Path | str) -> None:
    """Write both files; no date goes into the PDF, so that the same figure has the same bytes."""
    figure.savefig(png)
    figure.savefig(pdf, metadata={"CreationDate": None})
    plt.close(figure)


def write_caption(path: Path | str, title: str, sentences: Sequence[str], reductions: Sequence[str]) -> None:
    """Write a caption as reStructuredText: the title in bold, what was measured, what the configuration reduced."""
    text = f"**{title}** " + " ".join(filter(None, sentences))
    if reductions:
        text += "\n\nReduced settings shape these numbers: " + "; ".join(reductions) + "."
    Path(path).write_text(text + "\n", encoding="utf-8")
