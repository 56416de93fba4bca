import re

import torch
from checkpointing import saved_storages
from torch import nn

from mmresattn.models import ResidualAttentionNet
from mmresattn.models.layers import AttentionModule, checkpoint

SMALL = dict(base='attention56', stem_channels=8, channels=(16, 16, 16, 16), modules=(1, 1, 0, 0))


def test_saved_bytes_of_a_net_that_is_counted_by_hand():
    net = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 30), nn.Sigmoid())
    x = torch.randn(7, 10, requires_grad=True)
    with saved_storages(net) as saved:
        net(x)
    # The input, the output of the ReLU (which the next layer keeps too) and that of the sigmoid, in float32.
    assert sum(saved.values()) == 4 * 7 * (10 + 20 + 30)
    with saved_storages(net) as saved:
        checkpoint(net, x)
    assert sum(saved.values()) == 4 * 7 * 10


def test_checkpointed_modules_keep_their_inputs_alone():
    images = torch.randn(2, 3, 64, 64)
    found = {}
    for with_cp in (False, True):
        net = ResidualAttentionNet(SMALL, with_cp=with_cp).train()
        with saved_storages(net) as saved:
            net(images)
        found[with_cp] = sum(saved.values())
    with saved_storages(net) as expected:
        features = [net.stem(images)]  # all of them, so that no address is taken twice
        for stage in net.stages:
            for block in getattr(net, stage):
                x = features[-1]
                if isinstance(block, AttentionModule):
                    expected[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
                    with torch.no_grad():
                        features.append(block(x))
                    features[-1].requires_grad_()
                else:  # a unit beside the modules keeps what it needs
                    features.append(block(x))
        features.append(net.norm4(features[-1]))
    assert found[True] == sum(expected.values()) < found[False] / 2


def test_script(python):
    done = python('.dev_scripts/checkpointing.py', 'configs/resattn/attention56_digits.py', '--size', '16',
                  '--rounds', '1')  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = re.findall(r'\| (False|True) \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \| ([\d.]+) to ([\d.]+) \|', done.stdout)
    assert [row[0] for row in rows] == ['False', 'True']
    assert float(rows[0][1]) > 2 * float(rows[1][1]) > 0 and all(float(row[4]) > 0 for row in rows)
