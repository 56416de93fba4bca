import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, MODELS, DefaultScope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import nn

from mmresattn.models.layers import edit_attention, record_attention

BACKBONE = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8)
HEAD = dict(num_classes=2, mean=[10.0, -3], std=[4.0, 0.5])
LOSSES = {
    'l1': lambda d: d.abs(),
    'l2': lambda d: d**2,
    'smooth_l1': lambda d: torch.where(d.abs() < 1, d**2 / 2, d.abs() - 0.5),
}


def build(loss='l1', attention=True, **head):
    torch.manual_seed(0)
    head = HEAD | dict(loss=loss) | head
    if attention:
        cfg = dict(type='AttentionBranchNetwork', backbone=BACKBONE | dict(out_indices=(3,)),
                   neck=dict(type='AttentionBranchRegressionNeck', hidden_maps=8),
                   head=dict(type='AttentionBranchRegressionHead', **head))  # fmt: skip
    else:
        cfg = dict(type='ImageClassifier', backbone=BACKBONE, neck=dict(type='GlobalAveragePooling'),
                   head=dict(type='RegressionHead', in_channels=64, **head))  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.double().eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def valued(*values):
    samples = [DataSample() for _ in values]
    for sample, value in zip(samples, values):
        sample.set_field(value, 'gt_value')
    return samples


@pytest.mark.parametrize('loss', LOSSES)
def test_both_branches_give_values_and_losses_by_their_formulas(images, loss):
    model = build(loss)
    targets = torch.tensor([[8.0, -3], [12, -2.5], [10, -4]], dtype=torch.float64)
    mean, std = (torch.tensor(HEAD[name], dtype=torch.float64) for name in ('mean', 'std'))
    samples = valued(*targets.tolist())
    with record_attention(model) as maps:
        losses = model(images, samples, mode='loss')
    assert list(maps) == ['neck.map'] and maps['neck.map'].shape == (3, 1, 4, 4)
    # By hand, from the extractor's features on.
    g = model.backbone(images)[-1]
    neck, head = model.neck, model.head
    hidden = neck.class_maps(neck.norm(neck.stage(g)))
    linear = neck.class_scores[-1]
    attention = hidden.mean((2, 3)) @ linear.weight.T + linear.bias
    perception = head.stage((1 + maps['neck.map']) * g).mean((2, 3)) @ head.fc.weight.T + head.fc.bias
    normed = (targets - mean) / std
    assert torch.allclose(losses['attention_loss'], LOSSES[loss](attention - normed).mean(), atol=1e-12)
    assert torch.allclose(losses['perception_loss'], LOSSES[loss](perception - normed).mean(), atol=1e-12)
    values = perception * std + mean
    assert torch.allclose(losses['perception_mae'], (values - targets).abs().mean())
    assert torch.allclose(model(images), values)
    for i, sample in enumerate(model(images, samples, mode='predict')):
        assert torch.allclose(sample.pred_value, values[i])
        assert torch.allclose(sample.attention_branch.pred_value, (attention * std + mean)[i])
    with edit_attention(model, {'neck.map': torch.zeros_like}):
        assert not torch.allclose(model(images), values)


def test_every_weight_learns(images):
    model = build().train()
    losses = model(images, valued([8.0, -3], [12.0, -2.5], [10.0, -4]), mode='loss')
    (losses['attention_loss'] + losses['perception_loss']).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_plain_network_gives_values_too(images):
    model = build(attention=False)
    fc = model.head.fc(model.neck(model.backbone(images))[-1])
    assert torch.allclose(model(images), fc * torch.tensor([4.0, 0.5]) + torch.tensor([10.0, -3]))
    assert model(images, mode='predict')[1].pred_value.shape == (2,)


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="loss is one of .* not 'huber'"):
        build('huber')
    with pytest.raises(ValueError, match='std is positive'):
        build(std=0.0)


