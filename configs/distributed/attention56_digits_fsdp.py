"""Attention-56 (CIFAR net) on the digits by FSDP: gradients and momentum are divided over the processes.

For trying out on two GPUs; on a CPU with --cfg-options strategy.model_wrapper.device_id=cpu. See docs/distributed.md.

    bash tools/dist_train.sh configs/distributed/attention56_digits_fsdp.py 2
"""

_base_ = '../resattn/attention56_digits.py'

runner_type = 'FlexibleRunner'
strategy = dict(
    type='FSDPStrategy',
    model_wrapper=dict(type='MMFullyShardedDataParallel'),
    state_dict_cfg='full',  # one file, as without FSDP
)
custom_hooks = _base_.custom_hooks[:-1]  # without EMAHook, which was not tried with a divided model
