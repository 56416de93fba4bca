"""VGG-att3-concat-pc on CUB-200-2011: 20,099,851 parameters.

Attention over layers 7, 10 and 13, scored by <u, l + g>; all together are classified.
The paper has no figure that is known here.
Data: data/cub200/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att3-pc_cub200.py
"""

_base_ = './vgg-att2-pc_cub200.py'

load_from = 'work_dirs/vgg-att3-pc_cifar100/epoch_300.pth'

# The authors' files do not fit together here: they pool and enlarge to another size than their first level expects.
# That level has 32x32 positions in all of their networks, so the map is pooled to 32x32.
model = dict(
    backbone=dict(
        out_indices=(0, 1, 2),
        arch=dict(
            stages=(
                [64, 0.3, 64, 128, 0.4, 128, 256, 0.4, 256, 0.4, 256, ('to', 32)],
                [('max', 2), 512, 0.4, 512, 0.4, 512],
                [('max', 2), 512, 0.4, 512, 0.4, 512],
            ),
        ),
    ),
)
