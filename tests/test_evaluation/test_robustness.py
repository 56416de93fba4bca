import builtins
import math

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from torch import nn

from mmresattn.datasets.image_arrays import load_digits
from mmresattn.evaluation import adversarial_accuracy, adversarial_images
from mmresattn.evaluation.robustness import wrong_odds

MEAN, STD = [10.0, 100.0, 150.0], [50.0, 60.0, 70.0]  # of R, G, B


class Flat(nn.Module):
    def forward(self, x):
        return (x.flatten(1),)


def batches(images, labels, size=64):
    samples = [DataSample().set_gt_label(int(label)) for label in labels]
    return [dict(inputs=images[i : i + size], data_samples=samples[i : i + size]) for i in range(0, len(images), size)]


@pytest.fixture(scope='module')
def linear():
    """A linear classifier of two classes, RGB inside; images in BGR, far from 0 and 255; labels with some errors."""
    generator = torch.Generator().manual_seed(0)
    model = ImageClassifier(
        backbone=Flat(),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=2, in_channels=48),
        data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', mean=MEAN, std=STD, to_rgb=True),
    ).eval()
    images = torch.randint(40, 216, (300, 3, 4, 4), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        model.head.fc.weight.copy_(torch.randn(2, 48, generator=generator))
        model.head.fc.bias.copy_(torch.randn(2, generator=generator))
    labels = (_margins(model, images, torch.ones(300, dtype=torch.long))[0] > 0).long()
    wrong = torch.rand(300, generator=generator) < 0.1
    return model, images, labels ^ wrong


def _margins(model, images, labels):
    """By hand, in float64: the margin y * (w.x + b) of images in BGR, and the norm |w|_1 by pixels of 0..255."""
    weight = (model.head.fc.weight[1] - model.head.fc.weight[0]).detach().double().view(3, 4, 4)
    bias = (model.head.fc.bias[1] - model.head.fc.bias[0]).detach().double()
    mean, std = (torch.tensor(value, dtype=torch.double).view(3, 1, 1) for value in (MEAN, STD))
    margin = ((images.double()[:, [2, 1, 0]] - mean) / std * weight).sum((1, 2, 3)) + bias
    return (2 * labels - 1) * margin, (weight / std).abs().sum()


def test_both_attacks_reach_the_optimum_of_a_linear_classifier(linear):
    model, images, labels = linear
    margin, norm = _margins(model, images, labels)
    eps = [0, 1, 2.5, 4, 8, 16]
    expected = {e: 100 * (margin - e * norm > 0).double().mean().item() for e in eps}
    assert len(set(expected.values())) == len(eps) and expected[0] > 85
    found = adversarial_accuracy(model, batches(images, labels), eps)
    assert found == {'fgsm': pytest.approx(expected), 'pgd': pytest.approx(expected)}


def test_a_sure_network_is_attacked_too(linear):
    """Logits a million apart, for which the gradient of cross-entropy is zero, and weights whose gradient is tiny."""
    model, images, labels = linear
    margin, norm = _margins(model, images, labels)
    expected = 100 * (margin - 4 * norm > 0).double().mean().item()
    for scale in (1e6, 1e-8):
        with torch.no_grad():
            model.head.fc.weight.mul_(scale), model.head.fc.bias.mul_(scale)
            found = adversarial_accuracy(model, batches(images, labels), [4])
            model.head.fc.weight.div_(scale), model.head.fc.bias.div_(scale)
        assert found == {'fgsm': {4: pytest.approx(expected)}, 'pgd': {4: pytest.approx(expected)}}


def test_the_loss_has_the_signs_of_cross_entropy():
    scores = torch.randn(20, 7, dtype=torch.double, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.arange(20) % 7
    odds = wrong_odds(scores, labels)
    entropy = F.cross_entropy(scores, labels, reduction='none')
    torch.testing.assert_close(F.softplus(odds), entropy)
    ours, theirs = (torch.autograd.grad(loss.sum(), scores)[0] for loss in (odds, entropy))
    # One gradient is the other by a positive factor for each image.
    torch.testing.assert_close(ours * odds.sigmoid()[:, None], theirs)


@pytest.fixture(scope='module')
def small():
    """A convolutional network after a few steps on digits, with the test digits."""
    digits = load_digits()
    images = torch.from_numpy(digits['images'])[:, None].repeat(1, 3, 1, 1)  # N, 3, 8, 8
    labels = torch.from_numpy(digits['labels'])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.ReLU(), Flat()
        )
        model = ImageClassifier(
            backbone=backbone,
            head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=144),
            data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', mean=[77.9] * 3, std=[95.9] * 3),
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for i in range(0, 1500, 50):
        inputs = model.data_preprocessor({'inputs': images[i : i + 50]})['inputs']
        loss = F.cross_entropy(model(inputs), labels[i : i + 50])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), images[1500:1600], labels[1500:1600]


