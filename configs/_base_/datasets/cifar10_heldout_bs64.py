# CIFAR-10 in memory, for choosing a recipe: the test images choose nothing, so a tenth of the training images (5,000)
# is held out and validates, the test set is for tools/test.py alone.
_base_ = './cifar10_memory_bs64.py'

held_out = dict(type='KFoldDataset', num_splits=10, fold=0, seed=0, dataset=_base_.train_dataloader.dataset.dataset)
train_dataloader = dict(dataset=dict(dataset=dict(_delete_=True, test_mode=False, **held_out)))
val_dataloader = dict(dataset=dict(dataset=dict(_delete_=True, test_mode=True, **held_out)))
