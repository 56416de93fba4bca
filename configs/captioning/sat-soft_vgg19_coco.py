"""Show, Attend and Tell with soft attention on COCO captions: 55,365,034 parameters, of which VGG-19 has 20,024,384.

Paper: BLEU-1 to BLEU-4 70.7 / 49.2 / 34.4 / 24.3 %.
Data: data/coco/dataset_coco.json (Karpathy) and data/coco/{train2014,val2014}/*.jpg; then the vocabulary, once:

    python tools/dataset_converters/caption_vocabulary.py configs/captioning/sat-soft_vgg19_coco.py
    python tools/train.py configs/captioning/sat-soft_vgg19_coco.py
"""

_base_ = [
    '../_base_/models/show_attend_tell_vgg19.py',
    '../_base_/datasets/karpathy_captions.py',
    '../_base_/schedules/show_attend_tell.py',
]
data_root = '{{$MMRESATTN_DATA:data}}/coco'
model = dict(vocabulary=f'{data_root}/vocabulary.txt')
where = dict(data_root=data_root, ann_file='dataset_coco.json')
train_dataloader = dict(dataset=dict(**where, split=['train', 'restval']))
val_dataloader = dict(dataset=where)
test_dataloader = dict(dataset=where)
