"""Export a model to ONNX, to a PyTorch program and to INT8.

    python tools/deployment/export_onnx.py CONFIG CHECKPOINT model.onnx             # outputs and every attention map
    python tools/deployment/export_onnx.py CONFIG CHECKPOINT model.onnx --static    # at one batch and size
    python tools/deployment/export_onnx.py CONFIG CHECKPOINT model.onnx --int8 FOLDER  # and model.int8.onnx

Inputs are images as the data preprocessor gives them: (N, C, H, W), normalised. Outputs are the logits of a classifier
or segmenter, or the features of a detector's backbone and neck. Every file is compared with the model, at batches and
sizes that were not traced, before it gets its name. Needs: pip install onnx onnxruntime onnxscript
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from mmengine.config import DictAction
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmpretrain.models import BaseClassifier
from torch import Tensor, nn
from torch.export import Dim
from torch.utils.data import DataLoader

from mmresattn.apis import build_model, load_classifier, read_config
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.datasets.image_files import BrokenImage, find_image_files
from mmresattn.deployment import accelerate, has_fast_bfloat16
from mmresattn.models.layers import attention_maps, record_attention
from mmresattn.utils import forward_images, input_channels, is_detector, time_in_turns
from mmresattn.visualization import ImagePipeline


class WithMaps(nn.Module):
    """What a model computes from images alone, and then its attention maps.

    Args:
        model (nn.Module): A classifier, a segmenter, or a detector, of which backbone and neck run.
        names (Sequence[str]): The maps to give.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, list(names)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        with record_attention(self.model, self.names) if self.names else nullcontext({}) as maps:
            outputs = forward_images(self.model, images)
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        return *outputs, *(maps[name] for name in self.names)

    def output_names(self, images: Tensor) -> list[str]:
        """``logits``, or ``features0`` and so on of a detector; then the names of the maps."""
        with torch.no_grad():
            outputs = len(self(images)) - len(self.names)
        first = [f'features{i}' for i in range(outputs)] if is_detector(self.model) else ['logits']
        return [*first, *self.names]


def maps_of_images(model: nn.Module, images: Tensor, wanted: Sequence[str] | None = None) -> list[str]:
    """Names of the maps that pass while a model computes from images alone: not those in a detector's heads.

    Args:
        model (nn.Module): The model.
        images (Tensor): Images (N, C, H, W).
        wanted (Sequence[str], optional): The ones to give. Defaults to all.

    Raises:
        KeyError: If one of those that are wanted is unknown.
        ValueError: If one of them does not pass.
    """
    if not attention_maps(model, wanted):
        return []
    with torch.no_grad(), record_attention(model, wanted) as maps:
        forward_images(model, images)
    absent = [name for name in wanted or () if name not in maps]
    if absent:
        raise ValueError(f'The maps {absent} are not among what is exported; there are {list(maps)}.')
    return list(maps)


