"""results/report.html: the numbers and figures of one run on one page, with what shaped them."""

import base64
import csv
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from defraction.evaluation.names import CLEAN, SHOWN
from defraction.learning.labels import number_of_labels, read_labels, single_pattern_limit, space_groups_of

MISTAKES = 3  # wrong labels listed of each condition
ITEMS = {
    CLEAN: "perfect crystals",
    "al-pristine": "Al, pristine",
    "al-thermal-100K-3x3x3": "Al, 100 K",
    "al-thermal-300K-3x3x3": "Al, 300 K",
    "al-interstitial-c-tetrahedral-3x3x3": "C in Al",
    "al-dislocation-edge-4": "Al, four edge dislocations",
    "pooled-vacancy-low": "vacancy, low (Al 1/108, Fe 1/128)",
    "pooled-vacancy-high": "vacancy, high (Al 1/32, Fe 1/54)",
    "pooled-substitution-low": "Si in Al 1/108, Au in Fe 1/128",
    "pooled-substitution-high": "Si in Al 1/32, Au in Fe 1/54",
    "pooled-twin": "one twin boundary, Al and Fe",
}
"""The article's rows for people; others go by their id."""

Row = Mapping[str, str]


@dataclass(frozen=True)
class Sources:
    """Files the page is made of.

    Attributes:
        accuracy, comparison, spread, calibration, mistakes, ensembles, classes, models, labels: result tables.
        split: split table of the headline model. displacements: table, or none.
        relaxations, dynamics: summaries of first-principles jobs (JSON) by condition; one from the library may bear
            another name.
        figures, captions: PNG and reStructuredText files, in the order of the page.
    """

    accuracy: Path
    comparison: Path
    spread: Path
    calibration: Path
    mistakes: Path
    ensembles: Path
    classes: Path
    models: Path
    labels: Path
    split: Path
    displacements: Sequence[Path]
    relaxations: Mapping[str, Path]
    dynamics: Mapping[str, Path]
    figures: Sequence[Path]
    captions: Sequence[Path]


def write_report(
    template: Path,
    output: Path,
    sources: Sources,
    conditions: Mapping[str, Any],
    reductions: Sequence[str],
    diffraction: Mapping[str, Any],
    learning: Mapping[str, Any],
    confidence: float,
    origin: Mapping[str, Any],
) -> None:
    """Fill the template; the page is one file that needs nothing else.

    Args:
        template: Jinja template. output: HTML file.
        conditions: conditions by id.
        reductions: what the configuration reduces.
        diffraction, learning: sections of the configuration, of the headline model. confidence: of the intervals.
        origin: short provenance of the job (`commit`, `dirty`).
    """
    models = _read(sources.models)
    headline = next(row for row in models if row["headline"] == "1")
    model = headline["model"]
    accuracy = _read(sources.accuracy)
    rows = [row for row in accuracy if row["model"] == model]
    table = read_labels(sources.labels)
    split = _read(sources.split)
    parts = [row["part"] for row in split]
    clean = next(row for row in rows if row["condition"] == CLEAN)
    comparison = _read(sources.comparison)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(Path(template).read_text(encoding="utf-8")).render(
        headline=headline,
        n_train=parts.count("train") + parts.count("image"),
        n_drawn=sum(row.get("drawn") == "1" for row in split),
        n_held_out=int(clean["n_crystals"]),
        n_conditions=sum(c.kind != "control" for c in conditions.values()),
        space_groups=space_groups_of(table),
        n_labels=number_of_labels(table),
        limit=_percent(str(single_pattern_limit(table)), 0),
        classes=[row["space_groups"] for row in _read(sources.classes)],
        n_axes=len(diffraction["zone_axes"]),
        confidence=f"{100 * confidence:.0f} %",
        reductions=reductions,
        tiles=_tiles(rows, clean, comparison, model),
        names=list(dict.fromkeys(row["name"] for row in models)),
        comparison=_compared(comparison, models, model),
        seeds=len(models),
        spread=_spread(_read(sources.spread), models),
        rows=[_row(row) for row in rows],
        calibration=_calibration(_read(sources.calibration), model, conditions),
        mistakes=_mistakes(_read(sources.mistakes), model, conditions),
        figures=[
            {
                "name": Path(figure).stem,
                "data": base64.b64encode(Path(figure).read_bytes()).decode(),
                "caption": _caption(Path(caption).read_text(encoding="utf-8")),
            }
            for figure, caption in zip(sources.figures, sources.captions, strict=True)
        ],
        displacements=[_displacement(row) for path in sources.displacements for row in _read(path)],
        relaxations=[_relaxation(*source) for source in sources.relaxations.items()],
        dynamics=[_dynamics(*source) for source in sources.dynamics.items()],
        diffraction=diffraction,
        learning=learning,
        origin=_origin(origin),
    )
    Path(output).write_text(page, encoding="utf-8")


