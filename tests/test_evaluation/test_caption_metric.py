import math
from collections import Counter

import pytest
from mmengine.registry import METRICS

from mmresattn.evaluation import caption_scores

pytest.importorskip('pycocoevalcap')


def bleu(captions, references, n):
    """Corpus BLEU by its definition: clipped n-grams, brevity by the closest reference."""
    matches, totals, length, closest = [0] * n, [0] * n, 0, 0
    for caption, given in zip(captions, references):
        words, lists = caption.split(), [one.split() for one in given]
        length += len(words)
        closest += min((abs(len(one) - len(words)), len(one)) for one in lists)[1]
        for k in range(n):
            grams = Counter(tuple(words[i : i + k + 1]) for i in range(len(words) - k))
            most = Counter()
            for one in lists:
                most |= Counter(tuple(one[i : i + k + 1]) for i in range(len(one) - k))
            matches[k] += sum((grams & most).values())
            totals[k] += sum(grams.values())
    precision = math.exp(sum(math.log(match / total) for match, total in zip(matches, totals)) / n)
    return precision * min(1, math.exp(1 - closest / length))


def test_bleu_is_that_of_its_definition():
    captions = ['the cat is on the mat', 'a dog runs over the grass now']
    references = [
        ['There is a cat on the mat.', 'A cat is on the mat!'],
        ['a dog runs over the wet grass', 'the dog runs'],
    ]
    plain = [[one.lower().strip('.!') for one in given] for given in references]
    scores = caption_scores(dict(enumerate(captions)), dict(enumerate(references)))
    for n in range(1, 5):
        assert scores[f'BLEU-{n}'] == pytest.approx(bleu(captions, plain, n), rel=1e-6)
    alone = caption_scores({0: captions[0]}, {0: references[0]})
    expected = [0.8333333333, 0.8164965809, 0.7937005260, 0.7598356857]
    assert [alone[f'BLEU-{n}'] for n in range(1, 5)] == pytest.approx(expected, rel=1e-6)


def test_captions_of_an_image_are_its_references():
    metric = METRICS.build(dict(type='CaptionMetric'))
    metric.process({}, [dict(image_id=1, gt_caption='a red ball', pred_caption='a ball')])
    metric.process({}, [dict(image_id=1, gt_caption='A ball.', pred_caption='a ball')])
    metric.process({}, [dict(image_id=2, gt_caption=['one cat', 'two cats'], pred_caption='one dog')])
    scores = metric.compute_metrics(metric.results)
    assert scores['exact'] == 0.5
    assert {'BLEU-1', 'BLEU-4', 'ROUGE-L', 'CIDEr'} < set(scores)
