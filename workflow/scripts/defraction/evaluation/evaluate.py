"""From the predictions of one model to its tables of accuracies.

* Patterns are counted as distinct (crystal, zone axis, voltage, camera length, snapshot); copies of one are averaged.
  Intervals know that patterns along one zone axis, and those of one crystal, are alike (`intervals`).
* Loss is the accuracy of the matched control minus that of the condition.

Every prediction file is read once and reduced to credits of single patterns at once: memory holds one file at a time.
"""

import csv
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from defraction.evaluation.columns import TABLES
from defraction.evaluation.names import CLEAN, SHOWN
from defraction.evaluation.predictions import Predictions, read_predictions
from defraction.evaluation.rows import (
    Row,
    accuracy_row,
    calibration_rows,
    confusion_rows,
    crystal_rows,
    ensemble_rows,
    label_confusion_rows,
    mistake_rows,
    reliability_rows,
    setting_rows,
)
from defraction.evaluation.scoring import Scored, Scorer
from defraction.learning.labels import LabelRow, read_labels
from defraction.published import Published, is_article, read_published
from defraction.tables import write_rows

log = logging.getLogger(__name__)

Tables = dict[str, list[Row]]


def evaluate(
    predictions: Mapping[str, Predictions | Path | str],
    conditions: Sequence[Mapping[str, str]],
    labels: Sequence[LabelRow],
    settings: Mapping[str, Any],
    seed: int,
    clean: Predictions | Path | str | None = None,
    published: Sequence[Published] = (),
    shown: Mapping[str, Predictions | Path | str] | None = None,
    crystals: Mapping[str, Mapping[str, str]] | None = None,
    model: str = "main",
    pattern_set: str = "main",
) -> Tables:
    """Tables of one model, by name (`columns.TABLES`): rows are mappings, missing values None.

    Args:
        predictions: by condition id, one crystal each, as arrays or as files that are read one at a time; every id
            must be in `conditions`.
        conditions: mappings with `condition`, `control`, `host`, `kind`, `parameter`.
        settings: the configuration's `evaluation` part: `ensemble_sizes`, `draws`, `confidence`, `calibration_bins`.
        clean: predictions of held-out perfect crystals: one row for all, one for each space group.
        published: the article's numbers; those that pool several conditions get a row of their own if all their
            members were predicted, made of the patterns of all of them.
        shown: predictions over the zone axes that the article shows, by condition id: rows `<id>@shown`.
        crystals: `prototype` and `prototype_in_training` by material id, for accuracies of the clean crystals by them.
        model, pattern_set: written into the rows.

    Intervals of the conditions and of their losses are over zone axes, those of the clean rows over crystals. Raises
    ValueError for a prediction whose id is not in the table.
    """
    table = {row["condition"]: row for row in conditions}
    shown = shown or {}
    for name in [*predictions, *shown]:
        if name not in table:
            raise ValueError(
                f"prediction of {name!r}, which is not in the table of conditions; remove it or add the row"
            )
    if not predictions and clean is None:
        raise ValueError("nothing to evaluate: give predictions of conditions or of clean crystals")
    scorer = Scorer(labels, settings, seed)
    accuracies = {
        _own(entry.condition, table) or entry.condition: entry.accuracy for entry in published if entry.relation == "="
    }
    out: Tables = {name: [] for name in TABLES}
    if clean is not None:
        _add_clean(out, scorer.score(_loaded(clean)), scorer, accuracies, crystals or {})
    scored = {name: scorer.score(_loaded(found)) for name, found in predictions.items()}
    scored |= {name + SHOWN: scorer.score(_loaded(found)) for name, found in shown.items()}
    for row in conditions:
        tails = [tail for tail in ("", SHOWN) if row["condition"] + tail in scored]
        if not tails:
            log.info("no predictions for %s: left out", row["condition"])
        for tail in tails:
            _add_condition(out, row, tail, scored, scorer, accuracies)
    for entry in published:
        if entry.members != (entry.condition,):
            for tail in ("", SHOWN):
                _add_pool(out, entry, tail, table, scored, scorer)
    for rows in out.values():
        for row in rows:
            row |= {"model": model, "pattern_set": pattern_set}
    return out


def evaluate_files(
    predictions: Mapping[str, Path | str],
    conditions: Path | str,
    labels: Path | str,
    outputs: Mapping[str, Path | str],
    settings: Mapping[str, Any],
    seed: int,
    clean: Path | str | None = None,
    published: Path | str | None = None,
    shown: Mapping[str, Path | str] | None = None,
    split: Path | str | None = None,
    model: str = "main",
    pattern_set: str = "main",
) -> None:
    """`evaluate` from files to CSV files; `outputs` gives a path for each name in `columns.TABLES`."""
    tables = evaluate(
        predictions,
        _read(conditions),
        read_labels(labels),
        settings,
        seed,
        clean,
        read_published(published) if published is not None else (),
        shown,
        {row["material"]: row for row in _read(split)} if split is not None else None,
        model,
        pattern_set,
    )
    for name, columns in TABLES.items():
        write_rows(outputs[name], columns, tables[name])


