"""Draw docs/images/gallery_{segmentation,detection}.webp: a segmenter and a detector of garments, with their maps.

python .dev_scripts/draw_dense_gallery.py segmentation    # about four minutes on one core
python .dev_scripts/draw_dense_gallery.py detection

Both start from the weights of Attention-56 for CIFAR-10 and are trained for a few minutes on photographs of
$MMRESATTN_DATA/clothing/train at 96x96. GrabCut cuts the garments out (clothing_silhouettes.py), unseen by a person.
"""

import argparse
import json
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config

from mmresattn.apis import AttentionInferencer
from mmresattn.visualization import draw_prediction, overlay, short_name

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SHOWN = ('dress_0009', 'longsleeve_0042', 'outwear_0008', 'shoes_0026', 'shorts_0003')
PER_CLASS, SIDE = 24, 96
TASKS = {
    'segmentation': ('segmentation/upernet_attention56-cifar_1xb4-1200_dsb2018-128x128', 160),
    'detection': ('detection/faster-rcnn_attention56-cifar_fpn_bccd', 3),  # iterations of 4, epochs
}
COLOURS = dict(mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255])  # of the weights


def photographs(folder: Path) -> None:
    """Write photographs, masks of their garments and boxes around these."""
    data = Path(runpy.run_path(str(HERE / 'draw_gallery.py'))['DATA'])
    silhouette = runpy.run_path(str(HERE / 'clothing_silhouettes.py'))['silhouette']
    for name in ('images', 'masks'):
        (folder / name).mkdir()
    images, boxes = [], []
    for kind in sorted((data / 'train').iterdir()):
        for file in sorted(kind.glob('*.jpg'))[:PER_CLASS]:
            photo = cv2.imread(str(file))
            garment = silhouette(photo)
            if not 0.05 < garment.mean() < 0.9:
                continue
            name = f'{kind.name}_{file.stem}'
            cv2.imwrite(
                str(folder / f'images/{name}.png'), cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            )
            mask = cv2.resize(garment.astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(folder / f'masks/{name}.png'), mask)
            number = len(images) + 1
            images.append(dict(id=number, file_name=f'{name}.png', height=SIDE, width=SIDE))
            box = [int(value) for value in cv2.boundingRect(mask)]
            boxes.append(dict(id=number, image_id=number, category_id=1, bbox=box, area=box[2] * box[3], iscrowd=0))
    content = dict(images=images, annotations=boxes, categories=[dict(id=1, name='garment')])
    (folder / 'boxes.json').write_text(json.dumps(content))
    print(len(images), 'photographs', flush=True)


def config(task: str, folder: Path) -> Config:
    """The config of nuclei or of blood cells, on garments."""
    name, length = TASKS[task]
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.model.data_preprocessor.update(COLOURS)
    data = cfg.train_dataloader.dataset
    data.data_root = cfg.test_dataloader.dataset.data_root = str(folder)
    if task == 'segmentation':
        data.metainfo = cfg.test_dataloader.dataset.metainfo = dict(
            classes=('background', 'garment'), palette=[[0, 0, 0], [255, 128, 0]]
        )
        data.data_prefix = cfg.test_dataloader.dataset.data_prefix = dict(img_path='images', seg_map_path='masks')
        load, annotations, *_, flip, colours, pack = data.pipeline[1:]
        flip.update(prob=0.5, direction='horizontal')
        data.pipeline = [data.pipeline[0], load, annotations, flip, colours, pack]
        resize = dict(type='Resize', scale=(SIDE, SIDE), keep_ratio=False)
        cfg.test_dataloader.dataset.pipeline.insert(1, resize)
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=length)
        cfg.param_scheduler = [dict(type='CosineAnnealingLR', T_max=length, by_epoch=False)]
        cfg.default_hooks.checkpoint.interval = length
    else:
        data.metainfo = cfg.test_dataloader.dataset.metainfo = dict(classes=('garment',))
        data.data_prefix = cfg.test_dataloader.dataset.data_prefix = dict(img='images/')
        data.ann_file = cfg.test_dataloader.dataset.ann_file = 'boxes.json'
        for pipeline in (data.pipeline, cfg.test_dataloader.dataset.pipeline):
            next(step for step in pipeline if step.type == 'Resize').scale = (SIDE, SIDE)
        next(step for step in data.pipeline if step.type == 'RandomFlip').update(prob=0.5, direction='horizontal')
        cfg.model.roi_head.bbox_head.num_classes = 1
        cfg.model.rpn_head.anchor_generator.scales = [12]  # 24, 48 and 96 pixels
        cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=length)
        cfg.param_scheduler = [dict(type='CosineAnnealingLR', T_max=length, convert_to_iter_based=True)]
        cfg.default_hooks.checkpoint = dict(type='WholeCheckpointHook', interval=length)
        cfg.test_evaluator.ann_file = str(folder / 'boxes.json')
    cfg.test_pipeline = cfg.test_dataloader.dataset.pipeline
    return cfg


def draw(task: str, inferencer: AttentionInferencer) -> None:
    """Photographs with what was found, and below them the maps."""
    files = [ROOT / f'docs/images/photos/{name}.jpg' for name in SHOWN]
    rows = {}
    for result, file in zip(inferencer([str(file) for file in files], on_image=True), files):
        picture = cv2.imread(str(file))[..., ::-1].copy()
        maps = result['attention_on_image']
        cells = {task: draw_prediction(picture, result['prediction'], score_thr=0.5)}
        cells |= {short_name(name): overlay(picture, attention) for name, attention in maps.items()}
        for label, cell in cells.items():
            rows.setdefault(label, []).append(cv2.resize(cell, (224, 224), interpolation=cv2.INTER_AREA))
    figure = Figure(figsize=(1.6 * len(files) + 0.5, 1.62 * len(rows)), layout='constrained')
    figure.patch.set_alpha(0)
    axes = figure.subplots(len(rows), len(files), squeeze=False)
    for line, (label, pictures) in zip(axes, rows.items()):
        line[0].set_ylabel(label, fontsize=9, color='#7d858c')
        for axis, picture in zip(line, pictures):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[], frame_on=False)
    figure.savefig(ROOT / f'docs/images/gallery_{task}.webp', dpi=100, pil_kwargs=dict(quality=85))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('task', choices=TASKS)
    task = parser.parse_args().task
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs(folder)
        cfg = config(task, folder)
        cfg.dump(folder / 'garments.py')
        command = [
            sys.executable,
            str(ROOT / 'tools/train.py'),
            str(folder / 'garments.py'),
            '--work-dir',
            f'{name}/run',
        ]
        subprocess.run(command, cwd=ROOT, check=True)
        checkpoint = Path((folder / 'run/last_checkpoint').read_text())
        draw(task, AttentionInferencer(str(folder / 'garments.py'), str(checkpoint)))


if __name__ == '__main__':
    main()
