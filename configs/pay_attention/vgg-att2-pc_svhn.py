"""VGG-att2-concat-pc on SVHN: 19,720,780 parameters.

Attention over layers 10 and 13, scored by <u, l + g>; both together are classified.
The paper has no figure that is known here.
Data: data/svhn/{train,test}/<class>/*, or under $MMRESATTN_DATA; train without the extra set.

    python tools/train.py configs/pay_attention/vgg-att2-pc_svhn.py
"""

_base_ = './vgg-att2-pc_cifar10.py'

# The authors' rate of 0.1, in PyTorch's terms (see vgg-att2-pc_cifar10.py).
optim_wrapper = dict(optimizer=dict(lr=0.01))

# Digits are not mirrored here; what the authors do is not known.
data_root = '{{$MMRESATTN_DATA:data}}/svhn'
data_preprocessor = dict(mean=[111.61, 113.16, 120.57], std=[50.49, 51.26, 50.24], batch_transforms=[])
train_dataloader = dict(dataset=dict(dataset=dict(data_root=data_root)))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
