import cv2
import numpy as np
import pytest
from mmengine.config import Config

from tests.test_editor.test_session import NETS, write

CLASSES = ('ant', 'bee', 'cat')


@pytest.fixture(scope='session')
def project(tmp_path_factory):
    """A config that trains, its checkpoint, images, and one correction."""
    folder = tmp_path_factory.mktemp('training')
    rng = np.random.default_rng(0)
    for split in ('train', 'edit', 'test'):
        for name in CLASSES:
            for i in range(2):
                file = folder / split / name / f'{i}.png'
                file.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(file), rng.integers(0, 256, (32, 32, 3), np.uint8))
    _, checkpoint = write(folder, NETS['abn'])
    cfg = Config.fromfile(folder / 'net.py')

    def loader(split, *moves):
        steps = [dict(type='LoadCheckedImage'), *moves, dict(type='PackInputs')]
        dataset = dict(type='CustomDataset', data_root=str(folder / split), with_label=True, pipeline=steps)
        return dict(batch_size=3, num_workers=0, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=True))

    cfg.merge_from_dict(
        dict(
            train_dataloader=loader('train', dict(type='RandomFlip', prob=0.5)),
            test_dataloader=loader('test'),
            test_cfg=dict(),
            test_evaluator=dict(type='Accuracy'),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(checkpoint=dict(type='WholeCheckpointHook', interval=1)),
        )
    )
    cfg.test_dataloader.dataset.pipeline[0] = dict(type='LoadCheckedImage')
    cfg.dump(folder / 'project.py')
    return folder, folder / 'project.py', checkpoint
