# mmdet's COCO with boxes and masks, where every draw follows from the seed.
# Data: data/coco/{train2017,val2017,annotations}, or under $MMRESATTN_DATA.
_base_ = 'mmdet::_base_/datasets/coco_instance.py'

data_root = '{{$MMRESATTN_DATA:data}}/coco/'
train_dataloader = dict(
    sampler=dict(_delete_=True, type='ReplaySampler'),
    batch_sampler=dict(type='ReplayAspectRatioBatchSampler'),
    dataset=dict(data_root=data_root, pipeline=[dict(type='ReplaySeed'), *_base_.train_pipeline]),
)
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
