"""From predictions to credits: what is kept of a prediction file.

P(space group | pattern) = sum over labels of P(label | pattern) P(space group | label), the second factor from the
label table with a uniform prior over groups and axes. Rotated copies of a pattern are averaged. Limits are the same
counts for someone who knows the label of every pattern and nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from defraction.evaluation.calibration import Calibration, calibration_of
from defraction.evaluation.credits import answered, credit, share_of
from defraction.evaluation.ensembles import RULES, ensemble_credits, evidence
from defraction.evaluation.extinction import classes_of
from defraction.evaluation.predictions import Predictions
from defraction.learning.labels import (
    LabelRow,
    number_of_labels,
    single_pattern_limit,
    space_group_given_label,
    space_groups_of,
)


@dataclass(frozen=True)
class Scored:
    """Credits of the patterns of some crystals, NaN where a pattern does not count.

    Attributes:
        label, space_group, extinction: shape (material, zone_axis, voltage, camera_length, snapshot).
        limit_space_group, limit_extinction: the same for known labels, shape (material, zone_axis).
        ensembles, limit_ensembles: shape (material, rule, k), in the order of `ensembles.RULES` and `sizes`.
        label_answers: share of the patterns of an axis that got each label, shape (material, zone_axis, label).
        group_answers: share of a crystal's patterns that got each group, shape (material, group).
        true_label: shape (material, zone_axis). truth: index of the group, shape (material,).
        calibration: of the answers by `label` and by `space_group`, all crystals together; empty after `select`.
        materials, zone_axes, voltages, camera_lengths: as in `Predictions`.
        copies: of each pattern. sizes: numbers k of zone axes in an ensemble, ascending.
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
    calibration: Mapping[str, Calibration]
    materials: list[str]
    zone_axes: tuple[str, ...]
    voltages: tuple[float, ...]
    camera_lengths: tuple[float, ...]
    copies: int
    sizes: list[int]

    @property
    def counts(self) -> np.ndarray:
        """Patterns that count, shape (material, zone_axis)."""
        return np.isfinite(self.label).sum(axis=(2, 3, 4))

    @property
    def n_patterns(self) -> int:
        """Patterns that count."""
        return int(self.counts.sum())

    def select(self, chosen: np.ndarray) -> "Scored":
        """The crystals of a Boolean mask."""
        by_crystal = (
            "label", "space_group", "extinction", "limit_space_group", "limit_extinction", "ensembles",
            "limit_ensembles", "label_answers", "group_answers", "true_label", "truth",
        )  # fmt: skip
        values = {name: getattr(self, name)[chosen] for name in by_crystal}
        materials = [name for name, keep in zip(self.materials, chosen, strict=True) if keep]
        return replace(self, **values, materials=materials, calibration={})

    def limit(self, by: str) -> float:
        """Mean over the counted patterns of the credit for known labels; `by`: space_group or extinction."""
        return float((getattr(self, f"limit_{by}") * self.counts).sum() / self.counts.sum())


