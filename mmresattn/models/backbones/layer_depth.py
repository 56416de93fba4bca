"""Depths of parameters for layer-wise learning-rate decay, in one way for the backbones of this package."""


class LayerDepth:
    """Mixin of backbones whose blocks are the children of the stages that ``stages`` names."""

    stages: list[str]

    def _is_deepest(self, name: str) -> bool:
        """Whether a parameter of no block is as deep as the head instead of the stem."""
        return False

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning-rate decay.

        The stem is 0, each block of a stage is one more, and parameters outside of the backbone are the deepest.

        Args:
            param_name (str): Name of the parameter in the whole model.
            prefix (str): Name of this backbone in it, such as ``'backbone.'``. Defaults to ''.

        Returns:
            tuple[int, int]: Depth of the parameter and number of depths.
        """
        blocks = [f'{stage}.{block}' for stage in self.stages for block, _ in getattr(self, stage).named_children()]
        name = param_name.removeprefix(prefix)
        if not param_name.startswith(prefix) or self._is_deepest(name):
            return len(blocks) + 1, len(blocks) + 2
        block = '.'.join(name.split('.')[:2])
        return blocks.index(block) + 1 if block in blocks else 0, len(blocks) + 2
