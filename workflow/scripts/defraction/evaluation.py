"""From predictions to accuracies: by label, by space group, by ensembles of zone axes, with intervals. NumPy only.

* One pattern: P(space group | pattern) = sum over labels of P(label | pattern) P(space group | label), the second
  factor from the label table with a uniform prior over groups and axes. Of k tied maxima each counts 1/k.
* Rotated copies of a pattern are averaged; they are not independent and do not enter the n of an interval, which is the
  number of distinct (crystal, zone axis, voltage, camera length, snapshot).
* An ensemble of k patterns takes k distinct zone axes of one crystal, each at a voltage, camera length, snapshot and
  copy drawn at random; the accuracy is the mean over many draws.
* Loss is the accuracy of the matched control minus that of the condition.
* Limits are the same counts for someone who knows the label of every pattern and nothing else.

Every prediction file is read once and reduced to credits of single patterns at once: memory holds one file at a time.
"""

import csv
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any

import netCDF4
import numpy as np

from defraction.calibration import Calibration, calibration_of
from defraction.learning.labels import (
    LabelRow,
    axis_name,
    extinction_classes,
    number_of_labels,
    parse_axis,
    read_labels,
    single_pattern_limit,
    space_group_given_label,
    space_groups_of,
)
from defraction.published import Published, read_published
from defraction.tables import write_rows

log = logging.getLogger(__name__)

_INTERVALS = ("accuracy_label", "accuracy_space_group", "accuracy_extinction")
COLUMNS = (
    "model", "pattern_set", "condition", "control", "host", "kind", "parameter",
    "n_patterns", "n_crystals", "n_snapshots", "n_copies",
    "accuracy_label", "accuracy_label_low", "accuracy_label_high",
    "accuracy_space_group", "accuracy_space_group_low", "accuracy_space_group_high",
    "limit_space_group", "limit_space_group_uniform",
    "accuracy_extinction", "accuracy_extinction_low", "accuracy_extinction_high", "limit_extinction",
    "accuracy_ensemble", "limit_ensemble",
    "loss_label", "loss_label_low", "loss_label_high", "loss_space_group", "loss_ensemble", "published",
)  # fmt: skip
BY_COLUMNS = (
    "model", "condition", "by", "value", "n_patterns", "accuracy_label", "accuracy_label_low", "accuracy_label_high",
    "accuracy_space_group", "accuracy_space_group_low", "accuracy_space_group_high", "limit_space_group",
)  # fmt: skip
CURVE_COLUMNS = ("model", "condition", "rule", "k", "n_crystals", "accuracy", "low", "high", "limit")
CONFUSION_COLUMNS = ("model", "condition", "true_space_group", "predicted_space_group", "share")
LABEL_COLUMNS = ("model", "condition", "true_label", "predicted_label", "share")
MISTAKE_COLUMNS = (
    "model", "condition", "zone_axis", "true_label", "predicted_label", "share", "share_of_mistakes",
)  # fmt: skip
CALIBRATION_COLUMNS = (
    "model", "condition", "answer", "n_patterns", "n_copies", "accuracy", "confidence", "expected_calibration_error",
    "brier", "negative_log_likelihood",
)  # fmt: skip
RELIABILITY_COLUMNS = ("model", "condition", "answer", "low", "high", "share", "confidence", "accuracy")
CLASS_COLUMNS = ("extinction_class", "space_groups")
TABLES = {
    "accuracy": COLUMNS,
    "accuracy_by": BY_COLUMNS,
    "ensembles": CURVE_COLUMNS,
    "confusion": CONFUSION_COLUMNS,
    "confusion_labels": LABEL_COLUMNS,
    "mistakes": MISTAKE_COLUMNS,
    "calibration": CALIBRATION_COLUMNS,
    "reliability": RELIABILITY_COLUMNS,
}
"""Tables of one model, by name of the file, and their columns."""
RULES = ("mean_log", "mean", "dempster")
CLEAN = "clean-held-out"
SHOWN = "@shown"
"""Ends the id of a row that counts only the zone axes which the article shows."""
TIE = 1e-9  # scores this close, relative to the largest, are tied: above the rounding of float64 sums
FLOOR = 1e-12  # smallest probability in a logarithm
FEWEST = 3  # crystals that an interval over crystals needs
LEAST_SHARE = 5e-4  # of a table of mistakes: rarer ones are left out

