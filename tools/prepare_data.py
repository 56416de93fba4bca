"""Prepare a data set: from its official archives to the folders that the configs read.

python tools/prepare_data.py cifar10

Archives are downloaded where the terms of the data set allow it. Otherwise an error says where to get them. The page
docs/data.md describes each data set.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from rich import progress
from scipy.io import loadmat
from torchvision.datasets import SVHN, CelebA
from torchvision.datasets.imagenet import ARCHIVE_META

from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.weights.files import PART, whole_folder

GB = 2**30
MAX_FILES = 2_000_000  # in one archive
NUCLEI_VAL = (  # how the 66 validation images begin: the split of the figures in docs/segmentation.md
    '05a8 0635 0b2e 12f8 13c8 1b60 1d4a 2817 2b50 3080 30f6 371a 3ab9 3b3f 3b75 3b95 44ab 4829 54cb 57d8 58c5 5953 '
    '60cb 6257 6661 6aa7 6eef 72e8 7f4d 81e2 8b77 8d9b 8e8a 8f6e 94a5 9a71 a3a6 a4c7 a815 a9d8 aa47 ae9f af86 b1e3 '
    'bb48 be19 c89a ce37 cf26 d1db d2ce d32e d910 dabf dae9 df33 df9a e216 e2d2 e9b8 eb96 ec03 ed4b f0a7 f67e feff'
).split()
CELLS = ('RBC', 'WBC', 'Platelets')
# Cityscapes: trainId of each id that is trained; every other pixel is 255, which is ignored.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


@dataclass(frozen=True)
class Archive:
    """A file of a data set.

    Args:
        address (str): Where to download it; only its name if its terms want a person to do that.
        md5 (str): Its checksum; empty if nobody publishes one.
    """

    address: str
    md5: str = ''

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.address.rpartition('/')[2].partition('?')[0]


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Args:
        folder (str): Where configs look for it, under the data root.
        page (str): Its official page.
        archives (tuple[Archive, ...]): Its official files.
        prepare (Callable): Makes the folder: ``prepare(folder, gigabytes, *archives)``.
        counts (dict[str, int]): How many files match each pattern in the end.
        gigabytes (float): What the unpacked files may take at most.
    """

    folder: str
    page: str
    archives: tuple[Archive, ...]
    prepare: Callable[..., None]
    counts: dict[str, int]
    gigabytes: float

    def missing(self, folder: Path) -> list[str]:
        """What a folder lacks, or has too much of."""
        found = {pattern: sum(1 for _ in folder.glob(pattern)) for pattern in self.counts}
        return [f'{pattern}: {found[pattern]:,} of {n:,}' for pattern, n in self.counts.items() if found[pattern] != n]


def obtain(archive: Archive, folder: Path, page: str) -> Path:
    """The file of an archive, downloaded if need be and checked.

    Args:
        archive (Archive): The archive.
        folder (Path): Where it lies, or is downloaded to.
        page (str): Where a person can get it.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If the file is not there and may not be downloaded by a program.
        ConnectionError: If the download fails. What has arrived is kept, and the next call continues from there.
        ValueError: If its checksum is wrong.
    """
    path, part = folder / archive.name, folder / f'{archive.name}{PART}'
    if path.exists():
        _check(archive, path)
        return path
    if '://' not in archive.address:
        raise FileNotFoundError(
            f'{path} is missing. Accept the terms on {page}, download {archive.name} there, put it into {folder} and '
            'run this command again.'
        )
    folder.mkdir(parents=True, exist_ok=True)
    _download(archive.address, part)
    try:
        _check(archive, part)
    except ValueError:
        part.unlink()
        raise
    part.rename(path)
    return path


def _check(archive: Archive, path: Path) -> None:
    if not archive.md5:
        return
    md5 = hashlib.md5(usedforsecurity=False)
    with progress.open(path, 'rb', description=f'checksum of {archive.name}') as file:
        while chunk := file.read(2**20):
            md5.update(chunk)
    if md5.hexdigest() != archive.md5:
        raise ValueError(
            f'{path} has the MD5 checksum {md5.hexdigest()}, not the published {archive.md5}: it is damaged, '
            'incomplete or another file. Delete it and run this command again.'
        )


