"""Two networks on the held-out images: what a training changed, image by image."""

import json
from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np

from ..models.classifiers import GatedClassifier
from ..visualization import overlay, place_maps, record_samples, show_image
from ..visualization.overlay import behind_gate
from .attention_inferencer import AttentionInferencer
from .classifier import load_data_set
from .launch import read_config

CHANGES = ('to_right', 'to_wrong')


def compare(
    before: Sequence[str | Path], after: Sequence[str | Path], out: str | Path, examples: int = 6, batch_size: int = 16
) -> dict:
    """Predict the test images of the first config with both networks, and draw maps of images whose answer changed.

    Args:
        before (Sequence[str | Path]): Config and checkpoint.
        after (Sequence[str | Path]): Those of the other network, with the same classes.
        out (str | Path): Folder for ``before_after.json`` and the pictures.
        examples (int): Of how many images of each change to draw the last map. Defaults to 6.
        batch_size (int): Images that run at once. Defaults to 16.

    Returns:
        dict: ``images``, their number; ``accuracy``, of both in [0, 1]; ``to_right`` and ``to_wrong``, the files whose
        answers changed so; and ``examples``, with ``image``, ``change``, ``label``, ``answers`` and the file names of
        the ``pictures`` (before, after).

    Raises:
        ValueError: If the test images are not files.
    """
    cfg = read_config(before[0])
    dataset = load_data_set(cfg)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    if not all(info.get('img_path') for info in infos):
        raise ValueError('The test images of this config are not files; the comparison draws images of files.')
    paths, labels = [info['img_path'] for info in infos], np.array([info['gt_label'] for info in infos])
    networks = [AttentionInferencer(str(config), str(checkpoint)) for config, checkpoint in (before, after)]
    answers = []  # of both (images,)
    for network in networks:
        results = network(paths, batch_size=batch_size, attention=False, strict=True)
        answers.append(np.array([result['pred_label'] for result in results]))
    right = [answer == labels for answer in answers]
    changed = {'to_right': ~right[0] & right[1], 'to_wrong': right[0] & ~right[1]}
    result = dict(
        images=len(paths),
        accuracy=[float(correct.mean()) for correct in right],
        **{change: [paths[i] for i in np.flatnonzero(changed[change])] for change in CHANGES},
        examples=[],
    )
    names = networks[0].classes
    for change in CHANGES:
        for i in np.flatnonzero(changed[change])[:examples].tolist():
            pictures = [f'{change}_{i}_{when}.png' for when in ('before', 'after')]
            for network, name in zip(networks, pictures):
                mmcv.imwrite(_draw(network, paths[i])[..., ::-1], str(Path(out, name)))
            predicted = [int(answer[i]) for answer in answers]
            example = dict(image=paths[i], change=change, label=int(labels[i]), answers=predicted, pictures=pictures)
            if names:
                example |= dict(label=names[labels[i]], answers=[names[label] for label in predicted])
            result['examples'].append(example)
    Path(out).mkdir(parents=True, exist_ok=True)
    Path(out, 'before_after.json').write_text(json.dumps(result, indent=2) + '\n')
    return result


def _draw(network: AttentionInferencer, path: str) -> np.ndarray:
    """The last map that has positions, over the image; with a gate, the image as the classifier sees it."""
    sample = network.pipeline(path, path, follow=True)
    record_samples(network.model, [sample])
    placed = place_maps(network.model, sample, 'mean')
    picture = show_image(sample.image)
    if isinstance(network.model, GatedClassifier):
        return behind_gate(picture, placed['shown'])
    return overlay(picture, list(placed.values())[-1]) if placed else picture