@pytest.mark.parametrize('attack', ['fgsm', 'pgd'])
@pytest.mark.parametrize(('eps', 'step_size'), [(0, None), (0.3, None), (8, None), (8, 100.0), (300 / 7, None)])
def test_changes_stay_within_bounds(small, attack, eps, step_size):
    model, images, labels = small
    assert images.min() == 0 and images.max() == 255  # where it matters
    attacked = adversarial_images(model, images, labels, attack, eps, steps=3, step_size=step_size)
    change = (attacked.double() - images.double()).abs()
    assert change.max() <= eps + 2e-5  # a float32 of 255 has a rounding of 1.5e-5
    assert attacked.min() >= 0 and attacked.max() <= 255 and not attacked.requires_grad
    assert change.max() >= 0.99 * eps  # and bounds are used
    assert images.dtype == torch.uint8 and all(parameter.grad is not None for parameter in model.parameters())


def test_eps_0_is_the_clean_accuracy_and_pgd_is_stronger(small):
    model, images, labels = small
    with torch.no_grad():
        predicted = model.test_step(batches(images, labels, 100)[0])
    clean = sum(sample.pred_label.item() == label.item() for sample, label in zip(predicted, labels))
    found = adversarial_accuracy(model, batches(images, labels), [0, 8, 16, 32])
    assert found['fgsm'][0] == found['pgd'][0] == clean and clean > 60
    assert all(found['pgd'][e] <= found['fgsm'][e] + 2 for e in (8, 16, 32))
    assert found['pgd'][32] < found['fgsm'][32] < clean


def test_more_steps_are_stronger_and_steps_that_are_too_small_do_not_reach(small):
    model, images, labels = small
    far, near = (
        adversarial_accuracy(model, batches(images, labels), [24], ['pgd'], steps=5, step_size=size)['pgd'][24]
        for size in (12, 0.01)
    )
    assert far < near - 10


def test_it_is_the_same_twice_and_leaves_no_trace(small):
    model, images, labels = small

    def starts(seed):
        """What the network sees of PGD: random starts and all."""
        seen = []
        handle = model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
        adversarial_accuracy(model, batches(images, labels), [4, 8], ['pgd'], steps=2, seed=seed)
        handle.remove()
        return torch.cat(seen)

    before = torch.get_rng_state()
    one = starts(0)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(5)
    assert torch.equal(one, starts(0)) and not torch.equal(one, starts(1))
    # Batches differ in their noise: the first passes of both are random starts at 4.
    noise = (one[:64] * 95.9 + 77.9 - images[:64])[:36], (one[384:420] * 95.9 + 77.9 - images[64:])
    inner = (images[:36] > 4) & (images[:36] < 251) & (images[64:] > 4) & (images[64:] < 251)
    assert inner.any() and not torch.isclose(noise[0][inner], noise[1][inner], atol=1e-2).all()


def test_max_images_are_the_first(small):
    model, images, labels = small
    expected = adversarial_accuracy(model, batches(images[:70], labels[:70]), [0, 8])
    assert adversarial_accuracy(model, batches(images, labels), [0, 8], max_images=70) == expected
    assert math.isclose(expected['fgsm'][0] * 70 / 100, round(expected['fgsm'][0] * 70 / 100), abs_tol=1e-9)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(eps=[1, -1]), r'from 0 to 255.*got \[1, -1\]'),
        (dict(eps=[256]), r'from 0 to 255.*got \[256\]'),
        (dict(eps=[math.nan]), 'from 0 to 255'),
        (dict(eps=[]), 'at least one'),
        (dict(attacks=['cw']), r"\['fgsm', 'pgd'\], not \['cw'\]"),
        (dict(steps=0), 'at least 1 step, not 0'),
        (dict(step_size=0), 'above 0'),
        (dict(max_images=0), 'at least 1, or None'),
        (dict(loader=[]), 'no images'),
        (dict(loader=[dict(inputs=[torch.zeros(3, 8, 8)], data_samples=[DataSample()])]), 'default_collate'),
        (dict(loader=[dict(inputs=torch.zeros(1, 3, 8, 8), data_samples=[DataSample()])]), 'exactly one gt_label'),
        (dict(loader=batches(torch.randn(4, 3, 8, 8), [0] * 4)), r'values in \[0, 255\], got \[-.*Normalize'),
    ],
)
def test_arguments_that_do_not_fit(small, kwargs, message):
    model, images, labels = small
    kwargs = dict(dict(loader=batches(images[:4], labels[:4]), eps=[1]), **kwargs)
    with pytest.raises(ValueError, match=message):
        adversarial_accuracy(model, **kwargs)


def test_classifiers_that_do_not_fit(small):
    _, images, labels = small
    loader = batches(images[:4], labels[:4])
    head = dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=192)
    for model in (ImageClassifier(backbone=Flat(), head=head), nn.Linear(3, 3)):
        with pytest.raises(ValueError, match='data_preprocessor=dict'):
            adversarial_accuracy(model, loader, [1])
    preprocessor = dict(type='mmpretrain.ClsDataPreprocessor', mean=[0.0], std=[1.0])
    headless = ImageClassifier(backbone=nn.Sequential(nn.Conv2d(3, 2, 1), Flat()), data_preprocessor=preprocessor)
    with pytest.raises(ValueError, match=r'tensor \(N, classes\).*gave tuple'):
        adversarial_accuracy(headless, loader, [1])


def test_without_captum_it_says_what_to_install(small, monkeypatch):
    model, images, labels = small
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split('.')[0] == 'captum':
            raise ModuleNotFoundError("No module named 'captum'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(ImportError, match='pip install captum'):
        adversarial_accuracy(model, batches(images, labels), [1])
