"""Where attention sits in a residual block. Every attention layer says in a class attribute which place is its own."""

from collections.abc import Sequence

from mmcv.cnn.bricks.plugin import infer_abbr
from mmengine.registry import MODELS
from torch import Tensor, nn

PLACES = {
    'branch': 'on the residual branch, before the sum: layer(channels)',
    'after': 'after the output of the block: layer(channels)',
    'conv': 'instead of the 3x3 convolution (the first one of a basic block): layer(what nn.Conv2d is given)',
}


def attention_layer(kind: str | type[nn.Module]) -> type[nn.Module]:
    """The class of an attention layer, which says in ``place`` where it sits.

    Args:
        kind (str | type): Its registered name, or the class.

    Returns:
        type: The class; its attribute ``place`` is a key of ``PLACES``.

    Raises:
        ValueError: If there is no such name, or the class has no such place.
    """
    layer = MODELS.get(kind) if isinstance(kind, str) else kind
    if layer is None:
        known = [name for name, part in MODELS.module_dict.items() if getattr(part, 'place', None) in PLACES]
        raise ValueError(f'No layer named {kind!r} is registered; there are {known}.')
    if getattr(layer, 'place', None) not in PLACES:
        raise ValueError(
            f'{layer.__name__} does not say where in a block it sits. Give the class an attribute `place`: '
            + '; '.join(f'{place!r}, {meaning}' for place, meaning in PLACES.items())
            + '.'
        )
    return layer


def resolve_blocks(stages: Sequence[bool | Sequence[int]], numbers: Sequence[int]) -> list[list[int]]:
    """The blocks that get attention.

    Args:
        stages (Sequence[bool | Sequence[int]]): For each stage True (every block), False (none) or indices of blocks;
            negative ones count from the end. Entries past the last stage are not used.
        numbers (Sequence[int]): Number of blocks of each stage.

    Returns:
        List[List[int]]: For each stage the indices, from 0.

    Raises:
        ValueError: If there is no entry for some stage, or an index is out of range.
    """
    if len(stages) < len(numbers):
        raise ValueError(f'attention stages need one entry for each of the {len(numbers)} stages, not {stages}.')
    blocks = []
    for entry, number in zip(stages, numbers):
        indices = list(range(number) if entry else ()) if isinstance(entry, bool) else list(entry)
        if not all(-number <= index < number for index in indices):
            raise ValueError(f'Attention of a stage of {number} blocks: from {-number} to {number - 1}, not {entry}.')
        blocks.append([index % number for index in indices])
    return blocks


def resolve_attention(
    attention: dict | Sequence[dict] | None, numbers: Sequence[int]
) -> list[tuple[type[nn.Module], list[list[int]], dict]]:
    """What the ``attention`` of a backbone asks for: each layer's class, its blocks by stage, and its arguments."""
    layers = []
    for layer in [attention] if isinstance(attention, dict) else attention or []:
        fields = dict(layer)
        kind, stages = attention_layer(fields.pop('type')), fields.pop('stages', (True,) * len(numbers))
        layers.append((kind, resolve_blocks(stages, numbers), fields))
    return layers


class AttentionPlaces:
    """Mixin for residual blocks with ``out_channels``: the places at which attention may sit.

    Attributes:
        main_conv (str): Name of the convolution that a layer of place ``'conv'`` replaces.
        branch (tuple[str]): Names of the layers on the residual branch, in the order in which they run.
        after (tuple[str]): Names of the layers after the output.
    """

    main_conv = 'conv2'
    branch: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def add_attention(self, layer: type[nn.Module], **kwargs) -> None:
        """Build a layer into its place.

        Args:
            layer (type): Class with ``place``. It stands in the block under its ``_abbr_`` (by default its name in
                snake case), or under that of the convolution which it replaces.
            **kwargs: Arguments of the layer, beside those of ``PLACES``.

        Raises:
            ValueError: If the block has a layer of this name.
        """
        if layer.place == 'conv':
            conv = getattr(self, self.main_conv)
            given = {key: getattr(conv, key) for key in ('stride', 'padding', 'dilation', 'groups')}
            replacement = layer(conv.in_channels, conv.out_channels, conv.kernel_size, **given, bias=False, **kwargs)
            setattr(self, self.main_conv, replacement)
            return
        name = infer_abbr(layer)
        if hasattr(self, name):
            raise ValueError(f'A block cannot have two layers named {name!r}. Give them different stages or blocks.')
        setattr(self, name, layer(self.out_channels, **kwargs))
        setattr(self, layer.place, (*getattr(self, layer.place), name))

    def _run(self, names: tuple[str, ...], x: Tensor) -> Tensor:
        for name in names:
            x = getattr(self, name)(x)
        return x