def _read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _percent(text: str, digits: int = 1) -> str:
    return f"{100 * float(text):.{digits}f} %" if text else ""


def _points(text: str) -> str:
    return f"{100 * float(text):+.1f}" if text else ""


def _known(limit: str) -> str:
    """What someone who knows every label would reach."""
    return f"of {_percent(limit)}" if limit else ""


def _interval(low: str, high: str) -> str:
    return f"{100 * float(low):.1f} to {100 * float(high):.1f}" if low and high else ""


def _caption(text: str) -> str:
    """The reStructuredText that the figures write (paragraphs, a bold title) as HTML."""
    paragraphs = [html.escape(part.strip(), quote=False) for part in text.split("\n\n") if part.strip()]
    bold = [re.sub(r"[*]{2}(.+?)[*]{2}", r"<strong>\1</strong>", part) for part in paragraphs]
    return "".join(f"<p>{part}</p>" for part in bold)


def _row(row: Row) -> dict[str, Any]:
    css = "control" if row["kind"] == "control" else "pool" if row["condition"].startswith("pooled") else ""
    itself = row["control"] in ("", row["condition"])
    return {
        "condition": row["condition"],
        "parameter": row["parameter"],
        "n_patterns": row["n_patterns"],
        "label": _percent(row["accuracy_label"]),
        "label_interval": _interval(row["accuracy_label_low"], row["accuracy_label_high"]),
        "space_group": _percent(row["accuracy_space_group"]),
        "limit": _known(row["limit_space_group"]),
        "extinction": _percent(row["accuracy_extinction"]),
        "limit_extinction": _known(row["limit_extinction"]),
        "ensemble": _percent(row["accuracy_ensemble"]),
        "limit_ensemble": _known(row["limit_ensemble"]),
        "loss": "" if itself else _points(row["loss_label"]),
        "loss_interval": "" if itself else _interval(row["loss_label_low"], row["loss_label_high"]),
        "published": _percent(row["published"]),
        "css": css,
    }


def _tiles(rows: Sequence[Row], clean: Row, comparison: Sequence[Row], model: str) -> list[dict[str, str]]:
    losses = [r for r in rows if r["loss_label"] and r["kind"] not in ("control", "pristine", "clean")]
    losses = [r for r in losses if not r["condition"].startswith("pooled") and not r["condition"].endswith(SHOWN)]
    worst = max(losses, key=lambda r: float(r["loss_label"]), default=None)
    tiles = [{"value": _percent(clean["accuracy_label"]), "text": "label, perfect crystals held out"}]
    for by, text in (
        ("ensemble", "space group from all zone axes, perfect crystals held out"),
        ("space_group", "space group from one pattern"),
    ):
        known = f"; someone who knows every label: {_percent(clean[f'limit_{by}'])}"
        tiles.append({"value": _percent(clean[f"accuracy_{by}"]), "text": text + known})
    if worst:
        points = f"{100 * float(worst['loss_label']):.1f} points"
        tiles.append({"value": points, "text": f"largest loss against its control: {worst['condition']}"})
    printed = [r for r in comparison if r["model"] == model and r["relation"] == "=" and r["axes"] == "all"]
    # one number that may be read in two ways, of Al or of Al and Fe, counts once
    ours = list({(r["published"], r["page"], r["where"]): r for r in reversed(printed)}.values())
    if ours:
        reached = sum(float(r["difference"]) >= 0 for r in ours)
        within = sum(float(r["difference"]) < 0 and r["agrees"] == "within" for r in ours)
        text = "accuracies of the article reached or passed"
        text += f"; {within} more inside our interval" if within else ""
        perfect = [r for r in ours if r["item"] == "al-pristine"]
        if perfect and perfect[0]["agrees"] == "below":
            text += ", by a network that knows perfect Al less well than the article's"
        tiles.append({"value": f"{reached} of {len(ours)}", "text": text})
    return tiles


