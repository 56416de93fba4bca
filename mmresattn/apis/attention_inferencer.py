"""Predictions and attention maps of images, in one call."""

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.structures import BaseDataElement
from mmpretrain.apis import ImageClassificationInferencer
from mmpretrain.apis.model import ModelHub
from mmpretrain.utils import track

from ..compat.cpu_memory import keep_large_blocks
from ..datasets import BrokenImage
from ..models.layers import attention_maps, check_has_attention
from ..visualization import (
    REDUCTIONS,
    ImagePipeline,
    ImageSample,
    ImageSources,
    batches_of_one_shape,
    check_suffix,
    class_activation_maps,
    dense_title,
    draw_prediction,
    map_grid,
    maps_in_view,
    mask_figure,
    overlay,
    place_maps,
    positions_of,
    prediction_title,
    record_mask_steps,
    record_samples,
    save_figure,
    short_name,
    show_image,
    strongest_channels,
)
from .launch import build_model, load_trained, read_config


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
            load_trained(model, pretrained)
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
        check_has_attention(model)
        if getattr(model, 'test_cfg', None) and model.test_cfg.get('mode') == 'slide':
            raise ValueError(
                'With sliding windows only the maps of the last window would be recorded: build the segmenter with '
                "test_cfg=dict(mode='whole')."
            )

    def _init_pipeline(self, cfg: Config) -> ImagePipeline:
        return ImagePipeline(cfg, getattr(self.model, '_trained_for', {}).get('input_size'))

    def __call__(
        self,
        inputs: str | Path | np.ndarray | Sequence,
        return_datasamples: bool = False,
        batch_size: int = 1,
        *,
        attention: bool | None = None,
        **options,
    ) -> list:
        """Predict, and record the attention: the results of :meth:`stream` in a list.

        Args:
            inputs (str | Path | np.ndarray | Sequence): As for :meth:`stream`.
            return_datasamples (bool): Whether to return data samples with fields ``attention`` and
                ``attention_on_image`` instead of dicts. Defaults to False.
            batch_size (int): As for :meth:`stream`.
            attention (bool, optional): Whether results keep the maps as the network made them, which takes memory for
                every image. Defaults to True, and to False with ``show_dir``, where pictures are what is wanted.
            **options: The further options of :meth:`stream`.

        Returns:
            list: For each image a dict as of :meth:`stream`, or a data sample. Files that were skipped have none.
        """
        if attention is None:
            attention = options.get('show_dir') is None
        results = self.stream(inputs, batch_size, attention=attention, return_datasamples=return_datasamples, **options)
        return list(results)

    def stream(
        self,
        inputs: str | Path | np.ndarray | Sequence,
        batch_size: int = 1,
        *,
        layers: Sequence[str] | None = None,
        attention: bool = True,
        on_image: bool = False,
        reduction: str = REDUCTIONS[0],
        query: tuple[float, float] | None = None,
        show_dir: str | Path | None = None,
        strict: bool = False,
        return_datasamples: bool = False,
    ) -> Iterator[dict | BaseDataElement]:
        """Predict and record image by image: no more than a batch is in memory, however long a video is.

        Args:
            inputs (str | Path | np.ndarray | Sequence): Path or address of an image; an image (H, W) or (H, W, C) as
                the config's loading step gives it, in BGR; a folder, with its subfolders; a video; or a list of these.
            batch_size (int): Neighbouring images of one size that run at once. Defaults to 1.
            layers (Sequence[str], optional): Names of the maps, as of
                :func:`~mmresattn.models.layers.record_attention`. Defaults to all.
            attention (bool): Whether results have the maps as the network made them. Defaults to True.
            on_image (bool): Whether results have maps at the size of the original image. Defaults to False.
            reduction (str): Of the channels or heads, for maps on images: ``'strongest'``, ``'mean'`` or ``'max'``, see
                :func:`~mmresattn.visualization.reduce_channels`. Defaults to ``'strongest'``.
            query (Tuple[float, float], optional): Row and column in the original images, in pixels, from which
                self-attention looks, for maps on images. Defaults to the mean over all positions.
            show_dir (str | Path, optional): Folder for pictures of the maps over the original images, one PNG for each
                map: ``<name>.<map>.png``. Defaults to none.
            strict (bool): Whether a file that cannot be read stops everything. Otherwise, if there are others, it is
                skipped, and listed by a warning at the end. Defaults to False.
            return_datasamples (bool): Whether to give data samples instead of dicts. Defaults to False.

        Yields:
            dict: For each image

            - ``name``: as of :class:`~mmresattn.visualization.ImageSources`, such as the path within the folder;
            - of a classifier ``pred_label``, ``pred_score``, ``pred_scores`` and, if classes are known, ``pred_class``,
              as from MMPretrain's inferencer; of a network of many labels or tasks lists of labels, scores and classes;
              of a detector or segmenter ``prediction``, its data sample;
            - with ``attention``: ``attention``, by name the map without the batch, (C, h, w) or (heads, Q, K). If the
              network saw each image several times at once, the mean;
            - with ``on_image``: ``attention_on_image``, by name a map (H, W) at the size of the original, NaN where the
              test pipeline cropped the image. Gates of channels (Squeeze-and-Excitation) have no positions and are left
              out.

        Raises:
            BrokenImage: If a file cannot be read, and it is the only one, or ``strict``; or if none can.
            FileNotFoundError: If a path is missing.
            KeyError: If a layer is unknown.
            ValueError: If an argument does not fit, a folder has no images, or an array is no image; with ``on_image``
                or ``show_dir`` also if what the test pipeline does to an image cannot be followed.
        """
        self._check(layers, reduction, show_dir is not None)
        if batch_size < 1:
            raise ValueError(f'batch_size is at least 1, not {batch_size}.')
        sources = ImageSources(inputs, strict)

        def results() -> Iterator[dict | BaseDataElement]:
            samples = self.predict(self.read(sources, bool(on_image or show_dir)), batch_size, layers)
            for sample in track(samples, 'Inference', total=sources.total):
                placed = place_maps(self.model, sample, reduction, query) if on_image or show_dir else {}
                for name, placed_map in placed.items() if show_dir else ():
                    picture = overlay(show_image(sample.image), placed_map)
                    mmcv.imwrite(picture[..., ::-1], str(Path(show_dir, f'{sample.name}.{short_name(name)}.png')))
                kept = {'attention': sample.maps} if attention else {}
                kept |= {'attention_on_image': placed} if on_image else {}
                yield self._result(sample, kept, return_datasamples)
            sources.report()

        return results()

    def read(self, sources: ImageSources, follow: bool) -> Iterator[ImageSample]:
        """Images that can be read, as the test pipeline prepares them; with their view, if ``follow``."""
        for name, source in sources:
            try:
                sample = self.pipeline(source, name, follow=follow)
            except BrokenImage as error:
                sources.skip(source, error)
                continue
            yield sample

    def predict(
        self, samples: Iterable[ImageSample], batch_size: int = 1, layers: Sequence[str] | None = None
    ) -> Iterator[ImageSample]:
        """Samples with their predictions and maps, one by one."""
        for batch in batches_of_one_shape(samples, batch_size):
            record_samples(self.model, batch, layers)
            yield from batch

    def draw(
        self,
        image: str | Path | np.ndarray,
        out: str | Path,
        *,
        layers: Sequence[str] | None = None,
        reduction: str = REDUCTIONS[0],
        channels: int = 1,
        query: tuple[float, float] | None = None,
        cams: Sequence[str] = (),
        score_thr: float = 0.3,
        dpi: int = 200,
    ) -> dict:
        """Draw all maps of an image over it, each with its name and its bar of colours, as PNG, SVG or PDF.

        The first panel shows the image, with the boxes and masks of a detector or the classes of a segmenter.

        Args:
            image (str | Path | np.ndarray): As for :meth:`stream`, but one.
            out (str | Path): File to write; the suffix chooses the format.
            layers (Sequence[str], optional): As for :meth:`stream`.
            reduction (str): As for :meth:`stream`.
            channels (int): With ``'strongest'``, how many channels to show, a panel each. Defaults to 1.
            query (Tuple[float, float], optional): As for :meth:`stream`; it is marked by a cross.
            cams (Sequence[str]): Methods of :func:`~mmresattn.visualization.class_activation_maps` to draw beside, for
                the predicted class of a classifier. Defaults to none.
            score_thr (float): Least score of a detector's boxes that are drawn. Defaults to 0.3.
            dpi (int): Dots per inch. Defaults to 200.

        Returns:
            dict: The result with ``attention`` and ``attention_on_image``, class activation maps included.

        Raises:
            ImportError: If grad-cam is asked for and not installed.
            ValueError: Also if the suffix is unknown.
        """
        check_suffix(out)
        self._check(layers, reduction, True)
        sample = self._only(image, layers)
        placed = place_maps(self.model, sample, reduction, query)
        panels = dict(placed)
        if reduction == 'strongest' and channels > 1:
            panels = {}
            for name, spatial in positions_of(self.model, sample, query).items():
                maps, numbers = strongest_channels(spatial[None], channels)
                for channel, number in zip(maps[0], numbers[0].tolist()):
                    panels[f'{name} [{number}]'] = maps_in_view(channel[None], sample.view, sample.input_shape)[0]
        for method in cams:
            inputs = sample.packed['inputs'][None].to(self.model.data_preprocessor.device)
            cam = class_activation_maps(self.model, inputs, method=method)
            panels[method] = placed[method] = maps_in_view(cam, sample.view)[0]
        image = show_image(sample.image)
        predicted = draw_prediction(image, sample.prediction, score_thr)
        title = dense_title(sample.prediction, self.classes, score_thr)
        title = title or prediction_title(sample.prediction, self.classes) or sample.name
        save_figure(map_grid(image, panels, title=title, query=query, predicted=predicted), out, dpi)
        return self._result(sample, dict(attention=sample.maps, attention_on_image=placed), False)

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
            image (str | Path | np.ndarray): As for :meth:`stream`, but one.
            out (str | Path): File to write: PNG, SVG or PDF by the suffix.
            layers (Sequence[str], optional): Maps of attention modules. Defaults to all of them.
            channels (int): How many channels of a module to show, those whose mask varies most. Defaults to 1.
            dpi (int): Dots per inch. Defaults to 200.

        Returns:
            dict: The result with ``attention``.

        Raises:
            ValueError: Also if the network has no such modules: those of ResidualAttentionNet.
        """
        check_suffix(out)
        self._check(layers, 'strongest', True)
        with record_mask_steps(self.model, layers) as steps:
            sample = self._only(image, layers)
        rows = {}
        for name, (before, mask, after) in steps.items():
            for number in strongest_channels(mask.float(), channels)[1][0].tolist():
                rows[f'{name}\nchannel {number}'] = [
                    maps_in_view(step[0, number][None].float().cpu(), sample.view, sample.input_shape)[0]
                    for step in (before, mask, after)
                ]
        title = prediction_title(sample.prediction, self.classes) or sample.name
        save_figure(mask_figure(show_image(sample.image), rows, title=title), out, dpi)
        return self._result(sample, dict(attention=sample.maps), False)

    def _check(self, layers: Sequence[str] | None, reduction: str, pictures: bool) -> None:
        """Say what is wrong before any image is read."""
        kinds = {tap.kind for tap in attention_maps(self.model, layers).values()}
        if reduction not in REDUCTIONS:
            raise ValueError(f'reduction is one of {list(REDUCTIONS)}, not {reduction!r}.')
        if pictures and kinds <= {'channel'}:
            raise ValueError(
                'These maps have one number per channel, as in Squeeze-and-Excitation, and no positions that could be '
                'drawn over an image. The numbers are in the results.'
            )

    def _only(self, image: str | Path | np.ndarray, layers: Sequence[str] | None) -> ImageSample:
        sources = ImageSources(image)
        if sources.total > 1:
            raise ValueError(f'A figure shows one image; this input has {sources.total}.')
        return next(self.predict(self.read(sources, True), 1, layers))

    def _result(self, sample: ImageSample, kept: dict, as_sample: bool) -> dict | BaseDataElement:
        prediction = sample.prediction.cpu()
        if as_sample:
            for key, value in kept.items():
                prediction.set_field(value, key)
            return prediction
        result = dict(name=sample.name)
        if 'pred_score' not in prediction:
            return result | dict(prediction=prediction) | kept
        scores, labels = prediction.pred_score, prediction.pred_label.reshape(-1).tolist()
        of_labels = dict(pred_label=labels, pred_score=[scores[label].item() for label in labels])
        if self.classes is not None:
            of_labels['pred_class'] = [self.classes[label] for label in labels]
        if len(labels) == 1 and 'gt_score' not in prediction and 'all_tasks' not in prediction:
            of_labels = {key: values[0] for key, values in of_labels.items()}
        return result | dict(pred_scores=scores.cpu().numpy()) | of_labels | kept


def _build(model: str | Path | Config, pretrained: bool | str, options: dict) -> BaseModel:
    """The model of a name or config, with its weights."""
    if isinstance(model, Config):
        cfg = deepcopy(model)
        weights = cfg.get('load_from')
    elif Path(model).suffix == '.py':
        cfg = read_config(str(model), needs_data=False)
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
    checkpoint = (weights if pretrained is True else pretrained) or None
    built = revert_sync_batchnorm(build_model(cfg, checkpoint))
    built._config = cfg
    return built
