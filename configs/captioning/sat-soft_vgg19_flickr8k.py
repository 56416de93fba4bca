"""Show, Attend and Tell with soft attention on Flickr8k: 55,365,034 parameters, of which VGG-19 has 20,024,384.

Paper: BLEU-1 to BLEU-4 67.0 / 44.8 / 29.9 / 19.5 %.
Data: data/flickr8k/dataset_flickr8k.json and data/flickr8k/Flickr8k_Dataset/*.jpg; then the vocabulary, once:

    python tools/dataset_converters/caption_vocabulary.py configs/captioning/sat-soft_vgg19_flickr8k.py
    python tools/train.py configs/captioning/sat-soft_vgg19_flickr8k.py
"""

_base_ = [
    '../_base_/models/show_attend_tell_vgg19.py',
    '../_base_/datasets/karpathy_captions.py',
    '../_base_/schedules/show_attend_tell.py',
]
data_root = '{{$MMRESATTN_DATA:data}}/flickr8k'
model = dict(vocabulary=f'{data_root}/vocabulary.txt')
where = dict(data_root=data_root, ann_file='dataset_flickr8k.json', data_prefix=dict(img_path='Flickr8k_Dataset'))
train_dataloader = dict(dataset=dict(**where, split='train'))
val_dataloader = dict(dataset=where)
test_dataloader = dict(dataset=where)
# RMSProp for this data set, as in the paper
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='RMSprop', lr=1e-4, alpha=0.95, momentum=0.9, centered=True, eps=1e-4)
)
