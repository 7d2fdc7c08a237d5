"""All models together: their tables joined, the spread over seeds, accuracy against resolution.

Everything here is made from the tables of the single models (`columns.TABLES`) and results/models.csv; no prediction is
read again.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from defraction.dataset import read_split, trained_hosts
from defraction.evaluation.columns import TABLES, TEXTS
from defraction.evaluation.comparison import COMPARISON_COLUMNS, compare
from defraction.evaluation.extinction import write_classes
from defraction.evaluation.names import CLEAN, SHOWN
from defraction.models import read_table
from defraction.published import read_published
from defraction.tables import write_rows

SPREAD_COLUMNS = ("name", "condition", "quantity", "seeds", "mean", "sd", "min", "max", "limit")
MODEL_COLUMNS = ("network", "split_by", "hosts", "pattern_set", "diffraction_model", "pixels")
"""What seeds of one model name have in common, of the table of models."""
RESOLUTION_COLUMNS = (
    "name", *MODEL_COLUMNS, "seeds", "group",
    "n_conditions", "accuracy_label", "accuracy_label_min", "accuracy_label_max",
    "accuracy_ensemble", "limit_ensemble", "loss_label",
)  # fmt: skip
QUANTITIES = {
    "accuracy_label": None,
    "accuracy_space_group": "limit_space_group",
    "accuracy_ensemble": "limit_ensemble",
    "loss_label": None,
}
"""What the spread is given of, and the column of the limit that geometry sets to it."""

Row = dict[str, Any]


def summarise_files(
    tables: Mapping[str, Sequence[Path | str]],
    splits: Sequence[Path | str],
    models: Path | str,
    published: Path | str,
    labels: Path | str,
    outputs: Mapping[str, Path | str],
    patterns: Mapping[str, Mapping[str, int]],
    reductions: Sequence[str],
) -> None:
    """Join the tables of all models and write what is made of them.

    Args:
        tables: files of every model by name of the table (`columns.TABLES`), all in the order of the table `models`.
        splits: tables of the split of every model, in the same order.
        outputs: a path for each of these names and for `comparison`, `spread`, `resolution` and `classes`.
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
    trained = {model["model"]: trained_hosts(read_split(path)) for model, path in zip(catalogue, splits, strict=True)}
    found = compare(read_published(published), rows, catalogue, trained, patterns, reductions)
    write_rows(outputs["comparison"], COMPARISON_COLUMNS, found)
    write_classes(outputs["classes"], labels)


def read_accuracies(path: Path | str) -> list[Row]:
    """Rows of an accuracy table; numbers as float, empty cells None, texts as they are."""
    with Path(path).open(newline="", encoding="utf-8") as handle:
        return [
            {key: value if key in TEXTS else (float(value) if value else None) for key, value in row.items()}
            for row in csv.DictReader(handle)
        ]


def spread(rows: Sequence[Row], models: Sequence[Row]) -> list[Row]:
    """Mean, standard deviation and range over the training seeds of each model name, by condition, and the limit.

    Args:
        rows: of `read_accuracies`, of all models. models: the table of models.
    """
    names = {model["model"]: model["name"] for model in models}
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        grouped.setdefault((names[row["model"]], row["condition"]), []).append(row)
    out = []
    for (name, condition), members in grouped.items():
        for quantity, limit in QUANTITIES.items():
            values = [row[quantity] for row in members if row[quantity] is not None]
            if values:
                out.append(
                    {
                        "name": name,
                        "condition": condition,
                        "quantity": quantity,
                        "seeds": len(values),
                        "mean": fmean(values),
                        "sd": stdev(values) if len(values) > 1 else None,
                        "min": min(values),
                        "max": max(values),
                        "limit": members[0][limit] if limit else None,
                    }
                )
    return out


def resolution(rows: Sequence[Row], models: Sequence[Row]) -> list[Row]:
    """Accuracy of each model name by kind of condition, with the pixels of its patterns; mean over seeds.

    Groups are the held-out perfect crystals, the pristine hosts, and every kind of defect (mean over its conditions).

    Args:
        rows: of `read_accuracies`, of all models. models: the table of models.
    """
    out = []
    for name in dict.fromkeys(model["name"] for model in models):
        seeds = [model for model in models if model["name"] == name]
        for group, by_seed in _groups(rows, {model["model"] for model in seeds}).items():
            every = [row for members in by_seed.values() for row in members]
            accuracies = [fmean(row["accuracy_label"] for row in members) for members in by_seed.values()]
            ensembles, limits = (
                [row[column] for row in every if row["accuracy_ensemble"] is not None]
                for column in ("accuracy_ensemble", "limit_ensemble")
            )
            losses = [row["loss_label"] for row in every]
            out.append(
                {
                    "name": name,
                    **{key: seeds[0][key] for key in MODEL_COLUMNS},
                    "seeds": len(by_seed),
                    "group": group,
                    "n_conditions": len(next(iter(by_seed.values()))),
                    "accuracy_label": fmean(accuracies),
                    "accuracy_label_min": min(accuracies),
                    "accuracy_label_max": max(accuracies),
                    "accuracy_ensemble": fmean(ensembles) if ensembles else None,
                    "limit_ensemble": fmean(limits) if limits else None,
                    "loss_label": None if None in losses else fmean(losses),
                }
            )
    return out


def _groups(rows: Sequence[Row], models: set[str]) -> dict[str, dict[str, list[Row]]]:
    """Rows by group and model, of these models; without controls and without rows that repeat patterns of others."""
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        name, kind = row["condition"], row["kind"]
        if row["model"] not in models or name.startswith("pooled") or name.endswith(SHOWN):
            continue
        if kind in ("control", "clean") and name != CLEAN:
            continue
        groups.setdefault(CLEAN if name == CLEAN else kind, {}).setdefault(row["model"], []).append(row)
    return groups
