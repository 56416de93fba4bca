"""Show, Attend and Tell with hard attention on Flickr30k: 55,365,034 parameters, of which VGG-19 has 20,024,384.

Paper: BLEU-1 to BLEU-4 66.9 / 43.9 / 29.6 / 19.9 %.
Data: data/flickr30k/dataset_flickr30k.json and data/flickr30k/flickr30k-images/*.jpg; then the vocabulary, once:

    python tools/dataset_converters/caption_vocabulary.py configs/captioning/sat-hard_vgg19_flickr30k.py
    python tools/train.py configs/captioning/sat-hard_vgg19_flickr30k.py
"""

_base_ = './sat-soft_vgg19_flickr30k.py'
model = dict(attention='hard')
