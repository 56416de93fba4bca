# CIFAR-10 for choosing a recipe: a tenth of the training images (5,000) is held out and validates; the test images
# choose nothing and are for tools/test.py alone.
_base_ = './cifar10_memory_bs64.py'

folds = dict(type='KFoldDataset', num_splits=10, fold=0, seed=0, dataset=_base_.train_dataloader.dataset.dataset)
train_dataloader = dict(dataset=dict(dataset=dict(_delete_=True, test_mode=False, **folds)))
val_dataloader = dict(dataset=dict(_delete_=True, test_mode=True, **folds))
