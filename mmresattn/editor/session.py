"""What the editor does, without its page: images, answers, edits of attention and the folder they are saved in."""

import dataclasses
import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from zipfile import ZipFile

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmpretrain.models import BaseClassifier
from torch import Tensor

from ..apis.attention_inferencer import AttentionInferencer
from ..datasets.attention_maps import read_attention_map
from ..datasets.correction_log import MANIFEST, CorrectionLog
from ..datasets.image_files import SUFFIXES, BrokenImage, find_image_files
from ..datasets.strokes import raster_shape
from ..models.layers import attention_maps, edit_attention
from ..visualization import ImageSample, View, class_activation_maps, maps_in_view, pairwise_attention, show_image

PICTURE = 1024  # pixels on the longer side of an image on the page
KEPT = 8  # images that are kept prepared
KINDS = {
    'mixed': 'One value per channel and position. The map shows the mean over channels; a stroke changes all alike.',
    'spatial': 'One value per position. The map is exactly what the network multiplies its features by.',
    'channel': 'One gate per channel, without positions. A stroke changes all gates by its mean over the image.',
    'pairwise': 'How much each position is attended to, on average over all others. A stroke changes it for all.',
}
SHARES = 'Attention adds up to 1: what is removed here goes to the other positions, in proportion.'


@dataclasses.dataclass(frozen=True)
class Result:
    """What the network makes of an image.

    Attributes:
        scores (Tensor): Scores (classes,), from 0 to 1.
        maps (Dict[str, Tensor]): By layer the attention (h, w) in [0, 1] as a person sees it, see
            :class:`AttentionEditor`, on the network's own grid.
        raw (Dict[str, Tensor]): By layer what :func:`~mmresattn.models.layers.record_attention` gives, without the
            batch.
        view (View): What the network saw of the image.
        input_shape (Tuple[int, int]): Height and width of what the network got.
        seconds (float): Duration of the forward pass.
    """

    scores: Tensor
    maps: dict[str, Tensor]
    raw: dict[str, Tensor]
    view: View
    input_shape: tuple[int, int]
    seconds: float


class Answer(NamedTuple):
    """Predicted class, from 0, and its score."""

    label: int
    score: float


