"""The one place where attention is seen and edited.

Every attention weight of this package passes through an :class:`AttentionMap`, and the softmax of other libraries'
transformers, while it is watched, through a :class:`TransformerMap`. :func:`record_attention` and
:func:`edit_attention` open that tap for any model, by module name.
"""

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from .transformer_attention import SoftmaxMode, transformer_attention

KINDS = {'mixed': 'N, C, H, W', 'channel': 'N, C, 1, 1', 'spatial': 'N, 1, H, W', 'pairwise': 'N, heads, Q, K'}
# What torch.compile, FSDP and checkpoint_wrapper put into module names. DDP's `module` may also be somebody's own name.
WRAPPED = ('_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module')

Edit = Tensor | Callable[[Tensor], Tensor]


class AttentionMap(nn.Module):
    """Identity through which an attention weight passes, so that it can be watched.

    The tap is an attribute, not a forward hook: ``torch.compile`` guards attributes but not hooks, so a hook that is
    added after the first compiled call would be ignored in silence.

    Args:
        kind (str): What passes: ``'mixed'`` (N, C, H, W), ``'channel'`` (N, C, 1, 1), ``'spatial'`` (N, 1, H, W) or
            ``'pairwise'`` (N, heads, Q, K). Defaults to ``'mixed'``.

    Raises:
        ValueError: If ``kind`` is none of these.
    """

    extra_tokens: int | None = 0  # before those of positions; None if that is not known
    class_token = False  # whether the first of them is the class token

    def __init__(self, kind: str = 'mixed') -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f'An AttentionMap is of kind {list(KINDS)}, not {kind!r}.')
        self.kind = kind
        self.watch: tuple[Entry, ...] = ()  # edits first, then records

    def forward(self, weight: Tensor) -> Tensor:
        for entry in self._in_charge():
            weight = entry(weight)
        return weight

    @property
    def watched(self) -> bool:
        """Whether this thread records or edits what passes; else a layer need not form the map at all."""
        return any(not isinstance(entry, _Recompute) or entry.watched for entry in self._in_charge())

    def _in_charge(self) -> Sequence['Entry']:
        """What the open contexts of this thread do with the map, or a recomputation alone.

        Users who share a model do not see each other's edits. Compiled code knows no threads: there, whoever shares a
        model must take turns.
        """
        entries = self.watch  # read once: another thread may close its context meanwhile
        if not entries:
            return ()
        if not torch.compiler.is_compiling():
            entries = [entry for entry in entries if entry.thread == threading.get_ident()]
        recomputing = [entry for entry in entries if isinstance(entry, _Recompute)]
        return recomputing[-1:] or entries

    def __getstate__(self) -> dict:
        # Copies of a model that is being watched are their own, and watch nothing.
        return {**self.__dict__, 'watch': ()}

    def extra_repr(self) -> str:
        return f'{self.kind}: {KINDS[self.kind]}'


