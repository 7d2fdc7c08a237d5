"""results/report.html: the numbers and figures of one run on one page, with what shaped them."""

import base64
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from defraction.learning.labels import number_of_labels, read_labels, single_pattern_limit, space_groups_of

CLEAN = "clean-held-out"


def write_report(
    template: Path,
    html: Path,
    accuracy: Path,
    ensembles: Path,
    conditions: dict,
    labels: Path,
    split: Path,
    relaxations: Sequence[Path],
    dynamics: Sequence[Path],
    figures: Sequence[Path],
    reductions: Sequence[str],
    diffraction: dict,
    learning: dict,
    evaluation: dict,
) -> None:
    """Fill the template; the page is one file that needs nothing else.

    Args:
        template: Jinja template.
        html: output.
        accuracy, ensembles: tables of the evaluation.
        conditions: conditions by id.
        labels: label table.
        split: split table.
        relaxations, dynamics: summaries of first-principles jobs (JSON), named after their condition.
        figures: PNG files, in the order of the page.
        reductions: what the configuration reduces.
        diffraction, learning, evaluation: sections of the configuration.
    """
    rows = _read(accuracy)
    table = read_labels(labels)
    parts = [row["part"] for row in _read(split)]
    clean = next(row for row in rows if row["condition"] == CLEAN)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(Path(template).read_text()).render(
        architecture=learning["architecture"],
        n_train=parts.count("train"),
        n_held_out=parts.count("held_out"),
        n_conditions=sum(c.kind != "control" for c in conditions.values()),
        space_groups=space_groups_of(table),
        n_labels=number_of_labels(table),
        geometric_limit=single_pattern_limit(table),
        n_axes=len(diffraction["zone_axes"]),
        confidence=evaluation["confidence"],
        reductions=reductions,
        tiles=_tiles(rows, clean),
        rows=[_row(row) for row in rows],
        figures=[
            {
                "name": Path(f).stem,
                "data": base64.b64encode(Path(f).read_bytes()).decode(),
                "caption": _caption(f, rows, ensembles),
            }
            for f in figures
        ],
        relaxations=[_relaxation(path) for path in relaxations],
        dynamics=[_dynamics(path) for path in dynamics],
        diffraction=diffraction,
        learning=learning,
    )
    Path(html).write_text(page)


def _read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _percent(text: str, signed: bool = False) -> str:
    if not text:
        return ""
    return f"{100 * float(text):+.1f}" if signed else f"{100 * float(text):.1f} %"


def _interval(low: str, high: str) -> str:
    return f"[{100 * float(low):.1f}, {100 * float(high):.1f}]" if low and high else ""


def _row(row: dict[str, str]) -> dict[str, Any]:
    css = "control" if row["kind"] == "control" else "pool" if row["condition"].startswith("pooled") else ""
    return {
        "condition": row["condition"],
        "parameter": row["parameter"],
        "n_patterns": row["n_patterns"],
        "label": _percent(row["accuracy_label"]),
        "label_interval": _interval(row["accuracy_label_low"], row["accuracy_label_high"]),
        "space_group": _percent(row["accuracy_space_group"]),
        "space_group_interval": _interval(row["accuracy_space_group_low"], row["accuracy_space_group_high"]),
        "ensemble": _percent(row["accuracy_ensemble"]),
        "loss": "" if row["control"] in ("", row["condition"]) else _percent(row["loss_label"], signed=True),
        "published": _percent(row["published"]),
        "css": css,
    }


def _tiles(rows: list[dict], clean: dict) -> list[dict[str, str]]:
    losses = [r for r in rows if r["loss_label"] and r["kind"] not in ("control", "pristine")]
    worst = max(losses, key=lambda r: float(r["loss_label"]), default=None)
    tiles = [
        {"value": _percent(clean["accuracy_label"]), "text": "label accuracy, held-out perfect crystals"},
        {"value": _percent(clean["accuracy_ensemble"]), "text": "space group from all axes, held-out perfect crystals"},
    ]
    if worst:
        points = 100 * float(worst["loss_label"])
        tiles.append(
            {"value": f"{points:.1f} points", "text": f"largest loss against its control: {worst['condition']}"}
        )
    return tiles


def _caption(figure: Path, rows: list[dict], ensembles: Path) -> str:
    name = Path(figure).stem
    clean = next(row for row in rows if row["condition"] == CLEAN)
    if name == "accuracy":
        held = [r for r in rows if r["kind"] not in ("control", "clean") and r["accuracy_label"]]
        low, high = (f(held, key=lambda r: float(r["accuracy_label"])) for f in (min, max))
        return (
            f"Accuracy over labels by condition: from {_percent(low['accuracy_label'])} ({low['condition']}) to "
            f"{_percent(high['accuracy_label'])} ({high['condition']}). Grey bars: the matched control; diamonds: the "
            "article."
        )
    if name == "strain":
        return (
            "Accuracy over labels against strain (uniaxial stress along [100], or shear); zero strain is the pristine "
            "control."
        )
    if name == "ensemble":
        curve = [r for r in _read(ensembles) if r["condition"] == CLEAN and r["rule"] == "mean_log"]
        text = ", ".join(f"{_percent(r['accuracy'])} with {r['k']}" for r in curve)
        return f"Space-group accuracy against the number of zone axes. Held-out perfect crystals: {text}."
    if name == "patterns":
        return "One pattern per kind of defect and host, logarithmic; direct beam included and saturated."
    if name == "confusion":
        return (
            "Space group predicted from single patterns of held-out perfect crystals; "
            f"{_percent(clean['accuracy_space_group'])} on the diagonal when groups count alike."
        )
    return "Training loss, and label accuracy of held-out crystals while training (watched, not used to choose)."


def _relaxation(path: Path) -> dict[str, str]:
    facts = json.loads(Path(path).read_text())
    return {
        "condition": Path(path).stem,
        "steps": facts["steps"],
        "force": f"{facts['largest_force']:.3f}",
        "converged": "yes" if facts["converged"] else "no",
        "displacement": f"{facts['displacements']['largest']:.3f}",
        "rung": facts["rung"],
    }


def _dynamics(path: Path) -> dict[str, str]:
    facts = json.loads(Path(path).read_text())
    return {
        "condition": Path(path).stem,
        "time": f"{facts['times'][-1]:g}",
        "snapshots": len(facts["snapshots"]),
        "displacement": f"{facts['mean']['length_largest']:.3f}",
        "rms": f"{facts['mean']['x_rms']:.3f}",
    }
