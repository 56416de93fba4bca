"""A page that says how well a classifier answers, and where it looked when it was wrong.

``report.html.jinja`` beside this file is the page; the figures in it come from
:mod:`~mmresattn.evaluation.classification`.
"""

import base64
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import jinja2
import numpy as np
from mmengine.config import Config
from mmengine.model import BaseModel
from rich.progress import track

from ..models.classifiers import GatedClassifier
from ..models.layers import attention_maps
from ..visualization import (
    ImagePipeline,
    ImageSample,
    batches_of_one_shape,
    class_activation_maps,
    class_names,
    data_set_root,
    data_set_sample,
    maps_in_view,
    overlay,
    place_maps,
    record_samples,
    relative_name,
    short_name,
    show_image,
)
from ..visualization.overlay import behind_gate
from .classification import calibration, class_accuracies, confusions, wilson

TEMPLATE = Path(__file__).with_name('report.html.jinja')
SIDE = 224  # pixels of the longer side of a photograph in the report
FEW_CLASSES = 30  # more do not fit into a confusion matrix that can be read


def classify(model: BaseModel, dataset: Sequence[dict], batch_size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """The answers of a classifier to all images of a data set.

    Args:
        model (BaseModel): Classifier of one label per image, in evaluation mode.
        dataset (Sequence[dict]): Images with labels, as its test pipeline packs them.
        batch_size (int): Images that run at once. Defaults to 32.

    Returns:
        tuple[np.ndarray, np.ndarray]: True classes (N,) and probabilities (N, classes).

    Raises:
        ValueError: If there are no images, an image does not have one label, or the model does not give one score per
            class.
    """
    if not len(dataset):
        raise ValueError('There are no images to report on.')
    samples = (data_set_sample(dataset, index) for index in track(range(len(dataset)), 'classify'))
    labels, scores = [], []
    for batch in batches_of_one_shape(samples, batch_size):
        record_samples(model, batch, layers=[])
        for sample in batch:
            found = sample.prediction
            truth, score = found.get('gt_label'), found.get('pred_score')
            if truth is None or truth.numel() != 1 or score is None or score.dim() != 1 or 'gt_score' in found:
                raise ValueError('A report needs a classifier with one label and one score per class for each image.')
            labels.append(int(truth))
            scores.append(score.double().cpu().numpy())
    return np.array(labels), np.stack(scores)


def make_report(
    model: BaseModel,
    dataset: Sequence[dict],
    cfg: Config,
    *,
    title: str,
    subtitle: str = '',
    shown: int = 12,
    layers: Sequence[str] | None = None,
    batch_size: int = 32,
) -> str:
    """A page on a classifier: accuracy by class, confusions, calibration, and the images that say why it errs.

    These are the worst mistakes, which are the wrong answers of the greatest confidence, and the least sure answers,
    which are those whose two greatest scores differ least. Beside each stand its attention maps, or Grad-CAM where the
    network has none; of a :class:`~mmresattn.models.classifiers.GatedClassifier` what its gate let the network see.

    Args:
        model (BaseModel): Classifier of one label per image, in evaluation mode.
        dataset (Sequence[dict]): Images with labels, as their test pipeline packs them.
        cfg (Config): Config with a ``test_dataloader``, whose pipeline reads the photographs.
        title (str): Heading, such as the name of the config.
        subtitle (str): Line below, such as the checkpoint and the split. Defaults to none.
        shown (int): How many mistakes and how many unsure answers to show. Defaults to 12.
        layers (Sequence[str], optional): Names of the maps. Defaults to the last four that have positions.
        batch_size (int): Images that run at once. Defaults to 32.

    Returns:
        str: A page of HTML that needs no other file.

    Raises:
        KeyError: If a layer is unknown.
        ValueError: If there are no images, or the classifier or the data have more than one label per image.
    """
    taps = attention_maps(model, layers)
    if layers is None:
        layers = [name for name, tap in taps.items() if tap.kind != 'channel'][-4:]
    labels, scores = classify(model, dataset, batch_size)
    names = [str(name) for name in class_names(dataset) or [f'class {i}' for i in range(scores.shape[1])]]
    matrix = confusions(labels, scores.argmax(1), len(names))
    surest = (-scores.max(1)).argsort(kind='stable')
    wrong = surest[scores.argmax(1)[surest] != labels[surest]][:shown]
    second, first = np.partition(scores, -2)[:, -2:].T
    least_sure = (first - second).argsort(kind='stable')
    unsure = least_sure[~np.isin(least_sure, wrong)][:shown]
    with_cam = not layers and find_spec('pytorch_grad_cam') is not None
    pipeline, root = ImagePipeline(cfg), data_set_root(dataset)

    def card(index: int) -> dict:
        sample = data_set_sample(dataset, index)
        path = sample.packed['data_samples'].get('img_path')
        if path and Path(path).is_file():  # the photograph itself, and not what the network gets
            read = pipeline(path, relative_name(path, root), follow=True)
            sample.name, sample.image, sample.view = read.name, read.image, read.view
        return _card(model, sample, names, labels[index], scores[index], layers, with_cam)

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters['percent'] = lambda share: '–' if share != share else f'{100 * share:.1f} %'
    return environment.from_string(TEMPLATE.read_text(encoding='utf-8')).render(
        title=title,
        subtitle=subtitle,
        names=names,
        accuracy=wilson(matrix.trace(), len(labels)),
        log_loss=float(-np.log(scores[np.arange(len(labels)), labels].clip(1e-12)).mean()),
        classes=sorted((c for c in class_accuracies(matrix) if c.recall.total), key=lambda c: c.recall.value),
        matrix=matrix.tolist() if len(names) <= FEW_CLASSES else None,
        pairs=_confused(matrix),
        calibration=calibration(scores, labels),
        wrong=[card(index) for index in wrong.tolist()],
        unsure=[card(index) for index in unsure.tolist()],
        maps_are='attention' if layers else 'Grad-CAM' if with_cam else None,
    )


def _confused(matrix: np.ndarray, count: int = 10) -> list[tuple[int, int, int, int]]:
    """The most frequent confusions: true class, predicted class, how many images, of how many."""
    mistakes = matrix - np.diag(matrix.diagonal())
    order = mistakes.argsort(axis=None, kind='stable')[::-1][:count]
    places = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, matrix.shape))]
    return [(i, j, int(matrix[i, j]), int(matrix[i].sum())) for i, j in places if mistakes[i, j]]