class TransformerMap(AttentionMap):
    """The tap of an attention module of another library's transformer: softmax, (N, heads, Q, K).

    It is no part of the model. While somebody watches it, hooks of the attention module switch on a
    :class:`~mmresattn.models.layers.transformer_attention.SoftmaxMode` for each forward pass of this thread.

    Args:
        module (nn.Module): The attention module.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__('pairwise')
        self.module = weakref.ref(module)
        self._handles = ()
        self._running = threading.local()  # modes: those of the forward passes that are under way

    def switch(self, on: bool) -> None:
        """Add the hooks to the module, or remove them."""
        if on and not self._handles:
            module = self.module()
            self._handles = (
                module.register_forward_pre_hook(self._enter, with_kwargs=True),
                module.register_forward_hook(self._leave, always_call=True),
            )
        elif not on:
            for handle in self._handles:
                handle.remove()
            self._handles = ()

    def _enter(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self.watched:
            mode = SoftmaxMode(self, module, args, kwargs)
            mode.__enter__()
            self._running.__dict__.setdefault('modes', []).append(mode)

    def _leave(self, *_) -> None:
        if modes := self._running.__dict__.get('modes'):
            modes.pop().__exit__(None, None, None)

    def __reduce__(self) -> tuple:
        return TransformerMap, (nn.Identity(),)  # in the hooks of a copy of a watched model, which nobody watches


_transformer_maps: weakref.WeakKeyDictionary[nn.Module, TransformerMap] = weakref.WeakKeyDictionary()


class _Record:
    """Keeps what passes a tap."""

    def __init__(self, name: str, maps: dict, grad: bool, every: bool) -> None:
        self.name, self.maps, self.grad, self.every = name, maps, grad, every
        self.thread = threading.get_ident()

    def __call__(self, weight: Tensor) -> Tensor:
        kept = weight if self.grad else weight.detach()
        if self.every:
            self.maps.setdefault(self.name, []).append(kept)
        else:
            self.maps[self.name] = kept
        return weight


class _Forget:
    """Forward pre-hook that empties the dict of a record."""

    def __init__(self, maps: dict) -> None:
        self.maps = maps
        self.thread = threading.get_ident()

    def __call__(self, *_) -> None:
        if torch.compiler.is_compiling() or self.thread == threading.get_ident():
            self.maps.clear()

    def __getstate__(self) -> dict:
        return {**self.__dict__, 'maps': {}}  # for copies of a watched model, as in AttentionMap


class _Edit:
    """Replaces what passes a tap."""

    def __init__(self, name: str, kind: str, edit: Edit) -> None:
        self.name, self.kind, self.edit = name, kind, edit
        self.thread = threading.get_ident()

    def __call__(self, weight: Tensor) -> Tensor:
        if not isinstance(self.edit, Tensor):
            edited = self.edit(weight)
            if edited.shape != weight.shape:
                raise ValueError(
                    f'The edit of {self.name!r} turned a map of shape {tuple(weight.shape)} into '
                    f'{tuple(edited.shape)}; it must keep the shape.'
                )
            return edited
        edited = self.edit.to(weight)
        batch, channels = weight.shape[:2]
        if edited.dim() != 4 or edited.shape[1] != channels or edited.shape[0] not in (1, batch):
            raise ValueError(
                f'The edit of {self.name!r} has shape {tuple(edited.shape)}; expected (1 or {batch}, {channels}, '
                f'height, width) to replace a map of shape {tuple(weight.shape)}.'
            )
        if edited.shape[2:] != weight.shape[2:]:
            if self.kind == 'pairwise':
                raise ValueError(
                    f'The edit of {self.name!r} is for {tuple(edited.shape[2:])} query-key pairs; this map has '
                    f'{tuple(weight.shape[2:])}, and pairs cannot be resized.'
                )
            edited = F.interpolate(edited, weight.shape[2:], mode='bilinear', align_corners=False)
        return edited.expand_as(weight)


class _Recompute:
    """Does again in the backward pass what was done in the forward pass, and nothing of what was opened since."""

    def __init__(self, edits: Sequence[_Edit], watched: bool) -> None:
        self.edits = edits
        self.watched = watched
        self.thread = threading.get_ident()  # autograd may use another one than the forward pass

    def __call__(self, weight: Tensor) -> Tensor:
        for edit in self.edits:
            weight = edit(weight)
        return weight


Entry = _Record | _Edit | _Recompute


_lock = threading.Lock()


def _watch(tap: AttentionMap, entries: Sequence[Entry]) -> None:
    tap.watch = tuple(sorted(entries, key=lambda entry: isinstance(entry, _Record)))
    if isinstance(tap, TransformerMap):
        tap.switch(bool(entries))


@contextmanager
def _watching(entries: Mapping[AttentionMap, Entry]) -> Iterator[None]:
    with _lock:
        for tap, entry in entries.items():
            _watch(tap, (*tap.watch, entry))
    try:
        yield
    finally:
        with _lock:
            for tap, entry in entries.items():
                _watch(tap, [other for other in tap.watch if other is not entry])


def attention_maps(model: nn.Module, names: Sequence[str] | None = None) -> dict[str, AttentionMap]:
    """The taps of a model by name, in the order in which they were registered.

    Args:
        model (nn.Module): Any model, bare or wrapped (DDP, FSDP, ``torch.compile``).
        names (Sequence[str], optional): The ones wanted. Defaults to all.

    Returns:
        Dict[str, AttentionMap]: Taps under the names that they have in the bare model.

    Raises:
        KeyError: If a name is unknown; the message lists the known ones.
        ValueError: If the model is a ``DataParallel`` of several devices, whose copies cannot be watched.
    """
    if isinstance(model, DataParallel) and len(model.device_ids) > 1:
        raise ValueError('DataParallel runs copies of the model in threads. Use its .module, or DDP.')
    modules = dict(model.named_modules())
    found = {path: module for path, module in modules.items() if isinstance(module, AttentionMap)}
    for path, module, extra_tokens, class_token in transformer_attention(model):
        tap = found[path] = _transformer_maps.get(module) or TransformerMap(module)
        _transformer_maps[module] = tap
        tap.extra_tokens, tap.class_token = extra_tokens, class_token
    taps = {}
    for path, tap in found.items():
        parts = path.split('.')
        bare = [part for i, part in enumerate(parts) if not _wraps(modules['.'.join(parts[:i])], part)]
        taps['.'.join(bare)] = tap
    if names is None:
        return taps
    unknown = [name for name in names if name not in taps]
    if unknown:
        raise KeyError(f'No attention map named {unknown}; this model has {list(taps)}.')
    return {name: taps[name] for name in names}


def check_has_attention(model: nn.Module) -> None:
    """Make sure that a model has attention maps.

    Raises:
        ValueError: If it has none; the message says which models have.
    """
    if not attention_maps(model):
        raise ValueError(
            f'This {type(model).__name__} has no attention maps. Models that have: ResidualAttentionNet; '
            'AttentionResNet, a ResNet with SqueezeExcitation, NonLocalAttention or AttentionAugmentedConv, also in '
            "place of other libraries' SE-ResNets; SEBNInception; PayAttentionNetwork; AttentionBranchNetwork; "
            'transformers of MMPretrain, timm and torchvision (ViT, DeiT, Swin, BEiT). '
            'In a model of your own, pass the attention weight through an AttentionMap in its forward pass.'
        )


def _check_not_compiled(model: nn.Module, taps: Mapping[str, AttentionMap]) -> None:
    compiled = any(type(m).__name__ == 'OptimizedModule' or m._compiled_call_impl is not None for m in model.modules())
    if compiled and any(isinstance(tap, TransformerMap) for tap in taps.values()):
        raise ValueError(
            'A compiled transformer cannot be watched, as compiled code does not ask for hooks. Record or edit a copy '
            'that is not compiled, or the ._orig_mod of what torch.compile gave.'
        )


def _wraps(parent: nn.Module, name: str) -> bool:
    ddp = isinstance(parent, (DataParallel, DistributedDataParallel))
    return name in WRAPPED or (ddp and name == 'module')


@contextmanager
def record_attention(
    model: nn.Module, names: Sequence[str] | None = None, *, grad: bool = False, every: bool = False
) -> Iterator[dict[str, Tensor | list[Tensor]]]:
    """Record the attention maps of a model, as they are after every edit.

    Example:
        >>> with record_attention(model) as maps:
        ...     model(images)
        >>> maps['backbone.stage1.attention1.map'].shape
        torch.Size([2, 256, 56, 56])

    Args:
        model (nn.Module): Any model with :class:`AttentionMap` in it. The dict is emptied whenever ``model(...)``
            starts. Forward passes in other threads than this one are not recorded.
        names (Sequence[str], optional): The maps to record. Defaults to all.
        grad (bool): Whether the maps stay in the autograd graph. Defaults to False: they are detached.
        every (bool): Whether a tap that runs several times in one forward gives the list of all its maps instead of
            the last one. Defaults to False.

    Yields:
        Dict[str, Tensor | List[Tensor]]: Maps by module name of the bare model, in the order in which they passed.

    Raises:
        KeyError: If a name is unknown; the message lists the known ones.
        ValueError: If the model has no attention maps.
    """
    if names is None:
        check_has_attention(model)
    maps: dict[str, Tensor | list[Tensor]] = {}
    taps = attention_maps(model, names)
    _check_not_compiled(model, taps)
    # MMEngine's DDP trains by its own forward and tests by that of the model inside.
    models = [model, model.module] if isinstance(model, (DataParallel, DistributedDataParallel)) else [model]
    handles = [model.register_forward_pre_hook(_Forget(maps)) for model in models]
    try:
        with _watching({tap: _Record(name, maps, grad, every) for name, tap in taps.items()}):
            yield maps
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def edit_attention(model: nn.Module, edits: Mapping[str, Edit]) -> Iterator[None]:
    """Replace attention maps on their way through a model.

    Example:
        >>> with edit_attention(model, {'backbone.stage1.attention1.map': torch.zeros_like}):
        ...     scores_without_mask = model(images)  # (1 + 0) T

    Args:
        model (nn.Module): Any model with :class:`AttentionMap` in it. Forwards in other threads are not edited.
        edits (Mapping[str, Tensor | Callable]): For each module name a function of the map that keeps its shape, or a
            tensor of shape (1 or N, C, h, w) that is resized bilinearly to the map's height and width (pairwise maps
            are not resized).

    Raises:
        KeyError: If a name is unknown; the message lists the known ones.
        TypeError: If an edit is neither tensor nor function.
        ValueError: In the forward, if an edit does not fit the map.
    """
    for name, edit in edits.items():
        if not isinstance(edit, Tensor) and not callable(edit):
            raise TypeError(f'The edit of {name!r} must be a tensor or a function of the map, not {type(edit)}.')
    taps = attention_maps(model, list(edits))
    _check_not_compiled(model, taps)
    with _watching({tap: _Edit(name, tap.kind, edits[name]) for name, tap in taps.items()}):
        yield


def checkpoint(module: nn.Module, x: Tensor) -> Tensor:
    """Gradient checkpointing that knows of watched maps.

    The recomputation runs in the backward pass, perhaps after the context that edits a map has closed, perhaps in
    another thread. It must see the edits of the forward pass, or its gradients are those of another function; it must
    take the path of the forward pass where a layer asks whether it is watched; and it must not be recorded a second
    time.

    Args:
        module (nn.Module): What to run without keeping its activations.
        x (Tensor): Its input.

    Returns:
        Tensor: ``module(x)``.
    """
    if torch.compiler.is_compiling():  # traced once with its edits; Dynamo takes no context_fn
        return torch_checkpoint(module, x, use_reentrant=False)
    thread = threading.get_ident()
    state = {
        tap: ([entry for entry in tap.watch if isinstance(entry, _Edit) and entry.thread == thread], tap.watched)
        for tap in attention_maps(module).values()
    }

    @contextmanager
    def recomputing() -> Iterator[None]:
        with _watching({tap: _Recompute(edits, watched) for tap, (edits, watched) in state.items()}):
            yield

    return torch_checkpoint(module, x, use_reentrant=False, context_fn=lambda: (nullcontext(), recomputing()))
