"""Pictures of crystals and of their patterns: the article's Figs. 3 to 10."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from defraction.evaluation.names import SHOWN
from defraction.figures.style import ACCENT, DOUBLE, GREY, SINGLE, Sheet, headline, letter, percent, plt, read
from defraction.panels import Panel
from defraction.published import PublishedDisplacement
from defraction.site_displacements import Sites, measure, sites_of

BEAM = 1 / 16  # of the width: radius around the optic axis that does not set the brightness
RULER = 0.5  # 1/Å
MAGNIFIED = 0.35  # of the lattice parameter: length at which the largest displacement is drawn


class Picture(NamedTuple):
    """One pattern as stored, with what is written beside it; lengths in 1/Å per pixel."""

    image: np.ndarray
    zone_axis: str
    voltage: float
    camera_length: float
    pixel: float


def read_picture(path: Path | str, zone_axis: Sequence[int] | None) -> Picture:
    """The first snapshot at the middle voltage and camera length; `zone_axis` None: the first of the file.

    Raises ValueError if the file has no such axis.
    """
    from netCDF4 import Dataset

    with Dataset(path) as data:
        axes = [tuple(int(i) for i in axis) for axis in data["uvw"][:]]
        if zone_axis is not None and tuple(zone_axis) not in axes:
            raise ValueError(f"{path}: no zone axis {list(zone_axis)}; it has {[list(axis) for axis in axes]}")
        index = 0 if zone_axis is None else axes.index(tuple(zone_axis))
        voltage, length = len(data["voltage"]) // 2, len(data["camera_length"]) // 2
        image = np.asarray(data["intensity"][index, voltage, length, 0], dtype=float)
        metres = float(data["camera_length"][length])
        scale = float(np.diff(data["x"][:]).mean()) / (float(data["wavelength"][voltage]) * 1e3 * metres)
        return Picture(image, str(data["zone_axis"][index]), float(data["voltage"][voltage]), metres, scale)


def draw(axes: Any, picture: Picture, title: str, decades: float) -> None:
    """A pattern on a logarithmic scale from the brightest pixel outside the direct beam down, with a ruler."""
    n = len(picture.image)
    distance = np.hypot(*np.meshgrid(*2 * [np.arange(n) - (n - 1) / 2]))
    top = picture.image[distance > n * BEAM].max()
    grey = np.log10(np.maximum(picture.image, 1e-300) / top)
    axes.imshow(grey, vmin=-decades, vmax=0, cmap="gray", interpolation="nearest" if n >= 128 else "bicubic")
    axes.set_title(title, fontsize=7)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.text(0.03, 0.97, _beam(picture.zone_axis), color="w", fontsize=6.5, va="top", transform=axes.transAxes)
    width = RULER / picture.pixel
    if width < 0.6 * n:
        axes.plot([0.05 * n, 0.05 * n + width], [0.94 * n, 0.94 * n], color="w", lw=1.5, solid_capstyle="butt")
        axes.text(0.05 * n, 0.915 * n, f"{RULER:g} 1/Å", color="w", fontsize=5.5, va="bottom")


def _beam(axis: str) -> str:
    """[-1 1 0] as a crystallographer writes it."""
    parts = [rf"\bar{{{i.lstrip('-')}}}" if i.startswith("-") else i for i in axis.strip("[]").split()]
    return f"$[{''.join(parts)}]$"


def patterns(
    files: Sequence[Path],
    panels: Sequence[Panel],
    accuracy: Path,
    models: Path,
    seen: float,
    title: str,
    remark: str,
    columns: int,
    sheet: Sheet,
) -> None:
    """A table of patterns, one for each panel (`files` in their order).

    Args:
        accuracy, models: results/accuracy.csv and results/models.csv, for the caption.
        seen: decades of intensity that the network was shown (`learning.display.decades`).
        title, remark: of the caption. columns: panels in a row.
    """
    lines = -(-len(panels) // columns)
    size = min(1.75, DOUBLE / columns)
    figure, grid = plt.subplots(lines, columns, figsize=(size * columns, (size + 0.2) * lines), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    pictures = []
    for index, (axes, file, panel) in enumerate(zip(grid.flat, files, panels, strict=False)):
        axes.axis("on")
        picture = read_picture(file, panel.zone_axis)
        pictures.append(picture)
        draw(axes, picture, f"({chr(ord('a') + index)}) {panel.title}", sheet.decades)
    sheet.save(figure)
    first = pictures[0]
    listed = "; ".join(
        f"({chr(ord('a') + i)}) {panel.condition}, {_axis(picture.zone_axis)}"
        for i, (panel, picture) in enumerate(zip(panels, pictures, strict=True))
    )
    sheet.describe(
        title,
        [
            f"{listed}; beam along the zone axis named. {first.voltage:g} kV, camera length {first.camera_length:g} m, "
            f"{len(first.image)} x {len(first.image)} pixels, first snapshot; logarithmic over {sheet.decades:g} "
            "decades below the brightest pixel outside the direct beam, which is saturated.",
            _seen(sheet, seen),
            accuracies_of(panels, accuracy, models),
            remark,
        ],
    )


def _seen(sheet: Sheet, decades: float) -> str:
    """What of a picture the network was shown."""
    if sheet.decades > decades:
        return f"The network saw the upper {decades:g} decades only: fainter streaks and spots are not in its input."
    return f"The network saw {decades:g} decades."


def _axis(zone_axis: str) -> str:
    """[-1 1 0] as [-110], where all indices have one digit."""
    indices = zone_axis.strip("[]").split()
    return f"[{''.join(indices)}]" if all(len(i.lstrip("-")) == 1 for i in indices) else zone_axis


def accuracies_of(panels: Sequence[Panel], accuracy: Path, models: Path) -> str:
    """Accuracy over labels of the conditions of some panels, and of the matched control of each, as a sentence.

    Where the article shows axes of their own, the accuracy over these stands in brackets.
    """
    model, *_ = headline(models)
    rows = {row["condition"]: row for row in read(accuracy) if row["model"] == model}
    against: dict[str, list[str]] = {}
    for name in dict.fromkeys(panel.condition for panel in panels):
        against.setdefault(rows[name]["control"], []).append(name)

    def words(name: str) -> str:
        shown = f" ({percent(rows[name + SHOWN]['accuracy_label'])})" if name + SHOWN in rows else ""
        return f"{name} {percent(rows[name]['accuracy_label'])}{shown}"

    parts = [
        ", ".join([f"control {words(control)}", *(words(name) for name in names if name != control)])
        for control, names in against.items()
    ]
    axes = "over all zone axes" + (" (over those that the article shows)" if any(p.shown for p in panels) else "")
    return f"Accuracy over labels of {model}, {axes}: {'; '.join(parts)}."


def overview(files: Sequence[Path], names: Sequence[str], sheet: Sheet) -> None:
    """One pattern of each condition, first zone axis of its file."""
    columns = min(6, len(files))
    lines = -(-len(files) // columns)
    size = DOUBLE / columns
    figure, grid = plt.subplots(lines, columns, figsize=(DOUBLE, (size + 0.18) * lines), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    beams = set()
    for axes, file, name in zip(grid.flat, files, names, strict=False):
        axes.axis("on")
        picture = read_picture(file, None)
        beams.add(_axis(picture.zone_axis))
        draw(axes, picture, name, sheet.decades)
        axes.title.set_fontsize(max(3.5, min(6, 6 * 26 / max(len(name), 1) * size / 1.2)))
    sheet.save(figure)
    sheet.describe(
        "One pattern of every kind of defect and host.",
        [
            f"Beam along {', '.join(sorted(beams))}; {picture.voltage:g} kV, camera length "
            f"{picture.camera_length:g} m, {len(picture.image)} x {len(picture.image)} pixels; logarithmic over "
            f"{sheet.decades:g} decades, direct beam saturated. Of strains and concentrations the last of the "
            "configuration. What the network sees of them is set by learning.display."
        ],
    )


# --- displacements ---------------------------------------------------------------------------------------------------


def thermal_displacements(
    files: Mapping[str, Path],
    titles: Mapping[str, str],
    hosts: Mapping[str, tuple[str, str]],
    table: Path,
    sheet: Sheet,
) -> None:
    """Projected positions of the first snapshot and histograms of displacements along x (the article's Fig. 4)."""
    from ase.io import read as read_atoms

    numbers = read(table)
    figure, grid = plt.subplots(
        2,
        len(files),
        figsize=(min(DOUBLE, SINGLE * 0.72 * len(files) + 0.6), 4.4),
        squeeze=False,
        sharey="row",
        height_ratios=(1.2, 1),
    )
    sentences = []
    widest = 0.0
    snapshots = {}
    for name, path in files.items():
        snapshots[name] = [sites_of(atoms, *hosts[name]) for atoms in read_atoms(path, ":")]
        widest = max(widest, *(np.abs(s.displacement[:, 0]).max() for s in snapshots[name]))
    edges = np.linspace(-1.05 * widest, 1.05 * widest, 32)
    for index, (name, found) in enumerate(snapshots.items()):
        first, axes = found[0], grid[0][index]
        axes.plot(*first.site[:, :2].T, "+", color=GREY, ms=7, mew=0.5)
        axes.plot(*(first.site + first.displacement)[:, :2].T, "o", ms=1.7, color=sheet.colours[0], mew=0)
        axes.set_title(f"({chr(ord('a') + index)}) {titles[name]}", fontsize=7)
        axes.set_aspect("equal")
        axes.grid(False)
        axes.set_xlabel("x [Å]")
        below = grid[1][index]
        counts = np.mean([np.histogram(s.displacement[:, 0], edges)[0] for s in found], axis=0)
        below.bar(edges[:-1], counts, np.diff(edges), align="edge", color=sheet.colours[0])
        below.set_title(f"({chr(ord('a') + len(files) + index)})", fontsize=7)
        below.set_xlabel("displacement along x [Å]")
        own = [r for r in numbers if r["condition"] == name]
        sentences.append(_counted(titles[name], own, len(found)))
        for row in own:
            parts = row["quantity"].split(":")
            if parts[0] == "x_atoms" and row["published"]:
                for side in (-1, 1):
                    below.axvline(side * float(parts[2]), color=ACCENT, lw=0.9, ls="--")
                text = f"{float(row['mean']):.0f} of {row['atoms']}\narticle:\n{float(row['published']):.0f} of 108"
                below.text(0.99, 0.98, text, fontsize=6, ha="right", va="top", transform=below.transAxes)
    grid[0][0].set_ylabel("y [Å]")
    grid[1][0].set_ylabel("atoms")
    sheet.save(figure)
    sentences.append(
        "Above: first snapshot seen along [001], crosses are the sites. Below: mean over the snapshots, dashed lines "
        "where the article counts. A run of some ten femtoseconds from the perfect lattice moves atoms less than "
        "equilibrium does (docs/first-principles.md)."
    )
    sheet.describe("Thermal displacements (the article's Fig. 4).", sentences)


def _counted(title: str, rows: Sequence[Mapping[str, str]], snapshots: int) -> str:
    parts = []
    for row in rows:
        if not row["published"]:
            continue
        value = float(row["mean"])
        text = f"{value:.3f} Å" if "largest" in row["quantity"] else f"{value:.1f} of {row['atoms']} atoms"
        wanted = f"{float(row['published']):g}"
        name, *bounds = row["quantity"].split(":")
        what = "largest along x" if name == "x_largest" else f"below {bounds[1]} Å along x" if bounds else name
        parts.append(f"{what} {text} (article {wanted}{'' if 'largest' in name else ' of 108'})")
    if not parts:
        rms = next((float(r["mean"]) for r in rows if r["quantity"] == "x_rms"), float("nan"))
        parts.append(f"root mean square along x {rms:.3f} Å, no number in the article")
    return f"{title}, {snapshots} snapshot{'s' if snapshots > 1 else ''}: {', '.join(parts)}."


def point_displacements(
    files: Mapping[str, Path],
    hosts: Mapping[str, tuple[str, str]],
    published: Sequence[PublishedDisplacement],
    sheet: Sheet,
) -> None:
    """Displacements around relaxed vacancies and solutes, projected along [001] (the article's Fig. 6)."""
    from ase.io import read as read_atoms

    columns = min(4, len(files))
    lines = -(-len(files) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(DOUBLE * max(columns, 2) / 4, (DOUBLE / 4 + 0.45) * lines), squeeze=False
    )
    for axes in grid.flat:
        axes.axis("off")
    sentences = []
    for index, (axes, (name, path)) in enumerate(zip(grid.flat, files.items(), strict=False)):
        atoms = read_atoms(path, -1)
        found = sites_of(atoms, *hosts[name])
        largest = float(np.linalg.norm(found.displacement, axis=1).max())
        factor = _project(axes, found, float(atoms.info["reference_cell"][0][0]), sheet.colours[0])
        axes.set_title(f"({chr(ord('a') + index)}) {name}", fontsize=6)
        axes.text(0.5, -0.03, f"{largest:.3f} Å, drawn x {factor:.0f}", fontsize=6, ha="center", va="top",
                  transform=axes.transAxes)  # fmt: skip
        mine = [e for e in published if e.condition == name]
        beside = ", ".join(
            f"{_words(e.quantity)} {_value(e.quantity, measure(e.quantity, found.displacement))} "
            f"(article {_value(e.quantity, e.value)})"
            for e in mine
        )
        sentences.append(f"({chr(ord('a') + index)}) {name}: " + (beside or f"largest {largest:.3f} Å") + ".")
    sheet.save(figure)
    sentences.append(
        "Projection along [001] of all atoms; crosses are sites, lines lead from the site to the atom, magnified as "
        "written under each panel; squares: vacant sites, discs: solutes."
    )
    sheet.describe("Displacements around point defects (the article's Fig. 6).", sentences)


def interstitial(
    structure: Path,
    host: tuple[str, str],
    pattern: Path,
    panel: Panel,
    accuracy: Path,
    models: Path,
    seen: float,
    sheet: Sheet,
) -> None:
    """Atoms around an interstitial and the pattern of its crystal (the article's Fig. 8); `seen` as of `patterns`."""
    from ase.io import read as read_atoms

    atoms = read_atoms(structure, -1)
    found = sites_of(atoms, *host)
    figure, (left, right) = plt.subplots(1, 2, figsize=(5.0, 2.7))
    factor = _project(left, found, float(atoms.info["reference_cell"][0][0]), sheet.colours[0])
    letter(left, 0)
    picture = read_picture(pattern, panel.zone_axis)
    draw(right, picture, "", sheet.decades)
    letter(right, 1)
    sheet.save(figure)
    lengths = np.sort(np.linalg.norm(found.displacement, axis=1))[::-1]
    sheet.describe(
        "Interstitial (the article's Fig. 8).",
        [
            f"{panel.condition}. (a) Projection along [001], displacements magnified {factor:.0f} times, the largest "
            f"is {lengths[0]:.3f} Å, the fifth {lengths[min(4, len(lengths) - 1)]:.3f} Å; the disc is the "
            f"interstitial. (b) Its pattern along {_axis(picture.zone_axis)}, {picture.voltage:g} kV, camera length "
            f"{picture.camera_length:g} m, {len(picture.image)} x {len(picture.image)} pixels; logarithmic over "
            f"{sheet.decades:g} decades below the brightest pixel outside the direct beam, which is saturated.",
            _seen(sheet, seen),
            accuracies_of([panel], accuracy, models),
            "The article: distortion of the first neighbours only, no noticeable change of the pattern.",
        ],
    )


def _project(axes: Any, found: Sites, lattice: float, colour: str) -> float:
    """Draw sites and magnified displacements seen along z; returns the magnification."""
    lengths = np.linalg.norm(found.displacement, axis=1)
    factor = max(1.0, MAGNIFIED * lattice / max(lengths.max(), 1e-6)) if lengths.max() > 1e-6 else 1.0
    factor = float(f"{factor:.2g}")
    defects = np.concatenate([found.vacant, found.interstitial, found.site[found.foreign]])
    half = found.cell.sum(axis=0) / 2
    middle = defects[0] if len(defects) else half
    to_cell = np.linalg.inv(found.cell)

    def centred(positions: np.ndarray) -> np.ndarray:
        """Periodic images with the first defect in the middle of the picture."""
        return (positions - middle + half + 1e-3) @ to_cell % 1.0 @ found.cell

    start = centred(found.site)
    end = start + factor * found.displacement
    axes.axis("on")
    axes.plot(*start[:, :2].T, "+", color=GREY, ms=3, mew=0.4)
    for one, other in zip(start, end, strict=True):
        axes.plot([one[0], other[0]], [one[1], other[1]], color=colour, lw=0.7)
    axes.plot(*end[:, :2].T, "o", ms=1.8, mew=0, color=colour)
    defect = {"ms": 5, "color": ACCENT, "clip_on": False}
    axes.plot(*end[found.foreign][:, :2].T, "o", mew=0, **defect)
    axes.plot(*centred(found.interstitial)[:, :2].T, "o", mew=0, **defect)
    axes.plot(*centred(found.vacant)[:, :2].T, "s", mfc="none", **defect)
    axes.margins(0.06)
    axes.set_aspect("equal")
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return factor


def _words(quantity: str) -> str:
    name, *bounds = quantity.split(":")
    if not bounds:
        return name
    low, high = bounds
    return f"atoms moved by {low} Å or more" if high == "inf" else f"atoms moved by {low} to {high} Å"


def _value(quantity: str, value: float) -> str:
    return f"{value:.3g} Å" if "largest" in quantity else f"{value:.0f}"
