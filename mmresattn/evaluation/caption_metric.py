"""BLEU, ROUGE-L and CIDEr of captions."""

from collections.abc import Sequence

from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from ..models.captioners import words_of


def caption_scores(captions: dict, references: dict) -> dict[str, float]:
    """BLEU-1 to BLEU-4, ROUGE-L and CIDEr of a set of captions, by pycocoevalcap's Python parts.

    These are the implementations behind the published numbers of COCO captions. Their METEOR, SPICE and tokeniser need
    Java and are left out; captions are tokenised by :func:`~mmresattn.models.captioners.words_of`.

    Args:
        captions (dict): By image a caption.
        references (dict): By image a list of captions that people wrote. CIDEr weighs words by their rarity among all
            of these, so it means little for few images.

    Returns:
        Dict[str, float]: ``BLEU-1`` ... ``BLEU-4`` and ``ROUGE-L`` from 0 to 1, ``CIDEr`` from 0 to 10.

    Raises:
        ImportError: If pycocoevalcap is not installed.
    """
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise ImportError('CaptionMetric needs pycocoevalcap: pip install pycocoevalcap') from error
    predicted = {image: [' '.join(words_of(caption))] for image, caption in captions.items()}
    given = {image: [' '.join(words_of(sentence)) for sentence in references[image]] for image in captions}
    bleu = Bleu(4).compute_score(given, predicted, verbose=0)[0]
    scores = {f'BLEU-{n}': float(value) for n, value in enumerate(bleu, 1)}
    scores['ROUGE-L'] = float(Rouge().compute_score(given, predicted)[0])
    scores['CIDEr'] = float(Cider().compute_score(given, predicted)[0])
    return scores


@METRICS.register_module()
class CaptionMetric(BaseMetric):
    """The :func:`caption_scores` of a data set, and the share of captions that equal a reference word by word.

    Takes ``image_id``, ``gt_caption`` (a string or several; those of one image are its references) and
    ``pred_caption`` from the data samples. An image that comes several times counts once.
    """

    default_prefix = 'caption'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Take the captions of a batch."""
        for sample in data_samples:
            references = sample['gt_caption']
            references = [references] if isinstance(references, str) else list(references)
            self.results.append((sample['image_id'], sample['pred_caption'], references))

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Score all captions."""
        captions, references = {}, {}
        for image, caption, given in results:
            captions[image] = caption
            references.setdefault(image, []).extend(given)
        exact = [words_of(caption) in map(words_of, references[image]) for image, caption in captions.items()]
        return {**caption_scores(captions, references), 'exact': sum(exact) / len(exact)}
