"""Cut a backbone before its last downsampling, for any backbone that ends in a chain of modules.

A forward pass of zeros shows which modules hand their output to the next one. Those from the cut on move into a
:class:`LastStage`; ``nn.Identity`` takes their places, so that the backbone's own forward gives the features before the
cut. A backbone that is usually cut elsewhere names the module in an attribute ``cut_before``.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import accumulate
from typing import NamedTuple

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ...utils import input_channels


def build_backbone(config: dict) -> nn.Module:
    """Build a backbone. A plain type name is MMPretrain's, whatever the default scope of this process."""
    return MODELS.build({'_scope_': 'mmpretrain', **config})


def run_on_zeros(module: nn.Module, shape: Sequence[int]) -> Tensor | tuple[Tensor, ...]:
    """Output of a module for zeros of a shape, in evaluation mode, where nothing of the module changes."""
    training = {part: part.training for part in module.modules()}
    try:
        for part in training:
            part.training = False
        with torch.no_grad():
            return module(next(module.parameters()).new_zeros(shape))
    finally:
        for part, mode in training.items():
            part.training = mode


def feature_side(backbone: nn.Module) -> int:
    """Side of the images with which backbones are looked through: 64, or the ``min_size`` of one if that is larger."""
    return max(64, getattr(backbone, 'min_size', 1))


def feature_shapes(backbone: nn.Module) -> list[torch.Size]:
    """Shapes of a backbone's outputs for an image with sides of :func:`feature_side`."""
    side = feature_side(backbone)
    return [feature.shape for feature in run_on_zeros(backbone, (1, input_channels(backbone), side, side))]


class LastStage(nn.Module):
    """The modules of a backbone from the cut on, under the names they have there.

    Args:
        backbone (nn.Module): Backbone that the modules are taken from.
        names (Sequence[str]): Names of the modules, in the order in which they run.
        in_shape (torch.Size): Shape of the features before the cut.
        pool_last (bool): Whether the last module, a normalisation, follows global average pooling. Defaults to False.

    Attributes:
        drop (nn.Module): Follows each block; ``nn.Identity`` unless it is replaced.
        out_channels (int): Channels of the output.
    """

    def __init__(
        self, backbone: nn.Module, names: Sequence[str], in_shape: torch.Size, pool_last: bool = False
    ) -> None:
        super().__init__()
        self.names = list(names)
        self.in_shape = in_shape
        self.pool_last = pool_last
        for name in self.names:
            _put(self, name, backbone.get_submodule(name))
        self.drop = nn.Identity()
        self.out_channels = run_on_zeros(self, in_shape).shape[1]

    def forward(self, x: Tensor, drop: Callable | None = None) -> Tensor:
        """Run the modules.

        Args:
            x (Tensor): Features before the cut (N, C, H, W).
            drop (Callable, optional): Called on the output of each block, instead of the attribute.

        Returns:
            Tensor: (N, out_channels, H / stride, W / stride), or (N, out_channels, 1, 1) with ``pool_last``.
        """
        for name in self.names:
            module = self.get_submodule(name)
            if self.pool_last and name == self.names[-1]:
                x = x.mean((2, 3), keepdim=True)
            x = module(x)
            if _has_weights(module):
                x = (drop or self.drop)(x)
        return x

    def at_stride_one(self) -> 'LastStage':
        """A copy that keeps the size of its input, with the same weights.

        Poolings of even kernels are left out, as in a stage that is built at stride 1. A normalisation that closes the
        network after its last block is left out too: an attention branch has its own.

        Raises:
            ValueError: If the copy does not keep the size.
        """
        last = max(i for i, name in enumerate(self.names) if _has_weights(self.get_submodule(name)))
        if isinstance(self.get_submodule(self.names[last]), nn.Conv2d):  # with its own normalisation behind it
            last = len(self.names) - 1
        pool_last = self.pool_last and last == len(self.names) - 1
        copy = deepcopy(LastStage(self, self.names[: last + 1], self.in_shape, pool_last))
        calls = _calls(copy, lambda: run_on_zeros(copy, self.in_shape))
        shrinks = {call.name: call.shrinks for call in calls}  # attention layers that pool inside do not
        for name, module in list(copy.named_modules()):
            stride, kernel = getattr(module, 'stride', 1), getattr(module, 'kernel_size', 1)
            above = accumulate(name.split('.'), '{}.{}'.format)
            if _largest(stride) == 1 or not all(shrinks.get(part, True) for part in above):
                continue
            module.stride = (1, 1) if isinstance(stride, tuple) else 1
            even = _largest(kernel) % 2 == 0
            if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
                module.padding = _largest(kernel) // 2
                if even:
                    _put(copy, name, nn.Identity())
            elif isinstance(module, nn.Conv2d) and even:
                module.padding = 'same'
        try:
            size = run_on_zeros(copy, self.in_shape).shape[2:]
        except RuntimeError:  # a block that is built in another way at stride 1, as those of ShuffleNet
            size = None
        if size != self.in_shape[2:]:
            raise ValueError(f'{copy.names} cannot run at stride 1, as an attention branch does; cut elsewhere.')
        return copy


