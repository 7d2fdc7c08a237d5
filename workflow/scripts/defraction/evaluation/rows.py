"""Rows of the tables of one model (`columns.TABLES`), made of scored predictions. Missing values are None.

Rows hold every column but `model` and `pattern_set`, which all rows of a model have in common.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from defraction.evaluation.columns import ACCURACY
from defraction.evaluation.ensembles import RULES
from defraction.evaluation.intervals import Share, difference_interval
from defraction.evaluation.scoring import Scored, Scorer

LEAST_SHARE = 5e-4
"""Rarer confusions of labels and mistakes are left out."""

Row = dict[str, Any]


def accuracy_row(
    text: Mapping[str, str],
    members: Sequence[Scored],
    controls: Sequence[Scored] | None,
    scorer: Scorer,
    published: float | None,
    over_crystals: bool = False,
) -> Row:
    """A row of `accuracy`.

    Args:
        text: `condition`, `control`, `host`, `kind` and `parameter`, as far as there are any.
        members: several are pooled, pattern by pattern. controls: of each member, for the losses.
        published: the article's accuracy.
        over_crystals: intervals are those over crystals, else those over the zone axes of each member.
    """
    row: Row = dict.fromkeys(ACCURACY)
    row |= {
        **text,
        "n_patterns": sum(member.n_patterns for member in members),
        "n_crystals": sum(len(member.materials) for member in members),
        "n_snapshots": max(member.label.shape[4] for member in members),
        "n_copies": members[0].copies,
        "published": published,
        "limit_space_group_uniform": scorer.uniform_limit,
    }
    for by in ("label", "space_group", "extinction"):
        row |= _accuracy(by, [getattr(member, by) for member in members], scorer, over_crystals)
    weights = [member.n_patterns for member in members]
    for by in ("space_group", "extinction"):
        row[f"limit_{by}"] = float(np.average([member.limit(by) for member in members], weights=weights))
    row["accuracy_ensemble"] = _largest_ensembles([member.ensembles for member in members])
    row["limit_ensemble"] = _largest_ensembles([member.limit_ensembles for member in members])
    if controls is not None:
        row |= _losses(row, members, controls, scorer)
    return row


def ensemble_rows(name: str, members: Sequence[Scored], scorer: Scorer) -> list[Row]:
    """Rows of `ensembles`; several members are pooled, crystal by crystal."""
    curves = np.concatenate([member.ensembles for member in members])
    limits = np.concatenate([member.limit_ensembles for member in members])
    rows = []
    for i, rule in enumerate(RULES):
        for j, size in enumerate(members[0].sizes):
            values = curves[:, i, j]
            values = values[np.isfinite(values)]
            if not len(values):
                continue
            # draws of the same patterns are not independent: crystals are the clusters
            low, high = Share.of([values]).interval(scorer.settings["confidence"])
            rows.append(
                {
                    "condition": name,
                    "rule": rule,
                    "k": size,
                    "n_crystals": len(values),
                    "accuracy": float(values.mean()),
                    "low": low,
                    "high": high,
                    "limit": float(limits[:, i, j].mean()),
                }
            )
    return rows


def setting_rows(name: str, scored: Scored, scorer: Scorer, over_crystals: bool = False) -> list[Row]:
    """Rows of `accuracy_by`: zone axis, voltage [kV] and camera length [m], of these only those that vary."""
    rows = []
    for by, values, dimension in (
        ("zone_axis", scored.zone_axes, 1),
        ("voltage", [f"{v:g}" for v in scored.voltages], 2),
        ("camera_length", [f"{v:g}" for v in scored.camera_lengths], 3),
    ):
        for index, value in enumerate(values if len(values) > 1 else ()):
            where = _at(dimension, index)
            if np.isfinite(scored.label[where]).any():
                rows.append(_by_row(name, by, value, scored, scorer, over_crystals, where))
    return rows


def crystal_rows(name: str, scored: Scored, crystals: Mapping[str, Mapping[str, str]], scorer: Scorer) -> list[Row]:
    """Rows of `accuracy_by`: prototype, whether that is in the training, specimen, and each crystal.

    Args:
        crystals: `prototype` and `prototype_in_training` by material id, as far as they are known.
    """
    rows = []
    for by in ("prototype", "prototype_in_training"):
        found = np.array([crystals.get(material, {}).get(by, "") for material in scored.materials])
        for value in sorted(set(found.tolist()) - {""}):
            rows.append(_by_row(name, by, value, scored.select(found == value), scorer, True))
    specimens = scored.label.shape[4]
    for specimen in range(specimens if specimens > 1 else 0):
        rows.append(_by_row(name, "specimen", str(specimen), scored, scorer, True, _at(4, specimen)))
    for number, material in enumerate(scored.materials):
        if np.isfinite(scored.label[number]).any():
            one = scored.select(np.arange(len(scored.materials)) == number)
            rows.append(_by_row(name, "material", material, one, scorer, False))
    return rows


def confusion_rows(name: str, scored: Scored, scorer: Scorer) -> list[Row]:
    """Rows of `confusion`: shares of the patterns of a true group; ties are divided, crystals count alike."""
    rows = []
    for true in np.unique(scored.truth):
        shares = scored.group_answers[scored.truth == true].mean(axis=0)
        rows += [
            {
                "condition": name,
                "true_space_group": scorer.groups[true],
                "predicted_space_group": group,
                "share": float(share),
            }
            for group, share in zip(scorer.groups, shares, strict=True)
        ]
    return rows


def label_confusion_rows(name: str, scored: Scored, scorer: Scorer) -> list[Row]:
    """Rows of `confusion_labels`: shares of the patterns of a true label; crystals and axes count alike."""
    true = scored.true_label.ravel()
    answers = scored.label_answers.reshape(len(true), -1)
    some = answers.sum(axis=1) > 0
    answers, true = answers[some], true[some]
    rows = []
    for label in np.unique(true):
        shares = answers[true == label].mean(axis=0)
        rows += [
            {
                "condition": name,
                "true_label": scorer.label_names[label],
                "predicted_label": scorer.label_names[found],
                "share": float(shares[found]),
            }
            for found in np.flatnonzero(shares >= LEAST_SHARE)
        ]
    return rows


def mistake_rows(name: str, scored: Scored, scorer: Scorer) -> list[Row]:
    """Rows of `mistakes`: wrong labels by zone axis, most frequent first."""
    counts = scored.counts
    axes = scored.zone_axes or [str(i) for i in range(counts.shape[1])]
    patterns: dict[tuple[str, int, int], float] = {}  # by axis, true and wrong label
    for crystal, axis in np.argwhere(counts):
        label = int(scored.true_label[crystal, axis])
        answers = scored.label_answers[crystal, axis] * counts[crystal, axis]
        for found in np.flatnonzero(answers > 0):
            if found != label:
                key = (axes[axis], label, int(found))
                patterns[key] = patterns.get(key, 0.0) + float(answers[found])
    wrong = sum(patterns.values())
    return [
        {
            "condition": name,
            "zone_axis": axis,
            "true_label": scorer.label_names[label],
            "predicted_label": scorer.label_names[found],
            "share": value / scored.n_patterns,
            "share_of_mistakes": value / wrong,
        }
        for (axis, label, found), value in sorted(patterns.items(), key=lambda item: (-item[1], item[0]))
        if value / scored.n_patterns >= LEAST_SHARE
    ]


def calibration_rows(name: str, scored: Scored) -> list[Row]:
    """Rows of `calibration`; the limit of geometry is one of space groups."""
    return [
        {
            "condition": name,
            "answer": answer,
            "n_patterns": found.patterns,
            "n_copies": scored.copies,
            "accuracy": found.accuracy,
            "limit": scored.limit(answer) if answer == "space_group" else None,
            "confidence": found.mean_confidence,
            "expected_calibration_error": found.error,
            "brier": found.brier,
            "negative_log_likelihood": found.negative_log_likelihood,
        }
        for answer, found in scored.calibration.items()
    ]


def reliability_rows(name: str, scored: Scored) -> list[Row]:
    """Rows of `reliability`: bins of probability that hold answers."""
    return [
        {
            "condition": name,
            "answer": answer,
            "low": low,
            "high": high,
            "share": share,
            "confidence": confidence,
            "accuracy": accuracy,
        }
        for answer, found in scored.calibration.items()
        for low, high, share, confidence, accuracy in found.table()
    ]


def _accuracy(by: str, credits: Sequence[np.ndarray], scorer: Scorer, over_crystals: bool) -> Row:
    """Mean credit with its interval, as `accuracy_<by>`; of labels with the effective number of patterns."""
    share = Share.of([np.concatenate(credits)] if over_crystals else _by_axis(credits))
    low, high = share.interval(scorer.settings["confidence"])
    found = {f"accuracy_{by}": share.mean, f"accuracy_{by}_low": low, f"accuracy_{by}_high": high}
    if by == "label":
        found["n_effective"] = None if share.effective is None else round(share.effective, 1)
    return found


def _by_axis(credits: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Credits of each member, shape (crystal and zone axis, pattern): a stratum each, with the axes as clusters."""
    return [values.reshape(values.shape[0] * values.shape[1], -1) for values in credits]


