"""What the command lines and ``load_classifier`` say of checkpoints that they cannot use."""

import pickle
from itertools import product

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from safetensors.torch import save_file

from mmresattn.apis import load_classifier
from tests.conftest import ROOT
from tools import test as test_tool
from tools import train as train_tool

CONFIG = """
_base_ = '{root}/configs/resattn/attention56_digits.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, base='attention56-cifar', channels=(8, 8, 8), stem_channels=8)),
    head=dict(in_channels=8),
)
test_dataloader = dict(dataset=dict(indices=8))
"""
DEEPER = {'model.backbone.arch.base': 'attention92-cifar'}
FIVE = {'model.head.num_classes': 5}


class Hostile:
    def __reduce__(self):
        return print, ('HOSTILE CODE RAN',)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A config, and checkpoints: one that fits, and those that cannot be used."""
    folder = tmp_path_factory.mktemp('failures')
    (folder / 'tiny.py').write_text(CONFIG.format(root=ROOT))
    cfg = Config.fromfile(folder / 'tiny.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for name, options in {'good': {}, 'deeper': DEEPER, 'five': FIVE}.items():
            changed = cfg.copy()
            changed.merge_from_dict(options)
            model = MODELS.build(changed.model)
            torch.save(model.state_dict(), folder / f'{name}.pth')
            save_file(model.state_dict(), folder / f'{name}.safetensors')
    (folder / 'torn.pth').write_bytes((folder / 'good.pth').read_bytes()[:-100])
    (folder / 'torn.safetensors').write_bytes((folder / 'good.safetensors').read_bytes()[:-100])
    torch.save({'state_dict': {}, 'more': Hostile()}, folder / 'hostile.pth')
    return folder


MESSAGES = {
    'deeper.pth': (RuntimeError, r'deeper.pth does not fit the model: .* not in the model \(backbone.stage1.att'),
    'deeper.safetensors': (RuntimeError, r'deeper.safetensors does not fit the model'),
    'five.pth': (
        RuntimeError,
        r'five.pth .* 2 of another shape \(head.fc.weight \(5, 8\) for \(10, 8\), .*num_classes',
    ),
    'torn.pth': (RuntimeError, r'torn.pth \([\d,]+ bytes\) is damaged'),
    'torn.safetensors': (RuntimeError, r'torn.safetensors \([\d,]+ bytes\) is damaged'),
    'hostile.pth': (
        pickle.UnpicklingError,
        r'hostile.pth .* holds more than weights.*TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1',
    ),
    'none.pth': (FileNotFoundError, r'There is no checkpoint .*none.pth'),
}


@pytest.mark.parametrize('name', MESSAGES)
def test_load_classifier_says_what_is_wrong(files, capsys, name):
    kind, message = MESSAGES[name]
    with pytest.raises(kind, match=message):
        load_classifier(str(files / 'tiny.py'), str(files / name))
    assert 'HOSTILE' not in capsys.readouterr().out


@pytest.mark.parametrize(('name', 'options'), [('good.pth', None), ('good.safetensors', None), ('five.pth', FIVE),
                                               ('deeper.safetensors', DEEPER)])  # fmt: skip
def test_what_fits_is_loaded(files, name, options):
    model, _ = load_classifier(str(files / 'tiny.py'), str(files / name), options)
    given = torch.load(files / f'{name.split(".")[0]}.pth', weights_only=True)
    assert model.state_dict().keys() == given.keys()
    assert all(torch.equal(value.cpu(), given[key]) for key, value in model.state_dict().items())


def run(tool, config, checkpoint, work_dir):
    """A command line, in this process."""
    module, *args = {
        'test': [test_tool, config, checkpoint],
        'load_from': [train_tool, config, '--cfg-options', f'load_from={checkpoint}'],
        'resume': [train_tool, config, '--resume', checkpoint],
    }[tool]
    module.main([*map(str, args), '--work-dir', str(work_dir)])


@pytest.mark.parametrize(
    ('tool', 'name'),
    [
        *product(('test', 'load_from', 'resume'), ('torn.pth', 'hostile.pth')),
        *product(('test', 'load_from'), ('deeper.pth', 'deeper.safetensors')),
        ('test', 'five.pth'),
    ],
)
def test_command_lines_say_what_is_wrong(files, tmp_path, capsys, tool, name):
    kind, message = MESSAGES[name]
    with pytest.raises(kind, match=message):
        run(tool, files / 'tiny.py', files / name, tmp_path)
    said = ''.join(capsys.readouterr())
    assert 'HOSTILE' not in said and 'Epoch(' not in said


def test_training_images_are_prepared_as_test_images_are(files):
    args = str(files / 'tiny.py'), str(files / 'good.pth')
    (_, train), (_, test) = load_classifier(*args, split='train'), load_classifier(*args)
    assert str(train.dataset.pipeline) == str(test.dataset.pipeline) and train.batch_size == test.batch_size
    assert len(train.dataset) != len(test.dataset)
