"""Text of figures: plain, and in any script."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from matplotlib import font_manager
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils.data import Subset

FAMILY = 'DejaVu Sans'  # comes with Matplotlib


def plain_text(text: str) -> tuple[str, dict]:
    """Text as it is drawn, and how.

    Matplotlib would read what is between two dollar signs as a formula. Characters that its own font lacks are taken
    from the first installed font that has them; where none has, they become escapes such as ``\\u732b``.

    Args:
        text (str): Any text, such as the name of a class.

    Returns:
        Tuple[str, dict]: The text, and properties of ``matplotlib.text.Text``.
    """
    families, missing = _fonts(frozenset(ord(character) for character in text if character.isprintable()))
    drawn = ''.join(
        character.encode('unicode_escape').decode() if ord(character) in missing else character for character in text
    )
    return drawn, dict(parse_math=False, family=list(families))


@lru_cache(1024)
def _fonts(codes: frozenset[int]) -> tuple[tuple[str, ...], frozenset[int]]:
    """Families that have some characters together, and those that no font has."""
    families, missing = [FAMILY], codes - _characters(font_manager.findfont(FAMILY))
    for font in font_manager.fontManager.ttflist:
        if not missing:
            break
        if 'Last Resort' not in font.name and missing & _characters(font.fname):
            families.append(font.name)
            missing -= _characters(font_manager.findfont(font.name))
    return tuple(families), missing


@lru_cache(None)
def _characters(file: str) -> frozenset[int]:
    try:
        return frozenset(font_manager.get_font(file).get_charmap())
    except (OSError, RuntimeError):  # a font that is listed, but damaged or gone
        return frozenset()


def class_names(dataset) -> Sequence[str] | None:
    """Names of the classes of a data set, in whatever wrappers; None if there are none."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return (getattr(dataset, 'metainfo', None) or {}).get('classes')


def label_text(labels: Tensor | Sequence[int], classes: Sequence[str] | None = None) -> str:
    """Names of labels, or their numbers where there are no names: ``cat``, ``class 3``, ``cat, dog``; ``no class``."""
    labels = torch.as_tensor(labels).reshape(-1).tolist()
    return ', '.join(str(classes[label]) if classes else f'class {label}' for label in labels) or 'no class'


def prediction_title(sample: BaseDataElement, classes: Sequence[str] | None = None) -> str:
    """A line about a classifier's prediction.

    Args:
        sample (BaseDataElement): The data sample that the model returned.
        classes (Sequence[str], optional): Names of the classes. Defaults to their numbers.

    Returns:
        str: ``cat, 90 %``, or ``cat as dog, 90 %`` where the true label is known; without the score for several labels;
        empty if there is no label.
    """
    if 'pred_label' not in sample:
        return ''
    title = label_text(sample.pred_label, classes)
    if 'gt_label' in sample:
        title = f'{label_text(sample.gt_label, classes)} as {title}'
    if 'pred_score' in sample and sample.pred_label.numel() == 1 and sample.pred_score.dim() == 1:
        title += f', {100 * sample.pred_score[sample.pred_label].item():.0f} %'
    return title
