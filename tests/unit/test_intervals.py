"""Intervals against published values and by their coverage."""

import math

import numpy as np
import pytest

from defraction.evaluation import intervals


def test_wilson_known_value_and_limits():
    # Newcombe 1998 (10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I: 81/263, 0/20
    assert intervals.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert intervals.wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert intervals.wilson(1.0, 20)[1] == 1.0


def test_cluster_bootstrap_is_wider_than_counting_patterns():
    rng = np.random.default_rng(3)
    per_crystal = (rng.uniform(size=60) < 0.7).astype(float)  # crystals wholly right or wrong
    low, high = intervals.cluster_bootstrap(per_crystal, 4000, 1)
    mean, error = per_crystal.mean(), per_crystal.std() / math.sqrt(60)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.02) and high == pytest.approx(mean + 1.96 * error, abs=0.02)
    naive = intervals.wilson(mean, 60 * 144)
    assert high - low > 5 * (naive[1] - naive[0])
    assert intervals.cluster_bootstrap(np.full(10, 0.4), 100, 1) == pytest.approx((0.4, 0.4))


def test_intervals_cover_what_they_should():
    """Of 95 % intervals 95 % hold the truth; 2,000 experiments: standard error 0.5 %. Score intervals are
    discrete, so their coverage swings about the nominal one, by less than 2 % here."""
    rng = np.random.default_rng(5)
    n, experiments = 144, 2000
    for p in (0.6, 0.9, 0.98):
        hits = rng.binomial(n, p, experiments)
        found = [intervals.wilson(h / n, n) for h in hits]
        assert 0.93 < np.mean([low <= p <= high for low, high in found]) < 0.985
    # pairs: where the control is right the condition often is too
    ease = rng.uniform(size=(experiments, n))
    control, condition = (ease < 0.95).astype(float), (ease + rng.normal(0, 0.1, ease.shape) < 0.8).astype(float)
    truth = 0.95 - np.mean(condition)
    inside = []
    for first, second in zip(control, condition, strict=True):
        low, high = intervals.difference_interval(first, second)
        inside.append(low <= truth <= high)
    assert 0.93 < np.mean(inside) < 0.985
    # crystals: means of 40 clusters; the percentile bootstrap is known to be a little short
    clusters = rng.beta(8, 2, size=(400, 40))
    found = [intervals.cluster_bootstrap(values, 400, 1) for values in clusters]
    assert 0.89 < np.mean([low <= 0.8 <= high for low, high in found]) < 0.98


def test_a_difference_of_perfect_scores_has_a_width():
    low, high = intervals.difference_interval(np.ones(144), np.ones(144))
    assert -0.05 < low < 0 < high < 0.05
    # Newcombe 1998, table I, first example: 56/70 - 48/80 of independent samples, 0.0524 to 0.3339
    first, second = np.repeat([1.0, 0.0], [56, 14]), np.repeat([1.0, 0.0], [48, 32])
    assert intervals.difference_interval(first, second) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_weights_of_a_bootstrap_are_patterns():
    values, weights = np.array([1.0, 0.0]), np.array([3, 1])
    low, high = intervals.cluster_bootstrap(values, 500, 1, weights=weights)
    assert (low, high) == (0, 1)
    low, high = intervals.cluster_bootstrap(np.full(5, 0.3), 50, 1, weights=np.arange(1, 6))
    assert (low, high) == pytest.approx((0.3, 0.3))
