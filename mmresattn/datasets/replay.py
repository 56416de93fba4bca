"""Data loading that can be resumed anywhere: which images come, and how each is augmented, follows from (seed, epoch,
index) alone, not from what the workers did before."""

from collections.abc import Iterator, Sized
from itertools import count

from mmcv.transforms import BaseTransform
from mmengine.dataset import DefaultSampler
from mmengine.registry import DATA_SAMPLERS, TRANSFORMS

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
        dataset (Sized): The data set.
        shuffle (bool): Whether to shuffle, anew each epoch. Defaults to True.
        seed (int, optional): Seed, equal on all ranks. Defaults to the runner's.
        round_up (bool): Whether ranks get equally many samples, by repeating some. Defaults to True.
        infinite (bool): Whether one epoch follows the other without end, for iteration-based training. Defaults to
            False.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
        infinite: bool = False,
    ) -> None:
        super().__init__(dataset, shuffle, seed, round_up)
        self.infinite = infinite
        self.skipped = 0

    def skip(self, samples: int) -> None:
        """Let the next iteration begin after so many samples of this rank, at no cost for those passed over."""
        self.skipped = samples

    def __iter__(self) -> Iterator[Draw]:
        epochs, skipped = divmod(self.skipped, len(self))
        self.skipped = 0
        for epoch in count(epochs) if self.infinite else [self.epoch]:
            self.set_epoch(epoch)
            for index in list(super().__iter__())[skipped:]:
                yield Draw.of(index, self.seed, epoch)
            skipped = 0


@TRANSFORMS.register_module()
class ReplaySeed(BaseTransform):
    """Seeds everything that follows in a pipeline by the draw; it comes first.

    **Required Keys:**

    - sample_idx (:class:`Draw`, from :class:`ReplaySampler`)

    Raises:
        TypeError: If the sampler is another one.
    """

    seeded = False

    def transform(self, results: dict) -> dict:
        draw = results['sample_idx']
        if self.seeded and not isinstance(draw, Draw):
            return results  # the data set takes another sample for a broken one, by the random state of the draw
        if not isinstance(draw, Draw):
            raise TypeError(
                "ReplaySeed needs sampler=dict(type='ReplaySampler') in its dataloader, and a data set that keeps its "
                'indices (concatenated, repeated and balanced data sets make new ones).'
            )
        self.seeded = True
        seed_by('sample', *draw.key, draw)
        results['sample_idx'] = int(draw)
        return results
