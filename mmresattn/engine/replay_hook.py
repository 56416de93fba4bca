"""Training whose random draws follow from (seed, rank, iteration), so that it can be resumed anywhere."""

from itertools import chain, repeat

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner

from ..datasets import ReplaySampler
from ..utils import seed_by


@HOOKS.register_module()
class ReplayHook(Hook):
    """Makes an interrupted and resumed run end with the weights of an uninterrupted one.

    MMEngine resumes weights, optimizer and schedules, but no random state, and it resumes iteration-based training by
    loading all past batches again. With this hook dropout, mixup and whatever else is drawn in the main process
    follows from (seed, rank, iteration), and a :class:`ReplaySampler` starts at the right sample at once. Augmentation
    in the workers follows with :class:`ReplaySeed` at the head of the pipeline.
    """

    def before_train(self, runner: Runner) -> None:
        """Set the sampler to where the run stands."""
        loop = runner.train_loop
        sampler = loop.dataloader.sampler
        if not isinstance(sampler, ReplaySampler):
            runner.logger.warning(
                'ReplayHook: a resumed run will differ from an uninterrupted one, because the sampler is no '
                'ReplaySampler.'
            )
            return
        iter_based = isinstance(loop, IterBasedTrainLoop)
        if iter_based != sampler.infinite:
            raise ValueError(
                f"{type(loop).__name__} needs sampler=dict(type='ReplaySampler', infinite={iter_based}) for its data."
            )
        sampler.seed = runner.seed  # a resumed seed comes after the sampler was built
        if iter_based and loop.iter:
            sampler.skip(loop.iter * loop.dataloader.batch_size)
            # MMEngine would now load and drop `iter` batches. It gets as many placeholders, then the real ones.
            loop.dataloader_iterator = chain(repeat(None, loop.iter), iter(loop.dataloader))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Set the random state of the main process."""
        seed_by(runner.seed, get_rank(), runner.iter)
