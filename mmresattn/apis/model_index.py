"""This package's classifiers under MMPretrain's ``list_models``, ``get_model`` and ``inference_model``."""

import yaml
from mmengine.runner.checkpoint import CheckpointLoader
from mmpretrain.apis.model import ModelHub
from modelindex.models.Model import Model

from ..weights.addresses import index_folder
from ..weights.loader import read_content

SCHEME = 'mmresattn://'
LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
INFERRED = {'Image Classification', 'Image Caption'}  # MMPretrain has inferencers for these
ELSEWHERE = {'Object Detection', 'Instance Segmentation', 'Semantic Segmentation'}  # MMDetection, MMSegmentation


def load_from_mmresattn(filename: str, map_location=None) -> dict:
    """Read weights of the repository for MMEngine: ``load_from='mmresattn://NAME.safetensors'``."""
    return read_content(filename, map_location)


def register_models() -> None:
    """Register all classifiers of model-index.yml, and the scheme of their weights. Twice does no harm.

    What MMPretrain cannot build, detectors and such, is left out.

    Raises:
        ValueError: If another package has registered a model of the same name.
    """
    schemes = CheckpointLoader._schemes
    schemes[SCHEME] = load_from_mmresattn
    schemes.move_to_end('')  # MMEngine tries them in order, and '' fits everything
    folder = index_folder()
    index = folder / 'model-index.yml'
    # ModelHub.register_model_index does this with PyYAML in Python, which takes as long as the rest of the import.
    for metafile in yaml.load(index.read_text(), LOADER)['Import'] if index.exists() else ():
        for entry in yaml.load((folder / metafile).read_text(), LOADER)['Models']:
            model = Model.from_dict(entry, str(folder / metafile))
            tasks = {result.task for result in model.results or ()}
            if tasks & ELSEWHERE:
                continue
            if not tasks & INFERRED:
                model.results = None  # so that MMPretrain says that it has no inferencer
            known = ModelHub._models_dict.get(model.name)
            if known is not None and known.filepath != model.filepath:
                raise ValueError(f'The model {model.name} of {metafile} is already registered by {known.filepath}.')
            model.config = str(folder / model.config)
            if model.weights and '://' not in model.weights:  # otherwise they are in another package's zoo
                model.weights = SCHEME + model.weights.rpartition('/')[2]
            ModelHub._models_dict[model.name] = model
