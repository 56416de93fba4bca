"""Faults in the user's own boxes and masks, which MMDetection and MMSegmentation find late or never."""

import json
from copy import deepcopy

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmresattn.datasets.dense_checks import check_dense_data, set_classes

LOADERS = ['train_dataloader', 'val_dataloader']


@pytest.fixture(scope='module')
def boxes(tmp_path_factory):
    """A config of a detector, and a function that writes annotations with changes."""
    pytest.importorskip('mmdet.datasets')
    root = tmp_path_factory.mktemp('boxes')
    (root / 'images').mkdir()
    for name in ('a.jpg', 'b.jpg'):
        Image.new('RGB', (40, 30)).save(root / 'images' / name)
    images = [dict(id=i, file_name=name, width=40, height=30) for i, name in enumerate(['a.jpg', 'b.jpg'])]
    annotations = [dict(id=9 + i, image_id=i, category_id=3 + i, bbox=[5, 5, 35, 25], area=875) for i in (0, 1)]
    categories = [dict(id=3, name='cat'), dict(id=4, name='dog')]
    valid = dict(images=images, annotations=annotations, categories=categories)

    def write(change=lambda coco: None):
        coco = deepcopy(valid)
        change(coco)
        for name in ('train', 'val'):
            (root / f'{name}.json').write_text(json.dumps(coco))

    def config(classes=('cat', 'dog'), num_classes=2, mask_classes=2):
        dataset = dict(type='CocoDataset', data_root=str(root), data_prefix=dict(img='images/'))
        dataset['metainfo'] = dict(classes=classes)
        model = dict(
            rpn_head=dict(type='RPNHead', num_classes=1),
            roi_head=dict(
                bbox_head=[dict(type='Shared2FCBBoxHead', num_classes=num_classes)],
                mask_head=dict(type='FCNMaskHead', num_classes=mask_classes),
            ),
        )
        loaders = {loader: dict(dataset=dict(dataset, ann_file=f'{loader.split("_")[0]}.json')) for loader in LOADERS}
        return Config(dict(default_scope='mmdet', model=model, **loaders))

    return write, config


def change(key, index, **values):
    return lambda coco: coco[key][index].update(values)


BOXES = {
    'unknown class': (None, dict(classes=('cat', 'Dog')), r'categories cat, dog, .* name Dog, which is not among'),
    'order': (None, dict(classes=('dog', 'cat')), r'order cat, dog, .* are dog, cat: MMDetection numbers classes by'),
    'a class as background': (None, dict(classes=('cat',), num_classes=1, mask_classes=1),
                              r"train.json: 1 annotations are of category 'dog', which is none of the 1 classes"),
    'one head': (None, dict(mask_classes=3), 'has 2 classes .* mask_head .*FCNMaskHead, has num_classes=3'),
    'all heads': (None, dict(num_classes=80, mask_classes=80), 'bbox_head of the model, Shared2FCBBoxHead, has num_c'),
    'no image': (change('images', 1, file_name='c.jpg'), {}, r'train.json: 1 of 2 files are not in .*images: c.jpg'),
    'outside': (change('annotations', 1, bbox=[5, 5, 40, 30]), {}, r'annotation 10: bbox .*\[5, 5, 40, 30\] ends outs'),
    'no box': (change('annotations', 1, bbox=[5, 5]), {}, r'annotation 10: bbox is \[5, 5\]; expected the numbers'),
    'other image': (change('annotations', 0, image_id=7), {}, r'annotation 9: there is no image with the id 7'),
    'other category': (change('annotations', 0, category_id=0), {}, r'category_id 0 is none of .*\[3, 4\]'),
    'nothing': (lambda coco: coco['annotations'].clear(), {}, 'train.json has no annotations'),
    'another format': (lambda coco: coco.pop('categories'), {}, 'train.json lacks the lists categories'),
}  # fmt: skip


@pytest.mark.parametrize('name', BOXES)
def test_boxes(boxes, name):
    write, config = boxes
    fault, options, message = BOXES[name]
    write(fault or (lambda coco: None))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check_dense_data(config(**options), LOADERS)


