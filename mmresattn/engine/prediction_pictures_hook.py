"""Pictures of the predictions of a test run."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement


@HOOKS.register_module()
class PredictionPicturesHook(Hook):
    """Draws what a network predicts for test images, by the visualiser of the config.

    Of a classifier the picture is what the network gets; of a detector or segmenter the file, read by the config's own
    loading step. Files are named by the path of the image within its data set: ``<out_dir>/cats/0001.png``.

    Args:
        out_dir (str, optional): Folder for the pictures. Defaults to none.
        show (bool): Whether to show them in a window. Defaults to False.
        interval (int): Draw one of so many samples. Defaults to 1.
        wait_time (float): Seconds for which a window stays; 0 until it is closed. Defaults to 0.
    """

    def __init__(
        self, out_dir: str | None = None, show: bool = False, interval: int = 1, wait_time: float = 0.0
    ) -> None:
        self.out_dir = out_dir
        self.show = show
        self.interval = interval
        self.wait_time = wait_time
        self.number = 0

    def before_test(self, runner: Runner) -> None:
        """Find what images are called."""
        from ..visualization import ImagePipeline, UniqueNames, data_set_root

        self.unique = UniqueNames()
        self.root = data_set_root(runner.test_dataloader.dataset)
        self.pipeline = ImagePipeline(Config(dict(runner.cfg)))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[BaseDataElement]
    ) -> None:
        """Draw the samples of a batch."""
        for inputs, sample in zip(data_batch['inputs'], outputs):
            if self.number % self.interval == 0:
                self._draw(runner, inputs, sample)
            self.number += 1

    def _draw(self, runner: Runner, inputs, sample: BaseDataElement) -> None:
        import matplotlib

        from ..visualization import class_names, plain_text, relative_name, show_image

        path = sample.get('img_path')
        name = self.unique(relative_name(path, self.root) if path else str(self.number))
        where = dict(
            name=name,
            show=self.show,
            wait_time=self.wait_time,
            out_file=self.out_dir and str(Path(self.out_dir, f'{name}.png')),
        )
        classes = class_names(runner.test_dataloader.dataset)
        named = [plain_text(str(name)) for name in classes or ()]
        families = list(dict.fromkeys(family for _, how in named for family in how['family']))
        fonts = {f'font.{kind}': families for kind in ('sans-serif', 'monospace') if families}
        with matplotlib.rc_context({'text.parse_math': False, **fonts}):  # as the visualisers write class names
            if hasattr(runner.visualizer, 'visualize_cls'):
                image = show_image(inputs.permute(1, 2, 0).cpu().numpy())
                runner.visualizer.visualize_cls(image, sample, [text for text, _ in named] or None, **where)
            else:  # of MMDetection and MMSegmentation
                image = show_image(self.pipeline.read(path))
                known = 'gt_instances' in sample or 'gt_sem_seg' in sample
                runner.visualizer.add_datasample(image=image, data_sample=sample, draw_gt=known, **where)
