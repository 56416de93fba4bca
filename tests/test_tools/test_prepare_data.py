"""Tiny archives of the official form, through the tool and into the data sets of the configs."""

import dataclasses
import http.server
import io
import json
import shutil
import tarfile
import threading
import zipfile
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from scipy.io import savemat

from tests.conftest import ROOT
from tools import prepare_data
from tools.prepare_data import CITYSCAPES_IDS, DATA_SETS, Archive, members, obtain, prepare

CONFIGS = dict(
    cifar10='_base_/datasets/cifar10_memory_bs64',
    cifar100='_base_/datasets/cifar100_memory_bs128',
    svhn='pay_attention/vgg-att2-pc_svhn',
    cub200='pay_attention/vgg-att2-pc_cub200',
    dsb2018='_base_/datasets/dsb2018_128x128',
    bccd='detection/faster-rcnn_attention56-cifar_fpn_bccd',
    celeba='abn/abn-multitask-resnet101_celeba',
    imagenet='_base_/datasets/imagenet_bs32',
    ade20k='_base_/datasets/ade20k',
    cityscapes='_base_/datasets/cityscapes',
    coco='_base_/datasets/coco_detection',
)
SCOPES = dict(dsb2018='mmseg', ade20k='mmseg', cityscapes='mmseg', bccd='mmdet', coco='mmdet')
RNG = np.random.default_rng(0)
CIFAR10 = 'airplane automobile bird cat deer dog frog horse ship truck'.split()


