"""Multi-task Attention Branch Network on ResNet-20 and four questions about scikit-learn's digits, at 16x16.

478,296 parameters; no download. The questions: is it even, has it a loop, is it prime, is it more than four?

    python tools/train.py configs/abn/abn-multitask_digits.py
"""

_base_ = '../resattn/attention56_digits.py'

questions = dict(even=[0, 2, 4, 6, 8], loop=[0, 6, 8, 9], prime=[2, 3, 5, 7], large=[5, 6, 7, 8, 9])
model = dict(
    _delete_=True,
    type='AttentionBranchNetwork',
    backbone=dict(type='CIFARResNet', depth=20),
    neck=dict(type='MultiTaskAttentionBranchNeck'),
    head=dict(type='MultiTaskAttentionBranchHead', num_classes=len(questions), tasks=list(questions)),
)

data_preprocessor = dict(num_classes=len(questions))
answers = dict(type='ClassAttributes', attributes=questions)
train_dataloader = dict(dataset=dict(pipeline=[*_base_.train_pipeline[:-1], answers, _base_.train_pipeline[-1]]))
val_dataloader = dict(dataset=dict(pipeline=[*_base_.test_pipeline[:-1], answers, _base_.test_pipeline[-1]]))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='MultiTasksMetric',
    task_metrics={name: [dict(type='Accuracy')] for name in ['all_tasks', 'attention_branch', *questions]},
)
test_evaluator = val_evaluator
