"""This package's classifiers under MMPretrain's ``list_models``, ``get_model`` and ``inference_model``."""

import os
from functools import cache
from pathlib import Path

from mmengine.runner.checkpoint import CheckpointLoader
from mmpretrain.apis.model import ModelHub

PACKAGE = Path(__file__).parents[1]
SCHEME = 'mmresattn://'


def index_folder() -> Path:
    """The folder of model-index.yml and configs: the clone, or ``mmresattn/.mim`` of an installed wheel."""
    index = PACKAGE / '.mim' / 'model-index.yml'  # in an editable install a link into the clone
    return index.resolve().parent if index.exists() else PACKAGE.parent


@CheckpointLoader.register_scheme(prefixes=SCHEME, force=True)
def load_from_mmresattn(filename: str, map_location=None) -> dict:
    """Read weights that come with the repository, wherever it is: ``load_from='mmresattn://NAME.safetensors'``.

    They are in the folder that the variable ``MMRESATTN_WEIGHTS`` names, else in ``weights`` of the repository.

    Args:
        filename (str): ``mmresattn://`` and the name of a file.
        map_location (str | torch.device, optional): Device of the weights. Defaults to the CPU.

    Returns:
        dict: The weights by name, as ``state_dict``.

    Raises:
        FileNotFoundError: If the file is not there.
    """
    folder = Path(os.environ.get('MMRESATTN_WEIGHTS') or index_folder() / 'weights')
    file = folder / filename.removeprefix(SCHEME)
    if not file.is_file():
        raise FileNotFoundError(
            f'There is no {file}. Weights are in weights/ of the repository of mmresattn, not in its wheel: clone it, '
            'and let the variable MMRESATTN_WEIGHTS name that folder.'
        )
    return CheckpointLoader.load_checkpoint(str(file), map_location)


def register_models() -> None:
    """Register all classifiers of model-index.yml. What MMPretrain cannot build, detectors and such, is left out.

    Raises:
        OSError: If model-index.yml is missing.
        ValueError: If another package has registered a model of the same name.
    """
    others = set(ModelHub._models_dict)
    ModelHub.register_model_index(index_folder() / 'model-index.yml', config_prefix=index_folder())
    for name in ModelHub._models_dict.keys() - others:
        model = ModelHub._models_dict[name]
        if model.weights:
            model.weights = SCHEME + Path(model.weights).name
        if model.results and 'Image Classification' not in {result.task for result in model.results}:
            del ModelHub._models_dict[name]


def register_models_when_asked() -> None:
    """Register them when MMPretrain is first asked for a model: reading the index takes longer than the import.

    MMPretrain reads its own then. Calling it twice, as by ``importlib.reload``, does no harm.
    """
    own_models = ModelHub._register_mmpretrain_models
    if own_models.__module__ == __name__:
        return
    register_once = cache(register_models)

    def register_all() -> None:
        own_models()
        register_once()

    ModelHub._register_mmpretrain_models = staticmethod(register_all)