def export(
    model: nn.Module, images: Tensor, file: Path, names: Sequence[str], static: bool = False
) -> torch.export.ExportedProgram:
    """Write an ONNX file.

    Args:
        model (nn.Module): A model of OpenMMLab in evaluation mode.
        images (Tensor): Images (N, C, H, W) to trace with.
        file (Path): What to write.
        names (Sequence[str]): Attention maps to give.
        static (bool): Whether batch, height and width are those of the images instead of open. Defaults to False.

    Returns:
        torch.export.ExportedProgram: What the file was made from.

    Raises:
        RuntimeError: If PyTorch cannot export the model with open sizes.
    """
    module = WithMaps(model, names)
    shapes = None if static else {'images': {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    try:
        with torch.no_grad():
            program = torch.export.export(module, (images,), dynamic_shapes=shapes, strict=False)
            onnx_program = torch.onnx.export(
                program, input_names=['images'], output_names=module.output_names(images), dynamo=True, verbose=False
            )
    except Exception as error:  # torch.export has many
        if static:
            raise
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RuntimeError(
            f'This {type(model).__name__} cannot be exported with open batch, height and width: {reason} Export it at '
            f'one size: --static --size {images.shape[2]} {images.shape[3]}.'
        ) from error
    onnx_program.save(str(file))
    return program


@contextmanager
def finished(file: Path) -> Iterator[Path]:
    """A temporary path, whose file gets its own name at the end of the block, if there was no error."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        yield Path(folder, file.name)
        for part in sorted(Path(folder).iterdir(), key=lambda part: part.name == file.name):  # weights of >2 GB first
            os.replace(part, file.with_name(part.name))


def compare(
    run: Callable[[Tensor], Sequence], model: nn.Module, names: Sequence[str], batches: Sequence[Tensor],
    tolerance: float = 1e-3,
) -> float:  # fmt: skip
    """Largest difference from the model, relative to the largest value of each output.

    Args:
        run (Callable): What was exported: from images to a sequence of tensors or arrays.
        model (nn.Module): The model.
        names (Sequence[str]): The maps among the outputs.
        batches (Sequence[Tensor]): Images to run on.
        tolerance (float): Largest relative difference that is accepted. Defaults to 1e-3.

    Raises:
        RuntimeError: If there is a larger one, or a shape differs.
    """
    worst, module = 0.0, WithMaps(model, names)
    for images in batches:
        with torch.no_grad():
            expected = module(images)
        for name, found, value in zip(module.output_names(images), run(images), expected, strict=True):
            found = torch.as_tensor(found)
            same = found.shape == value.shape
            scale = float(value.abs().max().clamp(min=torch.finfo(value.dtype).tiny))
            difference = float((found - value).abs().max()) / scale if same else float('inf')
            if not difference <= tolerance:  # NaN as well
                raise RuntimeError(
                    f'What was exported differs from the model: {name} of images {tuple(images.shape)} by '
                    f'{difference:.2g} of its largest value (shape {tuple(found.shape)}, expected '
                    f'{tuple(value.shape)}). No file was written.'
                )
            worst = max(worst, difference)
    return worst


def onnx_call(file: Path) -> Callable[..., list[np.ndarray]]:
    """An ONNX file as a function of images, and of the names of its outputs to give (default: all)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=['CPUExecutionProvider'])
    return lambda images, outputs=None: session.run(outputs, {'images': np.asarray(images)})


def folder_batches(model: BaseModel, pipeline: ImagePipeline, folder: str, count: int) -> list[np.ndarray]:
    """Images of a folder, drawn at random, as the preprocessor gives them: batches of one.

    Args:
        model (BaseModel): The model.
        pipeline (ImagePipeline): Of its config.
        folder (str): The folder, with subfolders.
        count (int): How many images, at most.

    Raises:
        ValueError: If none of them can be read.
    """
    files = [str(file) for file in find_image_files(folder)]
    drawn = np.random.default_rng(0).permutation(len(files))[:count]
    collate = default_collate if isinstance(model, BaseClassifier) else pseudo_collate
    found = []
    for index in sorted(drawn.tolist()):
        try:
            packed = pipeline(files[index]).packed
        except BrokenImage as error:
            print(f'skipped: {error}')
            continue
        found.append(model.data_preprocessor(collate([packed]), False)['inputs'].cpu().numpy())
    if not found:
        raise ValueError(f'{folder} has no image that can be read: INT8 needs some to choose its ranges.')
    return found


def batches(model: BaseModel, loader: DataLoader) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images as the preprocessor gives them, and their labels."""
    for data in loader:
        data = model.data_preprocessor(data)
        yield data['inputs'].cpu().numpy(), np.array([int(sample.gt_label) for sample in data['data_samples']])


def in_batches(arrays: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """The same rows in arrays (size, ...), for a file of one batch size; what is left over is left out."""
    rows = np.concatenate(arrays)
    if len(rows) < size:
        raise ValueError(f'A file of --batch {size} needs at least as many images, not {len(rows)}.')
    return np.split(rows[: len(rows) // size * size], len(rows) // size)


def quantise(file: Path, target: Path, images: list[np.ndarray], reduce_range: bool = False) -> None:
    """Static INT8 by ONNX Runtime: convolutions and products in 8 bits, a scale for each channel of the weights.

    The first convolution stays in float: on CIFAR-10 it alone would cost most of what accuracy is lost. On CPUs without
    VNNI instructions sums of 8-bit products overflow in silence; with ``reduce_range`` weights have 7 bits and they do
    not.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        left = iter([{'images': batch} for batch in images])

        def get_next(self) -> dict | None:
            return next(self.left, None)

    prepared = target.with_suffix('.prepared.onnx')
    quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
    stem = next(node.name for node in onnx.load(prepared).graph.node if node.op_type == 'Conv')
    quantize_static(
        str(prepared), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=['Conv', 'Gemm', 'MatMul'],
        nodes_to_exclude=[stem], reduce_range=reduce_range,
    )  # fmt: skip
    prepared.unlink()


def classes(run: Callable, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The class of the highest score for each image (of segmenters: for each pixel), by batch."""
    return [run(batch)[0].argmax(1) for batch in images]


def agreement(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Share of images (of segmenters: of their pixels) that get the expected class, in percent."""
    return 100 * float(np.mean([np.mean(a == b) for batches in zip(found, expected) for a, b in zip(*batches)]))


def torch_call(model: nn.Module, images: Tensor):
    model = model.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)

    def call():
        with torch.inference_mode():
            model(images, mode='tensor')

    return call


def openvino_calls(file: Path, images: Tensor) -> dict:
    """The ONNX file in OpenVINO, in float32 and, where the CPU has it, bfloat16; nothing where it is not installed."""
    try:
        import openvino
    except ImportError:
        return {}
    core, calls = openvino.Core(), {}
    model = core.read_model(file)
    model.reshape(list(images.shape))
    for precision in ('f32', 'bf16')[: 1 + has_fast_bfloat16()]:
        options = {'INFERENCE_PRECISION_HINT': precision, 'INFERENCE_NUM_THREADS': torch.get_num_threads()}
        request = core.compile_model(model, 'CPU', options).create_infer_request()
        calls[f'openvino, {precision}'] = lambda request=request: request.infer({0: images.cpu().numpy()})
    return calls


def parse_args(argv=None):
    parser = ArgumentParser(description='Export a model to ONNX, to a PyTorch program and to INT8.')
    parser.add_argument('config', help='config file of a classifier, segmenter or detector')
    parser.add_argument('checkpoint', help="checkpoint file, or 'none' for random weights")
    parser.add_argument('out', type=Path, help='ONNX file to write')
    parser.add_argument('--size', type=int, nargs=2, default=[224, 224], metavar=('H', 'W'), help='size that is traced')
    parser.add_argument(
        '--static', action='store_true', help='fix height and width to --size, and the batch to --batch'
    )
    parser.add_argument('--batch', type=int, default=1, help='batch of --static')
    parser.add_argument('--maps', nargs='*', help='attention maps to give; default: all')
    parser.add_argument('--torch-export', action='store_true', help='write the exported program too (.pt2)')
    parser.add_argument(
        '--int8', nargs='?', const='', metavar='FOLDER',
        help='write a quantised file too (.int8.onnx), whose ranges come from images of the folder, or of the training '
             'set if none is given',
    )  # fmt: skip
    parser.add_argument(
        '--calibration', type=int, default=256, help='images that set the ranges of INT8; 0: noise, for its speed alone'
    )
    parser.add_argument(
        '--reduce-range', action='store_true', help='of INT8: weights in 7 bits, for CPUs without VNNI instructions'
    )
    parser.add_argument('--images', type=int, help='measure the accuracy on so many test images')
    parser.add_argument(
        '--speed', type=int, metavar='BATCH', help='measure the speed at that batch, with OpenVINO too if it is there'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='settings of the config: key=value')
    args = parser.parse_args(argv)
    if args.static and args.speed not in (None, args.batch):
        parser.error(f'--static fixes the batch: --speed {args.speed} differs from --batch {args.batch}.')
    return args


def main(argv=None):
    args = parse_args(argv)
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SystemExit(f'{error}. Exporting needs it: pip install onnx onnxruntime onnxscript') from error

    checkpoint = None if args.checkpoint == 'none' else args.checkpoint
    options = args.cfg_options or {}
    cfg = read_config(args.config, options, needs_data=False)
    if cfg.get('default_scope') in ('mmdet', 'mmseg') and (args.images or args.speed or args.int8 == ''):
        raise ValueError(
            '--images, --speed and --int8 without a folder are for classifiers; a detector or segmenter takes '
            '--int8 FOLDER.'
        )
    data, calibration = [], []
    if args.images:
        model, loader = load_classifier(args.config, checkpoint, options, args.images)
        data = list(batches(model.cpu(), loader))
    if args.int8 == '' and args.calibration:
        model, loader = load_classifier(args.config, checkpoint, options, args.calibration, split='train')
        calibration = [image[None] for images, _ in batches(model.cpu(), loader) for image in images]
    if not data and not calibration:
        model = build_model(cfg, checkpoint)
        if checkpoint is None:
            model.init_weights()
    model = revert_sync_batchnorm(model).eval()
    channels, (height, width) = input_channels(model), args.size
    if args.int8 and args.calibration:
        pipeline = ImagePipeline(cfg, getattr(model, '_trained_for', {}).get('input_size'))
        calibration = folder_batches(model, pipeline, args.int8, args.calibration)
    if args.int8 is not None and not args.calibration:
        shape = (args.batch if args.static else 1, channels, height, width)
        calibration = [np.random.default_rng(0).standard_normal(shape, 'float32')]
    if args.static:
        data = data and list(zip(*(in_batches(arrays, args.batch) for arrays in zip(*data))))
        calibration = calibration and in_batches(calibration, args.batch)
    images = torch.randn(args.batch if args.static else 2, channels, height, width)
    names = maps_of_images(model, images, args.maps)
    if is_detector(model):
        print('Backbone and neck of the detector are exported. Its heads and the suppression of boxes need MMDeploy.')
    shapes = [images.shape] if args.static else [(1, channels, height, width), (3, channels, height + 32, width + 7)]
    others = [torch.randn(shape) for shape in shapes]  # not those that were traced, unless the sizes are fixed
    with finished(args.out) as file:
        program = export(model, images, file, names, args.static)
        runs = {'onnx': onnx_call(file)}
        worst = compare(runs['onnx'], model, names, others)
    print(f'{args.out}: differs from the model by at most {worst:.2g}')
    if args.torch_export:
        target = args.out.with_suffix('.pt2')
        with finished(target) as file:
            torch.export.save(program, file)
            worst = compare(torch.export.load(file).module(), model, names, others)
        print(f'{target}: differs from the model by at most {worst:.2g}')
    if args.int8 is not None:
        int8 = args.out.with_suffix('.int8.onnx')
        with finished(int8) as file:
            quantise(args.out, file, calibration, args.reduce_range)
            runs['int8'] = onnx_call(file)
        sizes = [f'{path.stat().st_size / 2**20:.3g} MiB' for path in (int8, args.out)]
        print(f'{int8}: {sizes[0]}, in float32 {sizes[1]}')
        if args.calibration and not is_detector(model):
            share = agreement(*(classes(run, calibration) for run in runs.values()))
            number = sum(map(len, calibration))
            print(f'int8: the class of float32 in {share:.2f} % of {number} images of the calibration')
    if args.images:
        tested, labels = zip(*data)
        for name, run in runs.items():
            print(f'{name}: {agreement(classes(run, tested), labels):.2f} % of {sum(map(len, labels))} images')
    if args.speed:
        images = torch.randn(args.speed, channels, height, width)
        calls = {'eager, channels-last': torch_call(model, images), 'accelerate': torch_call(accelerate(model), images)}
        if has_fast_bfloat16():
            dtype = torch.bfloat16
            calls['accelerate, bfloat16'] = torch_call(accelerate(model, dtype=dtype), images.to(dtype))
        for name, run in runs.items():
            calls[name] = lambda run=run: run(images, ['logits'])
        calls.update(openvino_calls(args.out, images))
        for name, seconds in time_in_turns(calls, rounds=7).items():
            print(f'{name}: {args.speed / np.median(seconds):.4g} images/s at batch {args.speed}')


if __name__ == '__main__':
    run_tool(main)
