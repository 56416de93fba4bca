"""Batches of test images, as measurements take them."""

from collections.abc import Iterable, Iterator

from torch import Tensor


def first_images(loader: Iterable[dict], max_images: int | None) -> Iterator[dict]:
    """The first images of a loader.

    Args:
        loader (Iterable[dict]): Batches of ``inputs`` (N, C, H, W) and ``data_samples``.
        max_images (int, optional): How many. None for all.

    Yields:
        dict: Batches, the last one cut.

    Raises:
        ValueError: If ``max_images`` is not positive, or if images of a batch are not stacked.
    """
    if max_images is not None and max_images < 1:
        raise ValueError(f'max_images is at least 1, or None for all images, not {max_images}.')
    count = 0
    for batch in loader:
        if not isinstance(batch['inputs'], Tensor):
            raise ValueError(
                "Images of a batch must be one tensor (N, C, H, W): use collate_fn=dict(type='default_collate') in the "
                'dataloader, and resize or crop images to one size or set batch_size=1.'
            )
        if max_images is not None:
            batch = {key: value[: max_images - count] for key, value in batch.items()}
        count += len(batch['inputs'])
        yield batch
        if count == max_images:
            return