def _item(name: str) -> str:
    if match := re.fullmatch(r"(\w+)-strain-(\w+)[+]([\d.]+)(pct|rad)", name):
        host = "Al and Fe" if match[1] == "pooled" else match[1].title()
        return f"{host}, {match[2]} {match[3]} {match[4].replace('pct', '%')}"
    return ITEMS.get(name, name)


def _compared(comparison: Sequence[Row], models: Sequence[Row], model: str) -> list[dict[str, Any]]:
    """A line for each statement of the article; `seeds` has mean and range over the seeds of each model name."""
    first = {row["name"]: row["model"] for row in reversed(models)}
    names = list(dict.fromkeys(row["name"] for row in models))
    found = {(row["item"], row["axes"], row["model"]): row for row in comparison}

    def cell(row: Row | None) -> dict[str, str]:
        several = row is not None and int(row["seeds"]) > 1
        return {
            "mean": _percent(row["seeds_mean"]) if row else "",
            "range": _interval(row["seeds_min"], row["seeds_max"]) if several else "",
        }

    out = []
    for row in (r for r in comparison if r["model"] == model):
        relation = {"=": "", "<": "< ", "flat": "no loss"}[row["relation"]]
        out.append(
            {
                "item": _item(row["item"]),
                "axes": "" if row["axes"] == "all" else "axes it shows",
                "published": relation + _percent(row["published"], 2),
                "place": f"p. {row['page']}, {row['where']}",
                "ours": _percent(row["accuracy_label"]),
                "interval": _interval(row["accuracy_label_low"], row["accuracy_label_high"]),
                "n": row["n_patterns"],
                "worth": f"{float(row['n_effective']):.0f}" if row["n_effective"] else "",
                "difference": _points(row["difference"]),
                "agrees": row["agrees"],
                "control": _percent(row["control_accuracy_label"]),
                "control_interval": _interval(row["control_accuracy_label_low"], row["control_accuracy_label_high"]),
                "seeds": [cell(found.get((row["item"], row["axes"], first[name]))) for name in names],
                "loss": _points(row["loss_label"]) if row["control"] else "",
                "loss_interval": _interval(row["loss_label_low"], row["loss_label_high"]) if row["control"] else "",
                "settings": row["settings"],
                "remark": row["remark"],
            }
        )
    return out


def _spread(rows: Sequence[Row], models: Sequence[Row]) -> list[dict[str, Any]]:
    """One line for each model name: what it is, and its accuracies over the seeds."""
    found = {(row["name"], row["condition"], row["quantity"]): row for row in rows}

    def cell(name: str, condition: str, quantity: str) -> str:
        row = found.get((name, condition, quantity))
        if row is None:
            return ""
        return _percent(row["mean"]) + (f" ± {100 * float(row['sd']):.1f}" if row["sd"] else "")

    out = []
    for name in dict.fromkeys(row["name"] for row in models):
        facts = next(row for row in models if row["name"] == name)
        out.append(
            {
                "name": name,
                "network": facts["network"],
                "pixels": facts["pixels"],
                "model": facts["diffraction_model"],
                "split": facts["split_by"],
                "hosts": facts["hosts"].replace("_", " "),
                "seeds": sum(row["name"] == name for row in models),
                "label": cell(name, CLEAN, "accuracy_label"),
                "ensemble": cell(name, CLEAN, "accuracy_ensemble"),
                "limit": _known(found[name, CLEAN, "accuracy_ensemble"]["limit"])
                if (name, CLEAN, "accuracy_ensemble") in found
                else "",
                "al": cell(name, "al-pristine", "accuracy_label"),
                "fe": cell(name, "fe-pristine", "accuracy_label"),
            }
        )
    return out


