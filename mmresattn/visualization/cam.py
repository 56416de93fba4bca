"""Class activation maps of any classifier (Grad-CAM: Selvaraju et al., ICCV 2017, arXiv:1610.02391).

The grad-cam package computes them. Here is what it leaves to its user: a sensible layer, and a model that is as it was
before.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from ..models.layers import AttentionMap
from ..utils import class_scores

# Those of the package that need no more than a layer and classes, and leave the layers of the model in their places.
METHODS = {
    'gradcam': 'GradCAM',
    'gradcam++': 'GradCAMPlusPlus',
    'xgradcam': 'XGradCAM',
    'hirescam': 'HiResCAM',
    'layercam': 'LayerCAM',
    'gradcamelementwise': 'GradCAMElementWise',
    'scorecam': 'ScoreCAM',  # of no gradients, but of a forward pass for each channel
    'eigengradcam': 'EigenGradCAM',
    'eigencam': 'EigenCAM',  # this one and the next do not know of classes
    'fem': 'FEM',
}


def cam_layers(model: BaseModel, images: Tensor) -> dict[str, tuple[int, int, int]]:
    """The layers from which a class activation map can be made.

    Args:
        model (BaseModel): Classifier as for :func:`class_activation_maps`.
        images (Tensor): Images (N, C, H, W) as its pipeline packs them; the first one is used.

    Returns:
        Dict[str, Tuple[int, int, int]]: Shape (C, H, W) of the output, for every module that runs once, gives a tensor
        (N, C, H, W) of more than one position, and on which the scores depend; in the order in which they finish.
        Attention maps are none of them: they are recorded by :func:`~mmresattn.models.layers.record_attention`.

    Raises:
        ValueError: If the model does not give scores (N, classes).
    """
    with _constant(model):
        return _layers(model, _inputs(model, images[:1]))[0]


def default_layer(layers: dict[str, tuple[int, int, int]]) -> str:
    """The layer that a map is made from unless another one is named: the last one of more than one channel.

    The later a layer, the better it tells classes apart, and after this one there are no positions. For a ResNet it is
    the last stage, for a pre-activation network the normalisation and ReLU that follow it; with a linear layer on its
    averages, Grad-CAM is CAM (Zhou et al., CVPR 2016, arXiv:1512.04150) without its negative values. For Learn To Pay
    Attention it is the local features of the last level: scores and maps of one channel, which come later, leave
    nothing to weigh. For the Attention Branch Network it is the last stage of the perception branch.

    Args:
        layers (Dict[str, Tuple[int, int, int]]): From :func:`cam_layers`.

    Returns:
        str: Name of the layer.

    Raises:
        ValueError: If there is none.
    """
    names = [name for name, (channels, _, _) in layers.items() if channels > 1]
    if not names:
        raise ValueError(
            'No module of this model gives feature maps (N, C, H, W) of more than one channel and position that lead '
            'to its scores. Are the images too small?'
        )
    return names[-1]


def class_activation_maps(
    model: BaseModel,
    images: Tensor,
    labels: Sequence[int] | Tensor | None = None,
    method: str = 'gradcam',
    layer: str | None = None,
) -> Tensor:
    """Where in the images a classifier sees classes.

    Maps are not negative, and each is stretched to [0, 1] by its least and its greatest value; a map that is the same
    everywhere is 0. The model stays as it was: its mode, its gradients and its hooks. Edits of attention that are open
    (:func:`~mmresattn.models.layers.edit_attention`) act here, too.

    Args:
        model (BaseModel): Classifier of MMPretrain's kind: with a ``data_preprocessor``, and scores (N, classes) from
            ``mode='tensor'``. It runs in evaluation mode.
        images (Tensor): Images (N, C, H, W) as its pipeline packs them, before any normalisation.
        labels (Sequence[int] | Tensor, optional): Class of each image for which to look, from 0. Defaults to those that
            the model predicts.
        method (str): A key of ``METHODS``. Defaults to ``'gradcam'``.
        layer (str, optional): Name of a module, of :func:`cam_layers`. Defaults to :func:`default_layer`.

    Returns:
        Tensor: Maps (N, H, W) in [0, 1], float32 on the CPU, of the size of the images.

    Raises:
        ImportError: If grad-cam is not installed.
        KeyError: If the layer is unknown; the message lists the outermost of the known ones.
        ValueError: If the method is unknown, if labels do not fit, or if the model does not give scores (N, classes).
    """
    try:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        raise ImportError(
            'Class activation maps need grad-cam: pip install --no-deps grad-cam ttach tqdm. (With its requirements it '
            'would bring a second OpenCV, whose files mix with those of opencv-python.)'
        ) from error

    if method not in METHODS:
        raise ValueError(f'method is one of {list(METHODS)}, not {method!r}.')
    with _constant(model):
        inputs = _inputs(model, images)
        layers, classes = _layers(model, inputs[:1])
        layer = default_layer(layers) if layer is None else layer
        if layer not in layers:
            outermost = [name for name in layers if not any(name.startswith(f'{other}.') for other in layers)]
            raise KeyError(
                f'{layer!r} is no layer that gives feature maps which lead to the scores; there are {outermost}, and '
                'layers within these (cam_layers, or --list-layers).'
            )
        targets = None
        if labels is not None:
            labels = [int(label) for label in labels]
            if len(labels) != len(images) or not all(0 <= label < classes for label in labels):
                raise ValueError(
                    f'labels are one class from 0 to {classes - 1} for each of {len(images)} images, not {labels}.'
                )
            targets = [ClassifierOutputTarget(label) for label in labels]
        make = getattr(pytorch_grad_cam, METHODS[method])
        # Copies, as a layer that comes next may work in place.
        cam = make(model, [model.get_submodule(layer)], reshape_transform=torch.clone)
        try:
            maps = torch.from_numpy(cam(inputs, targets))  # N, H, W, padding included
        finally:
            cam.activations_and_grads.release()
    return maps[:, : images.shape[2], : images.shape[3]]


@contextmanager
def _constant(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and weights that get no gradients; afterwards everything as it was."""
    modes = [(module, module.training) for module in model.modules()]
    weights = [(weight, weight.requires_grad, weight.grad) for weight in model.parameters()]
    model.eval()
    model.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for weight, requires_grad, grad in weights:
            weight.requires_grad_(requires_grad)
            weight.grad = grad  # grad-cam clears them


def _inputs(model: BaseModel, images: Tensor) -> Tensor:
    """Preprocessed images, with which gradients reach every layer."""
    return model.data_preprocessor({'inputs': images}, training=False)['inputs'].detach().requires_grad_()


def _layers(model: BaseModel, inputs: Tensor) -> tuple[dict[str, tuple[int, int, int]], int]:
    """What :func:`cam_layers` gives, for preprocessed images, and the number of classes."""
    outputs = []  # in the order in which modules finish

    def watch(name: str):
        return lambda module, args, output: outputs.append((name, output))

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if name and not isinstance(module, AttentionMap):
                hooks.enter_context(module.register_forward_hook(watch(name)))
        scores = class_scores(model, inputs)
    runs = Counter(name for name, _ in outputs)
    maps = {
        name: output
        for name, output in outputs
        if runs[name] == 1 and isinstance(output, Tensor) and output.dim() == 4 and output[0, 0].numel() > 1
        if output.requires_grad
    }
    grads = torch.autograd.grad(scores.sum(), [*maps.values(), inputs], allow_unused=True)
    leading = [(name, output) for (name, output), grad in zip(maps.items(), grads) if grad is not None]
    return {name: tuple(output.shape[1:]) for name, output in leading}, scores.shape[1]
