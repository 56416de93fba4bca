# mmseg's ADE20K, where every draw follows from the seed.
# Data: data/ade/ADEChallengeData2016/{images,annotations}/{training,validation}/*, or under $MMRESATTN_DATA.
_base_ = 'mmseg::_base_/datasets/ade20k.py'

data_root = '{{$MMRESATTN_DATA:data}}/ade/ADEChallengeData2016'
train_dataloader = dict(
    sampler=dict(_delete_=True, type='ReplaySampler', infinite=True),
    dataset=dict(data_root=data_root, pipeline=[dict(type='ReplaySeed'), *_base_.train_pipeline]),
)
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
