"""Show, Attend and Tell with hard attention on COCO captions: 55,365,034 parameters, of which VGG-19 has 20,024,384.

Paper: BLEU-1 to BLEU-4 71.8 / 50.4 / 35.7 / 25.0 %.
Data: data/coco/dataset_coco.json (Karpathy) and data/coco/{train2014,val2014}/*.jpg; then the vocabulary, once:

    python tools/dataset_converters/caption_vocabulary.py configs/captioning/sat-hard_vgg19_coco.py
    python tools/train.py configs/captioning/sat-hard_vgg19_coco.py
"""

_base_ = './sat-soft_vgg19_coco.py'
model = dict(attention='hard')
