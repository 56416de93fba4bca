"""The softmax of other libraries' transformers, as maps of the tap.

A transformer of MMPretrain, timm or torchvision has no module through which its attention passes, and its kernels often
never form the Q x K matrix. While its tap is watched, and only then, a mode of PyTorch runs during the forward pass of
its attention module: each softmax over keys passes the tap, and a fused kernel is computed as its definition says.
No class, function or weight is replaced.
"""

import inspect
from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Tap = Callable[[Tensor], Tensor]
Pair = tuple[int, int]
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)

# Modules whose forward pass has one softmax, over all tokens: (N, heads, Q, K).
TOKENS = {
    'mmpretrain.models.utils.attention.BEiTAttention',
    'mmpretrain.models.utils.attention.MultiheadAttention',
    'timm.layers.attention.Attention',
    'timm.layers.attention.AttentionRope',
    'timm.models.beit.Attention',
    'timm.models.eva.EvaAttention',
    'timm.models.vision_transformer.Attention',
    'torch.nn.modules.activation.MultiheadAttention',
}


class Windows:
    """Windows of Swin transformers over a grid: from (N windows, heads, n, n) to all pairs of positions and back.

    Args:
        grid (Tuple[int, int]): Height and width of the feature map.
        size (Tuple[int, int]): Height and width of a window.
        shift (Tuple[int, int]): By how many rows and columns the windows are shifted.
        pad_first (bool): Whether the grid is padded to whole windows before it is rolled by the shift, as in MMPretrain
            and torchvision, or after, as in timm.
        device (torch.device): Of the attention.

    Attributes:
        index (Tensor): For each window and each place in it the position in the grid (windows, n), row by row; -1 where
            the grid was padded.
    """

    def __init__(self, grid: Pair, size: Pair, shift: Pair, pad_first: bool, device: torch.device) -> None:
        (height, width), (rows, columns) = grid, size
        self.positions = height * width
        places = torch.arange(self.positions, device=device).view(height, width)
        pad = partial(F.pad, pad=(0, -width % columns, 0, -height % rows), value=-1)
        roll = partial(torch.roll, shifts=(-shift[0], -shift[1]), dims=(0, 1))
        places = roll(pad(places)) if pad_first else pad(roll(places))
        windows = places.unflatten(1, (-1, columns)).unflatten(0, (-1, rows)).transpose(1, 2)
        self.index = windows.reshape(-1, rows * columns)

    def through(self, tap: Tap, weight: Tensor) -> Tensor:
        """Pass the attention of all windows through a tap as one map (N, heads, positions, positions).

        Positions in different windows have attention 0. Rows and columns of padding are left out of the map.
        """
        count, size = self.index.shape
        windows = weight.unflatten(0, (-1, count)).transpose(1, 2)  # N, heads, windows, n, n
        queries, keys = self.index[:, :, None].expand(-1, -1, size), self.index[:, None].expand(-1, size, -1)
        inside = (queries >= 0) & (keys >= 0)  # windows, n, n
        pairs = weight.new_zeros(*windows.shape[:2], self.positions, self.positions)
        where = (slice(None), slice(None), queries[inside], keys[inside])
        pairs[where] = windows[:, :, inside]
        edited = windows.clone()
        edited[:, :, inside] = tap(pairs)[where]
        return edited.transpose(1, 2).flatten(0, 1)


def _mmpretrain_windows(module: nn.Module, query: Tensor, hw_shape: Pair) -> Windows:
    size = module.window_size
    shifted = module.pad_small_map or min(hw_shape) > size
    shift = module.shift_size if shifted else 0
    return Windows(tuple(hw_shape), (size, size), (shift, shift), True, query.device)


def _timm_windows(module: nn.Module, x: Tensor) -> Windows:
    return Windows(tuple(x.shape[1:3]), tuple(module.window_size), tuple(module.shift_size), False, x.device)


def _torchvision_windows(module: nn.Module, x: Tensor) -> Windows:
    grid = tuple(x.shape[1:3])
    shift = [0 if window >= side else shift for side, window, shift in zip(grid, module.window_size, module.shift_size)]
    return Windows(grid, tuple(module.window_size), tuple(shift), True, x.device)


# Modules whose forward pass has one softmax, over windows: (N windows, heads, n, n). They get the whole feature map.
WINDOWED = {
    'mmpretrain.models.utils.attention.ShiftWindowMSA': _mmpretrain_windows,
    'timm.models.swin_transformer.SwinTransformerBlock': _timm_windows,
    'timm.models.swin_transformer_v2.SwinTransformerV2Block': _timm_windows,
    'torchvision.models.swin_transformer.ShiftedWindowAttention': _torchvision_windows,
}


@cache
def _adapter(kind: type) -> str | None:
    names = [f'{parent.__module__}.{parent.__qualname__}' for parent in kind.__mro__]
    return next((name for name in names if name in TOKENS or name in WINDOWED), None)


