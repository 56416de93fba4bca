"""SE-ResNet-50 on ImageNet in PyTorch's graph: 28,088,024 parameters, 4.09 G multiply-adds at 224.

The stride is on the 3x3 convolutions and the pooling of the stem is padded, as in MMPretrain and timm.
MMPretrain's zoo: 77.74 % top-1 and 93.84 % top-5 accuracy. With network access its weights are loaded by
mmpretrain.get_model('se-resnet50_imagenet', pretrained=True). The graph of the authors' Caffe file is in
se-resnet50-caffe_imagenet.py; weights of one are wrong in the other. The recipe is that of the paper.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 128 images, the schedule's batch:

    bash tools/dist_train.sh configs/senet/se-resnet50_imagenet.py 8
"""

_base_ = './se-resnet50-caffe_imagenet.py'

model = dict(backbone=dict(style='pytorch', caffe_pool=False))
