"""Checks of data for detection and segmentation: annotations, classes and heads must agree."""

import inspect
import json
import os
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from mmengine import list_from_file
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image

from ..utils import listed
from .checks import data_sets_of

MOST_MASKS = 2000  # as many are read of each data set
LAYOUTS = {
    'CocoDataset': """\
Expected annotations in COCO's format and the images that they name:
    {root}/{{train,val}}.json
    {root}/images/*""",
    'BaseSegDataset': """\
Expected images, a mask for each in one channel of class numbers, and the names of the classes, one per line from 0 on:
    {root}/images/{{train,val}}/<name>.jpg
    {root}/masks/{{train,val}}/<name>.png
    {root}/classes.txt""",
}


def set_classes(cfg: Config) -> None:
    """Read the classes of a user's own data where a config leaves them open: ``metainfo=dict(classes=None)``.

    A detector takes the categories of the training annotations, a segmenter the lines of ``classes.txt`` in the
    ``data_root``. All data sets get these classes, and all heads their number.

    Args:
        cfg (Config): A config of a detector or segmenter; others stay as they are.

    Raises:
        FileNotFoundError: If the file that holds the classes is missing. The message says the layout of the folder.
        ValueError: If it holds no classes.
    """
    dataset = next((dataset for _, dataset in data_sets_of(cfg, ['train_dataloader'])), {})
    if (dataset.get('metainfo') or {}).get('classes', ()) is not None:
        return
    root = dataset.data_root
    coco = dataset.type == 'CocoDataset'
    path = os.path.join(root, dataset.ann_file if coco else 'classes.txt')
    if not os.path.isfile(path):
        layout = LAYOUTS[dataset.type].format(root=root.rstrip('/'))
        raise FileNotFoundError(f'The classes are read from {os.path.abspath(path)}, which does not exist.\n{layout}')
    if coco:
        classes = [category['name'] for category in _read_coco(path)['categories']]
    else:
        classes = [line.strip() for line in list_from_file(path) if line.strip()]
    if not classes:
        raise ValueError(f'{path} holds no classes.')
    for _, dataset in data_sets_of(cfg, ('train_dataloader', 'val_dataloader', 'test_dataloader')):
        dataset.metainfo = dict(dataset.get('metainfo') or {}, classes=tuple(classes))
    for _, head in _heads(cfg.model):
        head.num_classes = len(classes)


def check_dense_data(cfg: Config, loaders: Sequence[str]) -> None:
    """Check annotations of boxes and masks against the images, the classes and the heads of a model.

    Args:
        cfg (Config): A config; one of a classifier passes.
        loaders (Sequence[str]): The dataloaders in use, of ``train_dataloader``, ``val_dataloader`` and
            ``test_dataloader``.

    Raises:
        FileNotFoundError: If images or masks are missing.
        ValueError: If categories or mask values, the classes of a data set and ``num_classes`` of a head disagree, or a
            box or mask does not fit its image.
    """
    scope = cfg.get('default_scope')
    if scope not in ('mmdet', 'mmseg'):
        return
    for loader, dataset in data_sets_of(cfg, loaders):
        with DATASETS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
        named = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}.get('classes')
        remote = '://' in (dataset.get('data_root') or '')
        boxes = kind.__name__ == 'CocoDataset' and not dataset.get('return_classes')  # those of texts have none
        masks = scope == 'mmseg' and (dataset.get('data_prefix') or {}).get('seg_map_path')
        if isinstance(named, str) or not named or remote or not (boxes or masks):
            continue
        for key, head in _heads(cfg.model):
            if head.num_classes != len(named):
                raise ValueError(
                    f'{loader} has {len(named)} classes ({listed(named, 10)}), and the {key} of the model, '
                    f'{head.type}, has num_classes={head.num_classes}. Set num_classes of every head to '
                    f'{len(named)}.'
                )
        (_check_boxes if boxes else _check_masks)(loader, dataset, kind, list(named))


def _check_boxes(loader: str, dataset: dict, kind: type, classes: list[str]) -> None:
    path = os.path.join(dataset.get('data_root') or '', dataset.ann_file)
    coco = _read_coco(path)
    names = {category['id']: category['name'] for category in coco['categories']}
    images = {image['id']: image for image in coco['images']}
    if unknown := [name for name in classes if name not in names.values()]:
        raise ValueError(
            f'{path} has the categories {listed(names.values(), 10)}, and the classes of {loader} (metainfo) name '
            f'{listed(unknown, 10)}, which {"is" if len(unknown) == 1 else "are"} not among them. Names must be equal '
            'letter by letter.'
        )
    order = [name for name in names.values() if name in classes]
    if order != classes:
        raise ValueError(
            f'{path} lists its categories in the order {listed(order, 10)}, and the classes of {loader} (metainfo) are '
            f'{listed(classes, 10)}: MMDetection numbers classes by the file. Give both the same order.'
        )
    for annotation in coco['annotations']:
        where = f'{path}, annotation {annotation.get("id")}'
        if annotation.get('image_id') not in images:
            raise ValueError(f'{where}: there is no image with the id {annotation.get("image_id")!r} in this file.')
        if (category := annotation.get('category_id')) not in names:
            raise ValueError(f'{where}: category_id {category!r} is none of the categories, {list(names)[:10]}.')
        if names[category] not in classes:
            count = sum(other.get('category_id') == category for other in coco['annotations'])
            raise ValueError(
                f'{path}: {count} annotations are of category {names[category]!r}, which is none of the '
                f'{len(classes)} classes of {loader} (metainfo): these objects would be trained as background. Add it '
                'to the classes and to num_classes, or remove its annotations from the file.'
            )
        image = images[annotation['image_id']]
        box = annotation.get('bbox')
        if not (isinstance(box, list) and len(box) == 4 and np.isfinite(box).all()):
            raise ValueError(f'{where}: bbox is {box!r}; expected the numbers [x, y, width, height].')
        x, y, width, height = box
        if min(x, y) < -1 or x + width > image['width'] + 1 or y + height > image['height'] + 1:
            raise ValueError(
                f'{where}: bbox [x, y, width, height] = {box} ends outside of the image {image["file_name"]}, which is '
                f'{image["width"]} pixels wide and {image["height"]} high.'
            )
    if not coco['annotations'] and not dataset.get('test_mode'):
        raise ValueError(f'{path} has no annotations, so there is nothing to train.')
    folder = os.path.join(dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('img', ''))
    _check_exist(path, folder, [image['file_name'] for image in coco['images']])