def _largest_ensembles(curves: Sequence[np.ndarray]) -> float | None:
    """Mean over crystals of the largest ensembles, first rule; None if no crystal has patterns of so many axes."""
    values = np.concatenate([curve[:, 0, -1] for curve in curves])
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def _losses(row: Row, members: Sequence[Scored], controls: Sequence[Scored], scorer: Scorer) -> Row:
    """Accuracies of the controls minus those of a row, with intervals."""
    pairs = list(zip(controls, members, strict=True))
    same = all(control is member for control, member in pairs)
    confidence = scorer.settings["confidence"]
    losses: Row = {}
    for by in ("label", "space_group"):
        first, second = (Share.of(_by_axis([getattr(one, by) for one in some])) for some in (controls, members))
        low, high = (0.0, 0.0) if same else difference_interval(first, second, confidence)
        losses |= {f"loss_{by}": first.mean - second.mean, f"loss_{by}_low": low, f"loss_{by}_high": high}
    ensemble = _largest_ensembles([control.ensembles for control in controls])
    if None not in (ensemble, row["accuracy_ensemble"]):
        low = high = 0.0
        if not same:  # draws of the same patterns are not independent: crystals are the clusters
            curves = [[one.ensembles[:, 0, -1] for one in some] for some in (controls, members)]
            low, high = difference_interval(*(Share.of([np.concatenate(some)]) for some in curves), confidence)
        losses["loss_ensemble"] = ensemble - row["accuracy_ensemble"]
        losses |= {"loss_ensemble_low": low, "loss_ensemble_high": high}
    return losses


def _at(dimension: int, index: int) -> tuple[slice, ...]:
    """One index of one dimension, which stays."""
    return (*[slice(None)] * dimension, slice(index, index + 1))


def _by_row(
    name: str,
    by: str,
    value: str,
    scored: Scored,
    scorer: Scorer,
    over_crystals: bool,
    where: tuple[slice, ...] = (),
) -> Row:
    """A row of `accuracy_by`: a part of the patterns, along the dimensions of `Scored.label`."""
    counted = np.isfinite(scored.label[where])
    counts = counted.sum(axis=(2, 3, 4))
    return {
        "condition": name,
        "by": by,
        "value": value,
        "n_patterns": int(counted.sum()),
        **_accuracy("label", [scored.label[where]], scorer, over_crystals),
        **_accuracy("space_group", [scored.space_group[where]], scorer, over_crystals),
        "limit_space_group": float((scored.limit_space_group[where[:2]] * counts).sum() / counts.sum()),
    }
