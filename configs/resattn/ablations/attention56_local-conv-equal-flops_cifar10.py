"""Attention-56 on CIFAR-10, its masks local convolutions of equal FLOPs: 819,887 parameters, 0.12 G multiply-adds.

Paper: 6.48 % error (table 4).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/ablations/attention56_local-conv-equal-flops_cifar10.py
"""

_base_ = '../attention56_cifar10.py'

# Units of 7, 13 and 17 channels in place of 16, 32 and 64 bring every mask's multiply-adds nearest to those of the
# encoder-decoder. The paper does not say how it equalised them.
model = dict(
    backbone=dict(mask='local_conv', arch=dict(_delete_=True, base='attention56-cifar', mask_widths=(7, 13, 17)))
)