Tables = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Predictions:
    """Log probabilities of the patterns of some crystals.

    Attributes:
        log_probability: shape (material, zone_axis, voltage, camera_length, snapshot, copy, label), natural log.
        true_label: shape (material, zone_axis). space_group: shape (material,), of the perfect crystal.
        materials: ids, or the name of the condition.
        zone_axes: names, in order. voltages: kV. camera_lengths: m. Empty where nobody asks for accuracies by them.
        counted: shape of `log_probability` without copy and label; False where a pattern was trained on, and is left
            out of every count. None: all count.
    """

    log_probability: np.ndarray
    true_label: np.ndarray
    space_group: np.ndarray
    materials: list[str]
    zone_axes: tuple[str, ...] = ()
    voltages: tuple[float, ...] = ()
    camera_lengths: tuple[float, ...] = ()
    counted: np.ndarray | None = None

    @property
    def n_patterns(self) -> int:
        """Distinct (crystal, zone axis, voltage, camera length, snapshot) that count."""
        return int(np.prod(self.log_probability.shape[:5]) if self.counted is None else self.counted.sum())


def read_predictions(path: Path | str) -> Predictions:
    """Read a prediction file; raises ValueError naming the file if it is not one or is not finite."""
    with netCDF4.Dataset(path) as file:
        file.set_auto_mask(False)
        missing = {"log_probability", "true_label", "space_group", "material"} - set(file.variables)
        if missing:
            raise ValueError(f"{path}: not a prediction file, it lacks {', '.join(sorted(missing))}")

        def coordinate(name: str, kind: type) -> tuple:
            return tuple(kind(value) for value in file[name][:]) if name in file.variables else ()

        counted = np.asarray(file["held_out"][:], dtype=bool) if "held_out" in file.variables else None
        found = Predictions(
            log_probability=np.asarray(file["log_probability"][:], dtype=float),
            true_label=np.asarray(file["true_label"][:], dtype=int),
            space_group=np.asarray(file["space_group"][:], dtype=int),
            materials=[str(name) for name in file["material"][:]],
            zone_axes=coordinate("zone_axis", str),
            voltages=coordinate("voltage", float),
            camera_lengths=coordinate("camera_length", float),
            counted=counted,
        )
    if not np.isfinite(found.log_probability if counted is None else found.log_probability[counted]).all():
        raise ValueError(f"{path}: probabilities that are not finite; the training may have diverged")
    if counted is not None and not counted.any():
        raise ValueError(f"{path}: held_out is 0 everywhere, so no pattern counts; hold some out of the training")
    return found


# --- one pattern -----------------------------------------------------------------------------------------------------


def answered(scores: np.ndarray) -> np.ndarray:
    """Share of the answer that each class gets, shape of `scores`: 1 for the largest, 1/k for each of k tied."""
    top = scores.max(axis=-1, keepdims=True)
    tied = scores >= top - TIE * np.maximum(np.abs(top), 1e-300)
    return tied / tied.sum(axis=-1, keepdims=True)


