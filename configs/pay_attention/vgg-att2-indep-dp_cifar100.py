"""VGG-att2-indep-dp on CIFAR-100: 19,812,104 parameters.

Attention over layers 10 and 13, scored by <l, g>; each is classified, log-probabilities are added.
The paper has no figure that is known here.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att2-indep-dp_cifar100.py
"""

_base_ = './vgg-att2-pc_cifar100.py'

model = dict(neck=dict(score='dp'), head=dict(combine='indep'))
