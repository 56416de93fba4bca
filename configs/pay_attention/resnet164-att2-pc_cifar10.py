"""RN-att2-concat-pc on CIFAR-10: 2,395,484 parameters.

ResNet-164 with attention over its stages 2 and 3, scored by <u, l + g>; both together are classified.
The paper has no figure that is known here.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/resnet164-att2-pc_cifar10.py
"""

_base_ = './vgg-att2-pc_cifar10.py'

model = dict(
    backbone=dict(arch='resnet164-att'),
    head=dict(dropout=0.3),
)

# The authors reflect images at their border before the crop; here it is black. No averaged gradients, as for VGG.
data_preprocessor = dict(batch_transforms=[dict(type='BatchRandomCrop', padding=4), dict(type='BatchRandomFlip')])
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=64)

epochs = 200
optim_wrapper = dict(optimizer=dict(nesterov=True))
param_scheduler = dict(_delete_=True, type='MultiStepLR', milestones=[60, 120, 160], gamma=0.2)
train_cfg = dict(max_epochs=epochs)