@dataclass(frozen=True)
class Scorer:
    """Scores prediction files by a label table.

    Attributes:
        labels: the label table. seed: of the draws of ensembles.
        settings: the configuration's `evaluation` part; used here are `ensemble_sizes`, `draws`, `calibration_bins`.
    """

    labels: Sequence[LabelRow]
    settings: Mapping[str, Any]
    seed: int
    _limits: dict[tuple[int, ...], tuple[np.ndarray, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def groups(self) -> list[int]:
        """Space groups, ascending."""
        return space_groups_of(self.labels)

    @cached_property
    def label_names(self) -> list[str]:
        """Names of the labels, by their number."""
        names = {row.label: row.name for row in self.labels}
        return [names[label] for label in range(number_of_labels(self.labels))]

    @cached_property
    def given(self) -> np.ndarray:
        """P(space group | label), shape (label, group)."""
        return space_group_given_label(self.labels)

    @cached_property
    def classes(self) -> np.ndarray:
        """Which extinction class a group belongs to, shape (group, class), 0 or 1."""
        classes = classes_of(self.labels)
        return np.array([[float(group in members) for members in classes] for group in self.groups])

    @cached_property
    def class_of(self) -> np.ndarray:
        """Index of the extinction class of each group."""
        return self.classes.argmax(axis=1)

    @cached_property
    def uniform_limit(self) -> float:
        """Best accuracy over space groups from one pattern, all groups and axes alike."""
        return single_pattern_limit(self.labels)

    def score(self, predictions: Predictions) -> Scored:
        """Credits of one prediction file, crystal after crystal.

        Raises ValueError for a space group without labels or sizes of ensembles below 1.
        """
        truth = self._truth(predictions)
        log_probability, counted = predictions.log_probability, predictions.counted
        if counted is None:
            counted = np.ones(log_probability.shape[:5], dtype=bool)
        kept: dict[str, list[np.ndarray]] = {}
        calibration: dict[str, Calibration] = {}
        for number, group in enumerate(truth.tolist()):
            probability = np.exp(log_probability[number])
            values, parts = self._crystal(probability, predictions.true_label[number], group, counted[number])
            for name, value in values.items():
                kept.setdefault(name, []).append(value)
            for answer, part in parts.items():
                calibration[answer] = calibration[answer] + part if answer in calibration else part
        return Scored(
            **{name: np.stack(values) for name, values in kept.items()},
            true_label=predictions.true_label,
            truth=truth,
            calibration=calibration,
            materials=list(predictions.materials),
            zone_axes=predictions.zone_axes,
            voltages=predictions.voltages,
            camera_lengths=predictions.camera_lengths,
            copies=log_probability.shape[5],
            sizes=self._sizes(log_probability.shape[1]),
        )

    def _truth(self, predictions: Predictions) -> np.ndarray:
        """Index of each crystal's group in `groups`."""
        for name, group in zip(predictions.materials, predictions.space_group.tolist(), strict=True):
            if group not in self.groups:
                raise ValueError(f"space group {group} of {name} is not in the label table {self.groups}")
        return np.array([self.groups.index(group) for group in predictions.space_group.tolist()])

    def _crystal(
        self, probability: np.ndarray, true_label: np.ndarray, group: int, counted: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, Calibration]]:
        """Arrays of `Scored` for one crystal, and the calibration of its answers.

        Args:
            probability: P(label | pattern), shape (zone_axis, voltage, camera_length, snapshot, copy, label).
            true_label: shape (zone_axis,). group: index of the true group.
            counted: shape (zone_axis, voltage, camera_length, snapshot).
        """
        by_group = probability @ self.given
        label_answers, group_answers = answered(probability), answered(by_group)
        shape = probability.shape[:-1]
        labels = np.broadcast_to(true_label.reshape(-1, 1, 1, 1, 1), shape)
        groups = np.broadcast_to(np.array(group), shape)
        label_hits, group_hits = share_of(label_answers, labels), share_of(group_answers, groups)
        class_hits = credit(by_group @ self.classes, self.class_of[group])
        limit_space_group, limit_extinction, limit_ensembles = self._limits_of(group, true_label)
        weight = np.broadcast_to(counted[..., None], shape).astype(float)
        per_axis = np.maximum(weight.sum(axis=(1, 2, 3, 4)), 1)
        values = {
            "label": np.where(counted, label_hits.mean(axis=-1), np.nan),
            "space_group": np.where(counted, group_hits.mean(axis=-1), np.nan),
            "extinction": np.where(counted, class_hits.mean(axis=-1), np.nan),
            "limit_space_group": limit_space_group,
            "limit_extinction": limit_extinction,
            "ensembles": self._ensembles(probability, counted, group),
            "limit_ensembles": limit_ensembles,
            "label_answers": (label_answers * weight[..., None]).sum(axis=(1, 2, 3, 4)) / per_axis[:, None],
            "group_answers": (group_answers * weight[..., None]).sum(axis=(0, 1, 2, 3, 4)) / max(weight.sum(), 1),
        }
        bins = self.settings["calibration_bins"]
        calibration = {
            "label": calibration_of(probability, label_hits, labels, counted, bins),
            "space_group": calibration_of(by_group, group_hits, groups, counted, bins),
        }
        return values, calibration

    def _limits_of(self, group: int, true_label: np.ndarray) -> tuple[np.ndarray, ...]:
        """Credits for known labels: by group (zone_axis,), by class (zone_axis,), of ensembles (rule, k)."""
        key = (group, *true_label.tolist())
        if key not in self._limits:
            known = np.eye(len(self.given))[true_label]
            by_group = known @ self.given
            self._limits[key] = (
                credit(by_group, group),
                credit(by_group @ self.classes, self.class_of[group]),
                self._ensembles(known[:, None, None, None, None], np.ones((len(known), 1, 1, 1), dtype=bool), group),
            )
        return self._limits[key]

    def _ensembles(self, probability: np.ndarray, counted: np.ndarray, group: int) -> np.ndarray:
        """Credits of ensembles of one crystal, shape (rule, k); shapes as in `_crystal`."""
        sizes, draws = self._sizes(len(probability)), self.settings["draws"]
        scores = (evidence(probability, self.given, rule) for rule in RULES)
        return np.array([ensemble_credits(one, counted, group, sizes, draws, self.seed) for one in scores])

    def _sizes(self, axes: int) -> list[int]:
        """Sizes of ensembles that so many zone axes allow; all of them together where no size of the settings does."""
        return sorted({size for size in self.settings["ensemble_sizes"] if size <= axes}) or [axes]
