"""Attention maps that a person corrects: what the page of tools/attention_editor.py does, without the page."""

import copy
import dataclasses
import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmpretrain.models import BaseClassifier
from torch import Tensor

from ..datasets.image_files import SUFFIXES, BrokenImage, find_image_files
from ..models.layers import attention_maps, edit_attention
from ..visualization import ImageSample, View, maps_in_view, pairwise_attention, show_image
from ..weights import write_whole
from .attention_inferencer import AttentionInferencer

RASTER = 256  # pixels on the longer side of what strokes are drawn on
STROKES, POINTS = 500, 20_000  # of one edit
MANIFEST = 'manifest.jsonl'


def paint(strokes: Sequence[Mapping], shape: tuple[int, int]) -> np.ndarray:
    """Draw strokes of a brush.

    Args:
        strokes (Sequence[Mapping]): One after the other, each with ``points``, pairs (x, y) as shares of width and
            height of the image, ``size``, the diameter of the brush as a share of the longer side, from above 0 to 2,
            ``value``, the attention that it paints, from 0 to 1, and ``strength``, how far it goes there, from 0 to 1.
        shape (Tuple[int, int]): Height and width of the image.

    Returns:
        np.ndarray: What :meth:`AttentionEditor.edit` takes: (H, W, 2), float32 in [0, 1], with 256 pixels on the longer
        side.

    Raises:
        ValueError: If a stroke is none, or there are too many.
    """
    if not isinstance(strokes, Sequence) or len(strokes) > STROKES:
        raise ValueError(f'An edit is a list of at most {STROKES} strokes. Reset, and paint with a larger brush.')
    height, width = (max(1, round(RASTER * size / max(shape))) for size in shape)
    attention, opacity = np.zeros((2, height, width), np.float32)  # attention is premultiplied
    total = 0
    for stroke in strokes:
        try:
            points = np.asarray(stroke['points'], np.float64)
            numbers = np.array([stroke[key] for key in ('size', 'value', 'strength')], np.float64)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f'A stroke has points [[x, y], ...] and the numbers size, value and strength: {type(error).__name__} '
                f'{error}.'
            ) from error
        size, value, strength = numbers
        total += len(points) if points.ndim else 0
        if points.ndim != 2 or points.shape[1] != 2 or not len(points) or total > POINTS:
            raise ValueError(f'The points of a stroke are pairs (x, y), at most {POINTS} in all; got {points.shape}.')
        if not (np.abs(points) <= 2).all() or not (0 < size <= 2 and 0 <= value <= 1 and 0 <= strength <= 1):
            raise ValueError(
                'Points are shares of the width and height; size is from above 0 to 2, value and strength from 0 to 1; '
                f'got size={size}, value={value}, strength={strength}.'
            )
        mask = np.zeros((height, width), np.uint8)
        pixels = np.rint(16 * (points * (width, height) - 0.5)).astype(np.int32)  # 4 bits after the point
        thickness = max(1, round(size * max(height, width)))
        cv2.polylines(mask, [pixels], False, 255, thickness, cv2.LINE_AA, shift=4)
        for x, y in pixels[[0, -1]].tolist():  # a click is a line without length
            cv2.circle(mask, (x, y), 8 * thickness, 255, -1, cv2.LINE_AA, shift=4)
        share = strength * (mask / np.float32(255))
        attention = (1 - share) * attention + share * value
        opacity = (1 - share) * opacity + share
    return np.stack([np.divide(attention, opacity, where=opacity > 0, out=np.zeros_like(opacity)), opacity], -1)


@dataclasses.dataclass(frozen=True)
class Result:
    """What the network says of an image.

    Attributes:
        scores (Tensor): Scores (classes,), from 0 to 1.
        maps (Dict[str, Tensor]): By layer the attention (h, w) in [0, 1] as a person sees it, see
            :class:`AttentionEditor`, on the network's own grid.
        raw (Dict[str, Tensor]): By layer what :func:`~mmresattn.models.layers.record_attention` gives, without the
            batch.
        view (View): What the network saw of the image.
        input_shape (Tuple[int, int]): Height and width of what the network got.
    """

    scores: Tensor
    maps: dict[str, Tensor]
    raw: dict[str, Tensor]
    view: View
    input_shape: tuple[int, int]


