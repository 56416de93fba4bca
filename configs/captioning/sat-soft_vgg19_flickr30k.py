"""Show, Attend and Tell with soft attention on Flickr30k: 55,365,034 parameters, of which VGG-19 has 20,024,384.

Paper: BLEU-1 to BLEU-4 66.7 / 43.4 / 28.8 / 19.1 %.
Data: data/flickr30k/dataset_flickr30k.json and data/flickr30k/flickr30k-images/*.jpg; then the vocabulary, once:

    python tools/dataset_converters/caption_vocabulary.py configs/captioning/sat-soft_vgg19_flickr30k.py
    python tools/train.py configs/captioning/sat-soft_vgg19_flickr30k.py
"""

_base_ = [
    '../_base_/models/show_attend_tell_vgg19.py',
    '../_base_/datasets/karpathy_captions.py',
    '../_base_/schedules/show_attend_tell.py',
]
data_root = '{{$MMRESATTN_DATA:data}}/flickr30k'
model = dict(vocabulary=f'{data_root}/vocabulary.txt')
where = dict(data_root=data_root, ann_file='dataset_flickr30k.json', data_prefix=dict(img_path='flickr30k-images'))
train_dataloader = dict(dataset=dict(**where, split='train'))
val_dataloader = dict(dataset=where)
test_dataloader = dict(dataset=where)
