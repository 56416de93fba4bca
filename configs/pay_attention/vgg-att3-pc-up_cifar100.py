"""VGG-att3-concat-pc, layer 7 projected up, on CIFAR-100: 19,998,375 parameters.

Attention over layers 7, 10 and 13, scored by <u, l + g>; all together are classified.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att3-pc-up_cifar100.py
"""

_base_ = './vgg-att2-pc_cifar100.py'

# The global vector keeps its 512 channels; the 256 of the first level are projected to as many.
model = dict(
    backbone=dict(out_indices=(0, 1, 2)),
    neck=dict(project='local'),
)
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=64)
