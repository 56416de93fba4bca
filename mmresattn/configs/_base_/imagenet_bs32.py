# See configs/_base_/datasets/imagenet_bs32.py.
from sys import modules

from mmengine.dataset import DefaultSampler
from mmpretrain.datasets import CenterCrop, ImageNet, Lighting, PackInputs, RandomFlip, RandomResizedCrop, ResizeEdge
from mmpretrain.evaluation import Accuracy

from mmresattn.datasets import LoadCheckedImage
from mmresattn.engine import ReplaySampler, ReplaySeed

image_size = 224
# In a virtual environment `import os` would give a lazy object of MMEngine's.
data_root = modules['os'].environ.get('MMRESATTN_DATA', 'data') + '/imagenet'
data_preprocessor = dict(
    num_classes=1000,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

train_pipeline = [
    dict(type=ReplaySeed),
    dict(type=LoadCheckedImage, to_float32=True),
    dict(type=RandomResizedCrop, scale=image_size),
    dict(type=RandomFlip, prob=0.5, direction='horizontal'),
    dict(
        type=Lighting,
        eigval=[55.4625, 4.7940, 1.1475],
        eigvec=[
            [-0.5836, -0.6948, 0.4203],
            [-0.5808, -0.0045, -0.8140],
            [-0.5675, 0.7192, 0.4009],
        ],
        alphastd=0.1,
    ),
    dict(type=PackInputs),
]
test_pipeline = [
    dict(type=LoadCheckedImage),
    dict(type=ResizeEdge, scale=256, edge='short'),
    dict(type=CenterCrop, crop_size=image_size),
    dict(type=PackInputs),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=5,
    sampler=dict(type=ReplaySampler, shuffle=True, infinite=True),
    dataset=dict(type=ImageNet, data_root=data_root, split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=5,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=ImageNet, data_root=data_root, split='val', pipeline=test_pipeline),
)
val_evaluator = dict(type=Accuracy, topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
