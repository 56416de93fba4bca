# See configs/_base_/datasets/digits_bs32.py.
from mmcv.transforms import Resize
from mmengine.dataset import DefaultSampler
from mmpretrain.datasets import PackInputs, RandomCrop
from mmpretrain.evaluation import Accuracy

from mmresattn.datasets import ImageArrays
from mmresattn.engine import ReplaySampler, ReplaySeed

image_size = 16
data_preprocessor = dict(num_classes=10, mean=[77.9] * 3, std=[95.9] * 3)

train_pipeline = [
    dict(type=ReplaySeed),
    dict(type=Resize, scale=(image_size, image_size)),
    dict(type=RandomCrop, crop_size=image_size, padding=1),
    dict(type=PackInputs),
]
test_pipeline = [dict(type=Resize, scale=(image_size, image_size)), dict(type=PackInputs)]
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    drop_last=True,
    sampler=dict(type=ReplaySampler, shuffle=True),
    dataset=dict(type=ImageArrays, data='digits', split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=ImageArrays, data='digits', split='test', pipeline=test_pipeline),
)
val_evaluator = dict(type=Accuracy, topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
