"""From a file, an array or a data set to what the network gets: the first half of the road to a picture."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from mmcv.transforms import CenterCrop, LoadImageFromFile
from mmengine import fileio
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope
from mmengine.structures import BaseDataElement
from mmpretrain.datasets.transforms import ResizeEdge
from torch import Tensor

from ..datasets import BrokenImage, ImageArrays, LoadCheckedImage, check_image
from ..datasets.image_files import check_regular_file
from .original_image import View, run_and_follow
from .overlay import check_image_array

LOADS_IMAGE = re.compile('(Load|Read|Decode)(?!.*(Annotation|Proposal|AttentionMap))')
LOADS_OTHER = re.compile('Load.*(Annotation|Proposal|AttentionMap)')
RESIZES = re.compile('Resize|Crop|Pad')


@dataclass
class ImageSample:
    """An image on its way to a picture.

    Attributes:
        name (str): For files and titles.
        image (np.ndarray): The image (H, W) or (H, W, C) in BGR as the config's loading step gives it, of any type; of
            a data set, what the network gets.
        packed (dict): ``inputs`` (C, h, w) and ``data_samples``, from the test pipeline.
        view (View, optional): What the network sees of ``image``, if that was asked for.
        prediction (BaseDataElement, optional): The data sample that the network returns.
        maps (Dict[str, Tensor]): By name the attention without the batch, on the CPU.
        input_shape (Tuple[int, int]): Height and width of the network's input, padding of the batch included.
    """

    name: str
    image: np.ndarray
    packed: dict
    view: View | None = None
    prediction: BaseDataElement | None = None
    maps: dict[str, Tensor] = field(default_factory=dict)
    input_shape: tuple[int, int] = ()


class ImagePipeline:
    """The test pipeline of a config, for single images.

    A file is read by the config's own loading step, with its colours, depth and decoder. Where the data set of the
    config gives images itself, files are read as such images are: with one channel if the ``data_preprocessor`` has one
    mean, and in RGB if it does not convert to RGB, except for :class:`~mmresattn.datasets.ImageArrays`, which gives
    BGR.

    Args:
        cfg (Config): A config with a ``test_dataloader``, or of one with a ``data_preprocessor``.
        input_size (Tuple[int, int], optional): Height and width of the images that the network was trained on. Where
            the test pipeline neither resizes nor crops, images of other sizes are resized to it by their shorter edge
            and cropped in the centre. Defaults to None: the pipeline alone decides.
    """

    def __init__(self, cfg: Config, input_size: Sequence[int] | None = None) -> None:
        dataset = cfg.test_dataloader.dataset
        while 'pipeline' not in dataset:
            dataset = dataset['dataset'] if 'dataset' in dataset else dataset['datasets'][0]
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
            steps = [step if callable(step) else TRANSFORMS.build(step) for step in dataset.pipeline]
            steps = [step for step in steps if not LOADS_OTHER.match(type(step).__name__)]
        loads = [isinstance(step, LoadImageFromFile) or LOADS_IMAGE.match(type(step).__name__) for step in steps]
        first = next((i for i, does in enumerate(loads) if does), None)
        if first is None:
            self.loading, self.steps = _as_the_data_set_gives(cfg, dataset.type, steps)
        else:
            self.loading, self.steps = steps[: first + 1], steps[first + 1 :]
        if input_size and not any(RESIZES.search(type(step).__name__) for step in self.steps):
            crop = CenterCrop(tuple(reversed(input_size)))  # width, height
            self.steps = [ResizeEdge(max(input_size), edge='short'), crop, *self.steps]

    def __call__(self, source: str | Path | np.ndarray, name: str = '', *, follow: bool = False) -> ImageSample:
        """Read an image and prepare it for the network.

        Args:
            source (str | Path | np.ndarray): Path or address of a file; or an image as the loading step gives it, (H,
                W) or (H, W, C) in BGR.
            name (str): For files and titles. Defaults to none.
            follow (bool): Whether to find what the network sees of the image, which maps on it need. Defaults to False.

        Returns:
            ImageSample: With its view, if ``follow``.

        Raises:
            BrokenImage: If the file is incomplete, corrupt, too large or of another format.
            FileNotFoundError: If there is no such file.
            ValueError: If an array is no image; or, with ``follow``, if the pipeline cannot be followed.
        """
        if isinstance(source, np.ndarray):
            check_image_array(source)
            shape = source.shape[:2]
            results = dict(img=self._as_loaded(source), img_shape=shape, ori_shape=shape)
        else:
            results = self._read(str(source))
        results['img_id'] = name
        if not follow:
            return ImageSample(name, results['img'], Compose(self.steps)(results))
        image = results['img'].copy()
        packed, view = run_and_follow(self.steps, results)
        return ImageSample(name, image, packed, view)

    def _as_loaded(self, image: np.ndarray) -> np.ndarray:
        """An array, such as a frame of a video, with the channels and type that the loading step would give."""
        load = self.loading[-1]
        if getattr(load, 'color_type', '') == 'grayscale' and image.ndim == 3 and image.shape[2] == 3:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        return image.astype(np.float32) if getattr(load, 'to_float32', False) else image

    def read(self, source: str | Path) -> np.ndarray:
        """The image of a file, as the config's loading step gives it. Arguments and errors are those of a call."""
        return self._read(str(source))['img']

    def _read(self, path: str) -> dict:
        path = os.path.expanduser(path)
        if '://' not in path and not os.path.lexists(path):
            raise FileNotFoundError(f'There is no image {path}.')
        try:
            with fileio.get_local_path(path) as local:  # a download, or the path itself
                check_regular_file(local)
                if any(isinstance(step, LoadImageFromFile) for step in self.loading):
                    check_image(Path(local).read_bytes())
                results = Compose(self.loading)(dict(img_path=local))
        except Exception as error:  # each decoder has its own
            why = error.__cause__ if isinstance(error.__cause__, BrokenImage) else error
            raise BrokenImage(f'{path} cannot be read as an image: {str(why) or type(why).__name__}.') from error
        if results is None:
            raise BrokenImage(f'{path} cannot be read as an image: the loading step of the config gives none.')
        return {**results, 'img_path': path}