def picture(kind='PNG', size=(32, 32), value=None):
    """The bytes of an image file; grey where all pixels have the same value."""
    pixels = RNG.integers(0, 256, (*size, 3), np.uint8) if value is None else np.full(size, value, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def tar(file, files, mode='w'):
    with tarfile.open(**{'name' if isinstance(file, Path) else 'fileobj': file}, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file


def zipped(path, files):
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def cifar_rows(*labels):
    return b''.join(bytes([*label]) + RNG.integers(0, 256, 3072, np.uint8).tobytes() for label in labels)


def make_cifar10(folder):
    files = {f'data_batch_{i}.bin': cifar_rows((i,), (9,)) for i in range(1, 6)}
    files |= {'test_batch.bin': cifar_rows((0,), (3,)), 'batches.meta.txt': '\n'.join([*CIFAR10, '']).encode()}
    files = {f'cifar-10-batches-bin/{name}': content for name, content in files.items()}
    tar(folder / 'cifar-10-binary.tar.gz', files, 'w:gz')
    return files, {'train/*/*.png': 10, 'test/*/*.png': 2, 'train/truck/*.png': 5, 'test/cat/*.png': 1}


def make_cifar100(folder):
    names = '\n'.join(f'class{i:03d}' for i in range(100))
    files = {'train.bin': cifar_rows((3, 99), (4, 0)), 'test.bin': cifar_rows((5, 7)), 'fine_label_names.txt': names}
    files = {f'cifar-100-binary/{name}': content for name, content in files.items()}
    files['cifar-100-binary/fine_label_names.txt'] = names.encode()
    tar(folder / 'cifar-100-binary.tar.gz', files, 'w:gz')
    return files, {'train/class099/*.png': 1, 'train/class000/*.png': 1, 'test/class007/*.png': 1}


def make_svhn(folder):
    for split, y in (('train', [10, 1, 2]), ('test', [10, 9])):
        images = RNG.integers(0, 256, (32, 32, 3, len(y)), np.uint8)
        savemat(folder / f'{split}_32x32.mat', dict(X=images, y=np.array(y)[:, None]))
    return {}, {'train/*/*.png': 3, 'train/0/*.png': 1, 'test/0/*.png': 1, 'test/9/*.png': 1}


def make_cub200(folder):
    paths = ['001.Black_footed_Albatross/a.jpg', '001.Black_footed_Albatross/b.jpg', '002.Laysan_Albatross/c.jpg']
    files = {f'CUB_200_2011/images/{path}': picture('JPEG') for path in paths}
    files['CUB_200_2011/images.txt'] = ''.join(f'{i} {path}\n' for i, path in enumerate(paths, 1)).encode()
    files['CUB_200_2011/train_test_split.txt'] = b'1 1\n2 0\n3 1\n'
    files['attributes.txt'] = b''
    tar(folder / 'CUB_200_2011.tgz', files, 'w:gz')
    return files, {'train/*/*.jpg': 2, 'test/001.Black_footed_Albatross/b.jpg': 1, '*': 2}


def make_dsb2018(folder):
    half = np.zeros((256, 256), np.uint8)
    half[:128] = 255
    names = ('05a8' + '0' * 60, 'aaaa' + '1' * 60, 'bbbb' + '2' * 60)  # to validate, to train, another size
    files = {}
    for name, size in zip(names, ((256, 256), (256, 256), (32, 32))):
        files[f'{name}/masks/m1.png'] = picture(size=size, value=0)
        files[f'{name}/images/{name}.png'] = picture(size=size)
    file = io.BytesIO()
    Image.fromarray(half).save(file, 'PNG')
    files[f'{names[0]}/masks/m2.png'] = file.getvalue()
    zipped(folder / 'stage1_train.zip', files)
    return files, {'*_dir/*/*.png': 4, 'img_dir/val/05a8*.png': 1, 'ann_dir/train/aaaa*.png': 1}


def make_bccd(folder):
    top = 'BCCD_Dataset-d272fb/BCCD'
    cell = (
        '<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'
    )
    page = '<annotation><size><width>64</width><height>48</height><depth>3</depth></size>{}</annotation>'
    files = {}
    for i, split in enumerate(('train', 'val', 'test')):
        cells = cell.format('WBC', 11, 21, 30, 40) + cell.format('Platelets', 1, 1, 8, 9)
        files[f'{top}/JPEGImages/cell{i}.jpg'] = picture('JPEG', (48, 64))
        files[f'{top}/Annotations/cell{i}.xml'] = page.format(cells).encode()
        files[f'{top}/ImageSets/Main/{split}.txt'] = f'cell{i}\n'.encode()
    zipped(folder / DATA_SETS['bccd'].archives[0].name, files)
    return files, {'images/*.jpg': 3, 'annotations/*.json': 3}


def make_celeba(folder):
    from mmresattn.datasets import CELEBA_ATTRIBUTES

    names = ['000001.jpg', '000002.jpg', '000003.jpg']
    zipped(folder / 'img_align_celeba.zip', {f'img_align_celeba/{name}': picture('JPEG') for name in names})
    rows = ''.join(f'{name} ' + ' '.join(['-1', '1'] * 20) + '\n' for name in names)
    (folder / 'list_attr_celeba.txt').write_text(f'3\n{" ".join(CELEBA_ATTRIBUTES)}\n{rows}')
    (folder / 'list_eval_partition.txt').write_text(''.join(f'{name} {i}\n' for i, name in enumerate(names)))
    return {}, {'img_align_celeba/*.jpg': 3, '*.txt': 2}


def make_imagenet(folder):
    kind = [('ILSVRC2012_ID', 'f8'), ('WNID', 'O'), ('words', 'O'), ('num_children', 'f8')]
    synsets = [(1, 'n01440764', 'tench', 0), (2, 'n01443537', 'goldfish', 0), (1001, 'n00000000', 'animal', 2)]
    mat = io.BytesIO()
    savemat(mat, dict(synsets=np.array(synsets, kind)[:, None]))
    top = 'ILSVRC2012_devkit_t12/data'
    devkit = {f'{top}/meta.mat': mat.getvalue(), f'{top}/ILSVRC2012_validation_ground_truth.txt': b'2\n1\n'}
    tar(folder / 'ILSVRC2012_devkit_t12.tar.gz', devkit, 'w:gz')
    val = {f'ILSVRC2012_val_{i:08d}.JPEG': picture('JPEG') for i in (1, 2)}
    tar(folder / 'ILSVRC2012_img_val.tar', val)
    train = {f'{name}.tar': tar(io.BytesIO(), {f'{name}_{i}.JPEG': picture('JPEG') for i in range(2)}).getvalue()
             for name in ('n01440764', 'n01443537')}  # fmt: skip
    tar(folder / 'ILSVRC2012_img_train.tar', train)
    return val, {'train/*/*.JPEG': 4, 'train/n01440764/n01440764_1.JPEG': 1, 'val/*/*.JPEG': 2,
                 'val/n01443537/ILSVRC2012_val_00000001.JPEG': 1}  # fmt: skip


def make_ade20k(folder):
    top = 'ADEChallengeData2016'
    files = {f'{top}/sceneCategories.txt': b''}
    for split, name in (('training', 'ADE_train_00000001'), ('validation', 'ADE_val_00000001')):
        files[f'{top}/images/{split}/{name}.jpg'] = picture('JPEG')
        files[f'{top}/annotations/{split}/{name}.png'] = picture(value=3)
    zipped(folder / 'ADEChallengeData2016.zip', files)
    return files, {'images/*/*.jpg': 2, 'annotations/*/*.png': 2}


def make_cityscapes(folder):
    images, labels = {'license.txt': b''}, {'README': b''}
    for split, city in (('train', 'aachen'), ('val', 'lindau')):
        images[f'leftImg8bit/{split}/{city}/{city}_000000_000019_leftImg8bit.png'] = picture(size=(4, 34))
        label = np.tile(np.arange(34, dtype=np.uint8), (4, 1))
        file = io.BytesIO()
        Image.fromarray(label).save(file, 'PNG')
        labels[f'gtFine/{split}/{city}/{city}_000000_000019_gtFine_labelIds.png'] = file.getvalue()
    zipped(folder / 'leftImg8bit_trainvaltest.zip', images)
    zipped(folder / 'gtFine_trainvaltest.zip', labels)
    return images, {'leftImg8bit/*/*/*.png': 2, 'gtFine/*/*/*_labelTrainIds.png': 2, '*': 2}


def make_coco(folder):
    annotations = {}
    for split in ('train', 'val'):
        zipped(folder / f'{split}2017.zip', {f'{split}2017/000000000009.jpg': picture('JPEG')})
        box = dict(id=1, image_id=9, category_id=1, bbox=[2, 3, 20, 20], area=400, iscrowd=0, segmentation=[])
        content = dict(images=[dict(id=9, file_name='000000000009.jpg', width=32, height=32)], annotations=[box],
                       categories=[dict(id=1, name='person')])  # fmt: skip
        annotations[f'annotations/instances_{split}2017.json'] = json.dumps(content)
    zipped(folder / 'annotations_trainval2017.zip', annotations)
    return {}, {'*2017/*.jpg': 2, 'annotations/instances_*2017.json': 2}


def of_size(data, folder, counts):
    """The entry of a data set for archives that are in a folder."""
    archives = tuple(
        Archive(archive.name, md5((folder / archive.name).read_bytes()).hexdigest()) for archive in data.archives
    )
    return dataclasses.replace(data, archives=archives, counts=counts, gigabytes=0.01)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """Data root with every data set, tiny, and the files in its archives."""
    out = tmp_path_factory.mktemp('data')
    contents = {}
    for name, data in DATA_SETS.items():
        folder = out / 'archives' / name
        folder.mkdir(parents=True)
        contents[name], counts = globals()[f'make_{name}'](folder)
        data = of_size(data, folder, counts)
        goal = prepare(data, out, folder)
        assert goal == out / data.folder and not data.missing(goal)
        shutil.rmtree(folder)
        assert prepare(data, out, folder) == goal  # needs the archives no more
    return out, contents


@pytest.mark.parametrize('name', DATA_SETS)
def test_configs_read_what_is_prepared(name, prepared, monkeypatch):
    monkeypatch.setenv('MMRESATTN_DATA', str(prepared[0]))
    cfg = Config.fromfile(ROOT / f'configs/{CONFIGS[name]}.py')
    scope = SCOPES.get(name, 'mmpretrain')
    pytest.importorskip(scope)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        dataset = loader.dataset
        while 'dataset' in dataset:  # that is kept in memory, or of which a part is taken
            dataset = dataset.dataset
        if name == 'imagenet':  # two classes instead of a thousand
            dataset = dict(type='CustomDataset', data_root=dataset.data_root, data_prefix=dataset.split)
        if scope == 'mmdet':
            dataset = {**dataset, 'pipeline': []}
        with DefaultScope.overwrite_default_scope(scope):
            built = DATASETS.build(dataset)
        sample = built.get_data_info(0)
        assert Image.open(sample['img_path']).size[0] >= 32
        if scope == 'mmseg':
            assert Image.open(sample['seg_map_path']).size == Image.open(sample['img_path']).size


def test_images_keep_their_pixels_and_labels(prepared):
    out, contents = prepared
    row = np.frombuffer(contents['cifar10']['cifar-10-batches-bin/data_batch_2.bin'], np.uint8)[:3073]
    image = np.asarray(Image.open(out / 'cifar10/train/bird/00002.png'))  # third of the training set, class 2
    assert row[0] == 2 and (image.transpose(2, 0, 1).ravel() == row[1:]).all()
    nuclei = np.asarray(Image.open(next(out.glob('dsb2018/ann_dir/val/*.png'))))
    assert (nuclei[:128] == 1).all() and (nuclei[128:] == 0).all()
    assert next(out.glob('dsb2018/img_dir/val/*.png')).name == '05a8000000000000.png'


def test_boxes_are_those_of_the_xml(prepared):
    coco = json.loads((prepared[0] / 'bccd/annotations/val.json').read_text())
    assert coco['images'] == [dict(id=0, file_name='cell1.jpg', width=64, height=48)]
    # The XML counts pixels from 1 and includes the last one.
    assert [(box['category_id'], box['bbox']) for box in coco['annotations']] == [
        (1, [10, 20, 20, 20]),
        (2, [0, 0, 8, 9]),
    ]


def test_training_labels_of_cityscapes_are_those_of_mmseg(prepared):
    mmseg = pytest.importorskip('mmseg.datasets')
    labels = np.asarray(Image.open(next(prepared[0].glob('cityscapes/gtFine/val/*/*_labelTrainIds.png'))))[0]
    assert len(CITYSCAPES_IDS) == len(mmseg.CityscapesDataset.METAINFO['classes'])
    assert [*labels[[7, 11, 26, 33]]] == [0, 2, 13, 18]  # road, building, car, bicycle
    assert (np.delete(labels, CITYSCAPES_IDS) == 255).all()


def test_archives_that_lack_files_or_are_others_are_named(tmp_path):
    _, counts = make_ade20k(tmp_path)
    data = of_size(DATA_SETS['ade20k'], tmp_path, {**counts, 'images/*/*.jpg': 3})
    with pytest.raises(ValueError, match=r'images/\*/\*\.jpg: 2 of 3'):
        prepare(data, tmp_path / 'data', tmp_path)
    assert not (tmp_path / 'data/ade/ADEChallengeData2016').exists()
    (tmp_path / 'data/ade/ADEChallengeData2016').mkdir()
    with pytest.raises(FileExistsError, match='0 of 3.*Move it away'):
        prepare(data, tmp_path / 'data', tmp_path)
    with pytest.raises(ValueError, match='not the published 7328b3957e407ddae1d3cbf487f149ef'):
        prepare(DATA_SETS['ade20k'], tmp_path / 'other', tmp_path)


@pytest.mark.parametrize('name', ['celeba', 'imagenet', 'cityscapes'])
def test_what_may_not_be_downloaded_is_asked_for(name, tmp_path):
    data = DATA_SETS[name]
    with pytest.raises(FileNotFoundError, match=f'Accept the terms on {data.page}, download {data.archives[0].name}'):
        prepare(data, tmp_path, tmp_path / 'archives')


@pytest.mark.parametrize('name', ['../x', '/x', 'a/../../x', 'a\\..\\x', 'C:x'])
@pytest.mark.parametrize('write', [tar, zipped])
def test_no_archive_writes_outside_of_its_folder(name, write, tmp_path):
    write(tmp_path / 'archive', {'ADEChallengeData2016/a': b'1', name: b'2'})
    data = dataclasses.replace(DATA_SETS['ade20k'], archives=(Archive('archive'),), gigabytes=0.01)
    with pytest.raises(ValueError, match='outside of its folder'):
        prepare(data, tmp_path / 'data', tmp_path)
    assert [path.name for path in tmp_path.rglob('x')] == []


def test_links_are_passed_over_and_sizes_are_bounded(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / 'links.tar', 'w') as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            entry = tarfile.TarInfo(f'link{kind}')
            entry.type, entry.linkname = kind, '/etc/passwd'
            archive.addfile(entry)
    assert list(members(tmp_path / 'links.tar', 1)) == []
    zipped(tmp_path / 'large.zip', {'a': bytes(2**20), 'b': bytes(2**20)})
    with pytest.raises(ValueError, match='more than 0.0015 GB'):
        list(members(tmp_path / 'large.zip', 0.0015))
    monkeypatch.setattr(prepare_data, 'MAX_FILES', 1)
    with pytest.raises(ValueError, match='or 1 files'):
        list(members(tmp_path / 'large.zip', 1))


@pytest.mark.parametrize('end', ['zip', 'tgz'])
def test_a_damaged_archive_is_named(end, tmp_path):
    path = tmp_path / f'half.{end}'
    files = {'a': RNG.bytes(5000)}
    zipped(path, files) if end == 'zip' else tar(path, files, 'w:gz')
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=f'half.{end} is no whole archive'):
        list(members(path, 1))


@pytest.fixture
def server():
    """A server of CONTENT that breaks off the first answer, and continues where a request says if it can."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get('Range')
            self.server.ranges.append(asked)
            start = int(asked[6:-1]) if asked and self.server.continues else 0
            if start >= len(CONTENT):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header('Content-Length', str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(CONTENT[start:] if len(self.server.ranges) > 1 else CONTENT[start:4000])

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        server.ranges, server.continues = [], True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


CONTENT = RNG.bytes(10_000)


@pytest.mark.parametrize('continues', [True, False])
def test_a_download_continues_where_it_broke_off(server, continues, tmp_path):
    server.continues = continues
    archive = Archive(f'http://127.0.0.1:{server.server_port}/a.zip', md5(CONTENT).hexdigest())
    with pytest.raises(ConnectionError, match='4,000 of 10,000 bytes'):
        obtain(archive, tmp_path / 'new', 'page')
    assert obtain(archive, tmp_path / 'new', 'page').read_bytes() == CONTENT
    assert server.ranges == [None, 'bytes=4000-']
    assert obtain(archive, tmp_path / 'new', 'page') and len(server.ranges) == 2  # is there
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['a.zip']


def test_a_whole_download_that_was_not_yet_checked_is_used_and_a_wrong_one_is_not(server, tmp_path):
    archive = Archive(f'http://127.0.0.1:{server.server_port}/a.zip', md5(CONTENT).hexdigest())
    (tmp_path / 'a.zip.part').write_bytes(CONTENT)
    assert obtain(archive, tmp_path, 'page').read_bytes() == CONTENT
    (tmp_path / 'b.zip.part').write_bytes(bytes(4000))  # not the beginning of this file
    with pytest.raises(ValueError, match='MD5 checksum'):
        obtain(dataclasses.replace(archive, address=archive.address.replace('a.zip', 'b.zip')), tmp_path, 'page')
    assert not (tmp_path / 'b.zip.part').exists()


def test_a_refused_download_says_the_address(tmp_path):
    with pytest.raises(ConnectionError, match=r'http://127\.0\.0\.1:9/a\.zip could not be downloaded'):
        obtain(Archive('http://127.0.0.1:9/a.zip'), tmp_path, 'page')
