import json

import cv2
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS, DefaultScope

from mmresattn.datasets import KarpathyCaptions, read_captions
from mmresattn.datasets.box_captions import describe_cells, parts_of, place_of


def entry(name, split, *captions, **more):
    return dict(filename=name, split=split, sentences=[dict(raw=caption) for caption in captions]) | more


IMAGES = [
    entry('a.jpg', 'train', 'One dog. ', 'A dog', filepath='train2014', imgid=7),
    entry('b.jpg', 'restval', 'A cat'),
    entry('c.jpg', 'test', 'A bird', 'Two birds'),
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'captions.json'
    path.write_text(json.dumps(dict(images=IMAGES)))
    return path


def test_captions_to_train_on_and_images_to_test(file, tmp_path):
    options = dict(data_root=str(tmp_path), ann_file='captions.json', data_prefix=dict(img_path='images'))
    train = KarpathyCaptions(split=['train', 'restval'], **options)
    items = [train.get_data_info(i) for i in range(len(train))]
    assert [(item['image_id'], item['gt_caption']) for item in items] == [(7, 'One dog.'), (7, 'A dog'), (1, 'A cat')]
    assert items[0]['img_path'] == str(tmp_path / 'images/train2014/a.jpg')
    test = KarpathyCaptions(split='test', test_mode=True, **options)
    assert len(test) == 1 and test.get_data_info(0)['gt_caption'] == ['A bird', 'Two birds']


def test_boxes_move_with_their_image(tmp_path):
    assert cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((10, 20, 3), np.uint8))
    entries = [entry('a.png', 'train', 'At the left', white=[[1, 2, 5, 8]]), entry('a.png', 'val', 'Nothing', white=[])]
    (tmp_path / 'captions.json').write_text(json.dumps(dict(images=entries)))
    pipeline = [
        dict(type='KeepInMemory', transforms=[dict(type='LoadCheckedImage'), dict(type='Resize', scale=(40, 20))]),
        dict(type='RandomFlip', prob=1.0, direction='horizontal'),
    ]
    for split, expected in (('train', [[30, 4, 38, 16]]), ('val', np.empty((0, 4)))):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            data = KarpathyCaptions(
                data_root=str(tmp_path), ann_file='captions.json', split=split, boxes='white', pipeline=pipeline
            )
            for _ in range(2):
                assert np.array_equal(data[0]['gt_bboxes'], expected)
    with pytest.raises(ValueError, match="KeyError: 'red'"):
        read_captions(tmp_path / 'captions.json', ['train'], 'red')


def test_what_is_wrong_with_a_file_is_said(file, tmp_path):
    with pytest.raises(FileNotFoundError, match='Expected a JSON file in the layout'):
        read_captions(tmp_path / 'none.json', ['train'])
    with pytest.raises(ValueError, match=r"no images of the splits \['dev'\]; it has \['restval', 'test', 'train'\]"):
        read_captions(file, ['dev'])
    for content, message in (
        ('[]', 'not in the layout of Karpathy'),
        ('{', 'not in the layout of Karpathy'),
        (json.dumps(dict(images=[dict(filename='a.jpg', split='train')])), "KeyError: 'sentences'"),
        (json.dumps(dict(images=[entry('a.jpg', 'train')])), 'a.jpg has no caption'),
        (json.dumps(dict(images=[entry('a.jpg', 'train', ' ')])), 'a.jpg has no caption'),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_captions(file, ['train'])


def test_flips_exchange_words():
    flip = TRANSFORMS.build(dict(type='FlipCaption'))
    for direction, expected in (
        (None, 'at the upper left'),
        ('horizontal', 'at the upper right'),
        ('vertical', 'at the lower left'),
        ('diagonal', 'at the lower right'),
    ):
        assert flip(dict(gt_caption='at the upper left', flip_direction=direction))['gt_caption'] == expected


def test_the_grammar_of_blood_cells_is_read_back():
    shape = (480, 640)
    small, large = [10, 300, 60, 400], [400, 10, 600, 200]
    assert [place_of(box, shape) for box in (small, large)] == ['lower left', 'upper right']
    for white, red, caption in (
        ([large], 11, 'one white cell at the upper right and eleven red cells'),
        ([small, large], 1, 'two white cells at the upper right and one red cell'),
        ([], 27, 'no white cells and twenty-seven red cells'),
        ([small], 0, 'one white cell at the lower left and no red cells'),
        ([small], 40, 'one white cell at the lower left and many red cells'),
    ):
        assert describe_cells(white, red, shape) == caption
        parts = parts_of(caption)
        assert parts.kinds == {kind for kind, some in (('white', white), ('red', red)) if some}
        assert (parts.place is None) == (not white)
    assert parts_of('one white cell at the').kinds is None