def data_set_sample(dataset: Sequence, index: int, name: str = '') -> ImageSample:
    """An image of any data set, as its own pipeline prepares it for the network.

    Args:
        dataset (Sequence): What a dataloader takes, in whatever wrappers.
        index (int): Which one.
        name (str): For titles. Defaults to the index.

    Returns:
        ImageSample: Whose ``image`` is what the network gets, in full view.
    """
    packed = dataset[index]
    image = packed['inputs'].permute(1, 2, 0).cpu().numpy()
    return ImageSample(name or str(index), image, packed, View(image.shape[:2], image.shape[:2]))


def _as_the_data_set_gives(cfg: Config, dataset: str | type, steps: list) -> tuple[list, list]:
    """Loading and further steps for files, where the data set gives images itself."""
    preprocessor = cfg.get('data_preprocessor') or cfg.get('model', {}).get('data_preprocessor') or {}
    mean = preprocessor.get('mean')
    if mean is not None and len(np.atleast_1d(mean)) == 1:
        return [LoadCheckedImage(color_type='grayscale')], steps
    to_rgb = preprocessor.get('to_rgb', preprocessor.get('bgr_to_rgb', False))
    gives_bgr = to_rgb or (DATASETS.get(dataset) if isinstance(dataset, str) else dataset) is ImageArrays
    return [LoadCheckedImage()], steps if gives_bgr else [_to_rgb, *steps]


def _to_rgb(results: Mapping) -> dict:
    return {**results, 'img': np.ascontiguousarray(results['img'][..., ::-1])}
