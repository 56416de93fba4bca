from .caption_metric import CaptionMetric, caption_scores
from .classification import calibration, class_accuracies, confusions, wilson
from .faithfulness import (
    boxes_mask,
    deletion_and_insertion,
    faithfulness,
    mask_iou,
    mass_in_mask,
    perturbation_curve,
    pointing_game,
    road,
)
from .robustness import adversarial_accuracy, adversarial_images
from .value_metric import ValueMetric, value_errors

__all__ = [
    'CaptionMetric',
    'ValueMetric',
    'adversarial_accuracy',
    'adversarial_images',
    'boxes_mask',
    'calibration',
    'class_accuracies',
    'confusions',
    'caption_scores',
    'deletion_and_insertion',
    'faithfulness',
    'mask_iou',
    'mass_in_mask',
    'perturbation_curve',
    'pointing_game',
    'road',
    'wilson',
    'value_errors',
]
