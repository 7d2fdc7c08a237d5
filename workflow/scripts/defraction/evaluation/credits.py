"""Credit of an answer: 1 for a right one, 1/k where it is one of k tied, else 0."""

import numpy as np

TIE = 1e-9  # scores this close, relative to the largest, are tied: above the rounding of float64 sums


def answered(scores: np.ndarray) -> np.ndarray:
    """Share of the answer that each class gets, shape of `scores`: 1 for the largest, 1/k for each of k tied."""
    top = scores.max(axis=-1, keepdims=True)
    tied = scores >= top - TIE * np.maximum(np.abs(top), 1e-300)
    return tied / tied.sum(axis=-1, keepdims=True)


def share_of(answers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Share of the answer that the truth got.

    Args:
        answers: what `answered` returns, shape (..., class). truth: class indices, broadcast to shape (...).
    """
    truth = np.broadcast_to(truth, answers.shape[:-1])
    return np.take_along_axis(answers, truth[..., None], axis=-1)[..., 0]


def credit(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 where the largest score is that of the truth, 1/k where it is one of k tied, else 0.

    Args:
        scores: shape (..., class). truth: class indices, broadcast to shape (...).
    """
    return share_of(answered(scores), truth)
