"""All models together: the spread over seeds, accuracy against resolution, and the article's numbers beside ours.

Everything here is made from the tables of the single models (`evaluation.TABLES`) and results/models.csv; no prediction
is read again.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from defraction.evaluation import CLEAN, SHOWN, TABLES, wilson, write_classes
from defraction.models import read_table
from defraction.published import Published, read_published, stand_in
from defraction.tables import write_rows

SPREAD_COLUMNS = ("name", "condition", "quantity", "seeds", "mean", "sd", "min", "max")
RESOLUTION_COLUMNS = (
    "name", "network", "split_by", "hosts", "pattern_set", "diffraction_model", "pixels", "seeds", "group",
    "n_conditions", "accuracy_label", "accuracy_label_min", "accuracy_label_max", "accuracy_ensemble", "loss_label",
)  # fmt: skip
COMPARISON_COLUMNS = (
    "item", "axes", "page", "where", "relation", "published",
    "model", "name", "seed", "network", "split_by", "hosts", "pattern_set", "diffraction_model", "pixels", "condition",
    "accuracy_label", "accuracy_label_low", "accuracy_label_high", "n_patterns", "n_copies",
    "difference", "agrees",
    "control", "control_accuracy_label", "control_accuracy_label_low", "control_accuracy_label_high",
    "seeds", "seeds_mean", "seeds_min", "seeds_max",
    "accuracy_space_group", "limit_space_group", "loss_label", "loss_label_low", "loss_label_high",
    "settings", "remark",
)  # fmt: skip
QUANTITIES = ("accuracy_label", "accuracy_space_group", "accuracy_ensemble", "loss_label")
PRINTED = {"pixels": 256, "zone_axes": 16, "voltages": 3, "camera_lengths": 3}
"""What the article prints about its patterns."""

Row = dict[str, Any]


def summarise_files(
    tables: Mapping[str, Sequence[Path | str]],
    models: Path | str,
    published: Path | str,
    labels: Path | str,
    outputs: Mapping[str, Path | str],
    settings: Mapping[str, Any],
    patterns: Mapping[str, Mapping[str, int]],
    reductions: Sequence[str],
) -> None:
    """Join the tables of all models and write what is made of them.

    Args:
        tables: files of every model by name of the table (`evaluation.TABLES`), all in the same order of models.
        outputs: a path for each of these names and for `comparison`, `spread`, `resolution` and `classes`.
        settings: the configuration's `evaluation` part (`confidence`).
        patterns: for each set of patterns `pixels` and the numbers of `zone_axes`, `voltages` and `camera_lengths`.
        reductions: the configuration's list of what it reduces.
    """
    for name, columns in TABLES.items():
        with Path(outputs[name]).open("w", newline="", encoding="utf-8") as out:
            out.write(",".join(columns) + "\n")
            for path in tables[name]:
                text = Path(path).read_text(encoding="utf-8")
                out.write(text.partition("\n")[2])
    rows = read_accuracies(outputs["accuracy"])
    catalogue = read_table(models)
    write_rows(outputs["spread"], SPREAD_COLUMNS, spread(rows, catalogue))
    write_rows(outputs["resolution"], RESOLUTION_COLUMNS, resolution(rows, catalogue))
    found = compare(read_published(published), rows, catalogue, patterns, reductions, settings["confidence"])
    write_rows(outputs["comparison"], COMPARISON_COLUMNS, found)
    write_classes(outputs["classes"], labels)


def read_accuracies(path: Path | str) -> list[Row]:
    """Rows of an accuracy table; numbers as float, empty cells None, texts as they are."""
    texts = {"model", "pattern_set", "condition", "control", "host", "kind", "parameter"}
    with Path(path).open(newline="", encoding="utf-8") as handle:
        return [
            {key: value if key in texts else (float(value) if value else None) for key, value in row.items()}
            for row in csv.DictReader(handle)
        ]


def spread(rows: Sequence[Row], models: Sequence[Row]) -> list[Row]:
    """Mean, standard deviation and range over the training seeds of each model name, by condition."""
    names = {model["model"]: model["name"] for model in models}
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        grouped.setdefault((names[row["model"]], row["condition"]), []).append(row)
    out = []
    for (name, condition), members in grouped.items():
        for quantity in QUANTITIES:
            values = [row[quantity] for row in members if row[quantity] is not None]
            if values:
                deviation = stdev(values) if len(values) > 1 else None
                cells = (name, condition, quantity, len(values), fmean(values), deviation, min(values), max(values))
                out.append(dict(zip(SPREAD_COLUMNS, cells, strict=True)))
    return out


def resolution(rows: Sequence[Row], models: Sequence[Row]) -> list[Row]:
    """Accuracy of each model name by kind of condition, with the pixels of its patterns; mean over seeds.

    Groups are the held-out perfect crystals, the pristine hosts, and every kind of defect (mean over its conditions).
    """
    out = []
    for name, of_name in _by_name(models).items():
        groups: dict[str, dict[str, list[Row]]] = {}
        ids = {model["model"] for model in of_name}
        for row in rows:
            if row["model"] not in ids or (row["kind"] in ("control", "clean") and row["condition"] != CLEAN):
                continue
            if not row["condition"].startswith("pooled") and not row["condition"].endswith(SHOWN):
                group = CLEAN if row["condition"] == CLEAN else row["kind"]
                groups.setdefault(group, {}).setdefault(row["model"], []).append(row)
        for group, of_seed in groups.items():
            label = [fmean(row["accuracy_label"] for row in members) for members in of_seed.values()]
            losses = [row["loss_label"] for members in of_seed.values() for row in members]
            every = [row["accuracy_ensemble"] for members in of_seed.values() for row in members]
            every = [value for value in every if value is not None]
            first = of_name[0]
            cells = (
                name, *(first[key] for key in RESOLUTION_COLUMNS[1:7]), len(of_seed), group,
                len(next(iter(of_seed.values()))), fmean(label), min(label), max(label),
                fmean(every) if every else None,
                None if None in losses else fmean(losses),
            )  # fmt: skip
            out.append(dict(zip(RESOLUTION_COLUMNS, cells, strict=True)))
    return out


def _by_name(models: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for model in models:
        found.setdefault(model["name"], []).append(model)
    return found


# --- the article beside us -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measured:
    """One or several rows of the accuracy table, patterns counted alike."""

    conditions: tuple[str, ...]
    n: int
    copies: int
    values: dict[str, float | None]
    interval: tuple[float | None, float | None]
    loss_interval: tuple[float | None, float | None]
    controls: tuple[str, ...]
    control_interval: tuple[float | None, float | None]

    @property
    def control_accuracy(self) -> float | None:
        """Accuracy over labels of the matched controls; None where there are none."""
        loss = self.values["loss_label"]
        return None if loss is None or not self.controls else self.values["accuracy_label"] + loss


def compare(
    published: Sequence[Published],
    rows: Sequence[Row],
    models: Sequence[Row],
    patterns: Mapping[str, Mapping[str, int]],
    reductions: Sequence[str],
    confidence: float = 0.95,
) -> list[Row]:
    """The article's accuracies beside those of every model (`COMPARISON_COLUMNS`).

    Where a condition of the article is not in the run, the nearest of its kind stands in for it (`stand_in`), and the
    row says so; without one there is no row. Dislocations and twins come twice, over all zone axes and over those that
    the article shows. `difference` is ours minus the article's. `agrees`: for a printed accuracy whether it lies in our
    interval (else whether ours is above or below; empty without an interval), to be read beside the control's accuracy
    in the same row; for a bound, and for "no noticeable effect", whether it holds, or `control` where the accuracy is
    below the bound but that of the control is as well, so that the bound says nothing about the defect.
    """
    tables: dict[str, dict[str, Row]] = {}
    for row in rows:
        tables.setdefault(row["model"], {})[row["condition"]] = row
    out = []
    for entry in published:
        for tail in ("", SHOWN):
            found = {}
            for model in models:
                measured = _measure(entry, tail, tables.get(model["model"], {}), confidence)
                if measured is not None:
                    found[model["model"]] = measured
            for model in models:
                if model["model"] in found:
                    seeds = [
                        found[other["model"]].values["accuracy_label"]
                        for other in models
                        if other["name"] == model["name"] and other["model"] in found
                    ]
                    out.append(
                        _comparison(entry, tail, model, found[model["model"]], seeds, patterns, list(reductions))
                    )
    return out


def _measure(entry: Published, tail: str, table: Mapping[str, Row], confidence: float) -> _Measured | None:
    plain = [name for name in table if not name.endswith(SHOWN)]
    names = [stand_in(member, entry.relation, plain) for member in entry.members]
    members = [table[name + tail] for name in names if name is not None and name + tail in table]
    if not members:
        return None
    n = sum(int(row["n_patterns"]) for row in members)

    def pooled(column: str) -> float | None:
        if any(row[column] is None for row in members):
            return None
        return sum(row[column] * row["n_patterns"] for row in members) / n

    columns = ("accuracy_label", "accuracy_space_group", "limit_space_group", "loss_label")
    values = {column: pooled(column) for column in columns}
    if len(members) == 1:
        row = members[0]
        interval = (row["accuracy_label_low"], row["accuracy_label_high"])
        losses = (row["loss_label_low"], row["loss_label_high"])
    else:
        interval, losses = wilson(values["accuracy_label"], n, confidence), (None, None)
        own = table.get(entry.condition + tail)
        if own is not None and own["n_patterns"] == n:
            losses = (own["loss_label_low"], own["loss_label_high"])
    conditions = tuple(row["condition"].removesuffix(SHOWN) for row in members)
    controls = tuple(row["control"] for row in members if row["control"] not in ("", row["condition"]))
    ours = _Measured(conditions, n, int(members[0]["n_copies"]), values, interval, losses, controls, (None, None))
    if len(members) == 1 and controls and controls[0] + tail in table:
        row = table[controls[0] + tail]
        return replace(ours, control_interval=(row["accuracy_label_low"], row["accuracy_label_high"]))
    if ours.control_accuracy is not None:
        return replace(ours, control_interval=wilson(ours.control_accuracy, n, confidence))
    return ours


def _comparison(
    entry: Published,
    tail: str,
    model: Row,
    ours: _Measured,
    seeds: Sequence[float],
    patterns: Mapping[str, Mapping[str, int]],
    reductions: Sequence[str],
) -> Row:
    shape = patterns[model["pattern_set"]]
    fewer = [
        f"{shape[key]} {key.replace('_', ' ')} instead of {number}"
        for key, number in PRINTED.items()
        if shape[key] != number and not (tail and key == "zone_axes")
    ]
    exact = ours.conditions == entry.members
    remarks = []
    if not exact:
        remarks.append(f"measured on {' and '.join(ours.conditions)} instead of {' and '.join(entry.members)}")
    remarks += fewer
    if reductions and not fewer and exact:
        remarks.append("reduced: " + "; ".join(reductions))
    if model["split_by"] != "image" and entry.condition == CLEAN:
        remarks.append(f"split by {model['split_by']}")
    remarks.append(entry.note)
    accuracy = ours.values["accuracy_label"]
    row: Row = dict.fromkeys(COMPARISON_COLUMNS)
    row |= {key: model[key] for key in COMPARISON_COLUMNS if key in model}
    row |= {
        "item": entry.condition,
        "axes": "shown in the article" if tail else "all",
        "page": entry.page,
        "where": entry.where,
        "relation": entry.relation,
        "published": entry.accuracy,
        "condition": ";".join(ours.conditions),
        **ours.values,
        "accuracy_label_low": ours.interval[0],
        "accuracy_label_high": ours.interval[1],
        "loss_label_low": ours.loss_interval[0],
        "loss_label_high": ours.loss_interval[1],
        "n_patterns": ours.n,
        "n_copies": ours.copies,
        "difference": accuracy - entry.accuracy if entry.relation == "=" else None,
        "agrees": _agrees(entry, ours),
        "control": ";".join(ours.controls),
        "control_accuracy_label": ours.control_accuracy,
        "control_accuracy_label_low": ours.control_interval[0],
        "control_accuracy_label_high": ours.control_interval[1],
        "seeds": len(seeds),
        "seeds_mean": fmean(seeds),
        "seeds_min": min(seeds),
        "seeds_max": max(seeds),
        "settings": "as printed" if exact and not fewer and not reductions else "reduced",
        "remark": "; ".join(filter(None, remarks)),
    }
    return row


def _agrees(entry: Published, ours: _Measured) -> str:
    low, high = ours.interval
    if low is None:  # fewer crystals than an interval needs
        return ""
    if entry.relation == "=":
        return "within" if low <= entry.accuracy <= high else "above" if low > entry.accuracy else "below"
    if entry.relation == "<":
        reached = ours.control_interval[1]
        if high < entry.accuracy and reached is not None and reached < entry.accuracy:
            return "control"
        return "yes" if high < entry.accuracy else "no" if low >= entry.accuracy else "undecided"
    lost = ours.loss_interval[0]
    return "" if lost is None else "yes" if lost <= 0 else "no"
