"""How far the probabilities of a classifier can be believed: reliability, calibration error, proper scores.

The network is taken as it is. No temperature is fitted: nothing in a run is chosen by held-out crystals, and the
training crystals, which it knows by heart, would give one that is far too confident.
"""

from dataclasses import dataclass

import numpy as np

from defraction.evaluation.predictions import FLOOR


@dataclass(frozen=True)
class Calibration:
    """Sums over answers, binned by confidence: the probability of the answer given.

    Attributes:
        weight, confidence, hits: sums over the answers of each bin, shape (bin,); bins are equally wide from 0 to 1.
        log_loss, squared: sums of -ln P(truth) and of the multi-class Brier score.
        patterns: distinct patterns; each counts once, however many copies were answered.
    """

    weight: np.ndarray
    confidence: np.ndarray
    hits: np.ndarray
    log_loss: float
    squared: float
    patterns: int

    def __add__(self, other: "Calibration") -> "Calibration":
        return Calibration(
            self.weight + other.weight,
            self.confidence + other.confidence,
            self.hits + other.hits,
            self.log_loss + other.log_loss,
            self.squared + other.squared,
            self.patterns + other.patterns,
        )

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.hits.sum() / self.weight.sum())

    @property
    def mean_confidence(self) -> float:
        """Mean probability of the answers given."""
        return float(self.confidence.sum() / self.weight.sum())

    @property
    def error(self) -> float:
        """Expected calibration error: mean over answers of |accuracy - confidence| of their bin.

        Guo et al., ICML 2017, arXiv 1706.04599. It is not negative, so of few patterns it is above zero by chance.
        """
        return float(np.abs(self.hits - self.confidence).sum() / self.weight.sum())

    @property
    def brier(self) -> float:
        """Mean over patterns of the sum over classes of (P - truth)^2 (Brier 1950); 0 is perfect, 2 the worst."""
        return self.squared / float(self.weight.sum())

    @property
    def negative_log_likelihood(self) -> float:
        """Mean over patterns of -ln P(truth)."""
        return self.log_loss / float(self.weight.sum())

    def table(self) -> list[tuple[float, float, float, float, float]]:
        """(low, high, share of answers, mean confidence, accuracy) of every bin that holds answers."""
        edges = np.linspace(0, 1, len(self.weight) + 1)
        total = self.weight.sum()
        return [
            (
                float(edges[i]),
                float(edges[i + 1]),
                float(self.weight[i] / total),
                float(self.confidence[i] / self.weight[i]),
                float(self.hits[i] / self.weight[i]),
            )
            for i in np.flatnonzero(self.weight > 0)
        ]


def calibration_of(
    probability: np.ndarray, hits: np.ndarray, truth: np.ndarray, counted: np.ndarray, bins: int
) -> Calibration:
    """Calibration of the answers to some patterns.

    Args:
        probability: shape (..., copy, class), sums to 1 over classes. hits: credit of the answer, shape (..., copy).
        truth: index of the true class, shape (..., copy). counted: shape (...), False leaves a pattern out.
        bins: number of bins of confidence.
    """
    copies = hits.shape[-1]
    probability, hits, truth = probability[counted], hits[counted], truth[counted]
    confidence = probability.max(axis=-1)
    true = np.take_along_axis(probability, truth[..., None], axis=-1)[..., 0]
    index = np.minimum((confidence * bins).astype(int), bins - 1).ravel()
    squared = (probability**2).sum(axis=-1) - 2 * true + 1

    def binned(values: np.ndarray) -> np.ndarray:
        return np.bincount(index, weights=values.ravel() / copies, minlength=bins)

    return Calibration(
        weight=binned(np.ones_like(confidence)),
        confidence=binned(confidence),
        hits=binned(hits),
        log_loss=float(-np.log(np.maximum(true, FLOOR)).sum() / copies),
        squared=float(squared.sum() / copies),
        patterns=int(counted.sum()),
    )
