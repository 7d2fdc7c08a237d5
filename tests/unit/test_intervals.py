"""Intervals against published values and by their coverage."""

import math

import numpy as np
import pytest

from defraction.evaluation.intervals import Share, difference_interval, pooled_interval, wilson

EXPERIMENTS = 1500
"""Standard error of a coverage near 95 %: 0.6 %."""


def covered(pairs, truth):
    """Share of intervals that hold the truth."""
    return np.mean([low <= truth <= high for low, high in pairs])


def axes(rng, chance, patterns=9):
    """Credits of patterns along axes of these chances to be right, shape (axis, pattern)."""
    return (rng.uniform(size=(len(chance), patterns)) < np.asarray(chance)[:, None]).astype(float)


def test_wilson_known_value_and_limits():
    # Newcombe 1998 (10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I: 81/263, 0/20
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert wilson(1.0, 20)[1] == 1.0
    with pytest.raises(ValueError, match="positive number of patterns"):
        wilson(0.5, 0)


def test_effective_numbers_of_known_samples():
    """Axes wholly right or wrong are worth one pattern each, but for the lost degree of freedom; axes that scatter no
    more than chance leave all patterns."""
    whole = np.repeat([1.0, 0.0], [12, 4])[:, None] * np.ones(9)
    share = Share.of([whole])
    assert (share.mean, share.patterns, share.clusters, share.freedom) == (0.75, 144, 16, 15)
    assert share.effective == pytest.approx(15)
    assert share.variance == pytest.approx(whole.mean(axis=1).var(ddof=1) / 16)
    alike = np.tile([1.0, 0, 1, 0, 1, 0, 1, 0, 1], (16, 1))
    alike[0, 0] = 0.0
    assert Share.of([alike]).effective == 144
    low, high = Share.of([alike]).interval()
    assert low < wilson(79 / 144, 144)[0] and high > wilson(79 / 144, 144)[1]  # the variance was estimated


def test_patterns_that_do_not_count_leave_the_others_alone():
    rng = np.random.default_rng(1)
    values = axes(rng, rng.beta(2, 2, 8))
    padded = np.full((10, 2, 9), np.nan)
    padded[1:9, 0] = values
    share, other = Share.of([values]), Share.of([padded])
    assert (other.mean, other.patterns, other.clusters) == (share.mean, 72, 8)
    assert other.interval() == pytest.approx(share.interval())
    # crystals of different size count by their patterns: the variance of a ratio, by hand
    unequal = np.array([[1.0, 1, 1], [0.0, np.nan, np.nan], [1.0, 0.0, np.nan]])
    share = Share.of([unequal])
    assert share.mean == pytest.approx(4 / 6)
    residuals = np.array([3 - 3 * 4 / 6, 0 - 4 / 6, 1 - 2 * 4 / 6]) / 6
    assert share.variance == pytest.approx(1.5 * (residuals**2).sum())


def test_too_few_clusters_have_no_interval_and_equal_ones_count_as_one_each():
    for clusters in (1, 2):
        share = Share.of([np.array([[1.0, 0, 1], [0, 0, 1]])[:clusters]])
        assert share.interval() == (None, None) and share.effective is None
        assert difference_interval(share, share) == (None, None)
    assert Share.of([np.ones((16, 9)), np.ones((1, 9))]).interval() == (None, None)
    perfect = Share.of([np.ones((16, 9))])
    assert perfect.effective == 16 and perfect.interval() == wilson(1, 16)
    low, high = difference_interval(perfect, perfect)
    assert -0.25 < low < 0 < high < 0.25


@pytest.mark.parametrize("spread", [1.0, 0.1, None])
def test_intervals_over_axes_cover_where_patterns_of_an_axis_are_alike(spread):
    """`spread`: what beta-distributed chances of the axes sum to (small: axes nearly wholly right or wrong); None:
    every pattern by itself, where the estimated variance costs width, never coverage. Counting patterns covers far
    less."""
    rng = np.random.default_rng(5)
    for p in (0.56, 0.85):
        found, naive = [], []
        for _ in range(EXPERIMENTS):
            chance = np.full(16, p) if spread is None else rng.beta(p * spread, (1 - p) * spread, 16)
            share = Share.of([axes(rng, chance)])
            found.append(share.interval())
            naive.append(wilson(share.mean, share.patterns))
        assert 0.925 < covered(found, p) < (0.99 if spread is None else 0.98)
        assert spread is None or covered(naive, p) < 0.75