def test_errors_of_values():
    generator = np.random.default_rng(0)
    targets, predicted = generator.normal(size=(2, 50, 2))
    metric = METRICS.build(dict(type='ValueMetric'))
    samples = [dict(pred_value=torch.tensor(one), gt_value=two.tolist()) for one, two in zip(predicted, targets)]
    metric.process({}, samples)
    found = metric.compute_metrics(metric.results)
    for i in range(2):
        assert found[f'MAE_{i}'] == pytest.approx(np.abs(predicted - targets)[:, i].mean())
        # of residuals and of a fit by the mean
        r2 = 1 - ((targets - predicted)[:, i] ** 2).mean() / targets[:, i].var()
        assert found[f'R2_{i}'] == pytest.approx(r2)
    assert found['MAE'] == pytest.approx(np.abs(predicted - targets).mean())
    metric.results = []
    metric.process({}, [dict(pred_value=torch.tensor([1.0]), gt_value=[2.0])] * 2)
    assert np.isnan(metric.compute_metrics(metric.results)['R2'])


@pytest.fixture
def folder(tmp_path):
    """Grey squares whose number is how bright they are."""
    (tmp_path / 'images').mkdir()
    lines = ['file,brightness']
    for i in range(12):
        value = 20 * i + 10
        cv2.imwrite(str(tmp_path / f'images/{i}.png'), np.full((64, 64, 3), value, np.uint8))
        lines.append(f'{i}.png,{value}')
    (tmp_path / 'values.csv').write_text('\n'.join(lines))
    return tmp_path


def data(folder, **options):
    return dict(type='ValueList', data_root=str(folder), data_prefix='images', ann_file='values.csv') | options


@pytest.mark.parametrize(
    ('lines', 'error', 'message'),
    [
        ('file,age\n0.png,3\n1.png,', ValueError, 'line 3: age is missing'),
        ('file,age\n0.png,3\n1.png,old', ValueError, "line 3: age is 'old'; expected a finite number"),
        ('file,age\n0.png,nan\n1.png,4', ValueError, "line 2: age is 'nan'"),
        ('file,age\n0.png,3,4\n1.png,4', ValueError, 'line 2: 3 cells instead of 2'),
        ('file,age\n0.png,3\n0.png,4', ValueError, 'line 3: 0.png stands twice'),
        ('0.png,3\n1.png,4', ValueError, 'expected a first line with names of columns'),
        ('file,age\n0.png,3\n1.png,3', ValueError, 'age is 3 for every image'),
        ('file,age\n0.png,3\nnone.png,4', FileNotFoundError, '1 of 2 images are not in .* such as none.png'),
    ],
)
def test_lists_are_checked(folder, lines, error, message):
    (folder / 'values.csv').write_text(lines)
    with DefaultScope.overwrite_default_scope('mmpretrain'), pytest.raises(error, match=message):
        DATASETS.build(data(folder))


def test_learns_the_brightness_of_images(folder):
    torch.manual_seed(0)
    loader = dict(batch_size=6, num_workers=0, collate_fn=dict(type='default_collate'))
    pipeline = [dict(type='LoadCheckedImage'), dict(type='PackInputs', algorithm_keys=['gt_value'])]
    dataset = data(folder, pipeline=pipeline)
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            data_preprocessor=dict(num_classes=1, mean=[127.5] * 3, std=[127.5] * 3),
            model=dict(
                type='AttentionBranchNetwork',
                backbone=BACKBONE | dict(out_indices=(3,)),
                neck=dict(type='AttentionBranchRegressionNeck', hidden_maps=8),
                head=dict(type='AttentionBranchRegressionHead', num_classes=1, mean=120.0, std=70.0, loss='smooth_l1'),
            ),
            train_dataloader=loader | dict(sampler=dict(type='DefaultSampler', shuffle=True), dataset=dataset),
            val_dataloader=loader
            | dict(sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset | dict(test_mode=True)),
            randomness=dict(seed=0),
            val_evaluator=dict(type='ValueMetric'),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=3e-3)),
            train_cfg=dict(by_epoch=True, max_epochs=15, val_interval=15),
            val_cfg=dict(),
            work_dir=str(folder / 'work'),
            log_level='WARNING',
        )
    )
    runner = Runner.from_cfg(cfg)
    runner.train()
    scores = {name: value.current() for name, value in runner.message_hub.log_scalars.items() if 'value' in name}
    assert scores['val/value/R2'] > 0.5 and scores['val/value/MAE'] < 40
