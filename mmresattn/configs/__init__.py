"""New-style configs, in plain Python, of the main networks; those of ``configs/`` say the same.

``with read_base(): from mmresattn.configs.resattn.attention56_imagenet import *`` starts a config of one's own.
"""
