"""Multi-task Attention Branch Network on ResNet-101 as in the authors' PyTorch code, CelebA: 57,710,736 parameters.

As abn-multitask-resnet101_celeba.py, their network in Chainer, but a task's attention score is the mean of its map,
and images are normalised by CelebA's own mean and deviation. Their trained weights for PyTorch come in here.
Data: data/celeba/{img_align_celeba/*.jpg,list_attr_celeba.txt,list_eval_partition.txt}, or under $MMRESATTN_DATA.

    python tools/train.py configs/abn/abn-multitask-resnet101-avg_celeba.py
"""

_base_ = './abn-multitask-resnet101_celeba.py'

model = dict(neck=dict(pool='avg'))
data_preprocessor = dict(mean=[129.1181, 108.5815, 97.7126], std=[79.1791, 74.0378, 73.8686])
