"""Images that are no images: named, and on demand replaced and counted."""

import logging
from pathlib import Path

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS, TRANSFORMS
from mmengine.runner import Runner

from .image_files import BrokenImage, check_image, check_regular_file
from .in_memory import InMemory

LISTED = 10  # so many names at a time


class Replacement(str):
    """The path of an image that stands in the place of broken ones, and what was wrong with those.

    The path is what reaches the main process from a worker with every sample.
    """

    broken: dict[str, str] = {}

    @classmethod
    def of(cls, path: str, broken: dict[str, str]) -> 'Replacement':
        replacement = cls(path)
        replacement.broken = broken
        return replacement


@TRANSFORMS.register_module()
class LoadCheckedImage(LoadImageFromFile):
    """MMCV's ``LoadImageFromFile`` that never hands on a part of an image, and names the file that is none.

    Images come as (H, W, 3) uint8 in BGR, whatever the file holds: grey ones have three equal channels, CMYK and
    palettes are converted, transparency is dropped, and of 16 bits the upper 8 stay. Which files are refused,
    :func:`~mmresattn.datasets.check_image` says.

    An image that is loaded already (MMPretrain's inferencers give such) passes.

    Args:
        *args: See ``LoadImageFromFile``.
        skip_broken (bool): Whether a data set takes another image, by the random state of the draw, in place of a
            broken or missing one, in training alone: a test on other images would be another test. Missing folders stop
            the run in any case. :class:`BrokenImagesHook` counts and lists the skipped ones. Defaults to False, stop.
        **kwargs: See ``LoadImageFromFile``.
    """

    def __init__(self, *args, skip_broken: bool = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.skip_broken = skip_broken
        self.warnings = 0
        self.broken: dict[str, str] = {}

    def transform(self, results: dict) -> dict | None:
        """Load ``img``, ``img_shape`` and ``ori_shape`` from ``img_path``; None asks for another image.

        Raises:
            BrokenImage: If the file is no whole image, or not there, and shall not be skipped.
            FileNotFoundError: If the file's folder is not there.
        """
        if 'img_path' not in results:
            return results
        path = results['img_path']
        try:
            image = self._decode(self._read(path))
        except BrokenImage as error:
            message = f'{path} is no whole image: {error}.'
            if not self.skip_broken:
                raise BrokenImage(
                    f'{message} Replace or remove it; or let training take another in its place: skip_broken=True '
                    'in LoadCheckedImage.'
                ) from error
            self.broken[path] = str(error)
            self.warnings += 1
            if self.warnings <= LISTED:
                print_log(f'{message} In training, another takes its place.', 'current', logging.WARNING)
            return None
        if self.broken:
            results['img_path'], self.broken = Replacement.of(path, self.broken), {}
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _read(self, path: str) -> bytes:
        try:
            if '://' not in str(path) and not self.backend_args:
                check_regular_file(path)
            return fileio.get(path, backend_args=self.backend_args)
        except FileNotFoundError as error:
            gone = [folder for folder in Path(path).parents if not folder.exists()]
            if not gone:
                raise BrokenImage('it is not there') from error
            raise FileNotFoundError(
                f'The folder {gone[-1]} is not there, and with it {path}. Was it moved, or its disk unmounted? Bring '
                'it back and continue with --resume.'
            ) from error

    def _decode(self, content: bytes) -> np.ndarray:
        check_image(content)
        try:
            image = mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
        except Exception as error:  # each decoder has its own
            raise BrokenImage(f'{error or type(error).__name__}') from error
        if image is None:
            raise BrokenImage(f'{self.imdecode_backend} cannot decode its {len(content):,} bytes')
        return image


@HOOKS.register_module()
class BrokenImagesHook(Hook):
    """Counts the images that :class:`LoadCheckedImage` skipped, and lists some at the end of every epoch and run.

    An image counts when the step for which it was drawn is taken, in the order of the steps, and once however often it
    is drawn. The list is saved with the checkpoint: a resumed run ends with that of an uninterrupted one.
    """

    def before_train(self, runner: Runner) -> None:
        """Take up the list of the run so far, and what a data set in memory left out."""
        self.broken = dict(runner.message_hub.runtime_info.get('broken_images', {}))
        dataset = runner.train_dataloader.dataset
        self.broken.update(dataset.broken_images if isinstance(dataset, InMemory) else {})

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Note the skipped images of a batch."""
        for sample in data_batch['data_samples'] if isinstance(data_batch, dict) else ():
            path = sample.get('img_path')
            if type(path) is Replacement:
                self.broken.update(path.broken)
                runner.message_hub.update_info('broken_images', dict(self.broken))

    def after_train_epoch(self, runner: Runner) -> None:
        """Report, for all processes together."""
        broken = {path: why for part in all_gather_object(self.broken) for path, why in part.items()}
        self.broken = broken  # saved by the first process, for all
        if broken:
            listed = [f'    {path}: {why}' for path, why in sorted(broken.items())[:LISTED]]
            listed += [f'    and {len(broken) - LISTED} more'] if len(broken) > LISTED else []
            runner.logger.warning(
                '\n'.join([f'{len(broken)} broken images were skipped since the training began:', *listed])
            )
