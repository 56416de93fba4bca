import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from mmresattn.datasets import CELEBA_ATTRIBUTES, CelebAAttributes

TRUTH = np.random.default_rng(0).integers(0, 2, (5, 40))
SPLIT = [0, 0, 1, 2, 2]


def rows(truth=TRUTH):
    return [f'{i:06}.jpg  ' + ' '.join(f'{2 * value - 1:2}' for value in row) for i, row in enumerate(truth)]


def write(root, header=None, lines=None, partition=None):
    lines = rows() if lines is None else lines
    header = [str(len(lines)), ' '.join(CELEBA_ATTRIBUTES) + ' '] if header is None else header
    partition = [f'{i:06}.jpg {split}' for i, split in enumerate(SPLIT)] if partition is None else partition
    (root / 'list_attr_celeba.txt').write_text('\n'.join([*header, *lines]) + '\n')
    (root / 'list_eval_partition.txt').write_text('\n'.join(partition) + '\n')
    return str(root)


def test_there_are_forty_attributes():
    assert len(set(CELEBA_ATTRIBUTES)) == 40
    assert (CELEBA_ATTRIBUTES[0], CELEBA_ATTRIBUTES[20], CELEBA_ATTRIBUTES[39]) == ('5_o_Clock_Shadow', 'Male', 'Young')


@pytest.mark.parametrize(
    ('splits', 'chosen'), [(['train'], [0, 1]), (['train', 'val'], [0, 1, 2]), (['test'], [3, 4])], ids=str
)
def test_splits_and_attributes_are_those_of_the_files(tmp_path, splits, chosen):
    dataset = CelebAAttributes(write(tmp_path), splits)
    assert len(dataset) == len(chosen) and list(dataset.CLASSES) == CELEBA_ATTRIBUTES
    for info, i in zip(dataset, chosen):
        assert info['img_path'] == str(tmp_path / 'img_align_celeba' / f'{i:06}.jpg')
        assert info['gt_score'].tolist() == TRUTH[i].tolist()


def test_a_sample_reaches_the_loss(tmp_path):
    (tmp_path / 'img_align_celeba').mkdir()
    for i in range(2):
        cv2.imwrite(str(tmp_path / 'img_align_celeba' / f'{i:06}.jpg'), np.full((20, 16, 3), 99, np.uint8))
    steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(16, 16)), dict(type='PackInputs')]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = CelebAAttributes(write(tmp_path), ['train'], pipeline=steps)
        backbone = dict(type='CIFARResNet', depth=8, base_channels=4, stem_channels=4)
        network = dict(
            type='AttentionBranchNetwork',
            backbone=backbone,
            neck=dict(type='MultiTaskAttentionBranchNeck'),
            head=dict(type='MultiTaskAttentionBranchHead', num_classes=40, tasks=CELEBA_ATTRIBUTES),
        )
        model = MODELS.build(network).eval()
    samples = [dataset[i] for i in range(2)]
    data = dict(inputs=[s['inputs'] for s in samples], data_samples=[s['data_samples'] for s in samples])
    with torch.no_grad():
        data = model.data_preprocessor(data, training=True)
        losses = model(**data, mode='loss')
        scores = model.extract_feat(data['inputs'])[1]
    towards = scores * torch.from_numpy(2 * TRUTH[:2] - 1)
    torch.testing.assert_close(losses['attention_loss'], torch.nn.functional.softplus(-towards).mean())


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='list_attr_celeba.txt is not a file, .* Expected .* beside the folder'):
        CelebAAttributes(str(tmp_path))
    with pytest.raises(ValueError, match=r"splits are a list of .*'val'.*not 'train'"):
        CelebAAttributes(write(tmp_path), 'train')
    with pytest.raises(ValueError, match=r"number of its images \(5 follow; it says '4'\)"):
        CelebAAttributes(write(tmp_path, header=['4', ' '.join(CELEBA_ATTRIBUTES)]))
    with pytest.raises(ValueError, match='the 40 names of the attributes'):
        CelebAAttributes(write(tmp_path, header=['5', 'Bald Male']))
    with pytest.raises(ValueError, match='list_attr_celeba.txt, line 4: .* 1 or -1 for each of the 40 attributes'):
        CelebAAttributes(write(tmp_path, lines=[rows()[0], rows()[1].replace('-1', '0'), *rows()[2:]]))
    with pytest.raises(ValueError, match=r"names 1 images of \['train'\], of which 1 are not in .*'x.jpg'"):
        CelebAAttributes(write(tmp_path, partition=['x.jpg 0']))


@pytest.mark.parametrize('file', ['list_attr_celeba.txt', 'list_eval_partition.txt'])
@pytest.mark.parametrize('content', ['', '\n\n', '2\n', 'x\n\ny z w\n', '\xff\xfe\x00', 'a.jpg 3\n'])
def test_findings_K4_9_damaged_lists_are_named(tmp_path, file, content):
    root = write(tmp_path)
    (tmp_path / file).write_bytes(content.encode('latin-1'))
    with pytest.raises(ValueError, match=file):
        CelebAAttributes(root)


def test_findings_K4_9_blank_lines_and_a_byte_order_mark_are_read(tmp_path):
    root = write(tmp_path)
    for file in tmp_path.iterdir():
        file.write_text('\ufeff\n' + file.read_text().replace('\n', '\r\n\r\n'), encoding='utf-8')
    assert len(CelebAAttributes(root)) == 2
