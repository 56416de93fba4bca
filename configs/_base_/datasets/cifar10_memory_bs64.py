# CIFAR-10 whose training images are in memory: read once from the folders of cifar10_bs64.py; whole batches are cropped
# and mirrored on the device. Loading takes no worker and next to no time.
_base_ = './cifar10_bs64.py'

data_preprocessor = dict(
    type='BatchTransformPreprocessor',
    batch_transforms=[dict(type='BatchRandomCrop', padding=4), dict(type='BatchRandomFlip')],
)
train_dataloader = dict(
    num_workers=0,
    collate_fn=dict(type='one_batch'),
    dataset=dict(
        _delete_=True,
        type='InMemory',
        dataset=dict(
            type='ImageFolders',
            data_root=_base_.data_root,
            data_prefix='train',
            pipeline=_base_.test_pipeline,  # nothing random
        ),
    ),
)