def credit(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 where the largest score is that of the truth, 1/k where it is one of k tied, else 0.

    Args:
        scores: shape (..., class). truth: class indices, broadcast to shape (...).
    """
    truth = np.broadcast_to(truth, scores.shape[:-1])
    return np.take_along_axis(answered(scores), truth[..., None], axis=-1)[..., 0]


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

    NaN where fewer than k axes of a crystal hold a pattern that counts. Raises ValueError for an unknown rule or a size
    out of range.
    """
    axes = predictions.log_probability.shape[1]
    if rule not in RULES:
        raise ValueError(f"ensemble rule {rule!r}; allowed: {', '.join(RULES)}")
    if not sizes or min(sizes) < 1 or max(sizes) > axes:
        raise ValueError(f"evaluation.ensemble_sizes {list(sizes)}: each must be 1 to {axes}, the number of zone axes")
    given, member = _factors(labels)
    truth = space_group_index(predictions, labels)
    out = np.empty((len(truth), len(sizes)))
    for number, group in enumerate(truth):
        probability = np.exp(predictions.log_probability[number])
        counted = None if predictions.counted is None else predictions.counted[number]
        evidence = _evidence(probability, given, member, rule)
        out[number] = _ensembles(evidence, counted, group, sizes, draws, seed)
    return out


def _factors(labels: Sequence[LabelRow]) -> tuple[np.ndarray, np.ndarray]:
    given = space_group_given_label(labels)
    return given, (given > 0).astype(float)


def _evidence(probability: np.ndarray, given: np.ndarray, member: np.ndarray, rule: str) -> np.ndarray:
    """What is summed over the patterns of an ensemble, shape (..., space group), from P(label | pattern)."""
    if rule == "dempster":
        # Plausibility of a single group is the mass of all sets that hold it. Commonalities multiply under Dempster's
        # rule and equal plausibilities for single elements, so logarithms add; the norm is common to all groups.
        return np.log(np.maximum(probability @ member, FLOOR))
    groups = probability @ given
    return groups if rule == "mean" else np.log(np.maximum(groups, FLOOR))


def _ensembles(
    evidence: np.ndarray, counted: np.ndarray | None, group: int, sizes: Sequence[int], draws: int, seed: int
) -> np.ndarray:
    """Credit of ensembles of one crystal, shape (k,); `evidence` is (axis, voltage, camera, snapshot, copy, group).

    Of single patterns all are counted, of larger ensembles the draws.
    """
    axes, copies = len(evidence), evidence.shape[-2]
    flat = evidence.reshape(axes, -1, evidence.shape[-1])
    rng = np.random.default_rng(seed)
    keys, chance = rng.random((draws, axes)), rng.random((draws, axes))
    if counted is None:
        available = np.full(axes, flat.shape[1])
        order = np.argsort(keys, axis=1)
        variant = (np.take_along_axis(chance, order, axis=1) * flat.shape[1]).astype(int)
    else:
        usable = np.repeat(counted.reshape(axes, -1), copies, axis=1)
        available = usable.sum(axis=1)
        order = np.argsort(np.where(available > 0, keys, np.inf), axis=1)
        rank = (np.take_along_axis(chance, order, axis=1) * available[order]).astype(int)
        first = np.argsort(~usable, axis=1, kind="stable")  # the variants that count come first
        variant = first[order, rank]
    running = np.cumsum(flat[order, variant], axis=1)[:, np.array(sizes) - 1]
    out = credit(running, np.array(group)).mean(axis=0)
    if 1 in sizes:  # every pattern once: exact
        single = credit(flat, np.array(group))
        out[list(sizes).index(1)] = single.mean() if counted is None else single[usable].mean()
    out[np.array(sizes) > (available > 0).sum()] = np.nan
    return out


# --- intervals -------------------------------------------------------------------------------------------------------


def wilson(accuracy: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share of n independent patterns (Wilson 1927, 10.1080/01621459.1927.10502953)."""
    if n < 1:
        raise ValueError(f"an interval needs at least one pattern, got {n}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(accuracy * (1 - accuracy), 0.0) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def difference_interval(first: np.ndarray, second: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of mean(first) - mean(second), both shares in [0, 1] of patterns.

    Newcombe's square-and-add of two Wilson intervals (Newcombe 1998, Stat. Med. 17, 2635,
    10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C, method 10 without continuity correction). Of
    equal lengths they are pairs (the same axis, voltage and camera length) and their correlation counts; of different
    lengths they are taken as independent, which is on the safe side. Unlike a bootstrap it has a width where all
    patterns are right.
    """
    p, q = float(np.mean(first)), float(np.mean(second))
    (p_low, p_high), (q_low, q_high) = (wilson(v, len(x), confidence) for v, x in ((p, first), (q, second)))
    phi = 0.0
    if len(first) == len(second) and np.ptp(first) > 0 and np.ptp(second) > 0:
        phi = float(np.corrcoef(first, second)[0, 1])

    def side(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    return p - q - side(p - p_low, q_high - q), p - q + side(p_high - p, q - q_low)


def cluster_bootstrap(
    per_crystal: np.ndarray, samples: int, seed: int, confidence: float = 0.95, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Percentile interval of the mean over crystals, each of which is drawn whole (all its patterns), with replacement.

    Args:
        per_crystal: mean credit of each crystal, shape (crystal,). samples: bootstrap samples.
        weights: patterns of each crystal, where their numbers differ.
    """
    values = np.asarray(per_crystal, dtype=float)
    chosen = np.random.default_rng(seed).integers(len(values), size=(samples, len(values)))
    tail = (1 - confidence) / 2
    if weights is None:
        means = values[chosen].mean(axis=1)
    else:
        weights = np.asarray(weights, dtype=float)
        means = (values * weights)[chosen].sum(axis=1) / weights[chosen].sum(axis=1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


# --- from one file to its credits ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rules:
    """The label table and the settings as arrays, made once for all files."""

    labels: Sequence[LabelRow]
    options: Mapping[str, Any]
    seed: int

    @cached_property
    def groups(self) -> list[int]:
        return space_groups_of(self.labels)

    @cached_property
    def given(self) -> np.ndarray:
        return space_group_given_label(self.labels)

    @cached_property
    def member(self) -> np.ndarray:
        return (self.given > 0).astype(float)

    @cached_property
    def classes(self) -> np.ndarray:
        """Which extinction class a group belongs to, shape (group, class), 0 or 1."""
        axes = list(dict.fromkeys(row.zone_axis for row in self.labels))
        classes = extinction_classes(self.groups, axes)
        return np.array([[float(group in members) for members in classes] for group in self.groups])

    @cached_property
    def uniform_limit(self) -> float:
        return single_pattern_limit(self.labels)

    @cached_property
    def names(self) -> list[str]:
        found = {row.label: row.name for row in self.labels}
        return [found[label] for label in range(number_of_labels(self.labels))]

    def sizes(self, axes: int) -> list[int]:
        return sorted({size for size in self.options["ensemble_sizes"] if size <= axes}) or [axes]

    @cached_property
    def _limits(self) -> dict[tuple, tuple]:
        return {}

    def limits(self, group: int, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Credits of a reader who knows every label: by group (axis,), by class (axis,), of ensembles (rule, k)."""
        key = (group, *truth.tolist())
        if key not in self._limits:
            known = np.eye(len(self.given))[truth]
            groups = known @ self.given
            by_class = credit(groups @ self.classes, np.array(self.classes[group].argmax()))
            self._limits[key] = (
                credit(groups, np.array(group)),
                by_class,
                self.ensembles(known[:, None, None, None, None], None, group),
            )
        return self._limits[key]

    def ensembles(self, probability: np.ndarray, counted: np.ndarray | None, group: int) -> np.ndarray:
        sizes, draws = self.sizes(len(probability)), self.options["draws"]
        return np.array(
            [
                _ensembles(
                    _evidence(probability, self.given, self.member, rule), counted, group, sizes, draws, self.seed
                )
                for rule in RULES
            ]
        )


@dataclass(frozen=True)
class Scored:
    """What is kept of a prediction file: credits of its patterns, NaN where a pattern does not count.

    Attributes:
        label, space_group, extinction: shape (material, zone_axis, voltage, camera_length, snapshot).
        limit_space_group, limit_extinction: the same for known labels, shape (material, zone_axis).
        ensembles, limit_ensembles: shape (material, rule, k).
        label_answers: share of the patterns of an axis that got each label, shape (material, zone_axis, label).
        group_answers: share of a crystal's patterns that got each group, shape (material, group).
        true_label: shape (material, zone_axis). truth: index of the group, shape (material,).
        calibration: of the answers by label and by group, all patterns together; None after pooling or selecting.
    """

    label: np.ndarray
    space_group: np.ndarray
    extinction: np.ndarray
    limit_space_group: np.ndarray
    limit_extinction: np.ndarray
    ensembles: np.ndarray
    limit_ensembles: np.ndarray
    label_answers: np.ndarray
    group_answers: np.ndarray
    true_label: np.ndarray
    truth: np.ndarray
    calibration: dict[str, Calibration]
    materials: list[str]
    zone_axes: tuple[str, ...]
    voltages: tuple[float, ...]
    camera_lengths: tuple[float, ...]
    copies: int

    @property
    def n_patterns(self) -> int:
        return int(np.isfinite(self.label).sum())

    def select(self, chosen: np.ndarray) -> "Scored":
        """The crystals of a Boolean mask."""
        kept = (
            "label", "space_group", "extinction", "limit_space_group", "limit_extinction", "ensembles",
            "limit_ensembles", "label_answers", "group_answers", "true_label", "truth",
        )  # fmt: skip
        values = {name: getattr(self, name)[chosen] for name in kept}
        names = [name for name, keep in zip(self.materials, chosen, strict=True) if keep]
        rest = {n: getattr(self, n) for n in ("zone_axes", "voltages", "camera_lengths", "copies")}
        return Scored(**values, calibration={}, materials=names, **rest)

    def limit(self, by: str) -> float:
        """Mean over the counted patterns of the credit for known labels; `by`: space_group or extinction."""
        per_axis = getattr(self, f"limit_{by}")
        counted = np.isfinite(self.label).sum(axis=(2, 3, 4))
        return float((per_axis * counted).sum() / counted.sum())


def score(predictions: Predictions, rules: _Rules) -> Scored:
    """Credits of one prediction file, crystal after crystal."""
    truth = space_group_index(predictions, rules.labels)
    kept: dict[str, list[np.ndarray]] = {}
    calibration: dict[str, Calibration] = {}
    for number, group in enumerate(truth):
        probability = np.exp(predictions.log_probability[number])
        counted = None if predictions.counted is None else predictions.counted[number]
        true_label = predictions.true_label[number]
        by_label = answered(probability)
        groups = probability @ rules.given
        by_group = answered(groups)
        own_class = np.array(rules.classes[group].argmax())
        known_group, known_class, known_ensembles = rules.limits(int(group), true_label)
        at = true_label.reshape(-1, 1, 1, 1, 1, 1)
        hit_label = np.take_along_axis(by_label, np.broadcast_to(at, (*by_label.shape[:-1], 1)), axis=-1)[..., 0]
        hit_group = by_group[..., group]
        credits = {
            "label": hit_label.mean(axis=-1),
            "space_group": hit_group.mean(axis=-1),
            "extinction": credit(groups @ rules.classes, own_class).mean(axis=-1),
        }
        mask = np.ones(by_label.shape[:4], dtype=bool) if counted is None else counted
        weight = np.broadcast_to(mask[..., None], hit_label.shape).astype(float)
        for name, values in credits.items():
            kept.setdefault(name, []).append(np.where(mask, values, np.nan))
        per_axis = np.maximum(weight.sum(axis=(1, 2, 3, 4)), 1)
        values = {
            "limit_space_group": known_group,
            "limit_extinction": known_class,
            "ensembles": rules.ensembles(probability, counted, int(group)),
            "limit_ensembles": known_ensembles,
            "label_answers": (by_label * weight[..., None]).sum(axis=(1, 2, 3, 4)) / per_axis[:, None],
            "group_answers": (by_group * weight[..., None]).sum(axis=(0, 1, 2, 3, 4)) / max(weight.sum(), 1),
        }
        for name, value in values.items():
            kept.setdefault(name, []).append(value)
        bins = rules.options["calibration_bins"]
        true_group = np.broadcast_to(np.array(group), hit_group.shape)
        for answer, p, hits, index in (
            ("label", probability, hit_label, np.broadcast_to(at[..., 0], hit_label.shape)),
            ("space_group", groups, hit_group, true_group),
        ):
            found = calibration_of(p, hits, index, mask, bins)
            calibration[answer] = found if answer not in calibration else calibration[answer] + found
    return Scored(
        **{name: np.stack(values) for name, values in kept.items()},
        true_label=predictions.true_label,
        truth=truth,
        calibration=calibration,
        materials=list(predictions.materials),
        zone_axes=predictions.zone_axes,
        voltages=predictions.voltages,
        camera_lengths=predictions.camera_lengths,
        copies=predictions.log_probability.shape[5],
    )


def confusion(predictions: Predictions, labels: Sequence[LabelRow]) -> tuple[list[int], np.ndarray]:
    """Space groups and the matrix (true, predicted) of shares of patterns; ties are divided, rows sum to 1.

    Crystals count alike within a row. Rows of groups without any crystal are NaN.
    """
    scored = score(predictions, _Rules(labels, _options({"ensemble_sizes": [1], "draws": 1}), 0))
    return space_groups_of(labels), _matrix(scored, len(space_groups_of(labels)))


def _matrix(scored: Scored, groups: int) -> np.ndarray:
    matrix = np.full((groups, groups), np.nan)
    for group in np.unique(scored.truth):
        matrix[group] = scored.group_answers[scored.truth == group].mean(axis=0)
    return matrix


# --- tables ----------------------------------------------------------------------------------------------------------


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
    """Tables of one model, by name (`TABLES`): rows are mappings, missing values None.

    Args:
        predictions: by condition id, one crystal each, as arrays or as files that are read one at a time; every id
            must be in `conditions`.
        conditions: mappings with `condition`, `control`, `host`, `kind`, `parameter`.
        settings: the configuration's `evaluation` part: `ensemble_sizes`, `draws`, `bootstrap`, `confidence`,
            `calibration_bins`.
        clean: predictions of held-out perfect crystals: one row for all, one for each space group.
        published: the article's numbers; those that pool several conditions get a row of their own if all their
            members were predicted, made of the patterns of all of them.
        shown: predictions over the zone axes that the article shows, by condition id: rows `<id>@shown`.
        crystals: `prototype` and `prototype_in_training` by material id, for accuracies of the clean crystals by them.
        model, pattern_set: written into the rows.

    Intervals are Wilson's for the conditions, Newcombe's for their losses and cluster bootstraps over crystals for the
    clean rows. Raises ValueError for a prediction whose id is not in the table.
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
    rules = _Rules(labels, _options(settings), seed)
    numbers = {row.condition: row.accuracy for row in published if row.relation == "="}
    out: Tables = {name: [] for name in TABLES}
    scored = {name: score(_loaded(found), rules) for name, found in predictions.items()}
    scored |= {name + SHOWN: score(_loaded(found), rules) for name, found in shown.items()}

    if clean is not None:
        _add_clean(out, score(_loaded(clean), rules), rules, numbers, crystals or {})
    for name, row in _rows_of(conditions, scored):
        text = {key: row[key] for key in ("condition", "control", "host", "kind", "parameter")}
        tail = SHOWN if name.endswith(SHOWN) else ""
        if tail:
            text |= {"condition": name, "control": row["control"] + tail}
            text["parameter"] = " ".join(filter(None, [row["parameter"] + ",", "axes", *scored[name].zone_axes]))
        control = scored.get(row["control"] + tail)
        controls = None if control is None else [control]
        out["accuracy"].append(_row(text, [scored[name]], controls, rules, numbers.get(name)))
        _add_details(out, name, [scored[name]], rules)
    for entry in published:
        for tail in ("", SHOWN):
            _add_pool(out, entry, tail, table, scored, rules)
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
    """`evaluate` from files to CSV files; `outputs` gives a path for each name in `TABLES`."""
    with Path(conditions).open(newline="", encoding="utf-8") as handle:
        table = list(csv.DictReader(handle))
    crystals = None
    if split is not None:
        with Path(split).open(newline="", encoding="utf-8") as handle:
            crystals = {row["material"]: row for row in csv.DictReader(handle)}
    tables = evaluate(
        predictions,
        table,
        read_labels(labels),
        settings,
        seed,
        clean,
        read_published(published) if published is not None else (),
        shown,
        crystals,
        model,
        pattern_set,
    )
    for name, columns in TABLES.items():
        write_rows(outputs[name], columns, tables[name])


def write_classes(path: Path | str, labels: Path | str) -> None:
    """Write the extinction classes of a label table's groups over its axes as CSV (`CLASS_COLUMNS`)."""
    rows = read_labels(labels)
    axes = list(dict.fromkeys(row.zone_axis for row in rows))
    classes = extinction_classes(space_groups_of(rows), axes)
    cells = [(number, " ".join(map(str, members))) for number, members in enumerate(classes)]
    write_rows(path, CLASS_COLUMNS, [dict(zip(CLASS_COLUMNS, row, strict=True)) for row in cells])


def _loaded(found: Predictions | Path | str) -> Predictions:
    return found if isinstance(found, Predictions) else read_predictions(found)


def _options(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"draws": 200, "bootstrap": 2000, "confidence": 0.95, "calibration_bins": 15, **settings}


def _rows_of(conditions: Sequence[Mapping[str, str]], scored: Mapping[str, Scored]) -> Iterator[tuple[str, Mapping]]:
    for row in conditions:
        found = [name for name in (row["condition"], row["condition"] + SHOWN) if name in scored]
        if not found:
            log.info("no predictions for %s: left out", row["condition"])
        yield from ((name, row) for name in found)


def _mean(values: Sequence[np.ndarray]) -> float:
    return float(np.nanmean(np.concatenate([np.ravel(v) for v in values])))


def _row(
    text: Mapping[str, Any],
    members: Sequence[Scored],
    controls: Sequence[Scored] | None,
    rules: _Rules,
    published: float | None,
) -> dict[str, Any]:
    """A row of the accuracy table; several members are pooled, pattern by pattern."""
    n = sum(member.n_patterns for member in members)
    weights = np.array([member.n_patterns for member in members], dtype=float)
    confidence = rules.options["confidence"]
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {
        **text,
        "n_patterns": n,
        "n_crystals": sum(len(member.materials) for member in members),
        "n_snapshots": max(member.label.shape[4] for member in members),
        "n_copies": members[0].copies,
        "published": published,
        "limit_space_group_uniform": rules.uniform_limit,
    }
    for column in _INTERVALS:
        row[column] = _mean([getattr(member, column.removeprefix("accuracy_")) for member in members])
        row[f"{column}_low"], row[f"{column}_high"] = wilson(row[column], n, confidence)
    for by in ("space_group", "extinction"):
        row[f"limit_{by}"] = float(np.average([member.limit(by) for member in members], weights=weights))
    row["accuracy_ensemble"] = _ensemble_mean([member.ensembles for member in members])
    row["limit_ensemble"] = _ensemble_mean([member.limit_ensembles for member in members])
    if controls is not None:
        row["loss_label"] = _mean([c.label for c in controls]) - row["accuracy_label"]
        row["loss_space_group"] = _mean([c.space_group for c in controls]) - row["accuracy_space_group"]
        of_controls = _ensemble_mean([c.ensembles for c in controls])
        if None not in (of_controls, row["accuracy_ensemble"]):
            row["loss_ensemble"] = of_controls - row["accuracy_ensemble"]
        pairs = [_paired(c.label, m.label) for c, m in zip(controls, members, strict=True)]
        first, second = (np.concatenate(part) for part in zip(*pairs, strict=True))
        itself = all(c is m for c, m in zip(controls, members, strict=True))
        interval = (0.0, 0.0) if itself else difference_interval(first, second, confidence)
        row["loss_label_low"], row["loss_label_high"] = interval
    return row


def _paired(control: np.ndarray, condition: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Credits of control and condition; averaged over snapshots, so that they pair, if only their number differs."""
    if control.shape[:4] == condition.shape[:4] and control.shape[4] != condition.shape[4]:
        control, condition = control.mean(axis=4), condition.mean(axis=4)
    first, second = control.ravel(), condition.ravel()
    if len(first) == len(second):
        both = np.isfinite(first) & np.isfinite(second)
        return first[both], second[both]
    return first[np.isfinite(first)], second[np.isfinite(second)]


def _ensemble_mean(curves: Sequence[np.ndarray]) -> float | None:
    """Largest ensembles, rule mean_log, mean over crystals; None if no crystal has patterns of so many axes."""
    values = np.concatenate([curve[:, 0, -1] for curve in curves])
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def _add_clean(
    out: Tables,
    scored: Scored,
    rules: _Rules,
    numbers: Mapping[str, float],
    crystals: Mapping[str, Mapping[str, str]],
) -> None:
    groups = np.array(rules.groups)[scored.truth]
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
        row = _row(text, [part], None, rules, numbers.get(name))
        for column in _INTERVALS:
            credits = getattr(part, column.removeprefix("accuracy_"))
            row[f"{column}_low"], row[f"{column}_high"] = _over_crystals(credits, rules)
        out["accuracy"].append(row)
        out["ensembles"] += _curves(name, [part], rules)
        out["accuracy_by"] += _by(name, [part], rules, clusters=True)
    out["confusion"] += _confusion_rows(CLEAN, scored, rules)
    out["mistakes"] += _mistakes(CLEAN, [scored], rules)
    out["confusion_labels"] += _label_rows(CLEAN, scored, rules)
    _add_calibration(out, CLEAN, [scored.calibration], scored)
    for by in ("prototype", "prototype_in_training"):
        found = np.array([crystals.get(name, {}).get(by, "") for name in scored.materials])
        for value in sorted(set(found.tolist()) - {""}):
            part = scored.select(found == value)
            out["accuracy_by"].append(_by_row(CLEAN, by, value, [part], [slice(None)], rules, clusters=True))
    for specimen in range(scored.label.shape[4] if scored.label.shape[4] > 1 else 0):
        where = [slice(None)] * 4 + [slice(specimen, specimen + 1)]
        out["accuracy_by"].append(_by_row(CLEAN, "specimen", str(specimen), [scored], where, rules, clusters=True))
    for number, name in enumerate(scored.materials):
        chosen = np.arange(len(scored.materials)) == number
        if np.isfinite(scored.label[number]).any():
            out["accuracy_by"].append(
                _by_row(CLEAN, "material", name, [scored.select(chosen)], [slice(None)], rules, clusters=False)
            )


def _add_details(out: Tables, name: str, members: Sequence[Scored], rules: _Rules) -> None:
    out["ensembles"] += _curves(name, members, rules)
    out["accuracy_by"] += _by(name, members, rules, clusters=False)
    out["mistakes"] += _mistakes(name, members, rules)
    for member in members:
        out["confusion"] += _confusion_rows(name, member, rules)
    _add_calibration(out, name, [member.calibration for member in members], members[0])


def _add_pool(
    out: Tables,
    entry: Published,
    tail: str,
    table: Mapping[str, Mapping[str, str]],
    scored: Mapping[str, Scored],
    rules: _Rules,
) -> None:
    if entry.members == (entry.condition,):
        return
    if not all(member + tail in scored for member in entry.members):
        if not tail:
            log.info("%s: not all of %s were predicted, no pooled row", entry.condition, ", ".join(entry.members))
        return
    rows = [table[member] for member in entry.members]
    members = [scored[member + tail] for member in entry.members]
    controls = [row["control"] + tail for row in rows]
    found = [scored[name] for name in controls] if all(name in scored for name in controls) else None
    text = {
        "condition": entry.condition + tail,
        "control": ";".join(controls),
        "host": "+".join(dict.fromkeys(row["host"] for row in rows)),
        "kind": "+".join(dict.fromkeys(row["kind"] for row in rows)),
        "parameter": " + ".join(dict.fromkeys(row["parameter"] for row in rows)),
    }
    number = entry.accuracy if entry.relation == "=" else None
    out["accuracy"].append(_row(text, members, found, rules, number))
    out["ensembles"] += _curves(entry.condition + tail, members, rules)


def _per_crystal(credits: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean credit of each crystal that has counted patterns, and their numbers where these differ."""
    flat = credits.reshape(len(credits), -1)
    counts = np.isfinite(flat).sum(axis=1)
    some = counts > 0
    values = np.nansum(flat[some], axis=1) / counts[some]
    return values, (None if np.ptp(counts[some]) == 0 else counts[some])


def _over_crystals(credits: np.ndarray, rules: _Rules) -> tuple[float | None, float | None]:
    """Cluster bootstrap; None where one or two crystals say nothing about others."""
    values, weights = _per_crystal(credits)
    if len(values) < FEWEST:
        return None, None
    options = rules.options
    return cluster_bootstrap(values, options["bootstrap"], rules.seed, options["confidence"], weights)


def _curves(name: str, members: Sequence[Scored], rules: _Rules) -> list[dict[str, Any]]:
    sizes = rules.sizes(members[0].label.shape[1])
    curves = np.concatenate([member.ensembles for member in members])
    limits = np.concatenate([member.limit_ensembles for member in members])
    rows = []
    for i, rule in enumerate(RULES):
        for j, size in enumerate(sizes):
            values = curves[:, i, j]
            values = values[np.isfinite(values)]
            if not len(values):
                continue
            low, high = _over_crystals(values[:, None], rules)  # draws of the same patterns are not independent
            cells = (name, rule, size, len(values), float(values.mean()), low, high, float(limits[:, i, j].mean()))
            rows.append(dict(zip(CURVE_COLUMNS[1:], cells, strict=True)))
    return rows


def _by(name: str, members: Sequence[Scored], rules: _Rules, clusters: bool) -> list[dict[str, Any]]:
    """Accuracies by zone axis, voltage and camera length; of these dimensions, only those that vary."""
    first = members[0]
    rows = []
    for by, values, dimension in (
        ("zone_axis", first.zone_axes, 1),
        ("voltage", [f"{v:g}" for v in first.voltages], 2),
        ("camera_length", [f"{v:g}" for v in first.camera_lengths], 3),
    ):
        if len(values) < 2:
            continue
        for index, value in enumerate(values):
            where = [slice(None)] * dimension + [slice(index, index + 1)]
            if any(np.isfinite(member.label[tuple(where)]).any() for member in members):
                text = _axis(value) if by == "zone_axis" else value
                rows.append(_by_row(name, by, text, members, where, rules, clusters))
    return rows


def _axis(text: str) -> str:
    return axis_name(parse_axis(text))


def _by_row(
    name: str, by: str, value: str, members: Sequence[Scored], where: list, rules: _Rules, clusters: bool
) -> dict[str, Any]:
    where = tuple(where)
    row: dict[str, Any] = {"condition": name, "by": by, "value": value}
    options = rules.options
    for column in ("label", "space_group"):
        parts = [getattr(member, column)[where] for member in members]
        key = f"accuracy_{column}"
        row["n_patterns"] = int(sum(np.isfinite(part).sum() for part in parts))
        row[key] = _mean(parts)
        if clusters:
            low, high = _over_crystals(parts[0], rules)
        else:
            low, high = wilson(row[key], row["n_patterns"], options["confidence"])
        row[f"{key}_low"], row[f"{key}_high"] = low, high
    counted = [np.isfinite(member.label[where]).sum(axis=(2, 3, 4)) for member in members]
    limits = [member.limit_space_group[where[:2]] for member in members]
    row["limit_space_group"] = float(
        sum((limit * count).sum() for limit, count in zip(limits, counted, strict=True))
        / sum(count.sum() for count in counted)
    )
    return row


def _confusion_rows(name: str, scored: Scored, rules: _Rules) -> list[dict[str, Any]]:
    matrix = _matrix(scored, len(rules.groups))
    return [
        dict(zip(CONFUSION_COLUMNS[1:], (name, true, predicted, float(matrix[i, j])), strict=True))
        for i, true in enumerate(rules.groups)
        for j, predicted in enumerate(rules.groups)
        if not np.isnan(matrix[i, j])
    ]


def _label_rows(name: str, scored: Scored, rules: _Rules) -> list[dict[str, Any]]:
    """Shares of the patterns of a true label that got each label; crystals and axes count alike."""
    true = scored.true_label.ravel()
    answers = scored.label_answers.reshape(len(true), -1)
    answers, true = answers[answers.sum(axis=1) > 0], true[answers.sum(axis=1) > 0]
    rows = []
    for label in np.unique(true):
        shares = answers[true == label].mean(axis=0)
        for found in np.flatnonzero(shares >= LEAST_SHARE):
            cells = (name, rules.names[label], rules.names[found], float(shares[found]))
            rows.append(dict(zip(LABEL_COLUMNS[1:], cells, strict=True)))
    return rows


def _mistakes(name: str, members: Sequence[Scored], rules: _Rules) -> list[dict[str, Any]]:
    """Wrong labels by zone axis, most frequent first; shares of all patterns and of all mistakes."""
    weight: dict[tuple[str, int, int], float] = {}
    total = sum(member.n_patterns for member in members)
    for member in members:
        counts = np.isfinite(member.label).sum(axis=(2, 3, 4))
        axes = [_axis(axis) for axis in member.zone_axes] or [str(i) for i in range(counts.shape[1])]
        for crystal, axis in np.argwhere(counts):
            label = int(member.true_label[crystal, axis])
            answers = member.label_answers[crystal, axis] * counts[crystal, axis]
            for found in np.flatnonzero(answers > 0):
                if found != label:
                    key = (axes[axis], label, int(found))
                    weight[key] = weight.get(key, 0.0) + float(answers[found])
    wrong = sum(weight.values())
    rows = []
    for (axis, label, found), value in sorted(weight.items(), key=lambda item: (-item[1], item[0])):
        if value / total >= LEAST_SHARE:
            cells = (name, axis, rules.names[label], rules.names[found], value / total, value / wrong)
            rows.append(dict(zip(MISTAKE_COLUMNS[1:], cells, strict=True)))
    return rows


def _add_calibration(out: Tables, name: str, parts: Sequence[Mapping[str, Calibration]], scored: Scored) -> None:
    for answer in ("label", "space_group"):
        found = parts[0][answer]
        for part in parts[1:]:
            found = found + part[answer]
        cells = (
            name, answer, found.patterns, scored.copies, found.accuracy, found.mean_confidence, found.error,
            found.brier, found.negative_log_likelihood,
        )  # fmt: skip
        out["calibration"].append(dict(zip(CALIBRATION_COLUMNS[1:], cells, strict=True)))
        for low, high, share, confidence, accuracy in found.table():
            cells = (name, answer, low, high, share, confidence, accuracy)
            out["reliability"].append(dict(zip(RELIABILITY_COLUMNS[1:], cells, strict=True)))
