"""Photographs with a shortcut: markers, strokes, the trainings and the tables of the page."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmresattn.datasets import Corrections
from mmresattn.datasets.strokes import paint
from mmresattn.models.classifiers import ErasedAreaMasker
from tools import correct_and_train

DOCS = Path(__file__).parents[2] / 'docs'


@pytest.mark.parametrize('marker', correct_and_train.MARKERS)
def test_strokes_cover_the_marker(marker):
    for seed in range(5):
        opacity, strokes = correct_and_train.MARKERS[marker](np.random.default_rng(seed))
        value, painted = np.moveaxis(paint(strokes, opacity.shape), -1, 0)
        painted = cv2.resize(painted * (1 - value), opacity.shape, interpolation=cv2.INTER_AREA) > 0.5
        assert painted[opacity > 0].mean() > 0.98 and painted.mean() < 2 * (opacity > 0).mean()


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    """Two classes of noise, a few photographs each, with squares."""
    work, rng = tmp_path_factory.mktemp('work') / 'photos', np.random.default_rng(0)
    for split in ('train', 'val', 'test'):
        for label, level in (('dark', 100), ('light', 200)):
            for i in range(8):
                photo = rng.integers(0, level, (40, 60, 3), np.uint8)
                correct_and_train.write(work / 'source' / split / label / f'{i}.png', photo)
    return work


def test_trains_measures_and_resumes(work, monkeypatch, capsys):
    monkeypatch.setattr(correct_and_train, 'EPOCHS', 1)
    monkeypatch.setenv('MMRESATTN_DATA', str(work))
    (work / 'clothing').symlink_to(work / 'source')

    def configure(photos, epochs=1, lr=None):
        read, pack = dict(type='KeepInMemory', transforms=[dict(type='LoadCheckedImage')]), dict(type='PackInputs')
        folder = dict(type='PhotoFolder', data_root=str(photos), split='train', pipeline=[read, pack])
        return Config(
            dict(
                default_scope='mmpretrain',
                model=dict(
                    type='AttentionBranchNetwork',
                    backbone=dict(type='CIFARResNet', depth=8, base_channels=8),
                    head=dict(type='AttentionBranchHead', num_classes=2),
                ),
                data_preprocessor=dict(num_classes=2, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True),
                train_dataloader=dict(
                    batch_size=8,
                    num_workers=0,
                    sampler=dict(type='ReplaySampler'),
                    collate_fn=dict(type='default_collate'),
                    dataset=folder,
                ),
                test_dataloader=dict(batch_size=8, num_workers=0, dataset=folder | dict(split='test')),
                test_cfg=dict(),
                test_evaluator=dict(type='Accuracy'),
                train_cfg=dict(by_epoch=True, max_epochs=epochs),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
                default_hooks=dict(checkpoint=dict(type='WholeCheckpointHook')),
                custom_hooks=[],
                launcher='none',
            )
        )

    monkeypatch.setattr(correct_and_train, 'configure', configure)
    monkeypatch.setattr(ErasedAreaMasker.__init__, '__defaults__', (8, 2, 16, 3e-3))  # channels, steps
    page = work / 'page.md'
    page.write_text('before\n<!-- corrections -->\nold\n<!-- end -->\nafter\n')
    what = '--markers square --uses gradient_penalty gate --seeds 0 --counts 100'.split()
    args = ['photos', *what, '--work-dir', str(work.parent), '--json', str(work / 'out.json'), '--page', str(page)]
    correct_and_train.main(args)
    results = json.loads((work / 'out.json').read_text())
    tables = correct_and_train.tables(results)
    assert tables in capsys.readouterr().out
    assert page.read_text() == f'before\n<!-- corrections -->\n{tables}<!-- end -->\nafter\n'
    found = {(r['marker'], r['use'], r['count'], r['wrong_place']): r for r in results}
    assert set(found) == {
        *((marker, use, 100, False) for marker in ('square', 'clean') for use in ('before', 'nothing', 'gate')),
        ('square', 'gate', 100, True),
        ('square', 'gradient_penalty', 100, False),
    }
    seen = found['square', 'gate', 100, False]['seen']
    assert len(seen['test']['right']) == len(seen['test']['marker']) == 16
    assert 'marker' not in seen['clean_test']  # there is none
    right, wrong = (Corrections(work / f'corrections/square_0/gate_100{end}').by_image for end in ('', '_wrong'))
    assert right.keys() == wrong.keys() and all(right[name].strokes != wrong[name].strokes for name in right)

    monkeypatch.setattr(correct_and_train, 'train', None)  # what is done is read
    correct_and_train.main([*args, '--measured'])
    assert capsys.readouterr().out.endswith(tables + '\n')


def test_errors_of_gains():
    """Over seeds that of the mean gain; of one seed that of the differences between photographs."""

    def result(use, seed, right):
        return dict(
            marker='disc',
            use=use,
            seed=seed,
            count=100,
            wrong_place=False,
            lr=None,
            seen=dict(val=dict(right=right), test=dict(right=right)),
        )

    def row(results):
        return next(row for row in correct_and_train.summary(results) if row['use'] == 'augment')

    results = [result('nothing', 0, '0000'), result('augment', 0, '1101')]
    one = row(results)
    assert one['test right gain'] == 75 and one['test right error'] == pytest.approx(
        100 * np.std([1, 1, 0, 1], ddof=1) / 2
    )
    two = row([*results, result('nothing', 1, '1100'), result('augment', 1, '1110')])
    assert two['test right gain'] == 50 and two['test right error'] == pytest.approx(25)


def test_tables_of_the_page_are_those_of_the_measurements():
    results = json.loads((DOCS / 'corrections.json').read_text())
    tables = re.search(r'<!-- corrections -->\n(.*)<!-- end -->', (DOCS / 'corrections.md').read_text(), re.S)[1]
    assert tables.strip() == correct_and_train.tables(results).strip()