class AttentionEditor:
    """Shows, edits and saves the attention of a classifier on a folder of images.

    What a person sees of a map is one number in [0, 1] for each position, the mean over channels, heads and queries:

    - of maps in [0, 1], as a sigmoid gives, that itself;
    - of others, which mean something only beside each other, its share of the greatest: maps that add up to 1 over the
      positions (``PayAttention``, softmax of self-attention), and raw or pairwise numbers (their magnitude).

    What a person paints lies over that like paint: where it has opacity A and attention c, a map m becomes
    ``(1 - A) m + A c h``. Full attention h is 1 for maps in [0, 1], and else the greatest magnitude in a map, or, of
    pairs, among the keys of a query. In detail:

    - mixed and spatial maps (Residual Attention Network, Attention Branch Network): every channel alike, so that the
      mean is what was painted. Where A is 0 a map stays as it is, bit for bit;
    - maps that add up to 1 still do: what is painted out goes to the other positions, in proportion;
    - pairs (non-local networks, attention-augmented convolution): for every query and head alike, over the keys;
    - gates of channels (Squeeze-and-Excitation) have no positions: the mean of the paint over what the network sees
      moves all of them, so it is the strength of the module as a whole.

    One lock is around every edit and its forward, and nothing else is kept: what two people paint never mixes.

    Files in ``out``: ``maps/<layer>/<class>/<image>.png``, grey, 16 bits, the folder that
    :class:`~mmresattn.datasets.LoadAttentionMap` reads (``map_root=<out>/maps/<layer>``, ``image_root=<images>``); and
    ``manifest.jsonl``, one line for each map: ``image`` (relative to ``images``), ``layer``, ``map`` (relative to
    ``out``), ``label``, ``before`` and ``after`` (``label``, ``class`` and ``score`` predicted), ``checkpoint``
    (SHA-256), ``time`` (ISO 8601, UTC) and the ``strokes``. Both are on disk, whole, when :meth:`save` returns.

    Args:
        config (str | Path): Config of a classifier.
        checkpoint (str | Path): Its checkpoint, a file.
        images (str | Path): Folder of images; those in folders within it are found, too. Where each is in a folder
            named after its class, its label is known.
        out (str | Path): Folder for maps and manifest, not within ``images``. It may have those of before.
        device (str, optional): Defaults to the accelerator if there is one.

    Attributes:
        images (Path): The folder.
        names (List[str]): The images, relative to it, with ``/``.
        layers (List[str]): Names of the maps that can be edited.
        classes (List[str]): Names of the classes.

    Raises:
        FileNotFoundError: If there is no such config, checkpoint or folder, or no image in it.
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
    ) -> None:
        for path, what in ((config, 'config'), (checkpoint, 'checkpoint')):
            if not Path(path).is_file():
                raise FileNotFoundError(f'There is no {what} {path}.')
        self.images, self.out = Path(images).resolve(), Path(out).resolve()
        if not self.images.is_dir():
            raise FileNotFoundError(f'There is no folder of images {images}.')
        if self.out.is_relative_to(self.images):
            raise ValueError(f'{self.out} is within the images, {self.images}, and its maps would be taken for such.')
        files = [path for path in find_image_files(self.images) if path.is_file()]
        self.names = [path.relative_to(self.images).as_posix() for path in files]
        if not self.names:
            raise FileNotFoundError(f'{self.images} has no images ({", ".join(SUFFIXES)}), nor have folders in it.')
        stems = {}
        for name in self.names:
            other = stems.setdefault(PurePosixPath(name).with_suffix(''), name)
            if other != name:
                raise ValueError(f'{other} and {name} would have one map, as only their endings differ: rename one.')
        self.inferencer = AttentionInferencer(str(config), str(checkpoint), device)
        if not isinstance(self.inferencer.model, BaseClassifier):
            raise ValueError(f'The editor shows scores of classes; a {type(self.inferencer.model).__name__} has none.')
        taps = attention_maps(self.inferencer.model)
        self.kinds = {name: tap.kind for name, tap in taps.items()}
        self._extra_tokens = {name: tap.extra_tokens for name, tap in taps.items()}
        self.layers = list(self.kinds)
        self.checkpoint = _sha256(Path(checkpoint))
        self._lock = threading.RLock()
        self._known = set(self.names)
        self._classes(self.inferencer.config.model)
        self.out.mkdir(parents=True, exist_ok=True)
        self._entries = self._read_manifest()
        self._mistakes: tuple[list[str], dict[str, str]] | None = None

    def _classes(self, model: Mapping) -> None:
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

    def load(self, name: str) -> np.ndarray:
        """An image as it is shown.

        Args:
            name (str): One of :attr:`names`.

        Returns:
            np.ndarray: Image (H, W, 3), uint8 in BGR.

        Raises:
            BrokenImage: If the file is incomplete, corrupt or too large.
            KeyError: If it is none of the images.
        """
        return show_image(self.inferencer.pipeline.read(self._path(name)))[..., ::-1].copy()

    def _path(self, name: str) -> Path:
        if name not in self._known:
            raise KeyError(f'{name!r} is none of the {len(self.names)} images in {self.images}.')
        return self.images / name

    def predict(self, name: str) -> Result:
        """Scores and maps of an image.

        Args:
            name (str): One of :attr:`names`.

        Returns:
            Result: Of the network as it is.

        Raises:
            BrokenImage: If the file is no whole image, or too large.
            KeyError: If it is none of the images.
        """
        return self._forward(name, {})

    def edit(self, name: str, layer: str, painted: np.ndarray | Tensor) -> Result:
        """Scores and maps of an image whose attention in one layer is another one.

        Args:
            name (str): One of :attr:`names`.
            layer (str): One of :attr:`layers`.
            painted (np.ndarray | Tensor): (H, W, 2) over the whole image, of any size: the attention c and its opacity
                A, both in [0, 1]; or (H, W), the attention everywhere. Strokes become such by :func:`paint`.

        Returns:
            Result: Of the edited network.

        Raises:
            BrokenImage: If the file is no whole image, or too large.
            KeyError: If image or layer are none of these.
            ValueError: If ``painted`` has another shape or range.
        """
        painted = torch.as_tensor(painted).float()
        if painted.dim() == 2:
            painted = torch.stack([painted, torch.ones_like(painted)], -1)
        if painted.dim() != 3 or painted.shape[2] != 2 or not painted.numel():
            raise ValueError(f'painted is (height, width, 2) or (height, width), not {tuple(painted.shape)}.')
        if not ((painted >= 0) & (painted <= 1)).all():
            raise ValueError(f'Attention and opacity are from 0 to 1, not from {painted.min():g} to {painted.max():g}.')
        return self._forward(name, {layer: painted})

    def _forward(self, name: str, painted: Mapping[str, Tensor]) -> Result:
        sample = self.inferencer.pipeline(self._path(name), name, follow=True)
        shape = tuple(sample.packed['inputs'].shape[-2:])
        with self._lock:
            edits = {layer: self._edit(layer, one, sample.view, shape) for layer, one in painted.items()}
            with edit_attention(self.inferencer.model, edits):
                next(self.inferencer.predict([sample]))
        maps = {layer: self._shown(layer, raw, sample.input_shape) for layer, raw in sample.maps.items()}
        scores = sample.prediction.pred_score.float().cpu().flatten()
        return Result(scores, maps, sample.maps, sample.view, sample.input_shape)

    def _edit(self, layer: str, painted: Tensor, view: View, shape: tuple[int, int]) -> Callable[[Tensor], Tensor]:
        """The function of a map that :func:`edit_attention` takes."""
        if layer not in self.kinds:
            raise KeyError(f'{layer!r} is no layer with attention; there are {self.layers}.')
        kind = self.kinds[layer]

        def edit(attention: Tensor) -> Tensor:
            grid = attention.shape[2:]
            if kind == 'pairwise':
                grid = pairwise_attention(attention[:1], shape, extra_tokens=self._extra_tokens[layer]).shape[2:]
            value, opacity = _on_grid(painted, view, grid)  # premultiplied
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

        return edit

    def _shown(self, layer: str, raw: Tensor, shape: tuple[int, int]) -> Tensor:
        """A map (C, h, w) or (heads, Q, K) as one of (h, w) in [0, 1]."""
        kind, raw = self.kinds[layer], raw[None].float()
        high, shares = _scale(raw, kind)
        spatial = raw.abs()
        if kind == 'pairwise':
            spatial = pairwise_attention(spatial, shape, extra_tokens=self._extra_tokens[layer])
        mean = spatial.mean((0, 1))  # h, w
        bounded = torch.is_tensor(high)  # numbers that say something only beside each other
        return (mean / mean.max().clamp_min(torch.finfo(mean.dtype).tiny) if bounded else mean).clamp(0, 1)

    def map_over_image(self, result: Result, layer: str, shape: tuple[int, int]) -> np.ndarray:
        """A map over the whole image, at any size.

        Args:
            result (Result): From :meth:`predict` or :meth:`edit`.
            layer (str): One of :attr:`layers`.
            shape (Tuple[int, int]): Height and width.

        Returns:
            np.ndarray: Map (H, W), float32 in [0, 1]; NaN where the test pipeline crops the image.
        """
        scale = tuple(one * old / new for one, old, new in zip(result.view.scale, result.view.original, shape))
        view = dataclasses.replace(result.view, original=tuple(shape), scale=scale)
        return maps_in_view(result.maps[layer][None], view, result.input_shape)[0].cpu().numpy()

    def save(self, name: str, layer: str, painted: np.ndarray | Tensor, strokes: Sequence[Mapping] = ()) -> dict:
        """Write the edited map of a layer and its line of the manifest; both replace those of before.

        The map covers the whole image, at the cells of the network's own; where the test pipeline crops the image, it
        is its mean.

        Args:
            name (str): One of :attr:`names`.
            layer (str): One of :attr:`layers`.
            painted (np.ndarray | Tensor): As for :meth:`edit`.
            strokes (Sequence[Mapping]): What it was painted by, for the manifest. Defaults to nothing.

        Returns:
            dict: The entry of the manifest.

        Raises:
            BrokenImage: If the file is no whole image, or too large.
            KeyError: If image or layer are none of these.
            ValueError: If ``painted`` has another shape or range, or a link in ``out`` leads elsewhere.
        """
        before, after = self.predict(name), self.edit(name, layer, painted)
        attention = after.maps[layer]
        cells = zip(attention.shape, after.view.original, after.view.scale, after.input_shape)
        whole = tuple(max(1, round(cell * old * abs(scale) / got)) for cell, old, scale, got in cells)
        attention = self.map_over_image(after, layer, whole)
        attention = np.where(np.isnan(attention), np.nanmean(attention), attention)
        entry = dict(
            image=name,
            label=self.label(name),
            layer=layer,
            map=PurePosixPath('maps', layer, name).with_suffix('.png').as_posix(),
            before=self._said(before),
            after=self._said(after),
            checkpoint=self.checkpoint,
            time=datetime.now(timezone.utc).isoformat(timespec='milliseconds'),
            strokes=list(strokes),
        )
        png = cv2.imencode('.png', np.rint(attention * 65535).astype(np.uint16))[1].tobytes()
        with self._lock:
            entries = {**self._entries, (name, layer): entry}
            self._write(entry['map'], png)
            self._write(MANIFEST, ''.join(f'{json.dumps(one)}\n' for one in entries.values()).encode())
            self._entries = entries
        return entry

    def discard(self, name: str, layer: str) -> None:
        """Take a saved map back: its file and its line of the manifest. Nothing happens if there is none."""
        with self._lock:
            entries = copy.copy(self._entries)
            if entry := entries.pop((name, layer), None):
                self._write(MANIFEST, ''.join(f'{json.dumps(one)}\n' for one in entries.values()).encode())
                self._entries = entries
                self._inside(entry['map']).unlink(missing_ok=True)

    def saved(self, name: str | None = None) -> list[dict]:
        """Entries of the manifest, of one image or of all, in the order in which they were first saved."""
        return [entry for entry in self._entries.values() if name in (None, entry['image'])]

    def export(self) -> bytes:
        """A zip of the manifest and all maps that it names, as they lie in ``out``."""
        buffer = io.BytesIO()
        with self._lock, ZipFile(buffer, 'w') as archive:
            entries = list(self._entries.values())
            archive.writestr(MANIFEST, ''.join(f'{json.dumps(one)}\n' for one in entries))
            for entry in entries:
                archive.writestr(entry['map'], self._inside(entry['map']).read_bytes())
        return buffer.getvalue()

    def mistakes(self, batch_size: int = 32) -> tuple[list[str], dict[str, str]]:
        """Predict all images whose label is known, once.

        Args:
            batch_size (int): Images that run at once. Between batches, edits have their turn. Defaults to 32.

        Returns:
            Tuple[List[str], Dict[str, str]]: Images that the network gets wrong, and by name what is wrong with images
            that are broken.
        """
        if self._mistakes is None:
            wrong, broken = [], {}
            labelled = (name for name in self.names if self.label(name) is not None)
            alike = self.inferencer.predict(self._samples(labelled, broken), batch_size, [])
            while True:
                with self._lock:
                    one = next(alike, None)
                if one is None:
                    break
                if int(one.prediction.pred_score.argmax()) != self.label(one.name):
                    wrong.append(one.name)
            self._mistakes = wrong, broken
        return self._mistakes

    def _samples(self, names: Iterator[str], broken: dict[str, str]) -> Iterator[ImageSample]:
        for name in names:
            try:
                yield self.inferencer.pipeline(self._path(name), name)
            except BrokenImage as error:
                broken[name] = str(error)

    def _said(self, result: Result) -> dict:
        label = int(result.scores.argmax())
        return {'label': label, 'class': self.class_name(label), 'score': round(result.scores[label].item(), 6)}

    def class_name(self, label: int) -> str:
        """The name of a class; its number if there is none."""
        return self.classes[label] if label < len(self.classes) else str(label)

    def _inside(self, name: str) -> Path:
        """The path of a file in ``out``, whatever links are there."""
        path = (self.out / name).resolve()
        if not path.is_relative_to(self.out) or path == self.out:
            raise ValueError(f'{name!r} is not within {self.out}: it leads to {path}. Remove the link.')
        return path

    def _write(self, name: str, content: bytes) -> None:
        """Write a file so that at any moment it is the old or the new one, also after a power cut."""
        write_whole(self._inside(name), content)

    def _read_manifest(self) -> dict[tuple[str, str], dict]:
        path = self._inside(MANIFEST)
        entries = {}
        for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
            try:
                entry = json.loads(line)
                name, layer, file = entry['image'], entry['layer'], entry['map']
                self._inside(file)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f'{path}, line {number}, is no entry of this editor ({type(error).__name__}: {error}). Mend or '
                    'remove the line, or take another folder for out.'
                ) from error
            entries[name, layer] = entry
        return entries


def _positions(kind: str) -> tuple[int, ...]:
    return (3,) if kind == 'pairwise' else (2, 3)


def _scale(attention: Tensor, kind: str) -> tuple[Tensor | float, bool]:
    """What full attention is in maps (N, ...), and whether they are shares."""
    axes = _positions(kind)
    shares = kind != 'channel' and bool(
        (attention >= 0).all() and ((attention.float().sum(axes) - 1).abs() < 1e-2).all()
    )
    if kind != 'pairwise' and not shares and bool((attention >= 0).all() and (attention <= 1).all()):
        return 1.0, False
    return attention.abs().amax(axes, keepdim=True), shares


def _on_grid(painted: Tensor, view: View, grid: Sequence[int]) -> Tensor:
    """Paint over an image (H, W, 2) as (2, h, w) over what the network sees of it; the first is premultiplied."""
    value, opacity = painted.unbind(-1)
    layers = torch.stack([value * opacity, opacity])[None]
    fine, sides = [], []
    for size, cells, original, seen, scale, offset in zip(
        layers.shape[2:], grid, view.original, view.seen, view.scale, view.offset
    ):
        many = max(
            1, round(size * seen / (abs(scale) * original) / cells)
        )  # samples a cell, about one a pixel of paint
        places = ((torch.arange(cells * many) + 0.5) / (cells * many) * seen - offset) / (scale * original)
        fine.append(many)
        sides.append(2 * places - 1)
    where = torch.stack(torch.meshgrid(*sides, indexing='ij')[::-1], -1)[None].to(layers)  # x, y
    sampled = F.grid_sample(layers, where, padding_mode='border', align_corners=False)
    return F.avg_pool2d(sampled, fine)[0]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
