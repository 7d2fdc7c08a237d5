"""How the figures look, and what they share: fonts, colours, reading of tables, captions. Written as PNG and PDF."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
KINDS = {
    "clean": "perfect, held out",
    "pristine": "pristine host",
    "strain": "strain",
    "thermal": "thermal motion",
    "vacancy": "vacancy",
    "substitution": "substitution",
    "interstitial": "interstitial",
    "point_defects": "point defects of several kinds",
    "random_defects": "random point defects",
    "random_displacements": "random displacements",
    "dislocation": "dislocations",
    "twin": "twin",
}
"""Kinds of conditions in the order in which they are shown."""


@dataclass(frozen=True)
class Sheet:
    """Where one figure goes, how it looks and what has to be said beside it.

    Attributes:
        png, pdf, caption: files to write. presentation: the part of the configuration that this figure follows
        (`colour`, `pattern_decades`). reductions: the configuration's list of what it reduces.
    """

    png: Path | str
    pdf: Path | str
    caption: Path | str
    presentation: Mapping[str, Any]
    reductions: Sequence[str]

    @classmethod
    def of(cls, run: Any) -> "Sheet":
        """The sheet of a job: its outputs `png`, `pdf` and `caption`, its params `presentation` and `reductions`."""
        out, params = run.output, run.params
        return cls(out.png, out.pdf, out.caption, params.presentation, params.reductions)

    @property
    def colours(self) -> list[str]:
        """Colours of series, the main one first."""
        return [self.presentation["colour"], ACCENT, *FURTHER]

    @property
    def shades(self) -> Any:
        """Colour map from white to the main colour."""
        return matplotlib.colors.LinearSegmentedColormap.from_list("main", ["white", self.colours[0]])

    @property
    def decades(self) -> float:
        """Decades of intensity shown in pictures of patterns."""
        return self.presentation["pattern_decades"]

    def save(self, figure: Any) -> None:
        """Write both pictures; no date goes into the PDF, so that the same figure has the same bytes."""
        figure.savefig(self.png)
        figure.savefig(self.pdf, metadata={"CreationDate": None})
        plt.close(figure)

    def describe(self, title: str, sentences: Sequence[str]) -> None:
        """Write the caption as reStructuredText: the title in bold, what was measured, what was reduced."""
        text = f"**{title}** " + " ".join(filter(None, sentences))
        if self.reductions:
            text += "\n\nReduced settings shape these numbers: " + "; ".join(self.reductions) + "."
        Path(self.caption).write_text(text + "\n", encoding="utf-8")


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
