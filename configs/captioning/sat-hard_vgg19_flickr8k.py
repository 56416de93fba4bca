"""Show, Attend and Tell with hard attention on Flickr8k: 55,365,034 parameters, of which VGG-19 has 20,024,384.

Paper: BLEU-1 to BLEU-4 67.0 / 45.7 / 31.4 / 21.3 %.
Data: data/flickr8k/dataset_flickr8k.json and data/flickr8k/Flickr8k_Dataset/*.jpg; then the vocabulary, once:

    python tools/dataset_converters/caption_vocabulary.py configs/captioning/sat-hard_vgg19_flickr8k.py
    python tools/train.py configs/captioning/sat-hard_vgg19_flickr8k.py
"""

_base_ = './sat-soft_vgg19_flickr8k.py'
model = dict(attention='hard')
