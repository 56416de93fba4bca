# mmseg's Cityscapes, where every draw follows from the seed.
# Data: data/cityscapes/{leftImg8bit,gtFine}/{train,val}/<city>/*, or under $MMRESATTN_DATA, with the files
# *_labelTrainIds.png of mmseg's tools/dataset_converters/cityscapes.py.
_base_ = 'mmseg::_base_/datasets/cityscapes.py'

data_root = '{{$MMRESATTN_DATA:data}}/cityscapes'
train_dataloader = dict(
    sampler=dict(_delete_=True, type='ReplaySampler', infinite=True),
    dataset=dict(data_root=data_root, pipeline=[dict(type='ReplaySeed'), *_base_.train_pipeline]),
)
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
