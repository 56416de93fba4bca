import io
import pickle
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from PIL import Image

from mmresattn.datasets.broken_images import BrokenImagesHook, LoadCheckedImage
from mmresattn.datasets.image_files import BrokenImage

BLOCKS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
PIXELS = np.kron(BLOCKS, np.ones((8, 8, 1), np.uint8))  # (48, 64, 3) RGB; JPEG keeps it well
GREY16 = np.random.default_rng(1).integers(0, 65536, (5, 7), np.uint16)


def encode(image, kind, **settings):
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def load(tmp_path, content, **settings):
    path = tmp_path / 'image'
    path.write_bytes(content)
    return LoadCheckedImage(**settings)(dict(img_path=str(path)))['img']


@pytest.mark.parametrize(
    ('mode', 'kind', 'error'),
    [('RGB', 'PNG', 0), ('RGB', 'JPEG', 6), ('L', 'PNG', 0), ('L', 'JPEG', 6), ('LA', 'PNG', 0), ('1', 'PNG', 0),
     ('P', 'PNG', 0), ('RGBA', 'PNG', 0), ('CMYK', 'JPEG', 6), ('CMYK', 'TIFF', 0), ('RGB', 'BMP', 0)],
)  # fmt: skip
def test_every_kind_of_image_comes_as_three_channels(tmp_path, mode, kind, error):
    image = Image.fromarray(PIXELS).convert(mode)
    expected = np.asarray(image.convert('RGB'))[..., ::-1]
    loaded = load(tmp_path, encode(image, kind, **(dict(quality=98, subsampling=0) if kind == 'JPEG' else {})))
    assert loaded.dtype == np.uint8 and loaded.shape == (48, 64, 3)
    assert np.abs(loaded.astype(int) - expected).max() <= error


