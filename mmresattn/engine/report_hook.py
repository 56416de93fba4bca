"""A report on the validation images at the end of a training."""

from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmpretrain.utils import get_ori_model
from torch.nn.parallel import DistributedDataParallel


@HOOKS.register_module()
class ReportHook(Hook):
    """Writes ``report.html`` into the work dir when a training ends: :func:`~mmresattn.evaluation.report.make_report`.

    The report is on the validation images, by which recipes are chosen; ``tools/report.py`` makes the same of the test
    images. Only the main process writes it. A model that is divided among processes gets none.

    Args:
        shown (int): How many mistakes to show, and how many unsure answers. Defaults to 12.
    """

    priority = 'LOWEST'  # after the checkpoint is saved

    def __init__(self, shown: int = 12) -> None:
        self.shown = shown

    def after_train(self, runner: Runner) -> None:
        """Write the report."""
        divided = is_model_wrapper(runner.model) and not isinstance(runner.model, DistributedDataParallel)
        if divided or not is_main_process() or runner.val_loop is None:
            return
        from ..evaluation.report import make_report  # with it comes Matplotlib

        file = Path(runner.work_dir, 'report.html')
        page = make_report(
            get_ori_model(runner.model).eval(),
            runner.val_loop.dataloader.dataset,
            Config(runner.cfg.to_dict()),
            title=Path(runner.cfg.filename or runner.experiment_name).stem,
            subtitle=f'{runner.work_dir}: validation images after {runner.epoch} epochs',
            shown=self.shown,
        )
        file.write_text(page, encoding='utf-8')
        runner.logger.info(f'Report on the validation images: {file}')
