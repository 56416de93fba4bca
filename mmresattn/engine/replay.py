"""Training that can be resumed anywhere.

Which images come, how each is augmented and what is drawn in the main process follows from the seed and from where
the run stands, (epoch, index) or (rank, iteration), not from what was drawn before. So there is no random state to
save, and neither the number of workers nor an interruption changes the result.
"""

import logging
from collections.abc import Iterator
from itertools import chain, count, islice, repeat

from mmcv.transforms import BaseTransform
from mmengine.dataset import DefaultSampler
from mmengine.dist import broadcast_object_list, get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import DATA_SAMPLERS, HOOKS, TRANSFORMS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import BatchSampler, get_worker_info

from ..utils import seed_by


class Draw(int):
    """An index into a data set that knows for which (seed, epoch) it was drawn.

    An index is the one thing that reaches a worker for every sample, also where workers live as long as the run.
    """

    key = None

    @classmethod
    def of(cls, index: int, *key: int) -> 'Draw':
        draw = cls(index)
        draw.key = key
        return draw


@DATA_SAMPLERS.register_module()
class ReplaySampler(DefaultSampler):
    """MMEngine's ``DefaultSampler`` that can start anywhere and says to the pipeline which draw a sample is.

    Args:
        *args: See ``DefaultSampler``: ``dataset``, ``shuffle``, ``seed`` (equal on all ranks) and ``round_up``.
        infinite (bool): Whether one epoch follows the other without end, for iteration-based training. Defaults to
            False.
        **kwargs: See ``DefaultSampler``.
    """

    def __init__(self, *args, infinite: bool = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.infinite = infinite
        self.skipped = 0

    def skip(self, samples: int) -> None:
        """Let the next iteration begin after so many samples of this rank, at no cost for those passed over."""
        self.skipped = samples

    def __iter__(self) -> Iterator[Draw]:
        epochs, skipped = divmod(self.skipped, len(self)) if self.infinite else (0, self.skipped)
        self.skipped = 0
        for epoch in count(epochs) if self.infinite else [self.epoch]:
            self.set_epoch(epoch)
            for index in list(super().__iter__())[skipped:]:
                yield Draw.of(index, self.seed, epoch)
            skipped = 0


@DATA_SAMPLERS.register_module()
class ReplayAspectRatioBatchSampler(BatchSampler):
    """Batches of images that are all wide or all high, as by MMDetection's ``AspectRatioBatchSampler``, from any batch.

    Args:
        sampler (ReplaySampler): Draws the images.
        batch_size (int): Images per batch.
        drop_last (bool): Whether to leave out a last batch that is smaller. Defaults to False.
    """

    def __init__(self, sampler: ReplaySampler, batch_size: int, drop_last: bool = False) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self.skipped = 0
        self.wide: dict[int, bool] = {}

    def skip(self, batches: int) -> None:
        """Let the next iteration begin after so many batches, whose images are not loaded."""
        self.skipped = batches

    def __iter__(self) -> Iterator[list[Draw]]:
        skipped, self.skipped = self.skipped, 0
        return islice(self._batches(), skipped, None)

    def _batches(self) -> Iterator[list[Draw]]:
        waiting = {True: [], False: []}
        for draw in self.sampler:
            batch = waiting[self._is_wide(draw)]
            batch.append(draw)
            if len(batch) == self.batch_size:
                yield list(batch)
                batch.clear()
        left = waiting[False] + waiting[True]
        end = len(left) - len(left) % self.batch_size if self.drop_last else len(left)
        for start in range(0, end, self.batch_size):
            yield left[start : start + self.batch_size]

    def _is_wide(self, draw: Draw) -> bool:
        index = int(draw)
        if index not in self.wide:
            info = self.sampler.dataset.get_data_info(index)
            self.wide[index] = info['width'] >= info['height']
        return self.wide[index]


@TRANSFORMS.register_module()
class ReplaySeed(BaseTransform):
    """Seeds everything that follows in a pipeline by the draw; it comes first.

    A sample that comes without a draw, as when a data set is browsed, passes. In a worker of a dataloader, that is in
    training, a warning says that augmentation will not be repeated. The data set may also take another sample for a
    broken one; it does so by the random state of the draw.

    **Required Keys:**

    - sample_idx (:class:`Draw`, from :class:`ReplaySampler`)
    """

    seeded = warned = False

    def transform(self, results: dict) -> dict:
        draw = results.get('sample_idx')
        if isinstance(draw, Draw):
            self.seeded = True
            seed_by('sample', *draw.key, draw)
            results['sample_idx'] = int(draw)
        elif get_worker_info() and not self.seeded and not self.warned:
            self.warned = True
            print_log(
                "ReplaySeed: a resumed run will draw other augmentations. It needs sampler=dict(type='ReplaySampler') "
                'in its dataloader, and a data set that keeps its indices (concatenated, repeated and balanced data '
                'sets make new ones).',
                'current',
                logging.WARNING,
            )
        return results


@HOOKS.register_module()
class ReplayHook(Hook):
    """Makes an interrupted and resumed run end with the weights of an uninterrupted one.

    MMEngine resumes weights, optimizer and schedules, but no random state, and it resumes iteration-based training by
    loading all past batches again. With this hook dropout, mixup and whatever else is drawn in the main process
    follows from (seed, rank, iteration), and a :class:`ReplaySampler` starts at the right sample at once, also in the
    middle of an epoch. Augmentation in the workers follows with :class:`ReplaySeed` at the head of the pipeline. A
    checkpoint must not fall between the steps of one accumulated gradient, which it does not hold.
    """

    def before_train(self, runner: Runner) -> None:
        """Set the sampler to where the run stands."""
        loop = runner.train_loop
        batches = getattr(loop.dataloader, 'batch_sampler', None)
        sampler = getattr(batches, 'sampler', None)
        if not isinstance(sampler, ReplaySampler) or type(batches) not in (BatchSampler, ReplayAspectRatioBatchSampler):
            runner.logger.warning(
                'ReplayHook: a resumed run will differ from an uninterrupted one, because '
                f'{type(sampler).__name__} with {type(batches).__name__} cannot start in the middle of an epoch. '
                "Set sampler=dict(type='ReplaySampler') in train_dataloader, and batch_sampler=None or "
                "dict(type='ReplayAspectRatioBatchSampler')."
            )
            return
        iter_based = isinstance(loop, IterBasedTrainLoop)
        if iter_based != sampler.infinite:
            raise ValueError(
                f"{type(loop).__name__} needs sampler=dict(type='ReplaySampler', infinite={iter_based}) for its data."
            )
        epochs, position = divmod(loop.iter, len(loop.dataloader))
        if iter_based:
            position = loop.iter
        elif position == 0 and epochs == loop.epoch + 1:
            position = len(loop.dataloader)  # saved by iteration: of the epoch only its end, as validation, is to come
        seeds = [runner.seed]  # of rank 0; a resumed one comes after the sampler was built
        broadcast_object_list(seeds)
        started_elsewhere = position or sampler.seed != seeds[0]
        sampler.seed = seeds[0]
        if isinstance(batches, ReplayAspectRatioBatchSampler):
            batches.skip(position)
        else:
            sampler.skip(position * batches.batch_size)
        if iter_based and started_elsewhere:
            # MMEngine would now load and drop `iter` batches. It gets as many placeholders, then the real ones.
            loop.dataloader_iterator = chain(repeat(None, loop.iter), iter(loop.dataloader))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Set the random state of the main process."""
        seed_by('iteration', runner.seed, get_rank(), runner.iter)
