import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope

from mmresattn.datasets import box_captions
from mmresattn.models.captioners import Vocabulary
from tests.conftest import ROOT, WithoutBatchNorm

CONFIGS = sorted(path.relative_to(ROOT) for path in ROOT.glob('configs/captioning/*.py'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_config_says_what_it_is_and_builds(path):
    if 'efficientnet' in path.stem:
        pytest.importorskip('timm')
    docstring = re.match(r'"""(.+?)"""', (ROOT / path).read_text(), re.S)[1]
    assert f'tools/train.py {path}' in docstring
    cfg = Config.fromfile(ROOT / path)
    assert cfg.auto_scale_lr.base_batch_size == cfg.train_dataloader.batch_size
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'), WithoutBatchNorm():
        model = MODELS.build(cfg.model).eval()
        features = model(torch.empty(2, 3, 224, 224))
        words = torch.zeros(2, 4, dtype=torch.long)
        assert model.tell(features, words)[0].shape == (2, 4, model.decoder.embedding.num_embeddings)
        DATASETS.get(cfg.train_dataloader.dataset.type)
    stated = re.search(r'([\d,]+) parameters', docstring)
    assert sum(p.numel() for p in model.parameters()) == int(stated[1].replace(',', ''))
    assert model.attention in path.stem
    if 'vgg' in path.stem:
        assert features.shape[1:] == (512, 14, 14) and cfg.model.num_words == 10_000
        assert cfg.model.vocabulary == f'{cfg.data_root}/vocabulary.txt'
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            assert loader.dataset.ann_file in docstring and loader.dataset.data_root == cfg.data_root
    else:
        known = set(Vocabulary(cfg.model.vocabulary).words)
        boxes = [[0, 0, 1, 1], [9, 9, 10, 10], [0, 9, 1, 10], [9, 0, 10, 1]]
        for count in range(28):
            for box in boxes:
                caption = box_captions.describe_cells([box] * min(count, 3), count, (10, 10))
                assert set(caption.split()) <= known
