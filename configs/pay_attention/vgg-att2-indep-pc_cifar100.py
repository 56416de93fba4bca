"""VGG-att2-indep-pc on CIFAR-100: 19,813,130 parameters.

Attention over layers 10 and 13, scored by <u, l + g>; each is classified, log-probabilities are added.
The paper has no figure that is known here.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att2-indep-pc_cifar100.py
"""

_base_ = './vgg-att2-pc_cifar100.py'

model = dict(head=dict(combine='indep'))
