# CIFAR-10 in memory, for training by epochs of whole batches.
_base_ = './cifar10_memory_bs64.py'

train_dataloader = dict(drop_last=True, sampler=dict(infinite=False))
