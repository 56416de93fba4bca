"""Attention-92 on ImageNet by DeepSpeed's ZeRO, stage 2: 52,466,344 parameters; gradients and momentum are divided.

Everything else is that of attention92_imagenet. On 8 GPUs of 32 images, the schedule's batch; needs deepspeed, see
docs/distributed.md:

    bash tools/dist_train.sh configs/distributed/attention92_imagenet_deepspeed.py 8
"""

_base_ = '../resattn/attention92_imagenet.py'

runner_type = 'FlexibleRunner'
strategy = dict(
    type='DeepSpeedStrategy',
    zero_optimization=dict(stage=2),
    config=dict(zero_allow_untested_optimizer=True),  # without it ZeRO takes no SGD
)
optim_wrapper = dict(type='DeepSpeedOptimWrapper')
