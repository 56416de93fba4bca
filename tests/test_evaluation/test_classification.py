import math

import numpy as np
import pytest

from mmresattn.evaluation import calibration, class_accuracies, confusions, wilson


@pytest.mark.parametrize(('count', 'total'), [(8, 12), (0, 7), (7, 7), (49, 1000)])
def test_wilson_interval_is_where_the_score_test_is_at_its_limit(count, total):
    """Its ends solve |p - share| = 1.96 sqrt(p (1 - p) / n), the definition."""
    share = wilson(count, total)
    assert share.value == count / total
    z = 1.959963984540054
    for end in (share.low, share.high):
        assert abs(end - share.value) == pytest.approx(z * math.sqrt(end * (1 - end) / total), abs=1e-9)
    assert share.low <= share.value <= share.high
    narrow = wilson(count, total, 0.5)
    assert share.low <= narrow.low <= narrow.high <= share.high


def test_no_images_have_no_share():
    share = wilson(0, 0)
    assert all(math.isnan(value) for value in (share.value, share.low, share.high))


def test_recall_and_precision_by_counting():
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
    matrix = confusions(labels, predicted, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    found = class_accuracies(matrix)
    assert [(c.recall.count, c.recall.total) for c in found] == [(2, 3), (1, 2), (1, 1), (0, 0)]
    assert [(c.precision.count, c.precision.total) for c in found] == [(2, 2), (1, 2), (1, 2), (0, 0)]


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.85, 0.85, 0.6, 1.0])
    scores = np.stack([confidence, 1 - confidence], 1)
    labels = np.array([0, 0, 1, 1, 0])  # right, right, wrong, wrong, right
    found = calibration(scores, labels)
    # (0.5, 0.6]: one wrong at 0.6; (0.8, 0.9]: one of two right at 0.85; (0.9, 1]: two right at 0.975.
    assert found.ece == pytest.approx((0.6 + 2 * 0.35 + 2 * 0.025) / 5)
    assert found.confidence == pytest.approx(confidence.mean())
    assert [(b.right.count, b.right.total) for b in found.bins] == [(0, 0)] * 5 + [
        (0, 1),
        (0, 0),
        (0, 0),
        (1, 2),
        (2, 2),
    ]
    assert found.bins[8].confidence == pytest.approx(0.85)


def test_a_calibrated_classifier_has_no_calibration_error():
    draw = np.random.default_rng(0)
    positive = draw.random(100_000)
    labels = (draw.random(100_000) < positive).astype(int)
    scores = np.stack([1 - positive, positive], 1)
    assert calibration(scores, labels).ece < 0.01
    sure = scores**3 / (scores**3).sum(1, keepdims=True)
    assert calibration(sure, labels).ece > 0.05
