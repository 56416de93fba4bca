"""Images with captions in the layout of Karpathy's files for Flickr8k, Flickr30k and COCO."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, TRANSFORMS


def read_captions(file: str | Path, splits: Sequence[str], boxes: str | None = None) -> list[dict]:
    """The images of some splits with their captions.

    Args:
        file (str | Path): A JSON file such as ``dataset_flickr8k.json``: ``images``, each with ``filename``, ``split``,
            ``sentences`` (``raw``), and perhaps ``filepath`` (a folder) and ``imgid``.
        splits (Sequence[str]): Such as ``['train', 'restval']``.
        boxes (str, optional): Under which name images have boxes (x1, y1, x2, y2). Defaults to None: they have none.

    Returns:
        list[dict]: For each image ``image_id``, ``file`` and ``captions``, all non-empty, and perhaps ``boxes``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not of that layout, if the splits have no images, or if an image has no caption.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f'There is no file of captions {path.absolute()}. Expected a JSON file in the layout of '
            'https://cs.stanford.edu/people/karpathy/deepimagesent, such as dataset_flickr8k.json.'
        )
    try:
        images = json.loads(path.read_text('utf-8'))['images']
        found = [
            dict(
                image_id=image.get('imgid', number),
                file='/'.join(filter(None, (image.get('filepath'), image['filename']))),
                captions=[sentence['raw'].strip() for sentence in image['sentences']],
                **(dict(boxes=np.array(image[boxes], np.float32).reshape(-1, 4)) if boxes else {}),
            )
            for number, image in enumerate(images)
            if image['split'] in splits
        ]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path} is not in the layout of Karpathy ({type(error).__name__}: {error}): expected images, each with '
            f'filename, split{", " + boxes if boxes else ""} and sentences, and each sentence with raw.'
        ) from error
    if not found:
        known = sorted({image['split'] for image in images})
        raise ValueError(f'{path} has no images of the splits {list(splits)}; it has {known}.')
    for image in found:
        if not image['captions'] or not all(image['captions']):
            raise ValueError(f'{path}: {image["file"]} has no caption, or an empty one.')
    return found


@DATASETS.register_module()
class KarpathyCaptions(BaseDataset):
    """Images with captions, from a file in Karpathy's layout.

    Args:
        ann_file (str): The JSON file.
        split (str | Sequence[str]): One split or several.
        boxes (str, optional): Under which name the file's images have boxes, for ``gt_bboxes``. Defaults to None.
        **kwargs: Arguments of ``BaseDataset``: ``data_root``, ``data_prefix=dict(img_path=...)``, ``pipeline``,
            ``test_mode`` ...

    Items are captions with their images; to test, images with all their captions. They have ``img_path``, ``image_id``
    and ``gt_caption``, a string or with ``test_mode`` a list of strings; with ``boxes`` also ``gt_bboxes`` (N, 4), that
    ``Resize`` and ``RandomFlip`` move along with the image.
    """

    def __init__(self, ann_file: str, split: str | Sequence[str], boxes: str | None = None, **kwargs) -> None:
        self.splits = [split] if isinstance(split, str) else list(split)
        self.boxes = boxes
        super().__init__(ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        """The items, in the order of the file."""
        items = []
        for image in read_captions(self.ann_file, self.splits, self.boxes):
            more = dict(gt_bboxes=image['boxes']) if self.boxes else {}
            path = str(Path(self.data_prefix.get('img_path', ''), image['file']))
            for caption in [image['captions']] if self.test_mode else image['captions']:
                items.append(dict(img_path=path, image_id=image['image_id'], gt_caption=caption, **more))
        return items

    def captions(self) -> list[str]:
        """All captions, for a vocabulary."""
        return [caption for image in read_captions(self.ann_file, self.splits) for caption in image['captions']]


@TRANSFORMS.register_module()
class FlipCaption(BaseTransform):
    """Exchanges words in the caption of an image that ``RandomFlip`` has flipped.

    Args:
        horizontal (Sequence[str]): Two words that a flip to the side exchanges. Defaults to left and right.
        vertical (Sequence[str]): Two words that a flip upside down exchanges. Defaults to upper and lower.
    """

    def __init__(
        self, horizontal: Sequence[str] = ('left', 'right'), vertical: Sequence[str] = ('upper', 'lower')
    ) -> None:
        self.pairs = dict(horizontal=horizontal, vertical=vertical)

    def transform(self, results: dict) -> dict:
        """Exchange the words of ``gt_caption``, a string."""
        direction = results.get('flip_direction') or ''
        for axis, (first, second) in self.pairs.items():
            if direction in (axis, 'diagonal'):
                swap = {first: second, second: first}
                results['gt_caption'] = ' '.join(swap.get(word, word) for word in results['gt_caption'].split())
        return results
