import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample

import mmresattn  # noqa: F401

BATCH, CLASSES = 8, 5
NET = dict(
    type='ResidualAttentionNet',
    arch=dict(base='attention56-cifar', stem_channels=8, channels=(16, 16, 16), poolings=(1, 1, 1)),
)
GN = dict(type='GN', num_groups=4)
FROZEN = dict(norm_eval=True)


def classifier(**backbone):
    torch.manual_seed(0)
    head = dict(type='LinearClsHead', num_classes=CLASSES, in_channels=16, loss=dict(type='CrossEntropyLoss'))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(
            dict(
                type='ImageClassifier', backbone={**NET, **backbone}, neck=dict(type='GlobalAveragePooling'), head=head
            )
        )
    # No initialisation of its own: one in which every ReLU lets something through, and BatchNorm has seen other images.
    for name, value in model.state_dict().items():
        if value.dim() == 1:
            value.uniform_(0.5, 1.0) if name.endswith(('weight', 'var')) else value.uniform_(0.0, 0.5)
    return model.train()


def gradients(model, images, labels):
    samples = [DataSample().set_gt_label(int(label)) for label in labels]
    for sample in samples:
        sample.gt_label = sample.gt_label.to(images.device)
    model(images, samples, mode='loss')['loss'].backward()
    return {name.removeprefix('module.'): p.grad.cpu() for name, p in model.named_parameters() if p.requires_grad}


def data(dtype, device):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(BATCH, 3, 12, 12, generator=generator, dtype=torch.float64)
    return images.to(device, dtype), torch.arange(BATCH) % CLASSES


def of_one_share(rank, backbone, dtype, gpus=0):
    device = torch.device('cuda', rank % gpus) if gpus else torch.device('cpu')
    images, labels = (each.chunk(2)[rank] for each in data(dtype, device))
    model = classifier(**backbone).to(device, dtype)
    return gradients(MMDistributedDataParallel(model, device_ids=[device.index] if gpus else None), images, labels)


def furthest(found, reference):
    """Largest distance of a gradient, relative to the length of the one it should be."""
    assert found.keys() == reference.keys()
    return max(((found[name] - reference[name]).norm() / reference[name].norm()).item() for name in reference)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize(
    'backbone',
    [FROZEN, dict(norm_cfg=GN), dict(norm_cfg=GN, with_cp=True, frozen_stages=1)],
    ids=['frozen BN', 'GN', 'GN, checkpointed, partly frozen'],
)
def test_two_processes_give_the_gradients_of_the_joined_batch(in_processes, backbone, dtype, tolerance):
    reference = gradients(classifier(**backbone).to(dtype), *data(dtype, 'cpu'))
    assert len(reference) > 100 and min(gradient.norm() for gradient in reference.values()) > 0
    for found in in_processes(of_one_share, backbone, dtype):
        assert furthest(found, reference) < tolerance


def test_batchnorm_by_process_does_not(in_processes):
    """So the test above can tell."""
    reference = gradients(classifier().double(), *data(torch.float64, 'cpu'))
    assert furthest(in_processes(of_one_share, {}, torch.float64)[0], reference) > 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason='PyTorch has SyncBN on GPUs only; one is enough')
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-3), (torch.float64, 1e-10)], ids=str)
def test_synchronised_batchnorm_gives_the_gradients_of_the_joined_batch(in_processes, dtype, tolerance):
    """Against BatchNorm over the joined batch; with one GPU both processes share it, for which gloo serves."""
    reference = gradients(classifier().to('cuda', dtype), *data(dtype, 'cuda'))
    synchronised = dict(norm_cfg=dict(type='SyncBN'))
    gpus = torch.cuda.device_count()
    for found in in_processes(of_one_share, synchronised, dtype, gpus, start_method='spawn'):
        assert furthest(found, reference) < tolerance
