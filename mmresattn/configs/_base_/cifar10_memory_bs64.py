# See configs/_base_/datasets/cifar10_memory_bs64.py.
from sys import modules

from mmcv.transforms import CenterCrop
from mmengine.dataset import DefaultSampler
from mmpretrain.datasets import PackInputs, ResizeEdge
from mmpretrain.evaluation import Accuracy

from mmresattn.datasets import BatchRandomCrop, BatchRandomFlip, ImageFolders, InMemory, LoadCheckedImage
from mmresattn.engine import ReplaySampler
from mmresattn.models import BatchTransformPreprocessor

image_size = 32
# In a virtual environment `import os` would give a lazy object of MMEngine's.
data_root = modules['os'].environ.get('MMRESATTN_DATA', 'data') + '/cifar10'
data_preprocessor = dict(
    type=BatchTransformPreprocessor,
    batch_transforms=[dict(type=BatchRandomCrop, padding=4), dict(type=BatchRandomFlip)],
    num_classes=10,
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=True,
)

pipeline = [
    dict(type=LoadCheckedImage),
    dict(type=ResizeEdge, scale=image_size, edge='short'),  # for other images than CIFAR's
    dict(type=CenterCrop, crop_size=image_size),
    dict(type=PackInputs),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    collate_fn=dict(type='one_batch'),
    sampler=dict(type=ReplaySampler, shuffle=True, infinite=True),
    dataset=dict(
        type=InMemory,
        dataset=dict(type=ImageFolders, data_root=data_root, data_prefix='train', pipeline=pipeline),
    ),
)
val_dataloader = dict(
    batch_size=200,
    num_workers=2,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=ImageFolders, data_root=data_root, data_prefix='test', pipeline=pipeline),
)
val_evaluator = dict(type=Accuracy, topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
