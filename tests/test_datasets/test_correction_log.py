import json
import multiprocessing
import os
import threading

import cv2
import numpy as np
import pytest

from mmresattn.datasets.correction_log import CorrectionLog, ReplacedMeanwhile

KEY = 'bee/0.jpg', 'neck.map'
FILE = 'maps/neck.map/bee/0.png'


def png(value):
    return cv2.imencode('.png', np.full((4, 4), value, np.uint16))[1].tobytes()


def save(log, value, image=KEY[0], **options):
    return log.save(dict(image=image, layer=KEY[1], value=value), png(value), **options)


def test_take_back_and_bring_back(tmp_path):
    log = CorrectionLog(tmp_path, 'Ann')
    save(log, 1)
    entry = save(log, 2)
    assert log.saved == {KEY: entry} and entry['annotator'] == 'Ann' and entry['map'] == FILE
    log.take_back(*KEY)
    assert not log.saved and not (tmp_path / FILE).exists()
    assert CorrectionLog(tmp_path).taken_back == {KEY: entry}  # also after a restart
    assert log.bring_back(*KEY) == entry and (tmp_path / FILE).read_bytes() == png(2)
    assert CorrectionLog(tmp_path).saved == {KEY: entry}
    log.skip('cat/1.jpg')
    assert set(CorrectionLog(tmp_path).skipped) == {'cat/1.jpg'}
    log.skip('cat/1.jpg', False)
    log.skip('cat/1.jpg', False)  # nothing to note
    assert not CorrectionLog(tmp_path).skipped
    actions = [json.loads(line)['action'] for line in (tmp_path / 'manifest.jsonl').read_text().splitlines()]
    assert actions == ['save', 'save', 'take back', 'bring back', 'skip', 'return to']
    for method in (log.take_back, log.bring_back):
        with pytest.raises(KeyError, match='no .*map'):
            method('cat/1.jpg', 'neck.map')


def test_two_editors_keep_each_others_maps(tmp_path):
    ann, ben = CorrectionLog(tmp_path, 'Ann'), CorrectionLog(tmp_path, 'Ben')
    first = save(ann, 1)
    save(ben, 2, 'cat/1.jpg')
    with pytest.raises(ReplacedMeanwhile, match='Ann saved this map'):
        save(ben, 3, replaces=None)
    second = save(ben, 3, replaces=first['sha256'])
    ann.refresh()
    assert ann.saved == ben.saved and ann.saved[KEY] == second and len(ann.saved) == 2
    ben.take_back(*KEY)
    with pytest.raises(ReplacedMeanwhile, match='took back'):
        save(ann, 4, replaces=second['sha256'])


def test_no_line_of_many_writers_is_lost(tmp_path):
    logs = [CorrectionLog(tmp_path, str(i)) for i in range(4)]

    def work(log):
        for i in range(10):
            save(log, i, f'{log.annotator}/{i}.jpg')

    threads = [threading.Thread(target=work, args=(log,)) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(CorrectionLog(tmp_path).saved) == 40


def save_forever(folder, done):
    log = CorrectionLog(folder, 'killed')
    for i in range(10**6):
        save(log, i % 7, f'a/{i % 5}.jpg')
        done.value = i


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_killed_at_any_moment(tmp_path):
    """Every save that was confirmed is there, and what was not is gone or whole. A second process writes meanwhile."""
    fork = multiprocessing.get_context('fork')
    done = fork.Value('i', -1, lock=False)
    process = fork.Process(target=save_forever, args=(tmp_path, done))
    process.start()
    other = CorrectionLog(tmp_path, 'other')
    while done.value < 20:
        save(other, 3, f'b/{done.value}.jpg')
    process.kill()
    process.join()
    last = done.value
    log = CorrectionLog(tmp_path)
    assert log.check() == []
    lines = [json.loads(line) for line in (tmp_path / 'manifest.jsonl').read_text().splitlines()]
    numbers = [line['value'] for line in lines if line['annotator'] == 'killed']
    assert len(numbers) in (last + 1, last + 2) and numbers == [i % 7 for i in range(len(numbers))]
    for entry in log.saved.values():
        assert (tmp_path / entry['map']).read_bytes() == png(entry['value'])


def test_interrupted_actions_are_finished(tmp_path):
    log = CorrectionLog(tmp_path)
    save(log, 1)
    manifest = tmp_path / 'manifest.jsonl'
    whole = manifest.read_bytes()
    save(log, 2)
    save(log, 3, 'cat/1.jpg')
    manifest.write_bytes(whole + b'{"action": "save", "ima')  # killed while it wrote the second line
    log = CorrectionLog(tmp_path)
    assert log.check() == [] and list(log.saved) == [KEY]
    assert (tmp_path / FILE).read_bytes() == png(1) and not (tmp_path / 'maps/neck.map/cat/1.png').exists()
    log.skip('x')
    assert CorrectionLog(tmp_path).skipped  # the incomplete line is gone


def test_what_was_done_by_hand_is_said(tmp_path):
    log = CorrectionLog(tmp_path)
    save(log, 1)
    save(log, 2, 'cat/1.jpg')
    (tmp_path / FILE).unlink()
    (tmp_path / 'maps/neck.map/cat/1.png').write_bytes(png(9))
    (tmp_path / 'maps/neck.map/cat/2.png').write_bytes(png(9))
    deleted, changed, added = log.check()
    assert 'deleted by hand: maps/neck.map/bee/0.png' in deleted and 'changed by hand' in changed
    assert 'added by hand: maps/neck.map/cat/2.png' in added
    log.bring_back(*KEY)
    log.bring_back('cat/1.jpg', 'neck.map')
    assert (tmp_path / FILE).read_bytes() == png(1) and len(log.check()) == 1
    os.remove(tmp_path / 'manifest.jsonl')
    log.refresh()
    assert not log.saved
    (tmp_path / 'manifest.jsonl').write_text('{"image": "a.jpg"}\n')
    with pytest.raises(ValueError, match='line 1, was not written by this editor'):
        log.refresh()