def _calibration(rows: Sequence[Row], model: str, conditions: Mapping[str, Any]) -> list[dict[str, str]]:
    """Held-out crystals, and the mean over the conditions of each kind."""
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        condition = conditions.get(row["condition"])
        kind = CLEAN if row["condition"] == CLEAN else condition.kind if condition else None
        if row["model"] == model and kind is not None:
            grouped.setdefault((kind.replace("_", " "), row["answer"].replace("_", " ")), []).append(row)
    keys = ("accuracy", "confidence", "expected_calibration_error", "brier", "negative_log_likelihood")
    out = []
    for (kind, answer), members in grouped.items():
        accuracy, confidence, error, brier, loss = (
            sum(float(member[key]) for member in members) / len(members) for key in keys
        )
        out.append(
            {
                "kind": kind,
                "answer": answer,
                "n": len(members),
                "accuracy": _percent(str(accuracy)),
                "limit": _known(str(sum(float(member["limit"]) for member in members) / len(members)))
                if members[0]["limit"]
                else "",
                "confidence": _percent(str(confidence)),
                "error": f"{error:.3f}",
                "brier": f"{brier:.3f}",
                "loss": f"{loss:.2f}",
            }
        )
    return sorted(out, key=lambda row: row["answer"])


def _mistakes(rows: Sequence[Row], model: str, conditions: Mapping[str, Any]) -> list[dict[str, str]]:
    """The most frequent wrong labels of the strongest condition of each host and kind."""
    from defraction.conditions import representatives

    chosen = [CLEAN, *(c.id for c in conditions.values() if c.kind == "pristine"), *representatives(dict(conditions))]
    out = []
    for name in dict.fromkeys(chosen):
        top = [row for row in rows if row["model"] == model and row["condition"] == name][:MISTAKES]
        out += [
            {
                "condition": name if number == 0 else "",
                "axis": row["zone_axis"],
                "true": row["true_label"],
                "predicted": row["predicted_label"],
                "share": _percent(row["share"]),
                "of_mistakes": _percent(row["share_of_mistakes"]),
            }
            for number, row in enumerate(top)
        ]
    return out


def _displacement(row: Row) -> dict[str, str]:
    length = "atoms:" not in row["quantity"]
    numbers = {k: (f"{float(row[k]):.3f}" if length else f"{float(row[k]):.1f}") for k in ("mean", "min", "max")}
    return {
        "condition": row["condition"],
        "quantity": row["quantity"].replace("_", " "),
        "unit": "Å" if length else f"of {row['atoms']} atoms",
        "snapshots": row["snapshots"],
        "mean": numbers["mean"],
        "range": f"{numbers['min']} to {numbers['max']}" if row["snapshots"] != "1" else "",
        "debye": ", ".join(f"{float(row[key]):.3f}" for key in ("debye_classical", "debye_quantum") if row[key]),
        "published": f"{float(row['published']):g}" if row["published"] else "",
        "remark": "; ".join(filter(None, [row["measured_on"], row["note"]])),
    }


def _relaxation(condition: str, path: Path) -> dict[str, str]:
    facts = json.loads(Path(path).read_text())
    return {
        "condition": condition,
        "steps": facts["steps"],
        "force": f"{facts['largest_force']:.3f}",
        "converged": "yes" if facts["converged"] else "no",
        "displacement": f"{facts['displacements']['largest']:.3f}",
        "rung": facts["rung"],
    }


def _dynamics(condition: str, path: Path) -> dict[str, str]:
    facts = json.loads(Path(path).read_text())
    return {
        "condition": condition,
        "time": f"{facts['times'][-1]:g}",
        "snapshots": len(facts["snapshots"]),
        "displacement": f"{facts['mean']['length_largest']:.3f}",
        "rms": f"{facts['mean']['x_rms']:.3f}",
    }


def _origin(origin: Mapping[str, Any]) -> str:
    commit = origin.get("commit")
    if not commit:
        return "code outside a repository"
    return f"commit {commit[:12]}" + (", with changes that were not committed" if origin.get("dirty") else "")