def transformer_attention(model: nn.Module) -> Iterator[tuple[str, nn.Module, int | None, bool]]:
    """The attention modules of MMPretrain's, timm's and torchvision's transformers.

    Args:
        model (nn.Module): Any model.

    Yields:
        Tuple[str, nn.Module, Optional[int], bool]: Name and module; how many tokens stand before those of positions
        (class, distillation and register tokens), None if the model does not say; and whether the first is a class
        token.
    """
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if _adapter(type(module)) is None:
            continue
        if getattr(module, 'bias_k', None) is not None or getattr(module, 'add_zero_attn', False):
            continue  # keys that are no tokens
        parts = name.split('.')
        parents = (modules['.'.join(parts[:i])] for i in reversed(range(len(parts))))
        extra = next(filter(None, map(_extra_tokens, parents)), (None, True))
        yield name, module, *extra


def _extra_tokens(model: nn.Module) -> tuple[int, bool] | None:
    if hasattr(model, 'class_token') and isinstance(model.class_token, nn.Parameter):  # torchvision
        return 1, True
    for name in ('num_prefix_tokens', 'num_extra_tokens'):  # timm, MMPretrain
        if hasattr(model, name) and hasattr(model, 'cls_token'):
            return getattr(model, name), model.cls_token is not None
    return None


class SoftmaxMode(TorchFunctionMode):
    """While it is on, the softmax over keys of the running attention module passes a tap.

    Args:
        tap (Callable): Gets (N, heads, Q, K) and gives what takes its place.
        module (nn.Module): The attention module.
        args (tuple): Of its forward pass.
        kwargs (dict): Of its forward pass.
    """

    def __init__(self, tap: Tap, module: nn.Module, args: tuple, kwargs: dict) -> None:
        super().__init__()
        windows = WINDOWED.get(_adapter(type(module)))
        self.tap = tap if windows is None else partial(windows(module, *args, **kwargs).through, tap)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.softmax, F.softmax, Tensor.softmax):
            weight = func(*args, **kwargs)
            return self.tap(weight) if weight.dim() == 4 else weight
        if func is F.scaled_dot_product_attention:
            return self._scaled_dot_product(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
        return func(*args, **kwargs)

    def _scaled_dot_product(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """The definition of PyTorch's fused kernel, with the tap after the softmax."""
        if enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, float('-inf'))
        elif attn_mask is not None:
            scores = scores + attn_mask
        return F.dropout(self.tap(scores.softmax(-1)), dropout_p) @ value

    def _multi_head(self, *args, **kwargs) -> tuple[Tensor, Tensor | None]:
        """``nn.MultiheadAttention``: PyTorch gives the weights; output and projection are computed from the tap's.

        Tokens come first here, (Q, N, C), as inside of ``nn.MultiheadAttention``.
        """
        bound = _MULTI_HEAD.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        plain = given | dict(need_weights=True, average_attn_weights=False, dropout_p=0.0)
        weight = self.tap(F.multi_head_attention_forward(**plain)[1])  # N, heads, Q, K
        separate = given['use_separate_proj_weight']
        projection = given['v_proj_weight'] if separate else given['in_proj_weight'].chunk(3)[2]
        bias = None if given['in_proj_bias'] is None else given['in_proj_bias'].chunk(3)[2]
        value = F.linear(given['value'], projection, bias)  # K, N, C
        value = value.unflatten(2, (given['num_heads'], -1)).permute(1, 2, 0, 3)  # N, heads, K, C / heads
        attended = F.dropout(weight, given['dropout_p'], given['training']) @ value  # N, heads, Q, C / heads
        out = F.linear(attended.permute(2, 0, 1, 3).flatten(2), given['out_proj_weight'], given['out_proj_bias'])
        if not given['need_weights']:
            return out, None
        return out, weight.mean(1) if given['average_attn_weights'] else weight


def attention_rollout(maps: list[Tensor]) -> Tensor:
    """Attention rollout: how much of each input token is in each output token, if every layer mixes by its attention.

    Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, section 3: the heads' mean ``A`` of each
    layer becomes ``(A + I) / 2`` for the shortcut around it, its rows are normalised, and the layers are multiplied.

    Args:
        maps (List[Tensor]): The attention of all layers from the first to the last, (N, heads, T, T) each.

    Returns:
        Tensor: (N, T, T); each row sums to 1.
    """
    rollout = torch.eye(maps[0].shape[-1], device=maps[0].device, dtype=maps[0].dtype)
    for attention in maps:
        mixed = attention.mean(1) + torch.eye(attention.shape[-1], device=attention.device, dtype=attention.dtype)
        rollout = mixed / mixed.sum(-1, keepdim=True) @ rollout
    return rollout