def test_losses_of_paired_axes_cover():
    """The control knows an axis well or badly, and so does the condition; the same axes come in both."""
    rng = np.random.default_rng(7)
    easy = rng.beta(1.2, 0.6, (200000,))
    truth = np.mean(easy) - np.mean(np.clip(easy - 0.3, 0, 1))
    found = []
    for _ in range(EXPERIMENTS):
        chance = rng.beta(1.2, 0.6, 16)
        first, second = (Share.of([axes(rng, c)]) for c in (chance, np.clip(chance - 0.3, 0, 1)))
        found.append(difference_interval(first, second))
    assert 0.925 < covered(found, truth) < 0.985
    width = np.mean([high - low for low, high in found])
    others = [[Share.of([axes(rng, rng.beta(1.2, 0.6, 16))]) for _ in range(2)] for _ in range(200)]
    assert width < 0.75 * np.mean([high - low for low, high in (difference_interval(*two) for two in others)])


@pytest.mark.parametrize("crystals", [3, 5, 10, 40])
def test_intervals_over_few_crystals_cover(crystals):
    """Crystals of moderate, of skewed and of all-or-nothing accuracy, 144 patterns each or one ensemble each."""
    rng = np.random.default_rng(11)
    for draw, truth in (
        (lambda: rng.beta(6, 6, crystals)[:, None] * np.ones(144), 0.5),
        (lambda: rng.beta(8, 2, crystals)[:, None] * np.ones(144), 0.8),
        (lambda: (rng.uniform(size=(crystals, 1)) < 0.8).astype(float), 0.8),
    ):
        assert covered([Share.of([draw()]).interval() for _ in range(EXPERIMENTS)], truth) > 0.925


def test_a_difference_that_is_published():
    """Newcombe 1998, table I, first example: 56/70 - 48/80 of independent samples, 0.0524 to 0.3339. With a pattern in
    each cluster the design effect is n/(n-1), and t stands for z."""
    first, second = np.repeat([1.0, 0.0], [56, 14])[:, None], np.repeat([1.0, 0.0], [48, 32])[:, None]
    low, high = difference_interval(Share.of([first]), Share.of([second]))
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=0.006)
    assert low < 0.0524 and high > 0.3339


def test_a_difference_of_pairs_is_close_to_the_t_interval():
    """Means of axes that scatter more than chance, far from 0 and 1: scipy's t interval of the differences."""
    from scipy import stats

    rng = np.random.default_rng(2)
    base = rng.uniform(0.35, 0.65, 40)
    first, second = base + rng.normal(0.06, 0.02, 40), base + rng.normal(0, 0.02, 40)
    many = [np.repeat(values[:, None], 400, axis=1) for values in (first, second)]
    low, high = difference_interval(*(Share.of([values]) for values in many))
    expected = stats.ttest_rel(first, second).confidence_interval()
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.003)
    assert high - low == pytest.approx(expected.high - expected.low, rel=0.1)


def test_members_of_a_pool_are_strata():
    """Hosts that differ say nothing about other axes: only the scatter within each counts."""
    rng = np.random.default_rng(4)
    al, fe = axes(rng, rng.beta(1, 1, 16)), axes(rng, rng.beta(1, 1, 16)) * 0.2
    both, one = Share.of([al, fe]), Share.of([np.concatenate([al, fe])])
    assert both.mean == one.mean and both.freedom == 30 and one.freedom == 31
    alone = [Share.of([values]) for values in (al, fe)]
    assert both.variance == pytest.approx(sum(share.variance for share in alone) / 4)
    assert both.variance < one.variance


def test_values_of_independent_crystals_are_pooled():
    low, high = pooled_interval([0.2, 0.4], [(0.1, 0.3), (0.2, 0.7)], [100, 300])
    assert low == pytest.approx(0.35 - math.hypot(0.25 * 0.1, 0.75 * 0.2))
    assert high == pytest.approx(0.35 + math.hypot(0.25 * 0.1, 0.75 * 0.3))
    assert pooled_interval([0.2], [(0.1, 0.35)], [144]) == pytest.approx((0.1, 0.35))
    assert pooled_interval([0.2, 0.4], [(0.1, 0.3), (None, None)], [1, 1]) == (None, None)
