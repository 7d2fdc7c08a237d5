"""From predictions to accuracies: by label, by space group, by ensembles of zone axes, with intervals. NumPy only.

* One pattern: P(space group | pattern) = sum over labels of P(label | pattern) P(space group | label), the second
  factor from the label table with a uniform prior over groups and axes. Of k tied maxima each counts 1/k.
* Rotated copies of a pattern are averaged; they are not independent and do not enter the n of an interval, which is the
  number of distinct (crystal, zone axis, voltage, camera length, snapshot).
* An ensemble of k patterns takes k distinct zone axes of one crystal, each at a voltage, camera length, snapshot and
  copy drawn at random; the accuracy is the mean over many draws.
* Loss is the label accuracy of the matched control minus that of the condition.
"""

import csv
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import netCDF4
import numpy as np

from defraction.learning.labels import LabelRow, read_labels, space_group_given_label, space_groups_of

log = logging.getLogger(__name__)

COLUMNS = (
    "condition", "control", "host", "kind", "parameter", "n_patterns",
    "accuracy_label", "accuracy_label_low", "accuracy_label_high",
    "accuracy_space_group", "accuracy_space_group_low", "accuracy_space_group_high",
    "accuracy_ensemble", "loss_label", "published",
)  # fmt: skip
CURVE_COLUMNS = ("condition", "rule", "k", "n_crystals", "accuracy", "low", "high")
CONFUSION_COLUMNS = ("condition", "true_space_group", "predicted_space_group", "share")
PUBLISHED_COLUMNS = ("condition", "members", "accuracy", "page", "where", "note")
RULES = ("mean_log", "mean", "dempster")
CLEAN = "clean-held-out"
TIE = 1e-9  # scores this close, relative to the largest, are tied: above the rounding of float64 sums
FLOOR = 1e-12  # smallest probability in a logarithm


@dataclass(frozen=True)
class Predictions:
    """Log probabilities of the patterns of some crystals.

    Attributes:
        log_probability: shape (material, zone_axis, voltage, camera_length, snapshot, copy, label), natural log.
        true_label: shape (material, zone_axis). space_group: shape (material,), of the perfect crystal.
        materials: ids, or the name of the condition.
    """

    log_probability: np.ndarray
    true_label: np.ndarray
    space_group: np.ndarray
    materials: list[str]

    @property
    def n_patterns(self) -> int:
        """Distinct (crystal, zone axis, voltage, camera length, snapshot)."""
        return int(np.prod(self.log_probability.shape[:5]))


@dataclass(frozen=True)
class Published:
    """One published accuracy: `members` are the conditions it pools (itself if it pools nothing)."""

    condition: str
    members: tuple[str, ...]
    accuracy: float
    page: str
    where: str
    note: str


def read_predictions(path: Path | str) -> Predictions:
    """Read a prediction file; raises ValueError naming the file if it is not one or is not finite."""
    with netCDF4.Dataset(path) as file:
        file.set_auto_mask(False)
        missing = {"log_probability", "true_label", "space_group", "material"} - set(file.variables)
        if missing:
            raise ValueError(f"{path}: not a prediction file, it lacks {', '.join(sorted(missing))}")
        found = Predictions(
            log_probability=np.asarray(file["log_probability"][:], dtype=float),
            true_label=np.asarray(file["true_label"][:], dtype=int),
            space_group=np.asarray(file["space_group"][:], dtype=int),
            materials=[str(name) for name in file["material"][:]],
        )
    if not np.isfinite(found.log_probability).all():
        raise ValueError(f"{path}: probabilities that are not finite; the training may have diverged")
    return found