class FirstStages(nn.Module):
    """The modules of a backbone up to a stride, under the names they have there.

    Args:
        backbone (nn.Module): Backbone that the modules are taken from.
        stride (int): Largest stride. Defaults to 8.

    Attributes:
        out_channels (list[int]): Channels of each output.

    Raises:
        ValueError: If the backbone does not begin with a chain of modules.
    """

    def __init__(self, backbone: nn.Module, stride: int = 8) -> None:
        super().__init__()
        side = feature_side(backbone)
        blocks = [block for block in _last_blocks(backbone) if block.output.shape[-1] * stride >= side]
        if not blocks or blocks[0].input.shape[-1] != side:
            raise ValueError(f'{type(backbone).__name__} does not begin with a chain of modules.')
        self.names = [block.name for block in blocks]
        sizes = [block.output.shape[-1] for block in blocks]
        # The last block of each size after the first downsampling
        ends = [i for i, size in enumerate(sizes) if sizes[i + 1 : i + 2] != [size] and size < side]
        self.ends = [self.names[i] for i in ends]
        self.out_channels = [blocks[i].output.shape[1] for i in ends]
        for name in self.names:
            _put(self, name, backbone.get_submodule(name))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features (N, out_channels[i], H / 2, W / 2), (..., H / 4, W / 4) and so on, up to the stride."""
        outputs = []
        for name in self.names:
            x = self.get_submodule(name)(x)
            if name in self.ends:
                outputs.append(x)
        return outputs


def cut_backbone(backbone: nn.Module, before: str | None = None) -> LastStage:
    """Take the last stage out of a backbone.

    Args:
        backbone (nn.Module): Changed in place: the feature extractor is left, whose last output is used.
        before (str, optional): Name of the module to cut before, such as ``'layer4'``. Defaults to the backbone's
            ``cut_before`` if it has one, otherwise to the last module that makes the features smaller.

    Returns:
        LastStage: The modules from the cut on.

    Raises:
        ValueError: If the backbone cannot be cut there, or ``frozen_stages`` freezes a module of the last stage.
    """
    kind = type(backbone).__name__
    pool_last = getattr(backbone, 'gap_before_final_norm', False)  # ConvNeXt and its relatives in MMPretrain
    if pool_last:
        backbone.gap_before_final_norm = False
    blocks = _last_blocks(backbone)
    before = before or getattr(backbone, 'cut_before', None)
    if before is None:
        weighty = max((i for i, block in enumerate(blocks) if _has_weights(block.module)), default=-1)
        cuts = [i for i, block in enumerate(blocks[: weighty + 1]) if block.shrinks]
    else:
        cuts = [i for i, block in enumerate(blocks) if f'{block.name}.'.startswith(f'{before}.')][:1]
    names = [block.name for block in blocks]
    if not cuts:
        raise ValueError(
            f'{kind} cannot be cut before {before or "its last downsampling"}. It can be cut before one of the modules '
            f'that hand their output from one to the next up to its end: {", ".join(names) or "it has none"}.'
        )
    names = names[cuts[-1] :]
    for name in names:
        weights = [p for p in backbone.get_submodule(name).parameters() if p.dim() > 1]
        if weights and not any(p.requires_grad for p in weights):
            raise ValueError(
                f'frozen_stages of {kind} freezes {name}, which is after the cut and is trained. Freeze only stages '
                f'before {names[0]}.'
            )
    stage = LastStage(backbone, names, blocks[cuts[-1]].input.shape, pool_last)
    for name in names:
        _put(backbone, name, nn.Identity())
    return stage


@contextmanager
def rejoined(backbone: nn.Module, stage: LastStage) -> Iterator[None]:
    """In this context a backbone has its last stage back, for what concerns the backbone as a whole."""
    places = {name: backbone.get_submodule(name) for name in stage.names}
    for name in stage.names:
        _put(backbone, name, stage.get_submodule(name))
    try:
        yield
    finally:
        for name, place in places.items():  # the same as before, as a classifier around may initialise them all
            _put(backbone, name, place)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    *path, last = name.split('.')
    for part in path:
        if not hasattr(model, part):
            model.add_module(part, nn.Sequential())
        model = getattr(model, part)
    model.add_module(last, module)


def _has_weights(module: nn.Module) -> bool:
    """Whether a module is more than a normalisation, an activation or a pooling."""
    return any(parameter.dim() > 1 for parameter in module.parameters())


def _largest(value: int | Sequence[int]) -> int:
    return max(value) if isinstance(value, Sequence) else value


class _Value(NamedTuple):
    """A tensor at one moment: operations in place count its version up."""

    identity: int
    version: int
    shape: torch.Size


class _Call(NamedTuple):
    name: str
    module: nn.Module
    input: _Value
    output: _Value

    @property
    def shrinks(self) -> bool:
        """Whether the features become smaller."""
        return self.output.shape[2:] < self.input.shape[2:]


def _calls(model: nn.Module, run: Callable) -> list[_Call]:
    """The calls of modules in a forward pass, in the order in which they end."""
    names = {module: name for name, module in model.named_modules()}
    calls, inputs, kept = [], [], []

    def value(x: Tensor | Sequence[Tensor]) -> _Value:
        while isinstance(x, Sequence) and x:
            x = x[-1]
        kept.append(x)  # so that no later tensor gets its identity
        return _Value(id(x), x._version, x.shape) if isinstance(x, Tensor) else _Value(id(x), 0, torch.Size())

    def leave(module: nn.Module, args: tuple, output: Tensor | Sequence[Tensor]) -> None:
        calls.append(_Call(names[module], module, inputs.pop(), value(output)))

    hooks = [module.register_forward_pre_hook(lambda _, args: inputs.append(value(args))) for module in names]
    hooks += [module.register_forward_hook(leave) for module in names]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _last_blocks(backbone: nn.Module) -> list[_Call]:
    """The calls of a forward pass that hand their output from one to the next up to the end.

    Sequences of blocks are taken apart; blocks, and sequences of single layers, are not.
    """
    calls = _calls(backbone, lambda: feature_shapes(backbone))
    apart = {m for m in backbone.modules() if isinstance(m, nn.Sequential) and any(any(c.children()) for c in m)}
    apart.add(module := backbone)
    while len(children := list(module.children())) == 1:  # a wrapper, such as TIMMBackbone
        apart.add(module := children[0])
    times = Counter(call.module for call in calls)
    blocks, x = [], calls[-1].output
    for call in reversed(calls):
        inside = blocks and call.name.startswith(f'{blocks[0].name}.')
        if call.output == x and not inside and call.module not in apart:
            if times[call.module] > 1:  # it is used elsewhere, too
                break
            blocks.insert(0, call)
            x = call.input
    return [block for block in blocks if not isinstance(block.module, nn.Identity)]
