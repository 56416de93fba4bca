"""Augmentation of whole batches on the device."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, TRANSFORMS
from mmpretrain.models.utils import ClsDataPreprocessor


@MODELS.register_module()
class BatchTransformPreprocessor(ClsDataPreprocessor):
    """MMPretrain's ``ClsDataPreprocessor`` that first applies transforms of whole batches, in training alone.

    Args:
        *args: See ``ClsDataPreprocessor``.
        batch_transforms (Sequence[dict]): Transforms of pixels (N, C, H, W), in the order and range of the data set,
            such as ``dict(type='BatchRandomCrop', padding=4)``. They come before the normalisation, mixup and cutmix
            (``model.train_cfg.augments``) after it. Defaults to ().
        **kwargs: See ``ClsDataPreprocessor``.
    """

    def __init__(self, *args, batch_transforms: Sequence[dict] = (), **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.batch_transforms = [TRANSFORMS.build(transform) for transform in batch_transforms]

    def forward(self, data: dict, training: bool = False) -> dict:
        """Move a batch to the device, augment and normalise it.

        Args:
            data (dict): ``inputs`` (N, C, H, W) and ``data_samples``, a list of N.
            training (bool): Whether to augment. Defaults to False.

        Returns:
            dict: The same, normalised.

        Raises:
            TypeError: If ``inputs`` are separate images, or samples have attention maps, which would stay behind.
        """
        if not training:
            return super().forward(data)
        if not isinstance(data['inputs'], torch.Tensor):
            raise TypeError(
                'BatchTransformPreprocessor augments one tensor (N, C, H, W), and got separate images. Its dataloader '
                "needs collate_fn=dict(type='default_collate'), or an InMemory data set with dict(type='one_batch')."
            )
        samples = data['data_samples']
        if any('gt_attention_map' in sample for sample in samples):
            raise TypeError(
                'BatchTransformPreprocessor would move the images and not their attention maps. Augment them in the '
                'pipeline, by the transforms of LoadAttentionMap.'
            )
        images = data['inputs'].to(self.device, non_blocking=True)
        for transform in self.batch_transforms:
            images = transform(images)
        if self.to_onehot and 'gt_score' not in samples[0]:
            # As the base class does, but at once: an operation for each image would cost more than a step on a GPU.
            labels = torch.cat([sample.gt_label for sample in samples])
            if len(labels) == len(samples):
                for sample, score in zip(samples, F.one_hot(labels, self.num_classes)):
                    sample.set_field(score, 'gt_score')
        return super().forward({'inputs': images, 'data_samples': samples}, training=True)
