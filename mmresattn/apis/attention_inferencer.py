"""Predictions and attention maps of images, in one call."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate, pseudo_collate
from mmengine.device import get_device
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from mmengine.structures import BaseDataElement
from mmpretrain.apis import ImageClassificationInferencer
from mmpretrain.apis.model import ModelHub
from mmpretrain.models import BaseClassifier
from mmpretrain.utils import track
from torch import Tensor

from ..compat import enable_for
from ..compat.cpu_memory import keep_large_blocks
from ..datasets.broken_images import BrokenImage, LoadCheckedImage
from ..models.layers import attention_maps, record_attention
from ..visualization import (
    REDUCTIONS,
    View,
    check_suffix,
    class_activation_maps,
    map_grid,
    maps_in_view,
    mask_figure,
    overlay,
    pipeline_view,
    record_mask_steps,
    reduce_channels,
    save_figure,
    spatial_maps,
    strongest_channels,
)
from ..visualization.attention_figure import short_name
from ..visualization.overlay import check_image
from ..weights import load_checkpoint

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.gif', '.tif', '.tiff', '.webp', '.ppm', '.pgm')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')


@dataclass
class Seen:
    """An image on its way through the inferencer."""

    name: str
    image: np.ndarray  # H, W, 3 in BGR, as it came
    packed: dict  # what the test pipeline makes of it
    view: View
    sample: BaseDataElement | None = None  # the prediction
    maps: dict[str, Tensor] = field(default_factory=dict)  # at the size of the maps
    input_shape: tuple[int, int] = ()  # of the network's input, padding of the batch included

    @property
    def rgb(self) -> np.ndarray:
        return np.ascontiguousarray(self.image[..., ::-1])


class AttentionInferencer(ImageClassificationInferencer):
    """MMPretrain's inferencer, which also says where the network looks.

    Detectors of MMDetection and segmenters of MMSegmentation work as well, by their own test pipelines.

    Example:
        >>> inferencer = AttentionInferencer('attention56_cifar10_fast')
        >>> result = inferencer('cat.png', show_dir='maps')[0]
        >>> result['pred_label'], result['attention']['backbone.stage1.attention1.map'].shape
        (3, torch.Size([64, 32, 32]))

    Args:
        model (BaseModel | str | Path | Config): A name of ``list_models()``, a config or its file, or a model that is
            built and knows its config: by ``get_model`` of MMPretrain, ``init_detector`` of MMDetection or
            ``init_model`` of MMSegmentation.
        pretrained (bool | str): File or address of a checkpoint. True for the weights of the name, or the config's
            ``load_from``, and those that a built model has; False for random weights. Defaults to True.
        device (str | torch.device, optional): Defaults to the accelerator if there is one; a built model stays where it
            is.
        classes (Sequence[str], optional): Names of the classes. Defaults to those in the checkpoint.
        **kwargs: Settings of the config's ``model``, as for MMPretrain's ``get_model``.

    Raises:
        FileNotFoundError: If the config or the checkpoint is missing.
        CheckpointError: If the checkpoint does not have exactly the weights of the model, or cannot be used.
        ValueError: If the name is unknown, if there are no weights, or if the model has no attention maps.
    """

    def __init__(
        self,
        model: BaseModel | str | Path | Config,
        pretrained: bool | str = True,
        device: str | torch.device | None = None,
        classes: Sequence[str] | None = None,
        **kwargs,
    ) -> None:
        if not isinstance(model, BaseModel):
            # Convolutions on CPUs run faster in this order, and with memory that is not mapped anew for every map.
            model = _build(model, pretrained, kwargs).to(device or get_device(), memory_format=torch.channels_last)
            if next(model.parameters()).is_cpu:
                keep_large_blocks()
        elif isinstance(pretrained, str):
            _load(model, pretrained)
        if not hasattr(model, '_config'):
            model._config = getattr(model, 'cfg', None)  # as MMDetection and MMSegmentation name it
        if model._config is None:
            raise ValueError(
                'This model does not know its config, and with it the test pipeline: give the config in place of the '
                'model, or set model._config = Config.fromfile(...).'
            )
        if not hasattr(model, '_dataset_meta'):
            model._dataset_meta = getattr(model, 'dataset_meta', None) or {}
        super().__init__(model, pretrained=False, device=device, classes=classes)
        self.kinds = {name: tap.kind for name, tap in attention_maps(model).items()}
        if not self.kinds:
            raise ValueError(
                f'This {type(model).__name__} has no attention maps. Networks that have: ResidualAttentionNet; '
                'AttentionResNet with an attention of SqueezeExcitation, NonLocalAttention or AttentionAugmentedConv; '
                'SEBNInception; PayAttentionNet and the neck PayAttention; attention_branch_network(...).'
            )
        if getattr(model, 'test_cfg', None) and model.test_cfg.get('mode') == 'slide':
            raise ValueError(
                'Of sliding windows only the maps of the last one would be seen: build the segmenter with '
                "test_cfg=dict(mode='whole')."
            )
        self.collate = default_collate if isinstance(model, BaseClassifier) else pseudo_collate

    def _init_pipeline(self, cfg: Config) -> Callable:
        dataset = cfg.test_dataloader.dataset
        while 'pipeline' not in dataset:
            dataset = dataset['dataset'] if 'dataset' in dataset else dataset['datasets'][0]
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
            transforms = [one if isinstance(one, BaseTransform) else TRANSFORMS.build(one) for one in dataset.pipeline]
        # Images are loaded already, and have no annotations.
        return Compose([one for one in transforms if not type(one).__name__.startswith('Load')])

    def __call__(
        self,
        inputs: str | Path | np.ndarray | Sequence,
        return_datasamples: bool = False,
        batch_size: int = 1,
        *,
        layers: Sequence[str] | None = None,
        on_image: bool = False,
        reduction: str = 'mean',
        query: tuple[float, float] | None = None,
        show_dir: str | Path | None = None,
    ) -> list:
        """Predict, and record the attention.

        Args:
            inputs (str | Path | np.ndarray | Sequence): Path or address of an image; an image (H, W, 3), uint8 in BGR
                as OpenCV reads it; a folder, of which the images are taken by name; a video, whose frames are taken; or
                a list of such.
            return_datasamples (bool): Whether to return data samples with fields ``attention`` and
                ``attention_on_image`` instead of dicts. Defaults to False.
            batch_size (int): Neighbouring images of one size that run at once. Defaults to 1.
            layers (Sequence[str], optional): Names of the maps, as of
                :func:`~mmresattn.models.layers.record_attention`. Defaults to all.
            on_image (bool): Whether to give the maps also at the size of the original image. Defaults to False.
            reduction (str): Of the channels or heads, for maps on images: ``'mean'``, ``'max'`` or ``'strongest'``, see
                :func:`~mmresattn.visualization.reduce_channels`. Defaults to ``'mean'``.
            query (Tuple[float, float], optional): Row and column in the original images, in pixels, from which
                self-attention looks, for maps on images. Defaults to the mean over all positions.
            show_dir (str | Path, optional): Folder for pictures of the maps over the original images, one PNG for each
                map: ``<name>.<map>.png``. Defaults to none.

        Returns:
            list: For each image a dict:

            - ``name``: stem of its file; ``<stem>_000012`` for the frame 12 of a video, from 0; the number of an array,
              from 0. Names that come again get ``_2`` and so on.
            - of a classifier ``pred_label``, ``pred_score``, ``pred_scores`` and, if classes are known, ``pred_class``,
              as MMPretrain's inferencer; of a network of many labels or tasks lists of labels, scores and classes. Of a
              detector or segmenter ``prediction``, its data sample.
            - ``attention``: by name the map as the network made it, without the batch: (C, h, w), or (heads, Q, K). If
              the network saw each image several times at once, the mean.
            - with ``on_image``: ``attention_on_image``, by name a map (H, W) at the size of the original, NaN where the
              test pipeline cropped the image. One number a channel (Squeeze-and-Excitation) is left out.

        Raises:
            BrokenImage: If a file is no whole image.
            FileNotFoundError: If a file is missing.
            KeyError: If a layer is unknown.
            ValueError: If an argument does not fit, a folder has no images, or an array is no image.
        """
        self._check(layers, reduction, show_dir is not None)
        sources = list(self._sources(inputs))
        results = []
        seen = self._infer(self._load(sources), batch_size, layers)
        for one in track(seen, 'Inference', total=sum(length for _, length, _ in sources)):
            placed = self._on_image(one, reduction, query) if on_image or show_dir else {}
            if show_dir:
                for name, attention in placed.items():
                    path = Path(show_dir, f'{one.name}.{short_name(name)}.png')
                    mmcv.imwrite(overlay(one.rgb, attention)[..., ::-1], str(path))
            results.append(self._result(one, placed if on_image else None, return_datasamples))
        return results

    def draw(
        self,
        image: str | Path | np.ndarray,
        out: str | Path,
        *,
        layers: Sequence[str] | None = None,
        reduction: str = 'mean',
        channels: int = 1,
        query: tuple[float, float] | None = None,
        cams: Sequence[str] = (),
        dpi: int = 200,
    ) -> dict:
        """Draw all maps of an image over it, each with its name and its bar of colours, as PNG, SVG or PDF.

        Args:
            image (str | Path | np.ndarray): As for :meth:`__call__`, but one.
            out (str | Path): File to write; the suffix says the format.
            layers (Sequence[str], optional): As for :meth:`__call__`.
            reduction (str): As for :meth:`__call__`.
            channels (int): With ``'strongest'``, how many channels to show, a panel each. Defaults to 1.
            query (Tuple[float, float], optional): As for :meth:`__call__`; it is marked by a cross.
            cams (Sequence[str]): Methods of :func:`~mmresattn.visualization.class_activation_maps` to draw beside, for
                the predicted class of a classifier. Defaults to none.
            dpi (int): Dots an inch. Defaults to 200.

        Returns:
            dict: The result of :meth:`__call__` with ``on_image``, class activation maps included.

        Raises:
            ImportError: If grad-cam is asked for and not installed.
            ValueError: Also if the suffix is unknown.
        """
        check_suffix(out)
        self._check(layers, reduction, True)
        one = self._infer_one(image, layers)
        placed = self._on_image(one, reduction, query)
        panels = dict(placed)
        if reduction == 'strongest' and channels > 1:
            panels = {}
            for name, attention in self._spatial(one, query).items():
                maps, numbers = strongest_channels(attention, channels)
                for attention, number in zip(maps[0], numbers[0].tolist()):
                    panels[f'{name} [{number}]'] = maps_in_view(attention[None], one.view, one.input_shape)[0]
        for method in cams:
            cam = class_activation_maps(
                self.model, one.packed['inputs'][None].to(self.model.data_preprocessor.device), method=method
            )
            panels[method] = placed[method] = maps_in_view(cam, one.view)[0]
        save_figure(map_grid(one.rgb, panels, title=self._title(one), query=query), out, dpi)
        return self._result(one, placed, False)

    def draw_masks(
        self,
        image: str | Path | np.ndarray,
        out: str | Path,
        *,
        layers: Sequence[str] | None = None,
        channels: int = 1,
        dpi: int = 200,
    ) -> dict:
        """Draw the features before each mask, the mask and the features after, as figure 1 of the paper.

        Args:
            image (str | Path | np.ndarray): As for :meth:`__call__`, but one.
            out (str | Path): File to write: PNG, SVG or PDF by the suffix.
            layers (Sequence[str], optional): Maps of attention modules. Defaults to all of them.
            channels (int): How many channels of a module to show, those whose mask varies most. Defaults to 1.
            dpi (int): Dots an inch. Defaults to 200.

        Returns:
            dict: The result of :meth:`__call__`.

        Raises:
            ValueError: Also if the network has no such modules: those of ResidualAttentionNet.
        """
        check_suffix(out)
        self._check(layers, 'strongest', True)
        with record_mask_steps(self.model, layers) as steps:
            one = self._infer_one(image, layers)
        rows = {}
        for name, (before, mask, after) in steps.items():
            numbers = strongest_channels(mask.float(), channels)[1][0].tolist()
            for number in numbers:
                rows[f'{name}\nchannel {number}'] = [
                    maps_in_view(step[0, number][None].float().cpu(), one.view, one.input_shape)[0]
                    for step in (before, mask, after)
                ]
        save_figure(mask_figure(one.rgb, rows, title=self._title(one)), out, dpi)
        return self._result(one, None, False)

    def _check(self, layers: Sequence[str] | None, reduction: str, pictures: bool) -> None:
        """Say what is wrong before any image is read."""
        kinds = {self.kinds[name] for name in attention_maps(self.model, layers)}
        if reduction not in REDUCTIONS:
            raise ValueError(f'reduction is one of {list(REDUCTIONS)}, not {reduction!r}.')
        if pictures and kinds <= {'channel'}:
            raise ValueError(
                'These maps are one number a channel, as of Squeeze-and-Excitation, without positions that could be '
                'drawn over an image. The numbers are in the results.'
            )

    def _sources(self, inputs) -> Iterator[tuple[str | None, int, Callable[[], Iterable[tuple[str, np.ndarray]]]]]:
        """For each input its stem (None for an array), how many images it has, and what reads endings of names and
        images."""
        if isinstance(inputs, np.ndarray):
            check_image(inputs)
            yield None, 1, lambda: [('', inputs)]
            return
        if isinstance(inputs, list | tuple):
            if not inputs:
                raise ValueError('There are no images: the list is empty.')
            for one in inputs:
                yield from self._sources(one)
            return
        if not isinstance(inputs, str | Path):
            raise ValueError(
                'An image is a path, an address, an array (height, width, 3) of uint8 in BGR, a folder, a video or a '
                f'list of such, not {type(inputs).__name__}.'
            )
        inputs = str(inputs)
        remote = '://' in inputs
        path = Path(urlparse(inputs).path if remote else inputs)
        if not remote and not path.exists():
            raise FileNotFoundError(f'There is no image, folder or video {inputs}.')
        if not remote and path.is_dir():
            files = sorted(one for one in path.iterdir() if one.suffix.lower() in IMAGES)
            if not files:
                raise ValueError(f'The folder {inputs} has no images ({", ".join(IMAGES)}).')
            yield from self._sources(files)
        elif path.suffix.lower() in VIDEOS:
            capture = cv2.VideoCapture(inputs)
            if not capture.isOpened():
                raise BrokenImage(f'{inputs} cannot be read as a video by this OpenCV.')
            yield path.stem, max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0), lambda: _frames(inputs, capture)
        else:
            yield path.stem, 1, lambda: [('', _read(inputs))]

    def _load(self, sources: Sequence[tuple]) -> Iterator[Seen]:
        """Images, as the pipeline packs them."""
        names = Counter()
        for number, (stem, _, read) in enumerate(sources):
            for ending, image in read():
                name = f'{number if stem is None else stem}{ending}'
                names[name] += 1
                yield self._pack(name if names[name] == 1 else f'{name}_{names[name]}', image)

    def _pack(self, name: str, image: np.ndarray) -> Seen:
        shape = image.shape[:2]
        packed = self.pipeline(dict(img=image, img_shape=shape, ori_shape=shape, img_id=name))
        return Seen(name, image, packed, pipeline_view(self.pipeline.transforms, shape))

    def _infer(self, images: Iterable[Seen], batch_size: int, layers: Sequence[str] | None) -> Iterator[Seen]:
        """Predictions and maps. Images of other sizes would be padded, and so are of other batches."""
        if batch_size < 1:
            raise ValueError(f'batch_size is at least 1, not {batch_size}.')
        for _, alike in itertools.groupby(images, lambda one: one.packed['inputs'].shape):
            while batch := list(itertools.islice(alike, batch_size)):
                samples, maps, shape = self.forward(self.collate([one.packed for one in batch]), layers)
                for i, (one, sample) in enumerate(zip(batch, samples)):
                    one.sample, one.input_shape = sample, shape
                    one.maps = {name: attention[i] for name, attention in maps.items()}
                    yield one

    def _infer_one(self, image, layers: Sequence[str] | None) -> Seen:
        seen = list(self._infer(self._load(list(self._sources(image))), 1, layers))
        if len(seen) != 1:
            raise ValueError(f'A figure is of one image; this input has {len(seen)}.')
        return seen[0]

    @torch.no_grad()
    def forward(
        self, inputs: dict, layers: Sequence[str] | None = None
    ) -> tuple[list[BaseDataElement], dict[str, Tensor], tuple[int, int]]:
        """One batch.

        Args:
            inputs (dict): Collated ``inputs`` and ``data_samples``.
            layers (Sequence[str], optional): Names of the maps. Defaults to all.

        Returns:
            Tuple[list, dict, tuple]: The N data samples; by name the maps (N, ...) on the CPU; and height and width of
            what the network got, padding included.
        """
        data = self.model.data_preprocessor(inputs, False)
        with record_attention(self.model, layers) as maps:
            samples = self.model._run_forward(data, mode='predict')
        # Monte-Carlo passes run side by side, one pass after the other.
        per_image = {name: one.unflatten(0, (-1, len(samples))).mean(0).cpu() for name, one in maps.items()}
        return samples, per_image, tuple(data['inputs'].shape[-2:])

    def _spatial(self, one: Seen, query: tuple[float, float] | None) -> dict[str, Tensor]:
        """Maps (1, C, h, w) over what the network got, of all that have positions."""
        maps = {name: attention[None] for name, attention in one.maps.items()}
        return spatial_maps(self.model, maps, one.input_shape, None if query is None else one.view.place(*query))

    def _on_image(self, one: Seen, reduction: str, query: tuple[float, float] | None) -> dict[str, Tensor]:
        return {
            name: maps_in_view(reduce_channels(attention, reduction)[0], one.view, one.input_shape)[0]
            for name, attention in self._spatial(one, query).items()
        }

    def _result(self, one: Seen, placed: dict[str, Tensor] | None, as_sample: bool) -> dict | BaseDataElement:
        attention = dict(attention=one.maps) | ({} if placed is None else dict(attention_on_image=placed))
        if as_sample:
            for key, value in attention.items():
                one.sample.set_field(value, key)
            return one.sample
        return dict(name=one.name) | self._prediction(one.sample) | attention

    def _prediction(self, sample: BaseDataElement) -> dict:
        if 'pred_score' not in sample:
            return dict(prediction=sample.cpu())
        scores, labels = sample.pred_score.cpu(), sample.pred_label.cpu().reshape(-1).tolist()
        said = dict(
            pred_scores=scores.numpy(), pred_label=labels, pred_score=[scores[label].item() for label in labels]
        )
        if self.classes is not None:
            said['pred_class'] = [self.classes[label] for label in labels]
        one_label = len(labels) == 1 and 'gt_score' not in sample and 'all_tasks' not in sample
        return {key: value[0] if one_label and isinstance(value, list) else value for key, value in said.items()}

    def _title(self, one: Seen) -> str:
        said = self._prediction(one.sample)
        if 'prediction' in said or isinstance(said['pred_label'], list):
            return one.name
        label = said.get('pred_class', f'class {said["pred_label"]}')
        return f'{label}, {100 * said["pred_score"]:.0f} %'


def _build(model: str | Path | Config, pretrained: bool | str, options: dict) -> BaseModel:
    """The model of a name or config, with its weights."""
    if isinstance(model, Config):
        cfg = deepcopy(model)
        weights = cfg.get('load_from')
    elif Path(model).suffix == '.py':
        cfg = Config.fromfile(model)
        weights = cfg.get('load_from')
    else:
        info = ModelHub.get(str(model))
        cfg, weights = info.config, info.weights
    if pretrained is True and weights is None:
        raise ValueError(
            f'No weights are known for {model if isinstance(model, str | Path) else "this config"}: give '
            'pretrained=<checkpoint>, or pretrained=False for random weights.'
        )
    cfg.merge_from_dict({'model': options} if options else {})
    enable_for(cfg)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        if 'data_preprocessor' in cfg:
            cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
        built = revert_sync_batchnorm(MODELS.build(cfg.model))
    built._config = cfg
    if pretrained:
        _load(built, weights if pretrained is True else pretrained)
    return built


def _load(model: BaseModel, checkpoint: str) -> None:
    """Weights, which must fit exactly, and what the checkpoint knows of the data."""
    meta = load_checkpoint(model, checkpoint)
    model._dataset_meta, model._trained_for = meta.get('dataset_meta') or {}, meta.get('mmresattn') or {}


def _read(path: str) -> np.ndarray:
    try:
        return LoadCheckedImage()(dict(img_path=path))['img']
    except BrokenImage as error:
        raise BrokenImage(f'{path} is no whole image: {error.__cause__ or error}.') from error


def _frames(path: str, capture: cv2.VideoCapture) -> Iterator[tuple[str, np.ndarray]]:
    """Frames of a video in BGR, one after the other: they need not fit into memory."""
    index = -1
    while (frame := capture.read()[1]) is not None:
        index += 1
        yield f'_{index:06d}', frame
    capture.release()
    if index < 0:
        raise BrokenImage(f'{path} has no frame that this OpenCV can decode.')