def read_published(path: Path | str) -> list[Published]:
    """Read resources/paper/published.csv; raises ValueError naming file and row if an accuracy is not a fraction."""
    with Path(path).open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if tuple(reader.fieldnames or ()) != PUBLISHED_COLUMNS:
            raise ValueError(f"{path}: columns {reader.fieldnames}, expected {list(PUBLISHED_COLUMNS)}")
        rows = []
        for row in reader:
            accuracy = float(row["accuracy"])
            if not 0 <= accuracy <= 1:
                raise ValueError(f"{path}: accuracy of {row['condition']} is {accuracy}; write a fraction, 0 to 1")
            members = tuple(row["members"].split(";")) if row["members"] else (row["condition"],)
            rows.append(Published(row["condition"], members, accuracy, row["page"], row["where"], row["note"]))
    return rows


# --- one pattern -----------------------------------------------------------------------------------------------------


def credit(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 where the largest score is that of the truth, 1/k where it is one of k tied, else 0.

    Args:
        scores: shape (..., class). truth: class indices, broadcast to shape (...).
    """
    truth = np.broadcast_to(truth, scores.shape[:-1])
    top = scores.max(axis=-1, keepdims=True)
    tied = scores >= top - TIE * np.maximum(np.abs(top), 1e-300)
    hit = np.take_along_axis(tied, truth[..., None], axis=-1)[..., 0]
    return hit / tied.sum(axis=-1)


def space_group_probability(log_probability: np.ndarray, labels: Sequence[LabelRow]) -> np.ndarray:
    """P(space group | pattern), shape (..., space group) in ascending order, from log probabilities (..., label)."""
    return np.exp(log_probability) @ space_group_given_label(labels)


def space_group_index(predictions: Predictions, labels: Sequence[LabelRow]) -> np.ndarray:
    """Index of each crystal's group in `space_groups_of(labels)`; raises ValueError for a group without labels."""
    groups = space_groups_of(labels)
    unknown = sorted(set(predictions.space_group.tolist()) - set(groups))
    if unknown:
        raise ValueError(f"space group {unknown[0]} of {predictions.materials[0]} is not in the label table {groups}")
    return np.array([groups.index(group) for group in predictions.space_group.tolist()])


def pattern_credits(predictions: Predictions, labels: Sequence[LabelRow]) -> tuple[np.ndarray, np.ndarray]:
    """Credit of each pattern by label and by space group, averaged over its copies.

    Both of shape (material, zone_axis, voltage, camera_length, snapshot).
    """
    by_label = credit(predictions.log_probability, predictions.true_label[:, :, None, None, None, None])
    groups = space_group_probability(predictions.log_probability, labels)
    truth = space_group_index(predictions, labels).reshape(-1, 1, 1, 1, 1, 1)
    return by_label.mean(axis=-1), credit(groups, truth).mean(axis=-1)


def confusion(predictions: Predictions, labels: Sequence[LabelRow]) -> tuple[list[int], np.ndarray]:
    """Space groups and the matrix (true, predicted) of shares of patterns; ties are divided, rows sum to 1.

    Rows of groups without any crystal are NaN.
    """
    scores = space_group_probability(predictions.log_probability, labels)
    shares = np.stack([credit(scores, np.array(group)) for group in range(scores.shape[-1])], axis=-1)
    per_crystal = shares.mean(axis=(1, 2, 3, 4, 5))
    truth = space_group_index(predictions, labels)
    matrix = np.full((scores.shape[-1],) * 2, np.nan)
    for group in np.unique(truth):
        matrix[group] = per_crystal[truth == group].mean(axis=0)
    return space_groups_of(labels), matrix


# --- ensembles -------------------------------------------------------------------------------------------------------


def ensemble_accuracy(
    predictions: Predictions,
    labels: Sequence[LabelRow],
    sizes: Sequence[int],
    draws: int,
    seed: int,
    rule: str = "mean_log",
) -> np.ndarray:
    """Accuracy over space groups of ensembles of k patterns, shape (material, k), mean over random draws.

    Args:
        sizes: numbers k of distinct zone axes; each must be at most the number of zone axes.
        draws: random draws of axes and of voltage, camera length, snapshot and copy for each axis; the same draws for
            every crystal, so that differences between conditions are not differences of the draw.
        rule: `mean_log`: largest mean of log P(space group | pattern), which is also the largest normalised product.
            `mean`: largest mean of P. `dempster`: labels as evidence for the *set* of their space groups, combined by
            Dempster's rule (Dempster 1967, 10.1214/aoms/1177698950), decided by plausibility.

    Raises ValueError for an unknown rule or a size out of range.
    """
    axes = predictions.log_probability.shape[1]
    if rule not in RULES:
        raise ValueError(f"ensemble rule {rule!r}; allowed: {', '.join(RULES)}")
    if not sizes or min(sizes) < 1 or max(sizes) > axes:
        raise ValueError(f"evaluation.ensemble_sizes {list(sizes)}: each must be 1 to {axes}, the number of zone axes")
    evidence = _evidence(predictions.log_probability, labels, rule)
    evidence = evidence.reshape(*evidence.shape[:2], -1, evidence.shape[-1])
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(axes), (draws, 1)), axis=1)
    variant = rng.integers(evidence.shape[2], size=(draws, axes))
    steps = np.array(sizes) - 1
    truth = space_group_index(predictions, labels)
    out = np.empty((len(truth), len(sizes)))
    for number, group in enumerate(truth):
        running = np.cumsum(evidence[number][order, variant], axis=1)[:, steps]
        out[number] = credit(running, np.array(group)).mean(axis=0)
    return out


