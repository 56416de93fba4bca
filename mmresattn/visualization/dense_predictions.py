"""Boxes and masks of detectors and segmenters on their image."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from mmengine.structures import BaseDataElement
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from .overlay import check_picture

COLOURS = [tuple(round(255 * part) for part in colour) for colour in colormaps['tab10'].colors]


def draw_prediction(image: np.ndarray, sample: BaseDataElement, score_thr: float = 0.3) -> np.ndarray:
    """Draw what a detector or segmenter found: boxes and their masks, or the classes of all pixels but the first class.

    Each class has a colour; the first class of a segmenter is taken for the background, if there are others.

    Args:
        image (np.ndarray): Picture (H, W, 3), uint8 in RGB, of the original image.
        sample (BaseDataElement): The data sample that the model returned, at the size of that image.
        score_thr (float): Least score of a box that is drawn. Defaults to 0.3.

    Returns:
        np.ndarray: Picture (H, W, 3); the image itself where there is nothing to draw, as of a classifier.
    """
    check_picture(image)
    picture = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    if 'pred_sem_seg' in sample:
        classes = sample.pred_sem_seg.data[0].cpu()
        labels = [label for label in classes.unique().tolist() if label]
        masks = torch.stack([classes == label for label in labels]) if labels else classes.new_zeros(0)
        picture = _draw_masks(picture, masks, labels)
    if 'pred_instances' in sample:
        found = sample.pred_instances.cpu()
        found = found[found.scores >= score_thr]
        labels = found.labels.tolist()
        if 'masks' in found:
            picture = _draw_masks(picture, torch.as_tensor(found.masks, dtype=torch.bool), labels)
        if labels:
            # A box without area may come as its right side first.
            boxes = found.bboxes.unflatten(1, (2, 2)).sort(1).values.flatten(1)
            width = max(1, round(min(image.shape[:2]) / 150))
            picture = draw_bounding_boxes(picture, boxes, colors=_colours(labels), width=width)
    return picture.permute(1, 2, 0).cpu().numpy()


def _draw_masks(picture: torch.Tensor, masks: torch.Tensor, labels: Sequence[int]) -> torch.Tensor:
    return draw_segmentation_masks(picture, masks, alpha=0.5, colors=_colours(labels)) if labels else picture


def _colours(labels: Sequence[int]) -> list[tuple[int, int, int]]:
    return [COLOURS[label % len(COLOURS)] for label in labels]


def dense_title(sample: BaseDataElement, classes: Sequence[str] | None = None, score_thr: float = 0.3) -> str:
    """A line about what :func:`draw_prediction` draws: ``12 RBC, 1 WBC`` or ``nucleus 18 %``; empty of a classifier.

    Args:
        sample (BaseDataElement): The data sample that the model returned.
        classes (Sequence[str], optional): Names of the classes. Defaults to their numbers.
        score_thr (float): Least score of a box that counts. Defaults to 0.3.
    """

    def name(label: int) -> str:
        return str(classes[label]) if classes else f'class {label}'

    if 'pred_instances' in sample:
        labels = sample.pred_instances.labels[sample.pred_instances.scores >= score_thr]
        counts = zip(*(part.tolist() for part in labels.unique(return_counts=True)))
        return ', '.join(f'{count} {name(label)}' for label, count in counts) or 'nothing found'
    if 'pred_sem_seg' in sample:
        labels, counts = sample.pred_sem_seg.data.unique(return_counts=True)
        shares = 100 * counts / counts.sum()
        return ', '.join(
            f'{name(label)} {share:.0f} %' for label, share in zip(labels.tolist(), shares.tolist()) if label
        )
    return ''
