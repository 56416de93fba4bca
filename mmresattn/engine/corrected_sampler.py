"""Sampling in which corrected images come more often."""

from collections.abc import Iterator

import numpy as np
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Dataset

from ..datasets.corrections import Corrections
from .replay import Draw, ReplaySampler


@DATA_SAMPLERS.register_module()
class CorrectedSampler(ReplaySampler):
    """A :class:`ReplaySampler` in which corrected images come more often, in the place of others.

    A hundred corrections among thousands of images are too few in a batch to be learnt from. An epoch stays as long as
    it is.

    Args:
        dataset (Dataset): The data set.
        corrections (str): Folder of corrections, see :class:`~mmresattn.datasets.Corrections`.
        share (float): Share of all samples that are corrected images, from above 0 to 1. Defaults to 0.2.
        **kwargs: See :class:`ReplaySampler`.
    """

    def __init__(self, dataset: Dataset, corrections: str, share: float = 0.2, **kwargs) -> None:
        super().__init__(dataset, **kwargs)
        if not 0 < share <= 1:
            raise ValueError(f'share is from above 0 to 1, not {share!r}.')
        self.share = share
        self.corrected = Corrections(corrections).indices(dataset)

    def __iter__(self) -> Iterator[Draw]:
        for place, draw in enumerate(super().__iter__(), start=self.skipped):
            seed, epoch = draw.key
            if int((place + 1) * self.share) > int(place * self.share):
                round_, position = divmod(int(place * self.share) * self.world_size + self.rank, len(self.corrected))
                order = np.random.default_rng([seed, epoch, round_]).permutation(len(self.corrected))
                draw = Draw.of(self.corrected[order[position]], seed, epoch, place)
            yield draw