class AttentionEditor:
    """Shows, edits and saves the attention of a classifier on a folder of images.

    What a person sees of a map is one number in [0, 1] for each position, the mean over channels, heads and queries:

    - of maps in [0, 1], as a sigmoid gives, that itself;
    - of others, which mean something only beside each other, its share of the greatest: maps that add up to 1 over the
      positions (``PayAttention``, softmax of self-attention), and raw or pairwise numbers (their magnitude).

    What a person paints lies over that like paint: where it has opacity A and attention c, a map m becomes
    ``(1 - A) m + A c h``. Full attention h is 1 for maps in [0, 1], and otherwise the greatest magnitude in a map, or,
    of pairs, among the keys of a query. In detail:

    - mixed and spatial maps (Residual Attention Network, Attention Branch Network): every channel alike, so that the
      mean is what was painted. Where A is 0 a map stays as it is, bit for bit;
    - maps that add up to 1 still do: what is removed goes to the other positions, in proportion;
    - pairs (non-local networks, attention-augmented convolution): for every query and head alike, over the keys;
    - gates of channels (Squeeze-and-Excitation) have no positions: the mean of the paint over what the network sees
      moves all of them, so it is the strength of the module as a whole.

    Any number of threads may call it. Edits never mix, and memory is bounded: the last 8 images are kept prepared.
    Corrected maps are in ``out``, a :class:`~mmresattn.datasets.CorrectionLog`. Its ``save`` lines have, beside the
    image and the layer, ``label``, ``before`` and ``after`` (``label``, ``class`` and ``score`` predicted),
    ``checkpoint`` (SHA-256) and the ``strokes``.

    Args:
        config (str | Path): Config of a classifier.
        checkpoint (str | Path): Its checkpoint, a file.
        images (str | Path): Folder of images; subfolders are searched, too. Where each image is in a folder named after
            its class, its label is known.
        out (str | Path): Folder for the corrections, not within ``images``. It may have earlier ones.
        device (str, optional): Defaults to the accelerator if there is one.
        annotator (str): Name of the person, for the manifest. Defaults to ''.

    Attributes:
        images (Path): The folder.
        names (List[str]): The images, relative to it, with ``/``.
        layers (List[str]): Names of the maps that can be edited.
        kinds (Dict[str, str]): Their kinds by name.
        classes (List[str]): Names of the classes.
        answers (Dict[str, Answer]): What the network says of the images, as far as :meth:`predict_all` has come.
        broken (Dict[str, str]): By image what is wrong with those that cannot be read, likewise.
        log (CorrectionLog): The corrections.

    Raises:
        FileNotFoundError: If the config, checkpoint or folder is missing, or it has no images.
        RuntimeError: If the checkpoint does not have exactly the weights of the model.
        ValueError: If the model is no classifier or has no attention, if two images would share one map, if ``out`` is
            within ``images``, or its manifest is broken.
    """

    def __init__(
        self,
        config: str | Path,
        checkpoint: str | Path,
        images: str | Path,
        out: str | Path,
        device: str | None = None,
        annotator: str = '',
    ) -> None:
        for path, what in ((config, 'config'), (checkpoint, 'checkpoint')):
            if not Path(path).is_file():
                raise FileNotFoundError(f'There is no {what} {path}.')
        self.config, self.checkpoint_file = Path(config).resolve(), Path(checkpoint).resolve()
        self.images, self.out = Path(images).resolve(), Path(out).resolve()
        if not self.images.is_dir():
            raise FileNotFoundError(f'There is no folder of images {images}.')
        if self.out.is_relative_to(self.images):
            raise ValueError(f'{self.out} is within the images, {self.images}: its maps would be taken for images.')
        files = [path for path in find_image_files(self.images) if path.is_file()]
        self.names = [path.relative_to(self.images).as_posix() for path in files]
        if not self.names:
            raise FileNotFoundError(f'{self.images} and its subfolders have no images ({", ".join(SUFFIXES)}).')
        stems = {}
        for name in self.names:
            other = stems.setdefault(PurePosixPath(name).with_suffix(''), name)
            if other != name:
                raise ValueError(f'{other} and {name} would share one map, as only their suffixes differ: rename one.')
        self.inferencer = AttentionInferencer(str(config), str(checkpoint), device)
        if not isinstance(self.inferencer.model, BaseClassifier):
            raise ValueError(f'The editor shows scores of classes; a {type(self.inferencer.model).__name__} has none.')
        taps = attention_maps(self.inferencer.model)
        self.layers = list(taps)
        self.kinds = {name: tap.kind for name, tap in taps.items()}
        self._extra_tokens = {name: tap.extra_tokens for name, tap in taps.items()}
        self.checkpoint = hashlib.sha256(self.checkpoint_file.read_bytes()).hexdigest()
        self.answers: dict[str, Answer] = {}
        self.broken: dict[str, str] = {}
        self._lock, self._predicting = threading.Lock(), threading.Lock()
        self._known = set(self.names)
        self._name_classes(self.inferencer.config.model)
        self._prepared = lru_cache(KEPT)(self._prepare)
        self._before = lru_cache(KEPT)(lambda name, _: self._forward(name))
        self.out.mkdir(parents=True, exist_ok=True)
        self.log = CorrectionLog(self.out, annotator)

    def _name_classes(self, model: Mapping) -> None:
        """Names of classes, and labels by folder where these are sure."""
        folders = sorted({name.split('/')[0] for name in self.names if '/' in name})
        known = list(self.inferencer.classes or [])
        number = (model.get('head') or {}).get('num_classes', len(known) or None)
        if not set(folders) <= set(known):
            # Folders are numbered as ImageFolders does; only if all are there is a number sure.
            known = folders if len(folders) == number else []
        self._labels = {folder: known.index(folder) for folder in folders if folder in known}
        self.classes = known or [str(name) for name in self.inferencer.classes or range(number or 0)]

    def label(self, name: str) -> int | None:
        """The label of an image by its folder, from 0; None if it is not known."""
        return self._labels.get(name.split('/')[0]) if '/' in name else None

    def picture(self, name: str, side: int = PICTURE) -> np.ndarray:
        """An image (H, W, 3), uint8 in RGB, with at most ``side`` pixels on its longer side, and at most 1024."""
        return _shrink(self._prepared(name, self.version(name)).image, side)

    def _path(self, name: str) -> Path:
        if name not in self._known:
            raise KeyError(f'{name!r} is none of the {len(self.names)} images in {self.images}.')
        return self.images / name

    def version(self, name: str) -> int:
        """Changes when the file of an image does. Errors are those of :meth:`predict`."""
        try:
            return self._path(name).stat().st_mtime_ns
        except OSError as error:
            raise FileNotFoundError(f'The image {self.images / name} is no longer there.') from error

    def _prepare(self, name: str, _: int) -> ImageSample:
        sample = self.inferencer.pipeline(self._path(name), name, follow=True)
        return dataclasses.replace(sample, image=_shrink(show_image(sample.image), PICTURE))

    def predict(self, name: str) -> Result:
        """Scores and maps of an image.

        Args:
            name (str): One of :attr:`names`.

        Returns:
            Result: Of the network as it is.

        Raises:
            BrokenImage: If the file is incomplete, corrupt or too large.
            FileNotFoundError: If the file has been deleted.
            KeyError: If it is none of the images.
        """
        return self._before(name, self.version(name))

    def edit(self, name: str, layer: str, painted: np.ndarray | Tensor) -> Result:
        """Scores and maps of an image with edited attention in one layer.

        Args:
            name (str): One of :attr:`names`.
            layer (str): One of :attr:`layers`.
            painted (np.ndarray | Tensor): (H, W, 2) over the whole image, of any size: the attention c and its opacity
                A, both in [0, 1]; or (H, W), the attention everywhere. :func:`paint` makes the former of strokes.

        Returns:
            Result: Of the edited network.

        Raises:
            BrokenImage, FileNotFoundError: As :meth:`predict`.
            KeyError: If image or layer are unknown.
            ValueError: If ``painted`` has another shape or range.
        """
        return self._forward(name, (layer, _check_paint(painted)))

    def _forward(self, name: str, edit: tuple[str, Tensor] | None = None) -> Result:
        kept = self._prepared(name, self.version(name))
        packed = {**kept.packed, 'data_samples': deepcopy(kept.packed['data_samples'])}
        sample = dataclasses.replace(kept, packed=packed, maps={})
        with self._lock, edit_attention(self.inferencer.model, self._edit(sample, *edit) if edit else {}):
            start = time.perf_counter()
            next(self.inferencer.predict([sample]))
            seconds = time.perf_counter() - start
        maps = {layer: self._shown(layer, raw, sample.input_shape) for layer, raw in sample.maps.items()}
        scores = sample.prediction.pred_score.float().cpu().flatten()
        return Result(scores, maps, sample.maps, sample.view, sample.input_shape, seconds)

    def _edit(self, sample: ImageSample, layer: str, painted: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
        """By the layer the function of its map that :func:`edit_attention` takes."""
        if layer not in self.kinds:
            raise KeyError(f'{layer!r} is no layer with attention; there are {self.layers}.')
        kind, shape = self.kinds[layer], tuple(sample.packed['inputs'].shape[-2:])

        def edit(attention: Tensor) -> Tensor:
            grid = attention.shape[2:]
            if kind == 'pairwise':
                grid = pairwise_attention(attention[:1], shape, extra_tokens=self._extra_tokens[layer]).shape[2:]
            value, opacity = _on_grid(painted, sample.view, grid)  # premultiplied
            if kind == 'pairwise':
                extra = attention.shape[3] - value.numel()  # class token and its like
                value, opacity = F.pad(value.flatten(), (extra, 0)), F.pad(opacity.flatten(), (extra, 0))  # K
            value, opacity = value.to(attention), opacity.to(attention)
            high, shares = _scale(attention, kind)
            edited = (1 - opacity) * attention + value * high
            if shares:
                axes = _positions(kind)
                edited = edited / edited.sum(axes, keepdim=True).clamp_min(torch.finfo(edited.dtype).tiny)
            # Where nothing was painted at all, not even rounding of the sums changes anything.
            return edited if opacity.any() else attention

        return {layer: edit}

    def _shown(self, layer: str, raw: Tensor, shape: tuple[int, int]) -> Tensor:
        """A map (C, h, w) or (heads, Q, K) as one of (h, w) in [0, 1]."""
        kind, raw = self.kinds[layer], raw[None].float()
        high, _ = _scale(raw, kind)
        spatial = raw.abs()
        if kind == 'pairwise':
            spatial = pairwise_attention(spatial, shape, extra_tokens=self._extra_tokens[layer])
        mean = spatial.mean((0, 1))  # h, w
        relative = torch.is_tensor(high)  # numbers that mean something only beside each other
        return (mean / mean.max().clamp_min(torch.finfo(mean.dtype).tiny) if relative else mean).clamp(0, 1)

    def explain_layer(self, result: Result, layer: str) -> str:
        """What the map of a layer shows and what a stroke changes, in a line."""
        kind = self.kinds[layer]
        _, shares = _scale(result.raw[layer][None].float(), kind)
        return KINDS[kind] + (f' {SHARES}' if shares else '')

    def map_over_image(self, result: Result, layer: str, shape: tuple[int, int]) -> np.ndarray:
        """A map over the whole image, at any size.

        Args:
            result (Result): From :meth:`predict` or :meth:`edit`.
            layer (str): One of :attr:`layers`.
            shape (Tuple[int, int]): Height and width.

        Returns:
            np.ndarray: Map (H, W), float32 in [0, 1]; NaN where the test pipeline crops the image.
        """
        return _place(result.maps[layer], result.view, result.input_shape, shape)

    def own_map(self, name: str, layer: str) -> np.ndarray:
        """The saved map of an image, or the network's if none is saved: (h, w) over all of it, float32 in [0, 1]."""
        entry = self.log.saved.get((name, layer))
        return read_attention_map(self.log.inside(entry['map'])) if entry else _whole_map(self.predict(name), layer)

    def evidence(self, name: str, label: int, edit: tuple[str, np.ndarray] | None = None) -> np.ndarray:
        """Where the network sees a class (Grad-CAM), over the whole image.

        Args:
            name (str): One of :attr:`names`.
            label (int): The class, from 0.
            edit (Tuple[str, np.ndarray], optional): Layer and paint of an edit that acts meanwhile. Defaults to none.

        Returns:
            np.ndarray: Map (H, W), float32 in [0, 1], with 256 pixels on the longer side; NaN as of
            :meth:`map_over_image`.

        Raises:
            ImportError: If grad-cam is not installed.
            ValueError: If there is no such class.
        """
        sample = self._prepared(name, self.version(name))
        edits = self._edit(sample, edit[0], _check_paint(edit[1])) if edit else {}
        model = self.inferencer.model
        inputs = sample.packed['inputs'][None].to(model.data_preprocessor.device)
        with self._lock, edit_attention(model, edits):
            cam = class_activation_maps(model, inputs, [label])[0]
        return _place(cam, sample.view, None, raster_shape(sample.view.original))

    def superpixels(self, name: str, count: int) -> list[list[tuple[float, float]]]:
        """Areas of similar colour (SLIC: Achanta et al., TPAMI 2012), which often are parts of objects.

        Args:
            name (str): One of :attr:`names`.
            count (int): About how many, from 4 to 400.

        Returns:
            List[List[Tuple[float, float]]]: Of each area the outline, as pairs (x, y): shares of width and height.

        Raises:
            ValueError: If the count is out of range.
        """
        from skimage.segmentation import slic  # takes a second or two

        if not 4 <= count <= 400:
            raise ValueError(f'The number of superpixels is from 4 to 400, not {count}.')
        picture = self.picture(name)
        height, width = raster_shape(picture.shape)
        areas = slic(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), count, start_label=1)
        outlines = []
        for area in range(1, areas.max() + 1):
            contours, _ = cv2.findContours((areas == area).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            for contour in contours:
                points = (cv2.approxPolyDP(contour, 0.7, True)[:, 0] + 0.5) / (width, height)
                if len(points) > 2:
                    outlines.append([(round(x, 4), round(y, 4)) for x, y in points.tolist()])
        return outlines

    def save(
        self,
        name: str,
        layer: str,
        painted: np.ndarray | Tensor,
        strokes: Sequence[Mapping] = (),
        replaces: str | None | bool = True,
    ) -> dict:
        """Save the edited map of a layer.

        The map covers the whole image, on the network's own grid; where the test pipeline crops the image, it is its
        mean.

        Args:
            name (str): One of :attr:`names`.
            layer (str): One of :attr:`layers`.
            painted (np.ndarray | Tensor): As for :meth:`edit`.
            strokes (Sequence[Mapping]): What it was painted by, for the manifest. Defaults to nothing.
            replaces (str | bool, optional): As for :meth:`CorrectionLog.save`. Defaults to True: any map.

        Returns:
            dict: The line of the manifest.

        Raises:
            BrokenImage, FileNotFoundError: As :meth:`predict`.
            KeyError: If image or layer are unknown.
            ReplacedMeanwhile: As :meth:`CorrectionLog.save`.
            ValueError: If ``painted`` has another shape or range or is empty, or a link in ``out`` leads elsewhere.
        """
        painted = _check_paint(painted)
        before, after = self.predict(name), self.edit(name, layer, painted)
        if not painted[..., 1].any():
            raise ValueError('Nothing is painted, so there is nothing to save.')
        png = cv2.imencode('.png', np.rint(_whole_map(after, layer) * 65535).astype(np.uint16))[1].tobytes()
        entry = dict(
            image=name,
            layer=layer,
            label=self.label(name),
            before=self._summary(before),
            after=self._summary(after),
            checkpoint=self.checkpoint,
            strokes=list(strokes),
        )
        return self.log.save(entry, png, replaces)

    def _summary(self, result: Result) -> dict:
        label = int(result.scores.argmax())
        name = self.classes[label] if label < len(self.classes) else str(label)
        return {'label': label, 'class': name, 'score': round(result.scores[label].item(), 6)}

    def state(self, name: str) -> str:
        """``'corrected'``, ``'skipped'`` or ``'untouched'``."""
        if any((name, layer) in self.log.saved for layer in self.kinds):
            return 'corrected'
        return 'skipped' if name in self.log.skipped else 'untouched'

    def notes(self) -> list[str]:
        """What does not fit together in the folder of corrections, in words."""
        notes = self.log.check()
        saved = list(self.log.saved.values())
        if gone := sorted({entry['image'] for entry in saved} - self._known):
            notes.append(
                f'Corrected images are no longer in {self.images}: {", ".join(gone[:3])} ({len(gone)} in all).'
            )
        if unknown := sorted({entry['layer'] for entry in saved} - set(self.kinds)):
            notes.append(f'There are maps of layers that this network does not have: {", ".join(unknown)}.')
        if other := sum(entry.get('checkpoint') != self.checkpoint for entry in saved):
            notes.append(f'{other} of {len(saved)} maps were saved with another checkpoint.')
        return notes

    def export(self) -> bytes:
        """A zip of the manifest and of the current maps."""
        buffer = io.BytesIO()
        self.log.refresh()
        with ZipFile(buffer, 'w') as archive:
            if (manifest := self.log.inside(MANIFEST)).exists():
                archive.writestr(MANIFEST, manifest.read_bytes())
            for entry in list(self.log.saved.values()):
                if (path := self.log.inside(entry['map'])).is_file():
                    archive.writestr(entry['map'], path.read_bytes())
        return buffer.getvalue()

    def predict_all(self, batch_size: int = 8) -> None:
        """Predict all images that have no answer yet. Between batches, edits have their turn."""
        with self._predicting:
            remaining = [name for name in self.names if name not in self.answers and name not in self.broken]
            samples = self.inferencer.predict(self._read(remaining), batch_size, [])
            while True:
                with self._lock:
                    sample = next(samples, None)
                if sample is None:
                    return
                scores = sample.prediction.pred_score.float().flatten()
                label = int(scores.argmax())
                self.answers[sample.name] = Answer(label, scores[label].item())

    def _read(self, names: Sequence[str]) -> Iterator[ImageSample]:
        for name in names:
            try:
                yield self.inferencer.pipeline(self._path(name), name)
            except (BrokenImage, OSError) as error:
                self.broken[name] = str(error)

    def mistakes(self) -> list[str]:
        """Images that the network gets wrong, of those whose label is known."""
        self.predict_all()
        found = sorted(self.answers.items())
        return [name for name, answer in found if self.label(name) not in (None, answer.label)]


def _check_paint(painted: np.ndarray | Tensor) -> Tensor:
    painted = torch.as_tensor(painted).float()
    if painted.dim() == 2:
        painted = torch.stack([painted, torch.ones_like(painted)], -1)
    if painted.dim() != 3 or painted.shape[2] != 2 or not painted.numel():
        raise ValueError(f'painted is (height, width, 2) or (height, width), not {tuple(painted.shape)}.')
    if not ((painted >= 0) & (painted <= 1)).all():
        raise ValueError(f'Attention and opacity are from 0 to 1, not from {painted.min():g} to {painted.max():g}.')
    return painted


def _positions(kind: str) -> tuple[int, ...]:
    return (3,) if kind == 'pairwise' else (2, 3)


def _scale(attention: Tensor, kind: str) -> tuple[Tensor | float, bool]:
    """What full attention is in maps (N, ...), and whether they are shares."""
    axes = _positions(kind)
    positive = bool((attention >= 0).all())
    shares = kind != 'channel' and positive and bool(((attention.float().sum(axes) - 1).abs() < 1e-2).all())
    if kind != 'pairwise' and not shares and positive and bool((attention <= 1).all()):
        return 1.0, False
    return attention.abs().amax(axes, keepdim=True), shares


def _on_grid(painted: Tensor, view: View, grid: Sequence[int]) -> Tensor:
    """Paint over an image (H, W, 2) as (2, h, w) over what the network sees of it; the first is premultiplied."""
    value, opacity = painted.unbind(-1)
    layers = torch.stack([value * opacity, opacity])[None]
    fine, sides = [], []
    for size, cells, original, width, scale, offset in zip(
        layers.shape[2:], grid, view.original, view.output, view.scale, view.offset
    ):
        # Samples per cell: about one per pixel of paint.
        many = max(1, round(size * width / (abs(scale) * original) / cells))
        places = ((torch.arange(cells * many) + 0.5) / (cells * many) * width - offset) / (scale * original)
        fine.append(many)
        sides.append(2 * places - 1)
    where = torch.stack(torch.meshgrid(*sides, indexing='ij')[::-1], -1)[None].to(layers)  # x, y
    sampled = F.grid_sample(layers, where, padding_mode='border', align_corners=False)
    return F.avg_pool2d(sampled, fine)[0]


def _place(attention: Tensor, view: View, padded: Sequence[int] | None, shape: Sequence[int]) -> np.ndarray:
    """A map (h, w) over the whole image, at the size ``shape``; NaN where the network did not see it."""
    scale = tuple(factor * old / new for factor, old, new in zip(view.scale, view.original, shape))
    view = dataclasses.replace(view, original=tuple(shape), scale=scale)
    return maps_in_view(attention[None], view, padded)[0].cpu().numpy()


def _whole_map(result: Result, layer: str) -> np.ndarray:
    """A map over the whole image on the network's own grid; its mean where the network did not see it."""
    attention, view = result.maps[layer], result.view
    cells = zip(attention.shape, view.original, view.scale, result.input_shape)
    shape = tuple(max(1, round(cell * old * abs(scale) / width)) for cell, old, scale, width in cells)
    whole = _place(attention, view, result.input_shape, shape)
    return np.where(np.isnan(whole), np.nanmean(whole), whole)


def _shrink(picture: np.ndarray, side: int) -> np.ndarray:
    zoom = side / max(picture.shape[:2])
    if zoom >= 1:
        return picture
    size = tuple(max(1, round(zoom * length)) for length in picture.shape[1::-1])
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
