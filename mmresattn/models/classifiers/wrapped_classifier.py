"""Base of classifiers that wrap another one."""

from mmengine.registry import MODELS
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn


class WrappedClassifier(BaseClassifier):
    """A classifier of MMPretrain in another one, which prepares its images or adds to its loss.

    A checkpoint of the inner classifier fits, by ``load_from``.

    Args:
        classifier (dict): Config of the inner classifier, an ``ImageClassifier`` or a subclass.
        data_preprocessor (dict, optional): See MMPretrain's ``ImageClassifier``.
        init_cfg (dict, optional): See MMPretrain's ``ImageClassifier``. Defaults to None.
    """

    def __init__(self, classifier: dict, data_preprocessor: dict | None = None, init_cfg: dict | None = None) -> None:
        if not isinstance(data_preprocessor, nn.Module):
            data_preprocessor = {'_scope_': 'mmpretrain', 'type': 'ClsDataPreprocessor', **(data_preprocessor or {})}
        super().__init__(init_cfg, data_preprocessor)
        self.classifier = MODELS.build({'_scope_': 'mmpretrain', **classifier})

    @property
    def backbone(self) -> nn.Module:
        """The backbone of the inner classifier."""
        return self.classifier.backbone

    @property
    def neck(self) -> nn.Module | None:
        """The neck of the inner classifier."""
        return self.classifier.neck

    @property
    def head(self) -> nn.Module:
        """The head of the inner classifier."""
        return self.classifier.head

    def prepare(self, inputs: Tensor) -> Tensor:
        """Images (N, C, H, W) as the inner classifier gets them."""
        return inputs

    def forward(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None, mode: str = 'tensor'
    ) -> Tensor | list[DataSample] | dict[str, Tensor]:
        """As of the inner classifier."""
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        return self.classifier(self.prepare(inputs), data_samples, mode=mode)

    def extract_feat(self, inputs: Tensor, **kwargs) -> tuple[Tensor, ...]:
        """As of the inner classifier."""
        return self.classifier.extract_feat(self.prepare(inputs), **kwargs)

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """As of the inner classifier."""
        return self.classifier.loss(self.prepare(inputs), data_samples)

    def predict(self, inputs: Tensor, data_samples: list[DataSample] | None = None, **kwargs) -> list[DataSample]:
        """As of the inner classifier."""
        return self.classifier.predict(self.prepare(inputs), data_samples, **kwargs)

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """As of the inner classifier."""
        return self.classifier.get_layer_depth(param_name.removeprefix('classifier.'))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Take the weights of a plain checkpoint for those of the inner classifier."""
        inner = f'{prefix}classifier.'
        own = [name for name in state_dict if name.startswith(prefix)]
        if not any(name.startswith(inner) for name in own):
            for name in own:
                state_dict[inner + name[len(prefix) :]] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)
