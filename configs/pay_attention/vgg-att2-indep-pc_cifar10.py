"""VGG-att2-indep-pc on CIFAR-10: 19,720,790 parameters.

Attention over layers 10 and 13, scored by <u, l + g>; each is classified, log-probabilities are added.
The paper has no figure that is known here.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att2-indep-pc_cifar10.py
"""

_base_ = './vgg-att2-pc_cifar10.py'

model = dict(head=dict(combine='indep'))
