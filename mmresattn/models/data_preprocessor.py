"""Augmentation of whole batches on the device."""

from collections.abc import Sequence

import torch
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
            TypeError: If ``inputs`` are separate images.
        """
        if not training:
            return super().forward(data)
        if not isinstance(data['inputs'], torch.Tensor):
            raise TypeError(
                'BatchTransformPreprocessor augments one tensor (N, C, H, W), and got separate images. Its dataloader '
                "needs collate_fn=dict(type='default_collate'), or an InMemory data set with dict(type='one_batch')."
            )
        images = self.cast_data(data['inputs'])
        for transform in self.batch_transforms:
            images = transform(images)
        return super().forward({**data, 'inputs': images}, training=True)