def _evidence(log_probability: np.ndarray, labels: Sequence[LabelRow], rule: str) -> np.ndarray:
    """What is summed over the patterns of an ensemble, shape (..., space group)."""
    if rule == "dempster":
        # Plausibility of a single group is the mass of all sets that hold it. Commonalities multiply under Dempster's
        # rule and equal plausibilities for single elements, so logarithms add; the norm is common to all groups.
        member = (space_group_given_label(labels) > 0).astype(float)
        return np.log(np.maximum(np.exp(log_probability) @ member, FLOOR))
    probability = space_group_probability(log_probability, labels)
    return probability if rule == "mean" else np.log(np.maximum(probability, FLOOR))


# --- intervals -------------------------------------------------------------------------------------------------------


def wilson(accuracy: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share of n independent patterns (Wilson 1927, 10.1080/01621459.1927.10502953)."""
    if n < 1:
        raise ValueError(f"an interval needs at least one pattern, got {n}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def cluster_bootstrap(
    per_crystal: np.ndarray, samples: int, seed: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean over crystals, each of which is drawn whole (all its patterns), with replacement.

    Args:
        per_crystal: mean credit of each crystal, shape (crystal,). samples: bootstrap samples.
    """
    values = np.asarray(per_crystal, dtype=float)
    chosen = np.random.default_rng(seed).integers(len(values), size=(samples, len(values)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[chosen].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


# --- tables ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measured:
    n_patterns: int
    label: float
    space_group: float
    ensemble: float
    intervals: tuple[tuple[float, float], tuple[float, float]]


def evaluate(
    predictions: Mapping[str, Predictions],
    conditions: Sequence[Mapping[str, str]],
    labels: Sequence[LabelRow],
    settings: Mapping[str, Any],
    seed: int,
    clean: Predictions | None = None,
    published: Sequence[Published] = (),
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the accuracy table, of the ensemble curves and of the confusion table.

    Args:
        predictions: by condition id, one crystal each; every id must be in `conditions`.
        conditions: mappings with `condition`, `control`, `host`, `kind`, `parameter`.
        settings: the configuration's `evaluation` part: `ensemble_sizes`, `draws`, `bootstrap`, `confidence`.
        clean: predictions of held-out perfect crystals: one row for all, one for each space group.
        published: the article's numbers; those that pool several conditions get a row of their own if all their
            members were predicted, made of the patterns of all of them.

    Intervals are Wilson's for the conditions and cluster bootstraps over crystals for the clean rows. Returned rows are
    mappings with the keys `COLUMNS`, `CURVE_COLUMNS` and `CONFUSION_COLUMNS`; missing values are None.
    Raises ValueError for a prediction whose id is not in the table.
    """
    table = {row["condition"]: row for row in conditions}
    unknown = [name for name in predictions if name not in table]
    if unknown:
        raise ValueError(
            f"prediction of {unknown[0]!r}, which is not in the table of conditions; remove it or add the row"
        )
    options = _options(settings, next(iter(predictions.values()), clean))
    numbers = {row.condition: row.accuracy for row in published}
    measured = {name: _measure([found], labels, options, seed) for name, found in predictions.items()}
    rows, curves, confusions = [], [], []

    if clean is not None:
        parts = {CLEAN: np.ones(len(clean.materials), dtype=bool)}
        for group in sorted(set(clean.space_group.tolist())):
            parts[f"{CLEAN}-{group}"] = clean.space_group == group
        for name, chosen in parts.items():
            part = _select(clean, chosen)
            rows.append(_clean_row(name, part, labels, options, seed, numbers.get(name)))
            curves += _curves(name, [part], labels, options, seed)
        confusions += _confusion_rows(CLEAN, clean, labels)

    for row in conditions:
        name = row["condition"]
        if name not in measured:
            log.info("no predictions for %s: left out", name)
            continue
        control = measured.get(row["control"])
        text = {key: row[key] for key in ("condition", "control", "host", "kind", "parameter")}
        rows.append(_row(text, measured[name], control, numbers.get(name)))
        curves += _curves(name, [predictions[name]], labels, options, seed)
        confusions += _confusion_rows(name, predictions[name], labels)

    for entry in published:
        if entry.members == (entry.condition,):
            continue
        if not all(member in predictions for member in entry.members):
            log.info("%s: not all of %s were predicted, no pooled row", entry.condition, ", ".join(entry.members))
            continue
        members = [table[member] for member in entry.members]
        pooled = [predictions[member] for member in entry.members]
        controls = [row["control"] for row in members]
        control = None
        if all(name in predictions for name in controls):
            control = _measure([predictions[name] for name in controls], labels, options, seed)
        text = {
            "condition": entry.condition,
            "control": ";".join(controls),
            "host": "+".join(dict.fromkeys(row["host"] for row in members)),
            "kind": "+".join(dict.fromkeys(row["kind"] for row in members)),
            "parameter": " + ".join(dict.fromkeys(row["parameter"] for row in members)),
        }
        rows.append(_row(text, _measure(pooled, labels, options, seed), control, entry.accuracy))
        curves += _curves(entry.condition, pooled, labels, options, seed)
    return rows, curves, confusions


def evaluate_files(
    predictions: Mapping[str, Path | str],
    conditions: Path | str,
    labels: Path | str,
    accuracy: Path | str,
    ensemble: Path | str,
    confusions: Path | str,
    settings: Mapping[str, Any],
    seed: int,
    clean: Path | str | None = None,
    published: Path | str | None = None,
) -> None:
    """`evaluate` from files to CSV files: `accuracy`, `ensemble` curves and `confusions`."""
    with Path(conditions).open(newline="", encoding="utf-8") as handle:
        table = list(csv.DictReader(handle))
    results = evaluate(
        {name: read_predictions(path) for name, path in predictions.items()},
        table,
        read_labels(labels),
        settings,
        seed,
        read_predictions(clean) if clean is not None else None,
        read_published(published) if published is not None else (),
    )
    targets = (accuracy, ensemble, confusions)
    for path, columns, rows in zip(targets, (COLUMNS, CURVE_COLUMNS, CONFUSION_COLUMNS), results, strict=True):
        with Path(path).open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: _text(row[key]) for key in columns} for row in rows)


def _options(settings: Mapping[str, Any], example: Predictions | None) -> dict[str, Any]:
    if example is None:
        raise ValueError("nothing to evaluate: give predictions of conditions or of clean crystals")
    axes = example.log_probability.shape[1]
    sizes = sorted({size for size in settings["ensemble_sizes"] if size <= axes}) or [axes]
    return {
        "sizes": sizes,
        "draws": settings.get("draws", 200),
        "bootstrap": settings.get("bootstrap", 2000),
        "confidence": settings.get("confidence", 0.95),
    }


def _select(predictions: Predictions, chosen: np.ndarray) -> Predictions:
    return Predictions(
        predictions.log_probability[chosen],
        predictions.true_label[chosen],
        predictions.space_group[chosen],
        [name for name, keep in zip(predictions.materials, chosen, strict=True) if keep],
    )


def _measure(
    members: Sequence[Predictions], labels: Sequence[LabelRow], options: Mapping[str, Any], seed: int
) -> _Measured:
    credits = [pattern_credits(member, labels) for member in members]
    n = sum(member.n_patterns for member in members)
    label, group = (float(np.concatenate([pair[kind].ravel() for pair in credits]).mean()) for kind in (0, 1))
    largest = options["sizes"][-1:]
    ensembles = [ensemble_accuracy(member, labels, largest, options["draws"], seed)[:, 0] for member in members]
    intervals = tuple(wilson(value, n, options["confidence"]) for value in (label, group))
    return _Measured(n, label, group, float(np.concatenate(ensembles).mean()), intervals)


def _clean_row(
    name: str,
    clean: Predictions,
    labels: Sequence[LabelRow],
    options: Mapping[str, Any],
    seed: int,
    published: float | None,
) -> dict[str, Any]:
    found = _measure([clean], labels, options, seed)
    per_crystal = [values.mean(axis=(1, 2, 3, 4)) for values in pattern_credits(clean, labels)]
    intervals = tuple(
        cluster_bootstrap(values, options["bootstrap"], seed, options["confidence"]) for values in per_crystal
    )
    found = _Measured(found.n_patterns, found.label, found.space_group, found.ensemble, intervals)
    groups = sorted(set(clean.space_group.tolist()))
    text = {
        "condition": name,
        "control": None,
        "host": f"{len(clean.materials)} crystals",
        "kind": "clean",
        "parameter": "space groups " + " ".join(map(str, groups)),
    }
    return _row(text, found, None, published)


def _row(
    text: Mapping[str, Any], found: _Measured, control: _Measured | None, published: float | None
) -> dict[str, Any]:
    (label_low, label_high), (group_low, group_high) = found.intervals
    return {
        **text,
        "n_patterns": found.n_patterns,
        "accuracy_label": found.label,
        "accuracy_label_low": label_low,
        "accuracy_label_high": label_high,
        "accuracy_space_group": found.space_group,
        "accuracy_space_group_low": group_low,
        "accuracy_space_group_high": group_high,
        "accuracy_ensemble": found.ensemble,
        "loss_label": None if control is None else control.label - found.label,
        "published": published,
    }


def _curves(
    name: str, members: Sequence[Predictions], labels: Sequence[LabelRow], options: Mapping[str, Any], seed: int
) -> list[dict[str, Any]]:
    rows = []
    for rule in RULES:
        found = [
            ensemble_accuracy(member, labels, options["sizes"], options["draws"], seed, rule) for member in members
        ]
        per_crystal = np.concatenate(found)
        for column, size in enumerate(options["sizes"]):
            values = per_crystal[:, column]
            # one or two crystals give no interval over crystals, and draws of the same patterns are not independent
            low, high = (None, None)
            if len(values) > 2:
                low, high = cluster_bootstrap(values, options["bootstrap"], seed, options["confidence"])
            cells = (name, rule, size, len(values), float(values.mean()), low, high)
            rows.append(dict(zip(CURVE_COLUMNS, cells, strict=True)))
    return rows


def _confusion_rows(name: str, predictions: Predictions, labels: Sequence[LabelRow]) -> list[dict[str, Any]]:
    groups, matrix = confusion(predictions, labels)
    return [
        dict(zip(CONFUSION_COLUMNS, (name, true, predicted, float(matrix[i, j])), strict=True))
        for i, true in enumerate(groups)
        for j, predicted in enumerate(groups)
        if not np.isnan(matrix[i, j])
    ]


def _text(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else value
