"""An example of a config in plain Python (MMEngine's "new style"); ``configs/`` has all networks in classic style.

``with read_base(): from mmresattn.configs.resattn.attention56_digits import *`` starts a config of one's own.
"""
