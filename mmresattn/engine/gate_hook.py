"""The masker of a gate learns from corrections before the training of its classifier begins."""

from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmpretrain.utils import get_ori_model

from ..datasets.corrections import Corrections
from ..utils import seed_by
from .replay import Draw


@HOOKS.register_module()
class GateHook(Hook):
    """Lets the masker of a :class:`~mmresattn.models.classifiers.GatedClassifier` learn from corrections.

    The pipeline of the training images must have a :class:`~mmresattn.datasets.LoadCorrection`. A training that is
    resumed has the masker in its checkpoint.

    Args:
        corrections (str): Folder of corrections.
        rounds (int): How often each corrected image is drawn, every time flipped or cropped anew. Defaults to 2.
    """

    def __init__(self, corrections: str, rounds: int = 2) -> None:
        self.corrections = corrections
        self.rounds = rounds

    def before_train(self, runner: Runner) -> None:
        """Draw the corrected images and fit the masker."""
        if runner.iter:
            return
        model = get_ori_model(runner.model)
        dataset = runner.train_dataloader.dataset
        indices = Corrections(self.corrections).indices(dataset)
        draws = [Draw.of(i, runner.seed, round_) for round_ in range(self.rounds) for i in indices]
        batch = model.data_preprocessor(pseudo_collate([dataset[draw] for draw in draws]), training=False)
        seed_by('gate', runner.seed)
        loss = model.fit(batch['inputs'], batch['data_samples'], runner.seed)
        runner.logger.info(f'GateHook: the masker has learnt from {len(indices)} corrected images; loss {loss:.4f}.')