def _check_masks(loader: str, dataset: dict, kind: type, classes: list[str]) -> None:
    root, prefix = dataset.get('data_root') or '', dataset.data_prefix
    images, masks = (os.path.join(root, prefix[key]) for key in ('img_path', 'seg_map_path'))
    standard = dict(img_suffix='.jpg', seg_map_suffix='.png', reduce_zero_label=False, ignore_index=255)
    own = {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}
    settings = (dataset.get(name, own.get(name, value)) for name, value in standard.items())
    img_suffix, mask_suffix, zero_ignored, ignored = settings
    if dataset.get('ann_file'):
        names = [line.strip() for line in list_from_file(os.path.join(root, dataset.ann_file)) if line.strip()]
        _check_exist(loader, images, [name + img_suffix for name in names])
    else:
        found = (os.path.relpath(os.path.join(at, name), images) for at, _, files in os.walk(images) for name in files)
        names = sorted(name.removesuffix(img_suffix) for name in found if name.endswith(img_suffix))
        if not names:
            raise FileNotFoundError(f'{loader}: there are no images *{img_suffix} (img_suffix) in {images}.')
    _check_exist(loader, masks, [name + mask_suffix for name in names])
    lowest = int(zero_ignored)
    found = set()
    known = (getattr(kind, 'METAINFO', None) or {}).get('classes') or classes  # of which `classes` may be a part
    trained = {*range(lowest, len(known) + lowest)}
    allowed = trained | {ignored} | ({0} if zero_ignored else set())
    for name in names[:: -(-len(names) // MOST_MASKS)]:
        path = os.path.join(masks, name + mask_suffix)
        with Image.open(path) as mask, Image.open(os.path.join(images, name + img_suffix)) as image:
            if mask.size != image.size:
                raise ValueError(
                    f'{path} is {mask.width} pixels wide and {mask.height} high; its image is {image.width} wide and '
                    f'{image.height} high.'
                )
            values = np.asarray(mask)
        if values.ndim != 2:
            raise ValueError(
                f'{path} is a picture in colour. A mask has one channel, whose values are the numbers of classes.'
            )
        found |= (present := {*np.unique(values).tolist()})
        if wrong := sorted(present - allowed):
            raise ValueError(
                f'{path} has the value {wrong[0]} at {(values == wrong[0]).sum():,} pixels. The '
                f'{len(known)} classes of {loader} ({listed(known, 10)}) are {lowest} to {len(known) - 1 + lowest}, '
                f'and {ignored} is not trained' + (', nor is 0 (reduce_zero_label).' if zero_ignored else '.')
            )
    if loader == 'train_dataloader' and len(found & trained) < 2:
        raise ValueError(
            f'The masks in {masks} hold the values {sorted(found)} and no others. {ignored} is not trained, so there '
            f'is nothing to tell apart. Class numbers are {lowest} to {len(known) - 1 + lowest}; masks of 0 and 255 '
            'for two classes must be divided by 255.'
        )


def _read_coco(path: str) -> dict:
    try:
        with open(path, encoding='utf-8') as file:
            coco = json.load(file)
    except ValueError as error:
        raise ValueError(f'{path} is no JSON file: {error}.') from error
    coco = coco if isinstance(coco, dict) else {}
    if missing := [key for key in ('images', 'categories') if not isinstance(coco.get(key), list)]:
        raise ValueError(f'{path} lacks the lists {", ".join(missing)} of the COCO format.')
    return {'annotations': [], **coco}  # images to test on may have none


def _check_exist(source: str, folder: str, names: Sequence[str]) -> None:
    files = cache(lambda at: set(os.listdir(at)) if os.path.isdir(at) else set())
    places = [(name, os.path.split(os.path.join(folder, name))) for name in names]
    if missing := [name for name, (at, base) in places if base not in files(at)]:
        folder = os.path.abspath(folder)
        raise FileNotFoundError(
            f'{source}: {len(missing)} of {len(names)} files are not in {folder}: {listed(missing)}.'
        )


def _heads(model: dict) -> Iterator[tuple[str, dict]]:
    """Heads with a class for each of the data set: neither those of proposals nor of things beside the objects."""
    for key, value in model.items():
        for part in value if isinstance(value, list | tuple) else [value]:
            if not isinstance(part, dict) or key in ('rpn_head', 'semantic_head'):
                continue
            if key.endswith(('_head', 'branch')) and 'num_classes' in part and not part.get('class_agnostic'):
                yield key, part
            yield from _heads(part)
