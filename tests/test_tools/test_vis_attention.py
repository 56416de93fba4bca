import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from tests.conftest import ROOT
from tools.analysis_tools import faithfulness
from tools.visualization import vis_attention

TINY = dict(base='attention56-cifar', channels=(8, 8, 8), modules=(1, 1, 0), poolings=(1, 1, 1), t=1, bottom_units=1)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """An image, and a tiny network as config and checkpoint."""
    folder = tmp_path_factory.mktemp('tiny')
    config = folder / 'tiny.py'
    config.write_text(
        f"_base_ = '{ROOT}/configs/resattn/attention56_digits.py'\n"
        f'model = dict(backbone=dict(arch={dict(TINY, _delete_=True)}), head=dict(in_channels=8))\n'
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(Config.fromfile(config).model)
    meta = dict(dataset_meta=dict(classes=[f'digit {i}' for i in range(10)]))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'tiny.pth')
    image = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / 'image.png'), cv2.resize(image, (60, 48)))
    return [str(folder / 'image.png'), str(config), str(folder / 'tiny.pth')]


def test_maps_and_masks(files, tmp_path, capsys):
    main = vis_attention.main
    out = str(tmp_path / 'maps.svg')
    main([*files, '--out', out, '--channels', '2'])
    assert f'; {out} written' in (said := capsys.readouterr().out) and "'pred_class': 'digit " in said
    text = (tmp_path / 'maps.svg').read_text()
    assert text.count('>stage1.attention1 [') == text.count('>stage2.attention1 [') == 2 and '>digit ' in text
    main([*files, '--out', str(tmp_path / 'masks.svg'), '--masks', '--layers', 'backbone.stage2.attention1.map'])
    text = (tmp_path / 'masks.svg').read_text()
    assert '>stage2.attention1<' in text and 'stage1' not in text and 'features after' in text


def test_cam_beside(files, tmp_path, capsys):
    pytest.importorskip('pytorch_grad_cam')
    names = [f'digit{i}' for i in range(10)]
    main = vis_attention.main
    main([*files, '--out', str(tmp_path / 'cam.svg'), '--cam', 'gradcam', '--classes', *names])
    text = (tmp_path / 'cam.svg').read_text()
    assert '>gradcam<' in text and '>stage2.attention1<' in text and '>digit' in text


def test_layers_and_wrong_arguments(files, tmp_path, capsys):
    main = vis_attention.main
    main([*files, '--list-layers'])
    out = capsys.readouterr().out
    assert 'backbone.stage1.attention1.map' in out and out.count('mixed') == 2
    with pytest.raises(KeyError, match=r"No attention map named \['stage1'\]"):
        main([*files, '--layers', 'stage1'])
    with pytest.raises(FileNotFoundError, match='none.png'):
        main(['none.png', *files[1:]])
    for wrong, message in [
        (['--masks', '--cam', 'gradcam'], '--masks takes'),
        (['--channels', '2', '--reduction', 'mean'], '--channels is for'),
        (['--indices', '2'], 'leave out the image'),
    ]:
        with pytest.raises(SystemExit):
            main([*files, *wrong])
        assert message in capsys.readouterr().err


def test_table_of_faithfulness(files, tmp_path, capsys):
    pytest.importorskip('pytorch_grad_cam')
    main = faithfulness.main
    argv = [*files[1:], '--max-images', '4', '--batch-size', '2', '--steps', '4', '--percentiles', '50']
    main([*argv, '--out', str(tmp_path / 'a' / 'table.md')])
    table = (tmp_path / 'a' / 'table.md').read_text()
    names = ['stage1.attention1', 'stage2.attention1', 'gradcam', 'centre', 'random', 'random, smooth']
    assert [line.split(' | ')[0].strip('| ') for line in table.splitlines()[4:]] == names
    assert table.startswith('tiny, 4 test images, 4 steps') and table.count(' ± ') == 1 + 3 * 6
    main([*argv, '--out', str(tmp_path / 'again.md')])
    assert (tmp_path / 'again.md').read_text() == table