def _own(condition: str, known: Collection[str]) -> str | None:
    """The condition of a run that is one of the article, by its id or by its id and a preset; None without one."""
    return condition if condition in known else next((name for name in known if is_article(name, condition)), None)


def _read(path: Path | str) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def _loaded(found: Predictions | Path | str) -> Predictions:
    return found if isinstance(found, Predictions) else read_predictions(found)


def _add_clean(
    out: Tables,
    scored: Scored,
    scorer: Scorer,
    accuracies: Mapping[str, float],
    crystals: Mapping[str, Mapping[str, str]],
) -> None:
    """Held-out perfect crystals, all and by space group, with intervals over crystals."""
    groups = np.array(scorer.groups)[scored.truth]
    parts = {CLEAN: np.ones(len(groups), dtype=bool)}
    parts |= {f"{CLEAN}-{group}": groups == group for group in sorted(set(groups.tolist()))}
    for name, chosen in parts.items():
        part = scored.select(chosen)
        text = {
            "condition": name,
            "host": f"{len(part.materials)} crystals",
            "kind": "clean",
            "parameter": "space groups " + " ".join(map(str, sorted(set(groups[chosen].tolist())))),
        }
        out["accuracy"].append(accuracy_row(text, [part], None, scorer, accuracies.get(name), over_crystals=True))
        out["ensembles"] += ensemble_rows(name, [part], scorer)
        out["accuracy_by"] += setting_rows(name, part, scorer, over_crystals=True)
    out["accuracy_by"] += crystal_rows(CLEAN, scored, crystals, scorer)
    out["confusion_labels"] += label_confusion_rows(CLEAN, scored, scorer)
    _add_answers(out, CLEAN, scored, scorer)


def _add_condition(
    out: Tables,
    row: Mapping[str, str],
    tail: str,
    scored: Mapping[str, Scored],
    scorer: Scorer,
    accuracies: Mapping[str, float],
) -> None:
    """One condition: over all zone axes (`tail` is empty), or over those that the article shows (`SHOWN`)."""
    name, control = row["condition"] + tail, row["control"] + tail
    own = scored[name]
    text = {key: row[key] for key in ("host", "kind", "parameter")} | {"condition": name, "control": control}
    if tail:
        text["parameter"] = " ".join([f"{row['parameter']},", "axes", *own.zone_axes])
    controls = [scored[control]] if control in scored else None
    out["accuracy"].append(accuracy_row(text, [own], controls, scorer, accuracies.get(name)))
    out["ensembles"] += ensemble_rows(name, [own], scorer)
    out["accuracy_by"] += setting_rows(name, own, scorer)
    _add_answers(out, name, own, scorer)


def _add_answers(out: Tables, name: str, scored: Scored, scorer: Scorer) -> None:
    """What was answered, right or wrong, and how surely."""
    out["confusion"] += confusion_rows(name, scored, scorer)
    out["mistakes"] += mistake_rows(name, scored, scorer)
    out["calibration"] += calibration_rows(name, scored)
    out["reliability"] += reliability_rows(name, scored)


def _add_pool(
    out: Tables,
    entry: Published,
    tail: str,
    table: Mapping[str, Mapping[str, str]],
    scored: Mapping[str, Scored],
    scorer: Scorer,
) -> None:
    """The conditions that the article pools, if all of them were predicted; `tail` as in `_add_condition`."""
    predicted = [name for name in table if name + tail in scored]
    ids = [name for member in entry.members if (name := _own(member, predicted)) is not None]
    if len(ids) < len(entry.members):
        if not tail:
            log.info("%s: not all of %s were predicted, no pooled row", entry.condition, ", ".join(entry.members))
        return
    name, rows = entry.condition + tail, [table[member] for member in ids]
    members = [scored[member + tail] for member in ids]
    controls = [row["control"] + tail for row in rows]
    text = {
        "condition": name,
        "control": ";".join(controls),
        "host": "+".join(dict.fromkeys(row["host"] for row in rows)),
        "kind": "+".join(dict.fromkeys(row["kind"] for row in rows)),
        "parameter": " + ".join(dict.fromkeys(row["parameter"] for row in rows)),
    }
    perfect = [scored[control] for control in controls] if all(control in scored for control in controls) else None
    number = entry.accuracy if entry.relation == "=" else None
    out["accuracy"].append(accuracy_row(text, members, perfect, scorer, number))
    out["ensembles"] += ensemble_rows(name, members, scorer)
