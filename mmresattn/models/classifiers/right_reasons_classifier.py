"""Any classifier, trained to give no reasons where a person erased (Ross et al., IJCAI 2017, arXiv:1703.03717)."""

from copy import deepcopy

from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from ..backbones.cut import cut_backbone
from .attention_branch_network import AttentionBranchNetwork
from .wrapped_classifier import WrappedClassifier


@MODELS.register_module()
class RightReasonsClassifier(WrappedClassifier):
    """Any classifier of MMPretrain with a penalty on its gradients.

    The penalty is :class:`~mmresattn.models.losses.GradientPenalty`. Only the loss changes; predictions are those of
    the inner classifier.

    Args:
        classifier (dict): Config of the classifier.
        penalty (dict): Config of the penalty. Defaults to ``dict(type='GradientPenalty')``.
        layer (str, optional): Name of the module in the classifier whose input's gradients are penalised:
            ``'backbone'`` for those of the image, as in the paper. Features near the end are cheaper: only what follows
            them is differentiated twice. Defaults to the module that does the backbone's last downsampling.
        **kwargs: See :class:`WrappedClassifier`.

    Raises:
        ValueError: If ``layer`` is not given and the backbone cannot be cut (:func:`cut_backbone`), or if the
            classifier has no such module.
    """

    def __init__(
        self, classifier: dict, penalty: dict = dict(type='GradientPenalty'), layer: str | None = None, **kwargs
    ) -> None:
        super().__init__(classifier, **kwargs)
        self.penalty = MODELS.build(penalty)
        if layer is None:
            if isinstance(self.classifier, AttentionBranchNetwork):
                layer = 'neck'  # whose input are the features of the extractor
            else:
                layer = f'backbone.{cut_backbone(deepcopy(self.classifier.backbone)).names[0]}'
        if layer not in dict(self.classifier.named_modules()):
            raise ValueError(f'The classifier has no module {layer!r}, whose input is to be penalised.')
        self.layer = layer

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """Losses of the classifier, and ``gradient_penalty_loss``."""
        features = []

        def watch(_, args: tuple) -> tuple:
            x, *rest = args
            *before, last = x if isinstance(x, tuple) else (x,)
            last = last if last.requires_grad else last.detach().requires_grad_()
            features.append(last)
            return ((*before, last) if isinstance(x, tuple) else last, *rest)

        handle = self.classifier.get_submodule(self.layer).register_forward_pre_hook(watch)
        try:
            feats = self.classifier.extract_feat(inputs)
        finally:
            handle.remove()
        losses = self.classifier.head.loss(feats, data_samples)
        losses['gradient_penalty_loss'] = self.penalty(self.classifier.head(feats), features[0], data_samples)
        return losses
