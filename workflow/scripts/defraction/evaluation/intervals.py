"""Intervals of accuracies: of patterns of one crystal, of differences of two, and of accuracies over crystals."""

import math
from statistics import NormalDist

import numpy as np

FEWEST = 3
"""Crystals that an interval over crystals needs: one or two say nothing about others."""


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


def interval_over_crystals(
    credits: np.ndarray, samples: int, seed: int, confidence: float = 0.95
) -> tuple[float | None, float | None]:
    """`cluster_bootstrap` of the mean over all patterns; None twice if fewer than `FEWEST` crystals have any.

    Args:
        credits: shape (crystal, ...), NaN where a pattern does not count.
    """
    flat = credits.reshape(len(credits), -1)
    counts = np.isfinite(flat).sum(axis=1)
    flat, counts = flat[counts > 0], counts[counts > 0]
    if len(counts) < FEWEST:
        return None, None
    per_crystal = np.nansum(flat, axis=1) / counts
    return cluster_bootstrap(per_crystal, samples, seed, confidence, counts if np.ptp(counts) else None)
