# CIFAR-100 as CIFAR-10 in cifar10_memory_bs64.py, with the mean and deviation of CIFAR-10 that the code of
# the Attention Branch Network takes for both. The scores of its attention branch are evaluated, too.
_base_ = './cifar10_memory_bs64.py'

data_root = '{{$MMRESATTN_DATA:data}}/cifar100'
data_preprocessor = dict(num_classes=100)
train_dataloader = dict(batch_size=128, sampler=dict(infinite=False), dataset=dict(dataset=dict(data_root=data_root)))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='Accuracy', topk=(1, 5)),
    dict(type='MultiTasksMetric', task_metrics=dict(attention_branch=[dict(type='Accuracy', topk=(1, 5))])),
]
test_evaluator = val_evaluator