def _download(url: str, part: Path) -> None:
    """Download into a file, from where an earlier download stopped."""
    start = part.stat().st_size if part.exists() else 0
    headers = {'User-Agent': 'mmresattn', **({'Range': f'bytes={start}-'} if start else {})}
    try:
        with (
            urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as response,
            progress.Progress(
                *progress.Progress.get_default_columns(), progress.DownloadColumn(), progress.TransferSpeedColumn()
            ) as bar,
        ):
            if response.status != 206:  # the server cannot continue
                start = 0
            size = None if response.length is None else start + response.length
            task = bar.add_task(part.stem, total=size, completed=start)
            with open(part, 'ab' if start else 'wb') as file:
                while chunk := response.read(2**20):
                    file.write(chunk)
                    bar.advance(task, len(chunk))
            if response.length:  # what has not arrived
                raise ConnectionError(f'it broke off after {part.stat().st_size:,} of {size:,} bytes')
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing follows: the earlier download had all of it
            raise ConnectionError(f'{url} could not be downloaded: {error}.') from error
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        raise ConnectionError(f'{url} could not be downloaded: {error}. The next try continues from here.') from error


def members(archive: Path, gigabytes: float) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """The regular files in a tar or zip archive, in its order. Links and devices are passed over.

    Args:
        archive (Path): The archive.
        gigabytes (float): What they may take at most when unpacked.

    Yields:
        tuple[PurePosixPath, IO[bytes]]: Path in the archive, relative and without ``..``, and content.

    Raises:
        ValueError: If a path leads out of the archive, the content is larger or consists of more files than allowed, or
            the archive is damaged.
    """
    left = gigabytes * GB
    entries = (_zip_members if zipfile.is_zipfile(archive) else _tar_members)(archive)
    try:
        for count, (name, size, file) in enumerate(entries, 1):
            path = PurePosixPath(name)
            if path.is_absolute() or '..' in path.parts or set(name) & set('\\:\0'):
                raise ValueError(f'{archive} would write {name!r} outside of its folder: it is not the official one.')
            left -= size
            if left < 0 or count > MAX_FILES:
                raise ValueError(
                    f'{archive} would unpack to more than {gigabytes:g} GB or {MAX_FILES:,} files: it is not the '
                    'official one.'
                )
            yield path, file
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f'{archive} is no whole archive ({error}). Delete it and run this command again.') from error


def _zip_members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for entry in progress.track(opened.infolist(), archive.name):
            if not entry.is_dir():
                with opened.open(entry) as file:  # reads no more than the size that it is entered with
                    yield entry.filename, entry.file_size, file


def _tar_members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    with (
        progress.open(archive, 'rb', description=archive.name) as stream,
        tarfile.open(fileobj=stream, mode='r|*') as tar,
    ):
        for entry in tar:
            if entry.isreg():
                yield entry.name, entry.size, tar.extractfile(entry)


