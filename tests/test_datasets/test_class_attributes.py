import numpy as np
import pytest

from mmresattn.datasets import ClassAttributes

QUESTIONS = dict(even=[0, 2, 4, 6, 8], prime=[2, 3, 5, 7])


def test_a_class_has_its_attributes():
    transform = ClassAttributes(QUESTIONS)
    for label in range(10):
        results = transform(dict(gt_label=np.int64(label)))
        expected = [label % 2 == 0, label > 1 and all(label % d for d in range(2, label))]
        assert results['gt_score'].dtype == np.float32 and results['gt_score'].tolist() == expected
    assert 'even' in repr(transform)


@pytest.mark.parametrize('attributes', [{}, dict(even=[]), dict(even=[-1]), dict(even=['cat'])])
def test_attributes_without_classes_are_refused(attributes):
    with pytest.raises(ValueError, match='attribute'):
        ClassAttributes(attributes)
