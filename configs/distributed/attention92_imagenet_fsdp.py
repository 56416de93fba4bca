"""Attention-92 on ImageNet by FSDP: 52,466,344 parameters, whose gradients and momentum are divided over the GPUs.

Everything else is that of attention92_imagenet. On 8 GPUs of 32 images, the schedule's batch; see docs/distributed.md:

    bash tools/dist_train.sh configs/distributed/attention92_imagenet_fsdp.py 8
"""

_base_ = '../resattn/attention92_imagenet.py'

runner_type = 'FlexibleRunner'
strategy = dict(
    type='FSDPStrategy',
    model_wrapper=dict(type='MMFullyShardedDataParallel'),
    state_dict_cfg='full',  # one file, as without FSDP
)
