"""A page that says how well a classifier answers, and where it looked when it was wrong.

``report.html.jinja`` beside this file is the page; the figures in it come from
:mod:`~mmresattn.evaluation.classification`.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from rich.progress import track

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
from .classification import calibration, class_accuracies, confusions, wilson

TEMPLATE = Path(__file__).with_name('report.html.jinja')
SIDE = 224  # pixels of the longer side of a photograph in the report
FEW_CLASSES = 30  # more do not fit into a confusion matrix that can be read
GREY = 127


@dataclass
class Answer:
    """What a classifier says of an image.

    Attributes:
        index (int): Of the image in its data set.
        label (int): True class.
        scores (np.ndarray): Probabilities (classes,).
    """

    index: int
    label: int
    scores: np.ndarray

    @property
    def predicted(self) -> int:
        """The class of the greatest score."""
        return int(self.scores.argmax())

    @property
    def margin(self) -> float:
        """How much greater the greatest score is than the next one."""
        second, first = np.partition(self.scores, -2)[-2:]
        return float(first - second)


def classify(model: BaseModel, dataset: Sequence[dict], batch_size: int = 32) -> list[Answer]:
    """The answers of a classifier to all images of a data set.

    Args:
        model (BaseModel): Classifier of one label per image, in evaluation mode.
        dataset (Sequence[dict]): Images with labels, as its test pipeline packs them.
        batch_size (int): Images that run at once. Defaults to 32.

    Returns:
        list[Answer]: In the order of the data set.

    Raises:
        ValueError: If an image does not have one label, or the model does not give one score per class.
    """
    samples = (data_set_sample(dataset, index) for index in track(range(len(dataset)), 'classify'))
    answers = []
    for batch in batches_of_one_shape(samples, batch_size):
        record_samples(model, batch, layers=[])
        for sample in batch:
            found = sample.prediction
            truth, scores = found.get('gt_label'), found.get('pred_score')
            if truth is None or truth.numel() != 1 or scores is None or scores.dim() != 1 or 'gt_score' in found:
                raise ValueError('A report needs a classifier with one label and one score per class for each image.')
            answers.append(Answer(len(answers), int(truth), scores.double().cpu().numpy()))
    return answers


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
    network has none; and where a network has a map named ``gate``, what that map let the network see.

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
    attention_maps(model, layers)
    answers = classify(model, dataset, batch_size)
    if not answers:
        raise ValueError('There are no images to report on.')
    labels = np.array([answer.label for answer in answers])
    scores = np.stack([answer.scores for answer in answers])
    names = [str(name) for name in class_names(dataset) or [f'class {i}' for i in range(scores.shape[1])]]
    matrix = confusions(labels, scores.argmax(1), len(names))
    wrong = sorted((a for a in answers if a.predicted != a.label), key=lambda a: -a.scores.max())[:shown]
    hidden = {answer.index for answer in wrong}
    unsure = sorted((a for a in answers if a.index not in hidden), key=lambda a: a.margin)[:shown]
    cards = _Cards(model, dataset, cfg, names, layers)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters['percent'] = lambda share: '–' if share != share else f'{100 * share:.1f} %'
    return environment.from_string(TEMPLATE.read_text(encoding='utf-8')).render(
        title=title,
        subtitle=subtitle,
        names=names,
        accuracy=wilson(matrix.trace(), len(answers)),
        log_loss=float(-np.log(scores[np.arange(len(labels)), labels].clip(1e-12)).mean()),
        classes=sorted((c for c in class_accuracies(matrix) if c.recall.total), key=lambda c: c.recall.value),
        matrix=matrix.tolist() if len(names) <= FEW_CLASSES else None,
        pairs=_confused(matrix),
        calibration=calibration(scores, labels),
        wrong=[cards(answer) for answer in wrong],
        unsure=[cards(answer) for answer in unsure],
        maps_are=cards.kind,
    )


def _confused(matrix: np.ndarray, count: int = 10) -> list[tuple[int, int, int, int]]:
    """The most frequent confusions: true class, predicted class, how many images, of how many."""
    mistakes = matrix - np.diag(matrix.diagonal())
    order = mistakes.argsort(axis=None, kind='stable')[::-1][:count]
    places = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, matrix.shape))]
    return [(i, j, int(matrix[i, j]), int(matrix[i].sum())) for i, j in places if mistakes[i, j]]


class _Cards:
    """Makes of an answer what the page shows of it: photograph, maps and scores."""

    def __init__(
        self,
        model: BaseModel,
        dataset: Sequence[dict],
        cfg: Config,
        names: Sequence[str],
        layers: Sequence[str] | None,
    ) -> None:
        self.model, self.dataset, self.names = model, dataset, names
        self.root = data_set_root(dataset)
        self.pipeline = ImagePipeline(cfg)
        spatial = [name for name, tap in attention_maps(model).items() if tap.kind != 'channel']
        self.layers = spatial[-4:] if layers is None else list(layers)
        self.cam = not self.layers and _has_grad_cam()
        self.kind = 'attention' if self.layers else 'Grad-CAM' if self.cam else None

    def __call__(self, answer: Answer) -> dict:
        sample = data_set_sample(self.dataset, answer.index)
        path = sample.packed['data_samples'].get('img_path')
        if path and Path(path).is_file():  # the photograph itself, and not what the network gets
            read = self.pipeline(path, relative_name(path, self.root), follow=True)
            sample.name, sample.image, sample.view = read.name, read.image, read.view
        record_samples(self.model, [sample], self.layers)
        picture = show_image(sample.image)
        pictures = [('', _uri(picture))]
        for name, attention in place_maps(self.model, sample).items():
            gate = short_name(name).rpartition('.')[2] == 'gate'
            drawn = _behind_gate(picture, attention) if gate else overlay(picture, attention)
            pictures.append(('what the network was shown' if gate else short_name(name), _uri(drawn)))
        if self.cam:
            pictures += self._cams(sample, picture, answer)
        return dict(
            name=sample.name,
            truth=self.names[answer.label],
            answer=self.names[answer.predicted],
            right=answer.predicted == answer.label,
            confidence=float(answer.scores.max()),
            scores=[
                (self.names[i], float(answer.scores[i]), i == answer.label) for i in answer.scores.argsort()[::-1][:3]
            ],
            pictures=pictures,
            pixels=max(picture.shape[:2]) < 64,
        )

    def _cams(self, sample: ImageSample, picture: np.ndarray, answer: Answer) -> list[tuple[str, str]]:
        """Grad-CAM for the answer and, if it is wrong, for the true class."""
        labels = list(dict.fromkeys((answer.predicted, answer.label)))
        images = sample.packed['inputs'][None].to(next(self.model.parameters()).device)
        maps = class_activation_maps(self.model, images.expand(len(labels), -1, -1, -1), labels)
        return [
            (f'for {self.names[label]}', _uri(overlay(picture, maps_in_view(cam[None], sample.view)[0])))
            for label, cam in zip(labels, maps)
        ]


def _has_grad_cam() -> bool:
    try:
        import pytorch_grad_cam  # noqa: F401
    except ImportError:
        return False
    return True


def _behind_gate(picture: np.ndarray, gate: torch.Tensor) -> np.ndarray:
    """A picture in which what a gate hides is grey; NaN hides nothing."""
    shown = gate.nan_to_num(1.0).clamp(0, 1)[..., None].cpu().numpy()
    return np.rint(shown * picture + (1 - shown) * GREY).astype(np.uint8)


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