def save(file: IO[bytes], path: Path) -> None:
    """Write a file, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'wb') as out:
        shutil.copyfileobj(file, out)


def unpack(folder: Path, gigabytes: float, *archives: Path, root: str = '') -> None:
    """Unpack what lies in the folder ``root`` of each archive."""
    for archive in archives:
        for path, file in members(archive, gigabytes):
            if path.is_relative_to(root):
                save(file, folder / path.relative_to(root))


def save_images(folder: Path, images: np.ndarray, labels: np.ndarray, names: list[str]) -> None:
    """Write images (N, H, W, 3), RGB of uint8, as PNG into one folder for each class."""
    for name in names:
        (folder / name).mkdir(parents=True)
    for i, (image, label) in enumerate(zip(progress.track(images, folder.name), labels)):
        Image.fromarray(image).save(folder / names[label] / f'{i:05d}.png', compress_level=1)


def prepare_cifar(folder: Path, gigabytes: float, archive: Path) -> None:
    """CIFAR's binary version, in which nothing is pickled: label(s) and 3x32x32 bytes for each image."""
    content = {path.name: file.read() for path, file in members(archive, gigabytes)}
    fine = 'fine_label_names.txt' in content
    names = content['fine_label_names.txt' if fine else 'batches.meta.txt'].decode().split()
    start = 2 if fine else 1  # of the pixels: CIFAR-100 has a coarse label before the fine one
    for split, batches in (('train', ('train', 'data_batch')), ('test', ('test',))):
        data = b''.join(content[name] for name in sorted(content) if name.startswith(batches) and name.endswith('.bin'))
        rows = np.frombuffer(data, np.uint8).reshape(-1, start + 3 * 32 * 32)
        images = rows[:, start:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        save_images(folder / split, images, rows[:, start - 1], names)


def prepare_svhn(folder: Path, gigabytes: float, *archives: Path) -> None:
    """SVHN's cropped digits: Matlab files with X (32, 32, 3, N) and y (N, 1), in which 10 is the digit 0."""
    for split, archive in zip(('train', 'test'), archives):
        content = loadmat(archive)
        save_images(folder / split, content['X'].transpose(3, 0, 1, 2), content['y'].ravel() % 10, list('0123456789'))


def prepare_cub(folder: Path, gigabytes: float, archive: Path) -> None:
    """CUB-200-2011: ``images/<class>/*.jpg``, and lists that number the images and say which are for training."""
    unpacked = folder / 'unpacked'
    unpack(unpacked, gigabytes, archive, root='CUB_200_2011')
    paths, splits = (
        dict(line.split() for line in (unpacked / name).read_text().splitlines())
        for name in ('images.txt', 'train_test_split.txt')
    )
    for number, path in paths.items():
        goal = folder / ('train' if splits[number] == '1' else 'test') / path
        goal.parent.mkdir(parents=True, exist_ok=True)
        (unpacked / 'images' / path).rename(goal)
    shutil.rmtree(unpacked)


def prepare_nuclei(folder: Path, gigabytes: float, archive: Path) -> None:
    """BBBC038: ``<image>/images/*.png`` and ``<image>/masks/*.png``, one mask for each nucleus."""
    images, masks = {}, {}
    for path, file in members(archive, gigabytes):
        if path.suffix == '.png' and len(path.parts) > 2:
            name, kind = path.parts[-3:-1]
            (images if kind == 'images' else masks).setdefault(name, []).append(file.read())
    for name, (content,) in progress.track(images.items(), 'images of 256x256'):
        image = Image.open(io.BytesIO(content)).convert('L')
        if image.size != (256, 256):
            continue
        nuclei = np.zeros((256, 256), bool)
        for mask in masks[name]:
            nuclei |= np.asarray(Image.open(io.BytesIO(mask)).convert('L')) > 0
        split = 'val' if name[:4] in NUCLEI_VAL else 'train'
        for kind, picture in (('img_dir', image), ('ann_dir', Image.fromarray(nuclei.astype(np.uint8)))):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
            picture.save(folder / kind / split / f'{name[:16]}.png')


def prepare_bccd(folder: Path, gigabytes: float, archive: Path) -> None:
    """BCCD, whose boxes are in the XML of Pascal VOC, as COCO's JSON."""
    boxes, splits = {}, {}
    for path, file in members(archive, gigabytes):
        if path.match('BCCD/JPEGImages/*.jpg'):
            save(file, folder / 'images' / path.name)
        elif path.match('BCCD/Annotations/*.xml'):
            boxes[path.stem] = ElementTree.fromstring(file.read())
        elif path.match('BCCD/ImageSets/Main/*.txt'):
            splits[path.stem] = file.read().decode().split()
    (folder / 'annotations').mkdir()
    for split in ('train', 'val', 'test'):
        coco = dict(images=[], annotations=[], categories=[dict(id=i, name=name) for i, name in enumerate(CELLS)])
        for name in splits[split]:
            width, height = (int(boxes[name].findtext(f'size/{side}')) for side in ('width', 'height'))
            image = dict(id=len(coco['images']), file_name=f'{name}.jpg', width=width, height=height)
            coco['images'].append(image)
            for cell in boxes[name].iter('object'):
                x1, y1 = (max(float(cell.findtext(f'bndbox/{edge}')) - 1, 0) for edge in ('xmin', 'ymin'))  # from 1
                w, h = float(cell.findtext('bndbox/xmax')) - x1, float(cell.findtext('bndbox/ymax')) - y1
                kind = CELLS.index(cell.findtext('name'))
                box = dict(id=len(coco['annotations']), image_id=image['id'], category_id=kind, bbox=[x1, y1, w, h])
                coco['annotations'].append(dict(**box, area=w * h, iscrowd=0, segmentation=[]))
        (folder / 'annotations' / f'{split}.json').write_text(json.dumps(coco))


def prepare_celeba(folder: Path, gigabytes: float, images: Path, *lists: Path) -> None:
    """CelebA: the aligned faces, beside the lists of attributes and splits."""
    unpack(folder, gigabytes, images)
    for path in lists:
        shutil.copy(path, folder)


def prepare_imagenet(folder: Path, gigabytes: float, train: Path, val: Path, devkit: Path) -> None:
    """ImageNet: a tar of a tar for each class, a tar of the validation images, and the classes of the latter."""
    content = {path.name: file.read() for path, file in members(devkit, 1)}
    classes = loadmat(io.BytesIO(content['meta.mat']), squeeze_me=True)['synsets']
    names = {int(entry['ILSVRC2012_ID']): str(entry['WNID']) for entry in classes if entry['num_children'] == 0}
    truth = content['ILSVRC2012_validation_ground_truth.txt'].split()
    for path, file in members(val, gigabytes):
        number = int(path.stem.rpartition('_')[2])  # from 1
        save(file, folder / 'val' / names[int(truth[number - 1])] / path.name)
    for path, file in members(train, gigabytes):
        with tarfile.open(fileobj=file, mode='r|') as images:  # not compressed, so the outer size bounds it
            for image in images:
                if image.isreg():
                    save(images.extractfile(image), folder / 'train' / path.stem / PurePosixPath(image.name).name)


def prepare_cityscapes(folder: Path, gigabytes: float, *archives: Path) -> None:
    """Cityscapes, with the class of every pixel as training counts it beside the official label."""
    for archive, root in zip(archives, ('leftImg8bit', 'gtFine')):
        unpack(folder / root, gigabytes, archive, root=root)
    ids = np.full(256, 255, np.uint8)
    ids[list(CITYSCAPES_IDS)] = range(len(CITYSCAPES_IDS))
    labels = list(folder.glob('gtFine/*/*/*_labelIds.png'))
    for path in progress.track(labels, 'training labels'):
        Image.fromarray(ids[np.asarray(Image.open(path))]).save(str(path).replace('_labelIds', '_labelTrainIds'))


def in_splits(*patterns: str, **counts: int) -> dict[str, int]:
    """How many files match each pattern in each split."""
    return {pattern.format(split): count for pattern in patterns for split, count in counts.items()}


TORONTO = 'https://www.cs.toronto.edu/~kriz'
CELEBA_FILES = ('img_align_celeba.zip', 'list_attr_celeba.txt', 'list_eval_partition.txt')
COCO = 'http://images.cocodataset.org'
CALTECH = 'https://data.caltech.edu/records/65de6-vp158/files'
DATA_SETS = dict(
    cifar10=DataSet(
        folder='cifar10',
        page=f'{TORONTO}/cifar.html',
        archives=(Archive(f'{TORONTO}/cifar-10-binary.tar.gz', 'c32a1d4ab5d03f1284b67883e8d87530'),),
        prepare=prepare_cifar,
        counts=in_splits('{}/*/*.png', train=50_000, test=10_000),
        gigabytes=0.3,
    ),
    cifar100=DataSet(
        folder='cifar100',
        page=f'{TORONTO}/cifar.html',
        archives=(Archive(f'{TORONTO}/cifar-100-binary.tar.gz', '03b5dce01913d631647c71ecec9e9cb8'),),
        prepare=prepare_cifar,
        counts=in_splits('{}/*/*.png', train=50_000, test=10_000),
        gigabytes=0.3,
    ),
    svhn=DataSet(
        folder='svhn',
        page='http://ufldl.stanford.edu/housenumbers',
        archives=tuple(Archive(url, md5) for url, _, md5 in map(SVHN.split_list.get, ('train', 'test'))),
        prepare=prepare_svhn,
        counts=in_splits('{}/*/*.png', train=73_257, test=26_032),
        gigabytes=0.5,
    ),
    cub200=DataSet(
        folder='cub200',
        page='https://www.vision.caltech.edu/datasets/cub_200_2011',
        archives=(Archive(f'{CALTECH}/CUB_200_2011.tgz?download=1', '97eceeb196236b17998738112f37df78'),),
        prepare=prepare_cub,
        counts=in_splits('{}/*/*.jpg', train=5_994, test=5_794),
        gigabytes=3,
    ),
    dsb2018=DataSet(
        folder='dsb2018',
        page='https://bbbc.broadinstitute.org/BBBC038',
        archives=(Archive('https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip'),),
        prepare=prepare_nuclei,
        counts=in_splits('img_dir/{}/*.png', 'ann_dir/{}/*.png', train=268, val=66),
        gigabytes=1,
    ),
    bccd=DataSet(
        folder='bccd',
        page='https://github.com/Shenggan/BCCD_Dataset',
        archives=(
            Archive('https://github.com/Shenggan/BCCD_Dataset/archive/d272fb14cdff6e473fafeeeba32aba5f560e9e43.zip'),
        ),
        prepare=prepare_bccd,
        counts={'images/*.jpg': 364, 'annotations/*.json': 3},
        gigabytes=0.2,
    ),
    celeba=DataSet(
        folder='celeba',
        page='https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html',
        archives=tuple(
            Archive(name, md5) for name in CELEBA_FILES for _, md5, other in CelebA.file_list if other == name
        ),
        prepare=prepare_celeba,
        counts={'img_align_celeba/*.jpg': 202_599, '*.txt': 2},
        gigabytes=3,
    ),
    imagenet=DataSet(
        folder='imagenet',
        page='https://image-net.org/challenges/LSVRC/2012',
        archives=tuple(Archive(name, md5) for name, md5 in map(ARCHIVE_META.get, ('train', 'val', 'devkit'))),
        prepare=prepare_imagenet,
        counts=in_splits('{}/*/*.JPEG', train=1_281_167, val=50_000),
        gigabytes=160,
    ),
    ade20k=DataSet(
        folder='ade/ADEChallengeData2016',
        page='http://sceneparsing.csail.mit.edu',
        archives=(
            Archive(
                'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
                '7328b3957e407ddae1d3cbf487f149ef',
            ),
        ),
        prepare=partial(unpack, root='ADEChallengeData2016'),  # of MIT's scene parsing challenge
        counts=in_splits('images/{}/*.jpg', 'annotations/{}/*.png', training=20_210, validation=2_000),
        gigabytes=3,
    ),
    cityscapes=DataSet(
        folder='cityscapes',
        page='https://www.cityscapes-dataset.com/downloads',
        archives=(Archive('leftImg8bit_trainvaltest.zip'), Archive('gtFine_trainvaltest.zip')),
        prepare=prepare_cityscapes,
        counts=in_splits('leftImg8bit/{}/*/*_leftImg8bit.png', 'gtFine/{}/*/*_labelTrainIds.png', train=2_975, val=500),
        gigabytes=20,
    ),
    coco=DataSet(
        folder='coco',
        page='https://cocodataset.org/#download',
        archives=(
            Archive(f'{COCO}/zips/train2017.zip', 'cced6f7f71b7629ddf16f17bbcfab6b2'),
            Archive(f'{COCO}/zips/val2017.zip', '442b8da7639aecaf257c1dceb8ba8c80'),
            Archive(f'{COCO}/annotations/annotations_trainval2017.zip', 'f4bbac642086de4f52a3fdda2de5fa2c'),
        ),
        prepare=unpack,
        counts={'train2017/*.jpg': 118_287, 'val2017/*.jpg': 5_000, 'annotations/instances_*2017.json': 2},
        gigabytes=25,
    ),
)


def prepare(data: DataSet, out: Path, archives: Path) -> Path:
    """Make the folder of a data set, which is there whole or not at all.

    Args:
        data (DataSet): The data set.
        out (Path): The data root.
        archives (Path): Folder of its archives.

    Returns:
        Path: The folder of the data set.

    Raises:
        FileExistsError: If the folder exists and does not hold the whole data set.
        ValueError: If an archive is not the official one, or lacks files.
        OSError: If there is too little space on the disk.
    """
    folder = out / data.folder
    if folder.exists():
        if missing := data.missing(folder):
            raise FileExistsError(
                f'{folder} exists and is not the whole data set ({"; ".join(missing)}). Move it away and run this '
                'command again.'
            )
        return folder
    files = [obtain(archive, archives, data.page) for archive in data.archives]
    with whole_folder(folder) as part:
        if (free := shutil.disk_usage(part).free / GB) < data.gigabytes:
            raise OSError(
                f'{folder} may take {data.gigabytes:g} GB, and only {free:.1f} GB are free. Choose another --out.'
            )
        data.prepare(part, data.gigabytes, *files)
        if missing := data.missing(part):
            raise ValueError(
                f'The archives of {folder} hold other files than expected: {"; ".join(missing)}. What was unpacked is '
                f'in {part}.'
            )
    return folder


def main(argv=None):
    parser = ArgumentParser(description='Prepare a data set: from its official archives to the folders of the configs.')
    parser.add_argument('name', choices=DATA_SETS, metavar='NAME', help=f'one of {", ".join(DATA_SETS)}')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path(os.environ.get('MMRESATTN_DATA', 'data')),
        help='data root, as the configs know it; default: $MMRESATTN_DATA, or data',
    )
    parser.add_argument('--archives', type=Path, help='folder of the archives; default: archives in the data root')
    args = parser.parse_args(argv)
    folder = prepare(DATA_SETS[args.name], args.out, args.archives or args.out / 'archives')
    print(f'{args.name} is in {folder}')


if __name__ == '__main__':
    run_tool(main)
