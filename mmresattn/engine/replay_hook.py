"""Training whose random draws follow from (seed, rank, iteration), so that it can be resumed anywhere."""

from itertools import chain, repeat

from mmengine.dist import broadcast_object_list, get_rank
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
    follows from (seed, rank, iteration), and a :class:`ReplaySampler` starts at the right sample at once, also in the
    middle of an epoch. Augmentation in the workers follows with :class:`ReplaySeed` at the head of the pipeline. A
    checkpoint must not fall between the steps of one accumulated gradient, which it does not hold.
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
        position = loop.iter if iter_based else loop.iter % len(loop.dataloader)
        seeds = [runner.seed]  # of rank 0; a resumed one comes after the sampler was built
        broadcast_object_list(seeds)
        started_elsewhere = position or sampler.seed != seeds[0]
        sampler.seed = seeds[0]
        sampler.skip(position * loop.dataloader.batch_size)
        if iter_based and started_elsewhere:
            # MMEngine would now load and drop `iter` batches. It gets as many placeholders, then the real ones.
            loop.dataloader_iterator = chain(repeat(None, loop.iter), iter(loop.dataloader))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Set the random state of the main process."""
        seed_by('iteration', runner.seed, get_rank(), runner.iter)
