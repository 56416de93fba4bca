"""Statistics of a classifier's answers: accuracy by class with intervals, confusions, calibration."""

from typing import NamedTuple

import numpy as np


class Share(NamedTuple):
    """A share of some images, with its Wilson interval (Wilson, JASA 1927).

    Attributes:
        count (int): How many images.
        total (int): Of how many.
        low (float): Lower end of the interval, from 0 to 1; NaN if there are no images, like ``value``.
        high (float): Upper end.
    """

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share itself, from 0 to 1."""
        return self.count / self.total if self.total else float('nan')


class ClassAccuracy(NamedTuple):
    """How well a class is recognised.

    Attributes:
        label (int): The class.
        recall (Share): Of its images, those that get its label: the accuracy of the class.
        precision (Share): Of the images that get its label, those that are its own.
    """

    label: int
    recall: Share
    precision: Share


class Bin(NamedTuple):
    """Answers of similar confidence.

    Attributes:
        low (float): Their confidence is above this.
        high (float): Their confidence is at most this.
        confidence (float): Their mean confidence; NaN without answers.
        right (Share): Those that are right.
    """

    low: float
    high: float
    confidence: float
    right: Share


class Calibration(NamedTuple):
    """Whether a classifier is right as often as its scores say.

    Attributes:
        bins (list[Bin]): Of equal widths over [0, 1].
        ece (float): Expected calibration error (Naeini et al., AAAI 2015; Guo et al., ICML 2017, arXiv:1706.04599): the
            distance between confidence and accuracy of a bin, as a mean over answers; from 0 to 1.
        confidence (float): Mean confidence of all answers, which is the accuracy if the classifier is calibrated.
    """

    bins: list[Bin]
    ece: float
    confidence: float


def wilson(count: int, total: int, confidence: float = 0.95) -> Share:
    """A share with its Wilson interval, which is valid for small numbers and for shares near 0 and 1.

    Args:
        count (int): How many images.
        total (int): Of how many; 0 gives NaN.
        confidence (float): How often the interval covers the true share. Defaults to 0.95.

    Returns:
        Share: The share.
    """
    from scipy.stats import binomtest

    if not total:
        return Share(count, total, float('nan'), float('nan'))
    interval = binomtest(int(count), int(total)).proportion_ci(confidence, method='wilson')
    return Share(int(count), int(total), float(interval.low), float(interval.high))


def confusions(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Numbers of images (classes, classes), by true class (rows) and predicted class (columns)."""
    from sklearn.metrics import confusion_matrix  # slow to import

    return confusion_matrix(labels, predicted, labels=np.arange(classes))


def class_accuracies(matrix: np.ndarray) -> list[ClassAccuracy]:
    """Recall and precision of each class.

    Args:
        matrix (np.ndarray): From :func:`confusions`.

    Returns:
        list[ClassAccuracy]: By label.
    """
    right, of_class, of_answer = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    return [
        ClassAccuracy(label, wilson(right[label], of_class[label]), wilson(right[label], of_answer[label]))
        for label in range(len(matrix))
    ]


def calibration(scores: np.ndarray, labels: np.ndarray, bins: int = 10) -> Calibration:
    """Compare the score of each answer with how often such answers are right.

    Args:
        scores (np.ndarray): Probabilities (N, classes), of which the greatest is the confidence.
        labels (np.ndarray): True classes (N,).
        bins (int): Number of bins of equal width. Defaults to 10.

    Returns:
        Calibration: By bins.
    """
    confidence, right = scores.max(1), scores.argmax(1) == labels
    of_bin = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    found, ece = [], 0.0
    for i in range(bins):
        inside = of_bin == i
        share = wilson(np.count_nonzero(right & inside), np.count_nonzero(inside))
        mean = float(confidence[inside].mean()) if share.total else float('nan')
        found.append(Bin(i / bins, (i + 1) / bins, mean, share))
        ece += abs(share.value - mean) * share.total / len(labels) if share.total else 0.0
    return Calibration(found, float(ece), float(confidence.mean()))
