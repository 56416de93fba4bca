# Adam as in the authors' code; training ends when BLEU-4 on val has not risen for ten epochs.
_base_ = '../default_runtime.py'

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=2e-4))
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1, save_best='caption/BLEU-4', rule='greater'))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EarlyStoppingHook', monitor='caption/BLEU-4', rule='greater', patience=10, min_delta=0),
]
auto_scale_lr = dict(base_batch_size=64)
