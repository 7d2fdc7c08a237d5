"""Calibration measured on predictors whose calibration is known."""

import numpy as np
import pytest

from defraction.evaluation.calibration import calibration_of


def measure(probability, truth, bins=10):
    """`probability` (pattern, class), one copy of each."""
    probability, truth = np.asarray(probability)[:, None], np.asarray(truth)[:, None]
    hits = (probability.argmax(axis=-1) == truth).astype(float)
    return calibration_of(probability, hits, truth, np.ones(len(truth), dtype=bool), bins)


def test_a_predictor_that_says_what_it_knows_is_calibrated():
    rng = np.random.default_rng(1)
    n = 40_000
    probability = rng.dirichlet(np.full(6, 0.5), size=n)
    truth = (probability.cumsum(axis=1) > rng.uniform(size=(n, 1))).argmax(axis=1)
    found = measure(probability, truth)
    # each bin's accuracy is off by sqrt(p (1 - p) / n_bin) <= 0.5 / sqrt(n_bin); their weighted mean stays below
    # sum sqrt(n_bin) / 2n <= sqrt(bins / n) / 2 = 0.008
    assert found.error < 0.008
    assert found.accuracy == pytest.approx(found.mean_confidence, abs=0.008)
    # expectation of the proper scores of such a predictor
    assert found.brier == pytest.approx(np.mean(1 - (probability**2).sum(axis=1)), abs=0.01)
    entropy = -(probability * np.log(probability + 1e-300)).sum(axis=1)
    assert found.negative_log_likelihood == pytest.approx(entropy.mean(), abs=0.02)


def test_overconfidence_is_the_gap():
    probability = np.tile([0.9, 0.1], (10, 1))
    found = measure(probability, [0] * 6 + [1] * 4)
    assert found.accuracy == 0.6 and found.error == pytest.approx(0.3)
    ((low, high, share, confidence, accuracy),) = found.table()
    assert (low, high, share) == (0.9, 1.0, 1.0) and (confidence, accuracy) == pytest.approx((0.9, 0.6))


def test_certainty_has_perfect_scores():
    found = measure(np.eye(4), [0, 1, 2, 3])
    assert (found.error, found.brier, found.negative_log_likelihood, found.accuracy) == (0, 0, 0, 1)


def test_sums_of_parts_are_the_whole():
    rng = np.random.default_rng(2)
    probability, truth = rng.dirichlet(np.ones(3), size=50), rng.integers(3, size=50)
    whole, parts = (
        measure(probability, truth),
        measure(probability[:20], truth[:20]) + measure(probability[20:], truth[20:]),
    )
    assert parts.patterns == whole.patterns == 50
    assert (parts.error, parts.brier) == pytest.approx((whole.error, whole.brier))


def test_copies_do_not_count_as_patterns():
    rng = np.random.default_rng(3)
    probability, truth = rng.dirichlet(np.ones(3), size=(30, 1)), rng.integers(3, size=(30, 1))
    hits = (probability.argmax(axis=-1) == truth).astype(float)
    counted = np.ones(30, dtype=bool)
    one = calibration_of(probability, hits, truth, counted, 5)
    five = calibration_of(*(np.repeat(values, 5, axis=1) for values in (probability, hits, truth)), counted, 5)
    np.testing.assert_allclose(one.weight, five.weight)
    assert one.weight.sum() == pytest.approx(30) and five.patterns == 30
    assert one.negative_log_likelihood == pytest.approx(five.negative_log_likelihood)
