"""Intervals of shares of right answers, whose patterns come in clusters: zone axes of a crystal, or whole crystals.

Nine patterns along one axis, at three voltages and three camera lengths, are right or wrong together, and so are the
patterns of a crystal. An interval over clusters speaks about other axes, or other crystals, like these.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

FEWEST = 3
"""Clusters that an interval needs: one or two say nothing about others."""
NONE = 1e-15
"""A variance below is rounding."""

Interval = tuple[float | None, float | None]


def wilson(accuracy: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share of n independent patterns (Wilson 1927, 10.1080/01621459.1927.10502953).

    Raises ValueError for n that is not positive.
    """
    if not n > 0:
        raise ValueError(f"an interval needs a positive number of patterns, got {n}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(accuracy * (1 - accuracy), 0.0) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Share:
    """A share of patterns, drawn in clusters.

    Attributes:
        mean: over all patterns. patterns: their number. clusters: how many hold any.
        freedom: degrees of freedom of the variance between clusters; 0 where a stratum has fewer than `FEWEST`.
        residuals: what each cluster adds to the mean, about that of its stratum, shape (cluster,), 0 for an empty one;
            the sum of their squares is the variance of the mean.
        sizes: clusters of each stratum, empty ones too.
    """

    mean: float
    patterns: int
    clusters: int
    freedom: int
    residuals: np.ndarray
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, strata: Sequence[np.ndarray]) -> "Share":
        """The share of credits of some strata: crystals of a pool, or all clusters in one.

        Args:
            strata: shape (cluster, ...) each, credits in [0, 1], NaN where a pattern does not count.
        """
        flat = [np.asarray(values, dtype=float).reshape(len(values), -1) for values in strata]
        counts = [np.isfinite(values).sum(axis=1) for values in flat]
        sums = [np.nansum(values, axis=1) for values in flat]
        patterns = int(sum(found.sum() for found in counts))
        mean = float(sum(found.sum() for found in sums) / patterns)
        residuals, filled = [], []
        for total, count in zip(sums, counts, strict=True):
            some = count > 0
            k = int(some.sum())
            part = (total - count * mean) / patterns  # linearised ratio, as of a sample of clusters of unequal size
            centred = np.where(some, part - part[some].mean() if k else 0.0, 0.0)
            residuals.append(centred * math.sqrt(k / (k - 1)) if k > 1 else centred)
            filled.append(k)
        freedom = sum(filled) - len(filled) if min(filled) >= FEWEST else 0
        sizes = tuple(len(values) for values in flat)
        return cls(mean, patterns, sum(filled), freedom, np.concatenate(residuals), sizes)

    @property
    def variance(self) -> float:
        """Of the mean, by its scatter between clusters."""
        return float((self.residuals**2).sum())

    @property
    def effective(self) -> float | None:
        """Independent patterns that would leave the mean as uncertain; None with too few clusters to say.

        `patterns` over the design effect: the variance between clusters over that of independent patterns (Kish 1965,
        Survey Sampling), no smaller than 1. Where all clusters are alike (all answers right, say) nothing shows how
        alike the patterns of a cluster are, and each cluster counts as one.
        """
        if not self.freedom:
            return None
        if self.variance < NONE:
            return float(self.clusters)
        effect = self.variance / (self.mean * (1 - self.mean) / self.patterns)
        return self.patterns / max(1.0, effect)

    def interval(self, confidence: float = 0.95) -> Interval:
        """Wilson's interval with the effective number of patterns; None twice with too few clusters.

        The number is lowered by (z/t)^2, quantiles of the normal and of Student's distribution with `freedom`, for the
        variance is an estimate from few clusters (Korn & Graubard 1998, Survey Methodology 24, 193; with Wilson's
        interval Dean & Pagano 2015, 10.1093/jssam/smv024). Where all clusters are alike none was estimated.
        """
        n = self.effective
        if n is None:
            return None, None
        if self.variance >= NONE:
            from scipy.special import stdtrit

            tail = 0.5 + confidence / 2
            n *= (NormalDist().inv_cdf(tail) / float(stdtrit(self.freedom, tail))) ** 2
        return wilson(self.mean, n, confidence)


def difference_interval(first: Share, second: Share, confidence: float = 0.95) -> Interval:
    """Interval of the difference of two shares, None twice if one of them has none.

    Newcombe's square-and-add of two score intervals (Newcombe 1998, Stat. Med. 17, 2635,
    10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C, method 10 without continuity correction), here
    of `Share.interval`. Of as many clusters they are pairs (the same zone axes of two crystals) and the correlation of
    their means counts: where neither design effect is below 1 the width is close to that of the t interval of the
    paired differences. Of different numbers they are taken as independent, which is on the safe side.
    """
    (p_low, p_high), (q_low, q_high) = first.interval(confidence), second.interval(confidence)
    if p_low is None or q_low is None:
        return None, None
    p, q, phi = first.mean, second.mean, 0.0
    if first.sizes == second.sizes and min(first.variance, second.variance) >= NONE:
        phi = float(first.residuals @ second.residuals) / math.sqrt(first.variance * second.variance)
    return (
        p - q - added(p - p_low, q_high - q, phi),
        p - q + added(p_high - p, q - q_low, phi),
    )


def added(a: float, b: float, correlation: float = 0.0) -> float:
    """Half width of the difference of two estimates with half widths a and b."""
    return math.sqrt(max(a * a - 2 * correlation * a * b + b * b, 0.0))


def pooled_interval(values: Sequence[float], intervals: Sequence[Interval], weights: Sequence[float]) -> Interval:
    """Interval of the weighted mean of independent values, by square-and-add of their weighted half widths.

    After Zou & Donner 2008 (10.1002/sim.3095), each side by itself. None twice if one value has no interval.
    """
    if any(None in interval for interval in intervals):
        return None, None
    total = math.fsum(weights)
    shares = [weight / total for weight in weights]
    mean = math.fsum(share * value for share, value in zip(shares, values, strict=True))
    below, above = (
        math.hypot(
            *(
                share * (value - interval[side])
                for share, value, interval in zip(shares, values, intervals, strict=True)
            )
        )
        for side in (0, 1)
    )
    return mean - below, mean + above
