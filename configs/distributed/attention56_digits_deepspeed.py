"""Attention-56 (CIFAR net) on the digits by DeepSpeed's ZeRO, stage 1: momentum is divided over the processes.

For trying out on two GPUs; needs deepspeed, see docs/distributed.md.

    bash tools/dist_train.sh configs/distributed/attention56_digits_deepspeed.py 2
"""

_base_ = '../resattn/attention56_digits.py'

runner_type = 'FlexibleRunner'
strategy = dict(
    type='DeepSpeedStrategy',
    zero_optimization=dict(stage=1),
    config=dict(zero_allow_untested_optimizer=True),  # without it ZeRO takes no SGD
)
optim_wrapper = dict(type='DeepSpeedOptimWrapper')
custom_hooks = _base_.custom_hooks[:-1]  # without EMAHook, which was not tried with a divided model