@pytest.mark.parametrize('kind', ['.png', '.tif'])
def test_of_16_bits_the_upper_8_stay(tmp_path, kind):
    loaded = load(tmp_path, cv2.imencode(kind, GREY16)[1].tobytes())
    assert np.array_equal(loaded, np.repeat((GREY16 >> 8).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize('size', [(1, 1), (20_000, 2), (2, 20_000)])
def test_sizes(tmp_path, size):
    assert load(tmp_path, encode(Image.new('RGB', size), 'PNG')).shape == (*size[::-1], 3)


def test_what_follows_the_end_of_an_image_does_no_harm(tmp_path):
    assert np.array_equal(load(tmp_path, encode(Image.fromarray(PIXELS), 'PNG') + b'trailer'), PIXELS[..., ::-1])


def test_float32_and_images_that_are_loaded_already(tmp_path):
    content = encode(Image.fromarray(PIXELS), 'PNG')
    assert load(tmp_path, content, to_float32=True).dtype == np.float32
    results = dict(img=PIXELS)
    assert LoadCheckedImage()(results) is results


def large(kind):
    """Several times the buffer of a decoder, in whose middle OpenCV 4 notices nothing."""
    return encode(Image.fromarray(np.random.default_rng(2).integers(0, 256, (200, 300, 3), np.uint8)), kind)


def flipped(content):
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 255]) + content[len(content) // 2 + 1 :]


BROKEN = {
    'empty': (b'', 'it is empty'),
    'text': (b'<html>404</html>', 'none of the formats JPEG, PNG'),
    'cut.jpg': (large('JPEG')[:-5000], 'truncated'),
    'cut-by-2.jpg': (large('JPEG')[:-2], 'truncated'),
    'cut.png': (large('PNG')[:-5000], 'truncated'),
    'cut.bmp': (large('BMP')[:-5000], 'truncated'),
    'flipped.png': (flipped(large('PNG')), 'cannot decode'),
    'float.tif': (cv2.imencode('.tif', GREY16.astype(np.float32))[1].tobytes(), 'cannot decode'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_broken_images_are_named(tmp_path, name):
    content, why = BROKEN[name]
    with pytest.raises(BrokenImage, match=f'{tmp_path}/image is no whole image: .*{why}.*skip_broken=True'):
        load(tmp_path, content)


def test_a_missing_file_and_a_missing_folder(tmp_path):
    (tmp_path / 'a').mkdir()
    with pytest.raises(BrokenImage, match='a/1.png is no whole image: it is not there'):
        LoadCheckedImage()(dict(img_path=str(tmp_path / 'a' / '1.png')))
    for skip in (False, True):  # the rest of a folder that vanished would only be skipped too
        with pytest.raises(FileNotFoundError, match=f'The folder {tmp_path}/b is not there.*continue with --resume'):
            LoadCheckedImage(skip_broken=skip)(dict(img_path=str(tmp_path / 'b' / 'c' / '1.png')))


@pytest.fixture
def folder(tmp_path):
    """Two classes of six images; three images are broken, one is missing by the time it is read."""
    for name in 'ab':
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)).save(tmp_path / name / f'{i}.png')
    for bad in ('a/1', 'a/4', 'b/2'):
        (tmp_path / f'{bad}.png').write_bytes((tmp_path / f'{bad}.png').read_bytes()[:50])
    return tmp_path


def loader(folder, workers=0, test_mode=False, **settings):
    pipeline = [dict(type='ReplaySeed'), dict(type='LoadCheckedImage', **settings), dict(type='PackInputs')]
    dataset = dict(type='CustomDataset', data_prefix=str(folder), pipeline=pipeline, test_mode=test_mode)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Runner.build_dataloader(
            dict(
                batch_size=3,
                num_workers=workers,
                dataset=dataset,
                sampler=dict(type='ReplaySampler', shuffle=True, seed=3),
                collate_fn=dict(type='default_collate'),
            )
        )


def epochs(batches, hub, first=0, stop=8, epochs=2):
    """The hook of a training of some epochs of 4 batches that begins and stops in the middle, and what was loaded."""
    said, seen = [], []
    logger = SimpleNamespace(warning=said.append)
    runner = SimpleNamespace(train_dataloader=batches, message_hub=hub, logger=logger)
    hook = BrokenImagesHook()
    hook.before_train(runner)
    for epoch in range(first // 4, epochs):
        batches.sampler.set_epoch(epoch)
        batches.sampler.skip(first % 4 * 3 if epoch == first // 4 else 0)
        start = first % 4 if epoch == first // 4 else 0
        for i, batch in enumerate(batches, 4 * epoch + start):
            if i >= stop:
                return hook, said, seen
            hook.before_train_iter(runner, i, batch)
            seen.append([(sample.img_path[-7:], int(sample.gt_label)) for sample in batch['data_samples']])
        hook.after_train_epoch(runner)
    return hook, said, seen


@pytest.mark.parametrize('workers', [0, 2])
def test_skipped_images_are_replaced_counted_and_listed(folder, workers):
    hook, said, seen = epochs(loader(folder, workers, skip_broken=True), MessageHub(f'skipped{workers}'))
    assert sorted(path[-7:] for path in hook.broken) == ['a/1.png', 'a/4.png', 'b/2.png']
    assert len(said) == 2 and said[1].startswith('3 broken images were skipped since the training began:\n')
    assert f'{folder}/a/4.png: ' in said[1]
    assert [len(batch) for batch in seen] == [3] * 8
    assert not {'a/1.png', 'a/4.png', 'b/2.png'} & {path for batch in seen for path, _ in batch}
    assert all(label == 'ab'.index(path[0]) for batch in seen for path, label in batch)
    assert seen == epochs(loader(folder, 1 - bool(workers), skip_broken=True), MessageHub(f'again{workers}'))[2]


def test_a_resumed_run_lists_and_loads_what_an_uninterrupted_one_does(folder):
    whole, _, seen = epochs(loader(folder, skip_broken=True), MessageHub('whole'))
    hub = MessageHub('killed')
    early, _, before = epochs(loader(folder, skip_broken=True), hub, stop=3)
    state = pickle.loads(pickle.dumps(hub.state_dict()))  # as in a checkpoint
    # By now the files are mended, so that only the checkpoint knows of those that came before it.
    resumed = MessageHub('resumed')
    resumed.load_state_dict(state)
    for path in early.broken:
        Image.fromarray(PIXELS[:8, :8]).save(path)
    mended, _, _ = epochs(loader(folder, skip_broken=True), resumed, first=3)
    assert early.broken and mended.broken == whole.broken
    for path in early.broken:
        content = open(path, 'rb').read()
        open(path, 'wb').write(content[:50])
    _, _, after = epochs(loader(folder, skip_broken=True), hub, first=3)
    assert before + after == seen


def test_the_list_is_short(folder, monkeypatch):
    monkeypatch.setattr('mmresattn.datasets.broken_images.LISTED', 2)
    _, said, _ = epochs(loader(folder, skip_broken=True), MessageHub('short'))
    assert said[-1].count('\n') == 3 and said[-1].endswith('and 1 more')


@pytest.mark.parametrize('workers', [0, 1])
def test_without_leave_to_skip_a_run_stops(folder, workers):
    with pytest.raises(BrokenImage, match=f'{folder}/(a/1|a/4|b/2).png is no whole image'):
        list(loader(folder, workers))


def test_a_test_takes_no_other_image_and_names_the_broken_one(folder, monkeypatch):
    said = []
    batches = loader(folder, test_mode=True, skip_broken=True)
    monkeypatch.setattr(MMLogger.get_current_instance(), 'log', lambda level, message: said.append(message))
    with pytest.raises(Exception, match='should not get `None`'):
        list(batches)
    assert len(said) == 1 and '.png is no whole image' in said[0]


def test_a_folder_without_one_whole_image_ends(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / '0.png').touch()
    with pytest.raises(Exception, match='Cannot find valid image after'):
        list(loader(tmp_path, skip_broken=True))


def test_pipelines_can_be_told_on_the_command_line():
    cfg = Config(dict(pipeline=[dict(type='LoadCheckedImage')]))
    cfg.merge_from_dict({'pipeline.0.skip_broken': True})
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert Compose(cfg.pipeline).transforms[0].skip_broken


def test_empty_classes_are_named_and_keep_their_number(folder, monkeypatch):
    (folder / 'aa').mkdir()
    said = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', said.append)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(dict(type='CustomDataset', data_prefix=str(folder), pipeline=[]))
    assert any('aa' in message for message in said)
    assert dataset.CLASSES == ('a', 'aa', 'b') and set(dataset.get_gt_labels()) == {0, 2}
