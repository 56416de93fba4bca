# What a training by mmdet's configs gets besides: parts of this package, its cures, and operators in place of MMCV's.
custom_imports = dict(
    imports=['mmresattn', 'mmresattn.compat.enabled', 'mmresattn.compat.operators_enabled'], allow_failed_imports=False
)
