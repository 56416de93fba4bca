"""A loss that is not a number, or infinite: where it came from, and the state to look at."""

import io
import math
from functools import partial
from pathlib import Path

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmpretrain.utils import get_ori_model
from torch import Tensor, nn

from ..weights import write_whole
from ..weights.compare import named_tensors
from .replay import ReplayHook


def _finite(value) -> bool:
    return all(bool(tensor.isfinite().all()) for _, tensor in named_tensors(value))


def _largest(value) -> float:
    """The largest absolute value, at least 0."""
    return max((tensor.abs().max().item() for _, tensor in named_tensors(value) if tensor.numel()), default=0.0)


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stops a training at the first loss that is NaN or infinite, before the weights take it in.

    The weights are then those with which the loss was computed. With them the step is run once more to name the first
    module whose output is not finite, and they are saved with the batch in ``nonfinite/iter_<N>.pth`` of the work dir:
    ``state_dict``, so that the file loads like a checkpoint; ``inputs`` and ``samples``, as they came from the
    dataloader; and in ``modules`` every module whose output is not finite, in the order in which they ended.
    ``torch.load(path, weights_only=True)`` reads it. The step is the same again because random numbers follow from its
    number, which is :class:`ReplayHook`'s work. Only the statistics of BatchNorm have seen the batch already.

    Until then it costs next to nothing: whether the loss is finite is computed on its device and fetched while the
    backward pass runs. With several processes all of them stop.
    """

    priority = 'VERY_HIGH'  # before anything is averaged over steps, or saved
    losses = batch = None

    def before_train(self, runner: Runner) -> None:
        """Watch the losses of the model and the steps of the optimizer."""
        self.runner = runner
        self.model = get_ori_model(runner.model)
        self.handles = [
            self.model.register_forward_hook(self._watch),
            runner.optim_wrapper.optimizer.register_step_pre_hook(self._check),
        ]

    def after_train(self, runner: Runner) -> None:
        """Watch no more."""
        for handle in self.handles:
            handle.remove()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Keep the batch at hand."""
        self.batch = data_batch

    def after_train_iter(self, runner: Runner, **kwargs) -> None:
        """Check a loss after which no step was taken, as of an accumulated gradient.

        Raises:
            FloatingPointError: If it is not finite.
        """
        self._check()
        self.batch = None

    @torch.compiler.disable
    def _watch(self, model: nn.Module, args: tuple, losses: dict) -> None:
        if self.batch is None or not isinstance(losses, dict):
            return  # validation, or no loss
        with torch.no_grad():
            loss, self.losses = self.model.parse_losses(losses)
            wrong = (~loss.detach().isfinite()).int()
        all_reduce(wrong)
        # Into pinned memory, behind the forward pass and before the backward pass.
        self.wrong = wrong.to('cpu', non_blocking=True)
        self.fetched = None if wrong.is_cpu else torch.accelerator.current_stream(wrong.device).record_event()

    @torch.compiler.disable
    def _check(self, *args) -> None:
        if self.losses is None:
            return
        if self.fetched is not None:
            self.fetched.synchronize()
        losses, self.losses = self.losses, None
        if self.wrong.item():
            batch, self.batch = self.batch, None
            self._stop({name: value.item() for name, value in losses.items()}, batch)

    def _stop(self, losses: dict[str, float], batch: dict) -> None:
        """Find the cause, save the state and raise."""
        iteration = self.runner.iter + 1  # from 1, as in the log and in names of checkpoints
        rank = f'_rank{get_rank()}' if get_world_size() > 1 else ''
        path = Path(self.runner.work_dir, 'nonfinite', f'iter_{iteration}{rank}.pth')
        state = dict(
            iteration=iteration,
            epoch=self.runner.epoch + 1,
            losses=losses,
            state_dict={name: value.cpu().clone() for name, value in self.model.state_dict().items()},
            inputs=[tensor.cpu() for _, tensor in named_tensors(batch['inputs'])],
            samples=[_plain(sample) for sample in batch.get('data_samples') or ()],
        )
        cause, state['modules'] = self._trace(batch)  # in all processes: there may be layers that synchronise them
        if all(map(math.isfinite, losses.values())):
            cause = 'It is finite in this process; another one names the cause.'
        message = (
            f'The loss of iteration {iteration} (epoch {self.runner.epoch + 1}) is not finite: '
            f'{", ".join(f"{name} {value:.4g}" for name, value in losses.items())}. {cause} The step was not taken.'
        )
        self.runner.logger.error(message)  # first of all: the disk may be full
        try:
            with io.BytesIO() as buffer:
                torch.save(state, buffer)
                write_whole(path, buffer.getvalue())
            saved = f'Its batch and the weights before it are in {path}.'
        except OSError as error:
            saved = f'Its batch and the weights before it could not be saved to {path}: {error.strerror}.'
        raise FloatingPointError(
            f'{message} {saved} If the values grew over the last steps, lower the learning rate, warm it up or clip '
            'gradients (optim_wrapper.clip_grad=dict(max_norm=...)), and resume from a checkpoint before them.'
        )

    def _trace(self, batch: dict) -> tuple[str, list[dict]]:
        """Run the step again and say what came first."""
        modules = []

        def note(name, module, args, kwargs, output):
            if _finite(output):
                return
            own = [*module.named_parameters(recurse=False)]
            if not module.training:
                own += module.named_buffers(recurse=False)  # else they may have taken in this very batch
            modules.append(
                dict(
                    name=name,
                    type=type(module).__name__,
                    weights=[key for key, value in own if not _finite(value)],
                    finite_inputs=_finite([args, kwargs]),
                    largest_input=_largest([args, kwargs]),
                    largest_weight=_largest([value for _, value in own]),
                )
            )

        for hook in self.runner.hooks:
            if isinstance(hook, ReplayHook):
                hook.before_train_iter(self.runner, 0, batch)
        handles = [
            module.register_forward_hook(partial(note, name or 'the whole model'), with_kwargs=True)
            for name, module in self.model.named_modules()
        ]
        with (
            torch.no_grad(),
            torch.compiler.set_stance('force_eager'),
            self.runner.optim_wrapper.optim_context(self.runner.model),
        ):
            self.model(**self.model.data_preprocessor(batch, True), mode='loss')
        for handle in handles:
            handle.remove()
        broken = [
            str(sample.get('img_path') or f'number {i} of the batch')
            for i, (image, sample) in enumerate(zip(batch['inputs'], batch.get('data_samples') or ()))
            if not _finite(image)
        ]
        if broken:
            return f'Images hold values that are not finite: {", ".join(broken[:5])}.', modules
        if not modules:
            return 'It was finite when the step was run again.', modules
        first = modules[0]
        cause = f'The first module to give such values is {first["name"]} ({first["type"]}), '
        if first['weights']:
            return cause + f'whose {" and ".join(first["weights"])} held some before the step.', modules
        if not first['finite_inputs']:
            return cause + 'which was given some by an operation outside of any module.', modules
        return cause + (
            f'from finite values up to {first["largest_input"]:.3g}, with finite weights up to '
            f'{first["largest_weight"]:.3g}.'
        ), modules


def _plain(sample) -> dict:
    """A data sample as what ``torch.load`` reads without trust."""
    return {
        key: value.cpu() if isinstance(value, Tensor) else value if type(value) in (int, float, bool) else str(value)
        for key, value in sample.all_items()
    }
