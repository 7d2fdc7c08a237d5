"""Ensembles: what the patterns of several zone axes of one crystal say together about its space group.

An ensemble of k patterns takes k distinct zone axes of a crystal, each at a voltage, camera length, snapshot and copy
drawn at random; the accuracy is the mean over many draws.
"""

from collections.abc import Sequence

import numpy as np

from defraction.evaluation.credits import credit
from defraction.evaluation.predictions import FLOOR

RULES = ("mean_log", "mean", "dempster")
"""Ways to combine patterns (`evidence`); the first is that of the accuracies."""


def evidence(probability: np.ndarray, given: np.ndarray, rule: str) -> np.ndarray:
    """What is summed over the patterns of an ensemble, shape (..., space group); the largest sum is the answer.

    Args:
        probability: P(label | pattern), shape (..., label). given: P(space group | label).
        rule: `mean_log`: log P(space group | pattern), so that the answer is the largest normalised product. `mean`:
            P(space group | pattern). `dempster`: labels as evidence for the *set* of their space groups, combined by
            Dempster's rule (Dempster 1967, 10.1214/aoms/1177698950), decided by plausibility.

    Raises ValueError for another rule.
    """
    if rule == "mean_log":
        return np.log(np.maximum(probability @ given, FLOOR))
    if rule == "mean":
        return probability @ given
    if rule == "dempster":
        # Plausibility of a single group is the mass of all sets that hold it. Commonalities multiply under Dempster's
        # rule and equal plausibilities for single elements, so logarithms add; the norm is common to all groups.
        return np.log(np.maximum(probability @ (given > 0).astype(float), FLOOR))
    raise ValueError(f"ensemble rule {rule!r}; allowed: {', '.join(RULES)}")


def ensemble_credits(
    scores: np.ndarray, counted: np.ndarray, group: int, sizes: Sequence[int], draws: int, seed: int
) -> np.ndarray:
    """Mean credit of ensembles of k patterns of one crystal, shape (k,).

    Of single patterns all are counted, of larger ensembles the draws.

    Args:
        scores: what is summed, shape (zone_axis, voltage, camera_length, snapshot, copy, space group): `evidence`.
        counted: shape (zone_axis, voltage, camera_length, snapshot), False where a pattern does not count.
        group: index of the true space group. sizes: numbers k of zone axes.
        draws, seed: random draws; the same for every crystal, so that differences between conditions are not
            differences of the draw.

    NaN where fewer than k axes hold a pattern that counts. Raises ValueError for a size out of range.
    """
    axes, copies = len(scores), scores.shape[-2]
    if min(sizes) < 1 or max(sizes) > axes:
        raise ValueError(f"evaluation.ensemble_sizes {list(sizes)}: each must be 1 to {axes}, the number of zone axes")
    truth, sizes = np.array(group), np.array(sizes)
    variants = scores.reshape(axes, -1, scores.shape[-1])
    usable = np.repeat(counted.reshape(axes, -1), copies, axis=1)
    available = usable.sum(axis=1)
    rng = np.random.default_rng(seed)
    keys, chance = rng.random((draws, axes)), rng.random((draws, axes))
    order = np.argsort(np.where(available > 0, keys, np.inf), axis=1)
    rank = (np.take_along_axis(chance, order, axis=1) * available[order]).astype(int)
    first = np.argsort(~usable, axis=1, kind="stable")  # the variants that count come first
    running = np.cumsum(variants[order, first[order, rank]], axis=1)[:, sizes - 1]
    out = credit(running, truth).mean(axis=0)
    out[sizes == 1] = credit(variants, truth)[usable].mean()
    out[sizes > (available > 0).sum()] = np.nan
    return out
