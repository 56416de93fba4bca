import csv

import mmengine
import pytest
import responses
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch.optim.swa_utils import update_bn

import mmresattn  # noqa: F401
from mmresattn.apis import load_classifier
from tests.conftest import ROOT
from tools import test as test_tool
from tools.analysis_tools import robustness

DIGITS = f'{ROOT}/configs/resattn/attention56_digits.py'
TINY = dict(_delete_=True, base='attention56-cifar', channels=(8, 8, 8), modules=(1, 1, 0), poolings=(1, 1, 1), t=1,
            bottom_units=1, units_after=(0, 0, 0))  # fmt: skip


def tiny_config(path, residual=True, **fields):
    backbone = dict(arch={**TINY, **fields}, attention_residual_learning=residual)
    path.write_text(f"_base_ = '{DIGITS}'\nmodel = dict(backbone={backbone}, head=dict(in_channels=8))\n")
    return str(path)


@pytest.fixture(scope='module')
def barely_trained(tmp_path_factory):
    """A tiny network after a few steps, as config and checkpoint."""
    folder = tmp_path_factory.mktemp('tiny')
    config = tiny_config(folder / 'tiny.py')
    model, loader = load_classifier(config, None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()
    data = [model.data_preprocessor(batch, training=True) for batch in loader]
    for batch in data * 4:
        loss = model.loss(**batch)['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    update_bn((batch['inputs'] for batch in data), model)
    checkpoint = str(folder / 'tiny.pth')
    torch.save(dict(state_dict=model.state_dict(), meta={}), checkpoint)
    return config, checkpoint


def rows(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def test_accuracy_at_eps_0_is_that_of_the_test_script(barely_trained, tmp_path, capsys):
    metrics = str(tmp_path / 'metrics.json')
    test_tool.main([*barely_trained, '--work-dir', str(tmp_path), '--out', metrics, '--out-item', 'metrics'])
    robustness.main([*barely_trained, '--eps', '0', '--steps', '1', '--out', str(tmp_path)])
    found = rows(tmp_path / 'robustness.csv')
    right = [float(row['accuracy']) * 360 / 100 for row in found]
    clean = mmengine.load(metrics)['accuracy/top1'] * 360 / 100
    assert right == pytest.approx([round(clean)] * 2, abs=1e-6) and clean == pytest.approx(round(clean), abs=1e-3)
    assert 36 < clean < 360  # neither chance nor all


def test_robustness_of_two_networks(barely_trained, tmp_path, capsys, saved_figures):
    config = tiny_config(tmp_path / 'naive.py', residual=False)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        fresh = MODELS.build(Config.fromfile(config).model)
    torch.save(fresh.state_dict(), tmp_path / 'fresh.pth')
    argv = [*barely_trained, config, str(tmp_path / 'fresh.pth'), '--eps', '8', '0', '32', '--steps', '2',
            '--max-images', '30', '--cfg-options', 'test_dataloader.batch_size=20']  # fmt: skip
    robustness.main([*argv, '--out', str(tmp_path / 'a' / 'b')])
    out = capsys.readouterr().out
    assert 'Accuracy (%) under attack' in out and '100%' in out
    robustness.main([*argv, '--out', str(tmp_path / 'again')])
    found = rows(tmp_path / 'a' / 'b' / 'robustness.csv')
    assert found == rows(tmp_path / 'again' / 'robustness.csv')
    expected = [(m, a, e) for m in ('tiny', 'naive') for a in ('fgsm', 'pgd') for e in ('0', '8', '32')]
    assert [(row['model'], row['attack'], row['eps']) for row in found] == expected
    accuracy = [float(row['accuracy']) for row in found]
    assert all(n == pytest.approx(round(n * 0.3) / 0.3) for n in accuracy)  # of 30 images
    assert accuracy[0] == accuracy[3] > accuracy[5]
    lines = (tmp_path / 'a' / 'b' / 'robustness.md').read_text().splitlines()
    assert lines[0] == '| model | attack | eps 0 | eps 8 | eps 32 |' and len(lines) == 2 + 4
    assert lines[3] == f'| tiny | pgd | {" | ".join(f"{n:.2f}" for n in accuracy[3:6])} |'
    curves = saved_figures['robustness.png'].axes[0].lines
    assert [list(curve.get_xdata()) for curve in curves] == 4 * [[0, 8, 32]]
    assert [n for curve in curves for n in curve.get_ydata()] == pytest.approx(accuracy)


def test_max_images_are_a_sample(barely_trained):
    """One that the seed decides, from all over the data set."""
    labels = {}
    for seed in (0, 0, 1):
        _, loader = load_classifier(*barely_trained, max_images=40, seed=seed)
        drawn = [sample.gt_label.item() for batch in loader for sample in batch['data_samples']]
        assert labels.setdefault(seed, drawn) == drawn and len(drawn) == 40
    assert labels[0] != labels[1] and len(set(labels[0])) > 7


def test_robustness_says_what_is_wrong(barely_trained, tmp_path, capsys):
    main = robustness.main
    config, checkpoint = barely_trained
    with pytest.raises(SystemExit):
        main([config])
    assert 'every config needs its checkpoint' in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match='no checkpoint none.pth'):
        main([config, 'none.pth'])
    with pytest.raises(ValueError, match='from 0 to 255'):
        main([config, checkpoint, '--eps', '-1'])
    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    del weights['head.fc.bias']
    torch.save(weights, tmp_path / 'part.pth')
    with pytest.raises(RuntimeError, match=r'(?s)part.pth does not fit the model.*head.fc.bias'):
        main([config, str(tmp_path / 'part.pth')])
    with pytest.raises(RuntimeError, match='does not fit the model'):
        main([DIGITS, checkpoint])
    with pytest.raises(ValueError, match='data_preprocessor=dict'):
        main([config, checkpoint, '--cfg-options', 'data_preprocessor.mean=None'])


def test_responses_of_three_networks(barely_trained, tmp_path, capsys, saved_figures):
    naive = tiny_config(tmp_path / 'naive.py', residual=False, modules=(2, 1, 1))
    plain = tiny_config(tmp_path / 'plain.py', modules=(0, 0, 0), units_after=(4, 4, 4))
    responses.main(['--net', 'residual', *barely_trained, '--net', 'naive', naive, 'none', '--net', 'plain', plain,
                       'none', '--max-images', '30', '--out', str(tmp_path / 'out')])  # fmt: skip
    out = capsys.readouterr().out
    assert 'Mean absolute response' in out and '100%' in out and 'init_weights' not in out
    found = rows(tmp_path / 'out' / 'responses.csv')
    nets = {label: [row for row in found if row['net'] == label] for label in ('residual', 'naive', 'plain')}
    assert sum(map(len, nets.values())) == len(found)
    model, loader = load_classifier(*barely_trained, max_images=30)
    expected = responses.stage_responses(model, loader)
    assert {row['block']: float(row['response']) for row in nets['residual']} == pytest.approx(expected)
    for net in nets.values():
        raw = {row['block']: float(row['response']) for row in net}
        assert {row['block']: float(row['normalised']) for row in net} == pytest.approx(
            {name: value / raw['stage1'] for name, value in raw.items()}
        )
        assert all(0 < value < 100 for value in raw.values())
    lines = (tmp_path / 'out' / 'responses.md').read_text().splitlines()
    assert lines[2] == '| output | residual | naive | plain |'
    assert [line.split(' | ')[0] for line in lines[4:]] == [
        '| stage1.attention1', '| stage1.attention2', '| stage1', '| stage2.attention1', '| stage2',
        '| stage3.attention1', '| stage3']  # fmt: skip
    assert lines[6].startswith(f'| stage1 | 1 ({expected["stage1"]:.3g}) | 1 (') and lines[5].endswith('|  |')
    curves = {curve.get_label(): curve.get_ydata() for curve in saved_figures['responses.png'].axes[0].lines}
    for label, net in nets.items():
        drawn = [float(row['normalised']) for row in net if '.' in row['block']]
        assert curves[label] == pytest.approx(drawn, rel=1e-3)


def test_responses_says_what_is_wrong(barely_trained, capsys):
    main = responses.main
    with pytest.raises(SystemExit):
        main(['--net', 'a', *barely_trained, '--net', 'a', *barely_trained])
    assert 'labels of --net must differ' in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match='no checkpoint gone.pth'):
        main(['--net', 'a', barely_trained[0], 'gone.pth'])
    with pytest.raises(ValueError, match='max_images is at least 1'):
        main(['--net', 'a', *barely_trained, '--max-images', '0'])