def _card(
    model: BaseModel,
    sample: ImageSample,
    names: Sequence[str],
    label: int,
    scores: np.ndarray,
    layers: Sequence[str],
    with_cam: bool,
) -> dict:
    """What the page shows of an answer: photograph, maps and scores; Grad-CAM for the answer and for the true class."""
    predicted = int(scores.argmax())
    record_samples(model, [sample], layers)
    picture = show_image(sample.image)
    pictures = [('', _uri(picture))]
    for name, attention in place_maps(model, sample).items():
        if name == 'shown' and isinstance(model, GatedClassifier):
            pictures.append(('what the network was shown', _uri(behind_gate(picture, attention))))
        else:
            pictures.append((short_name(name), _uri(overlay(picture, attention))))
    for shown in dict.fromkeys((predicted, label)) if with_cam else ():
        images = sample.packed['inputs'][None].to(next(model.parameters()).device)
        cam = maps_in_view(class_activation_maps(model, images, [shown]), sample.view)[0]
        pictures.append((f'for {names[shown]}', _uri(overlay(picture, cam))))
    return dict(
        name=sample.name,
        truth=names[label],
        answer=names[predicted],
        right=predicted == label,
        confidence=float(scores.max()),
        scores=[(names[i], float(scores[i]), i == label) for i in scores.argsort()[::-1][:3]],
        pictures=pictures,
        pixels=max(picture.shape[:2]) < 64,
    )


def _uri(picture: np.ndarray) -> str:
    """A picture (H, W, 3) in RGB as text for a page: JPEG, or PNG where every pixel counts."""
    height, width = picture.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    suffix, kind = ('.png', 'png') if max(picture.shape) < 64 else ('.jpg', 'jpeg')
    data = cv2.imencode(suffix, picture[..., ::-1])[1].tobytes()
    return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'