def test_boxes_that_fit_and_classes_read_from_the_annotations(boxes):
    write, config = boxes
    write()
    check_dense_data(config(), LOADERS)
    cfg = config(classes=None, num_classes=80, mask_classes=80)
    set_classes(cfg)
    assert cfg.val_dataloader.dataset.metainfo.classes == ('cat', 'dog')
    assert cfg.model.roi_head.bbox_head[0].num_classes == cfg.model.roi_head.mask_head.num_classes == 2
    assert cfg.model.rpn_head.num_classes == 1
    check_dense_data(cfg, LOADERS)
    cfg = config(classes=None)
    cfg.train_dataloader.dataset.ann_file = 'none.json'
    with pytest.raises(FileNotFoundError, match=r'(?s)none.json, which does not exist.*\{train,val\}.json'):
        set_classes(cfg)


@pytest.fixture
def masks(tmp_path):
    """A folder with two images and masks of three classes, and the config of a segmenter."""
    pytest.importorskip('mmseg.datasets')
    for folder in ('images', 'masks'):
        (tmp_path / folder).mkdir()
    for name, values in (('a', [0, 1, 255]), ('b', [2])):
        Image.new('RGB', (6, 3)).save(tmp_path / 'images' / f'{name}.jpg')
        Image.fromarray(np.resize(np.array(values, np.uint8), (3, 6))).save(tmp_path / 'masks' / f'{name}.png')
    (tmp_path / 'classes.txt').write_text('ground\ntree\nsky\n')
    prefix = dict(img_path='images', seg_map_path='masks')
    dataset = dict(type='BaseSegDataset', data_root=str(tmp_path), data_prefix=prefix, metainfo=dict(classes=None))
    heads = dict(decode_head=dict(type='UPerHead', num_classes=9), auxiliary_head=[dict(type='FCNHead', num_classes=9)])
    return tmp_path, Config(dict(default_scope='mmseg', model=heads, train_dataloader=dict(dataset=dataset)))


def save(values, name='b'):
    mask = Image.fromarray(np.resize(np.array(values, np.uint8), (3, 6)))
    return lambda root: mask.save(root / f'masks/{name}.png')


MASKS = {
    'beyond': (save([0, 11]), r'b.png has the value 11 at 9 pixels. The 3 classes .* are 0 to 2, and 255 is not'),
    'no mask': (lambda root: (root / 'masks/b.png').unlink(), r'train_dataloader: 1 of 2 files are not in .*: b.png'),
    'no image': (lambda root: [path.unlink() for path in root.glob('images/*')], r'no images \*.jpg'),
    'colour': (lambda root: Image.new('RGB', (6, 3)).save(root / 'masks/b.png'), 'b.png is a picture in colour'),
    'size': (lambda root: Image.new('L', (3, 6)).save(root / 'masks/b.png'), '3 pixels wide and 6 high; its image is'),
    '0 and 255': (lambda root: [save([0, 255])(root), save([0, 255], 'a')(root)], r'hold the values \[0, 255\] and no'),
    'a class more': (lambda root: (root / 'classes.txt').write_text('ground\ntree\n'), 'value 2 at 18 pixels. The 2'),
}  # fmt: skip


@pytest.mark.parametrize('name', [None, *MASKS])
def test_masks(masks, name):
    root, cfg = masks
    if name:
        MASKS[name][0](root)
    set_classes(cfg)
    if name:
        with pytest.raises((ValueError, FileNotFoundError), match=MASKS[name][1]):
            check_dense_data(cfg, ['train_dataloader'])
        return
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head[0].num_classes == 3
    assert cfg.train_dataloader.dataset.metainfo.classes == ('ground', 'tree', 'sky')
    check_dense_data(cfg, ['train_dataloader'])
    cfg.model.auxiliary_head[0].num_classes = 2
    with pytest.raises(ValueError, match='auxiliary_head of the model, FCNHead, has num_classes=2'):
        check_dense_data(cfg, ['train_dataloader'])
