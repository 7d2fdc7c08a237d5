"""The article beside us: each of its statements about an accuracy with what every model of a run measured."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from defraction.evaluation.intervals import Interval, pooled_interval
from defraction.evaluation.names import CLEAN, SHOWN
from defraction.published import Published, is_article, stand_in

COMPARISON_COLUMNS = (
    "item", "axes", "page", "where", "relation", "published",
    "model", "name", "seed", "network", "split_by", "hosts", "pattern_set", "diffraction_model", "pixels", "condition",
    "accuracy_label", "accuracy_label_low", "accuracy_label_high", "n_patterns", "n_effective", "n_copies",
    "difference", "agrees",
    "control", "control_accuracy_label", "control_accuracy_label_low", "control_accuracy_label_high",
    "seeds", "seeds_mean", "seeds_min", "seeds_max",
    "accuracy_space_group", "limit_space_group", "loss_label", "loss_label_low", "loss_label_high",
    "settings", "remark",
)  # fmt: skip
PRINTED = {"pixels": 256, "zone_axes": 16, "voltages": 3, "camera_lengths": 3}
"""What the article prints about its patterns."""
NO_EFFECT = 0.05
"""A loss over labels that is surely smaller is no noticeable effect."""
KNOWN = 0.8
"""A network whose control lies below is no witness to "no effect": it has little to lose. The article's bound
for crystals that strain has harmed (section 3.1)."""

Row = dict[str, Any]


@dataclass(frozen=True)
class _Measured:
    """One or several rows of the accuracy table, patterns counted alike.

    Attributes:
        conditions: ids, without `SHOWN`. n: patterns. effective: independent ones that would be as uncertain.
        copies: of each.
        values: accuracies, limit and loss, by column. interval, loss_interval: of `accuracy_label` and `loss_label`.
        controls: ids of the matched controls, without `SHOWN`; empty where the conditions are controls themselves.
        control_accuracy: accuracy over labels of the controls; None where there are none.
        hosts: names of the hosts, if all are without a defect; else empty.
    """

    conditions: tuple[str, ...]
    n: int
    effective: float | None
    copies: int
    values: dict[str, float | None]
    interval: Interval
    loss_interval: Interval
    controls: tuple[str, ...]
    control_accuracy: float | None
    control_interval: Interval
    hosts: frozenset[str]


def compare(
    published: Sequence[Published],
    rows: Sequence[Row],
    models: Sequence[Row],
    trained: Mapping[str, Collection[str]],
    patterns: Mapping[str, Mapping[str, int]],
    reductions: Sequence[str],
) -> list[Row]:
    """The article's accuracies beside those of every model (`COMPARISON_COLUMNS`).

    Where a condition of the article is not in the run, the nearest of its kind stands in for it (`stand_in`), and the
    row says so; without one there is no row. Dislocations and twins come twice, over all zone axes and over those that
    the article shows. `difference` is ours minus the article's. `agrees`: for a printed accuracy whether it lies in our
    interval (else whether ours is above or below; empty without an interval), to be read beside the control's accuracy
    in the same row; for a bound whether it holds; for "no noticeable effect" `no` where a loss is sure, `yes` where it
    is surely below `NO_EFFECT`; `undecided` where the interval allows both. Instead of `yes`, `control` where that of
    the control says that nothing was tested: it is below the bound as well, or below `KNOWN`.

    Args:
        rows: the accuracy table of all models, numbers as float, empty cells None. models: the table of models.
        trained: for each of them the hosts whose patterns, or some of them, train it (`dataset.trained_hosts`).
        patterns: for each set of patterns `pixels` and the numbers of `zone_axes`, `voltages` and `camera_lengths`.
        reductions: the configuration's list of what it reduces.
    """
    tables: dict[str, dict[str, Row]] = {}
    for row in rows:
        tables.setdefault(row["model"], {})[row["condition"]] = row
    out = []
    for entry in published:
        for tail in ("", SHOWN):
            measured = [
                (model, ours)
                for model in models
                if (ours := _measure(entry, tail, tables.get(model["model"], {}))) is not None
            ]
            seeds: dict[str, list[float]] = {}
            strict = []
            for model, ours in measured:
                seeds.setdefault(model["name"], []).append(ours.values["accuracy_label"])
                if not ours.hosts.intersection(trained[model["model"]]) and model["name"] not in strict:
                    strict.append(model["name"])
            for model, ours in measured:
                shape = patterns[model["pattern_set"]]
                known = bool(ours.hosts.intersection(trained[model["model"]]))
                out.append(_row(entry, tail, model, ours, seeds[model["name"]], shape, reductions, known, strict))
    return out


def _measure(entry: Published, tail: str, table: Mapping[str, Row]) -> _Measured | None:
    """What one model measured of a statement, over all zone axes (`tail` is empty) or those shown (`SHOWN`)."""
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
    controls = tuple(row["control"] for row in members if row["control"] not in ("", row["condition"]))
    control_accuracy = None
    if controls and values["loss_label"] is not None:
        control_accuracy = values["accuracy_label"] + values["loss_label"]
    weights = [row["n_patterns"] for row in members]
    own = table.get(entry.condition + tail)  # of a pool whose members all were predicted
    whole = own if len(members) > 1 and own is not None and own["n_patterns"] == n else None

    def interval(column: str, rows: Sequence[Row]) -> Interval:
        return pooled_interval([row[column] for row in rows], [_bounds(row, column) for row in rows], weights)

    control_interval: Interval = (None, None)
    if len(controls) == len(members) and all(name in table for name in controls):
        control_interval = interval("accuracy_label", [table[name] for name in controls])
    ours = [whole] if whole is not None else members
    if len(ours) == 1:
        accuracy_interval, loss_interval = _bounds(ours[0], "accuracy_label"), _bounds(ours[0], "loss_label")
        effective = ours[0]["n_effective"]
    else:
        accuracy_interval = interval("accuracy_label", members)
        loss_interval = interval("loss_label", members) if values["loss_label"] is not None else (None, None)
        counts = [row["n_effective"] for row in members]
        effective = None if None in counts else n * n / sum(w * w / e for w, e in zip(weights, counts, strict=True))
    return _Measured(
        conditions=tuple(row["condition"].removesuffix(SHOWN) for row in members),
        n=n,
        effective=effective,
        copies=int(members[0]["n_copies"]),
        values=values,
        interval=accuracy_interval,
        loss_interval=loss_interval,
        controls=tuple(name.removesuffix(SHOWN) for name in controls),
        control_accuracy=control_accuracy,
        control_interval=control_interval,
        hosts=frozenset(row["host"] for row in members if all(one["kind"] == "pristine" for one in members)),
    )


def _bounds(row: Row, column: str) -> Interval:
    return row[f"{column}_low"], row[f"{column}_high"]


def _row(
    entry: Published,
    tail: str,
    model: Row,
    ours: _Measured,
    seeds: Sequence[float],
    shape: Mapping[str, int],
    reductions: Sequence[str],
    known: bool,
    strict: Sequence[str],
) -> Row:
    """A row of the comparison.

    Args:
        tail: as in `_measure`. model: its row of the table of models. seeds: accuracies of all models of its name.
        shape: of its set of patterns, by the keys of `PRINTED`. known: whether patterns of these crystals train it.
        strict: names of the models of which this is not so.
    """
    fewer = [
        f"{shape[key]} {key.replace('_', ' ')} instead of {number}"
        for key, number in PRINTED.items()
        if shape[key] != number and not (tail and key == "zone_axes")
    ]
    exact = len(ours.conditions) == len(entry.members) and all(map(is_article, ours.conditions, entry.members))
    remarks = []
    if not exact:
        remarks.append(f"measured on {' and '.join(ours.conditions)} instead of {' and '.join(entry.members)}")
    remarks += fewer
    if reductions and not fewer and exact:
        remarks.append("reduced: " + "; ".join(reductions))
    if model["split_by"] != "image" and entry.condition == CLEAN:
        remarks.append(f"split by {model['split_by']}")
    if known:
        where = f"in {' and '.join(strict)}" if strict else "in no model of this run"
        some = "part of its patterns trains" if model["split_by"] == "image" else "its patterns train"
        remarks.append(f"{some} the network; held out {where}")
    remarks.append(entry.note)
    accuracy = ours.values["accuracy_label"]
    return {
        **{key: model[key] for key in COMPARISON_COLUMNS if key in model},
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
        "n_effective": None if ours.effective is None else round(ours.effective, 1),
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


def _agrees(entry: Published, ours: _Measured) -> str:
    (low, high), reached = ours.interval, ours.control_accuracy
    if low is None:  # fewer zone axes or crystals than an interval needs
        return ""
    if entry.relation == "=":
        return "within" if low <= entry.accuracy <= high else "above" if low > entry.accuracy else "below"
    if entry.relation == "<":
        if high < entry.accuracy and reached is not None and reached < entry.accuracy:
            return "control"
        return "yes" if high < entry.accuracy else "no" if low >= entry.accuracy else "undecided"
    least, most = ours.loss_interval
    if least is None:
        return ""
    if least <= 0 and most < NO_EFFECT:
        return "control" if reached is not None and reached < KNOWN else "yes"
    return "no" if least > 0 else "undecided"
