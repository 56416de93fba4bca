"""Export a classifier of this package: ONNX with any batch and size, PyTorch's exported program, INT8.

python tools/deployment/export_onnx.py CONFIG CHECKPOINT model.onnx                  # logits and every attention map
python tools/deployment/export_onnx.py CONFIG CHECKPOINT model.onnx --int8 --images 2000     # and model.int8.onnx
python tools/deployment/export_onnx.py CONFIG CHECKPOINT model.onnx --torch-export   # and model.pt2

Inputs are images as the data preprocessor gives them: (N, C, H, W), normalised. Everything that is written is run on a
batch and sizes that were not traced, and held against the model. Needs: pip install onnx onnxruntime onnxscript
"""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch.export import Dim
from torch.utils.data import DataLoader

from mmresattn.apis import load_classifier
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.models.fuse import accelerate, fuse, has_fast_bfloat16
from mmresattn.models.layers import attention_maps, record_attention
from mmresattn.utils import input_channels
from mmresattn.weights import load_checkpoint


class WithMaps(nn.Module):
    """A classifier that gives its scores and then its attention maps, in the order of ``names``."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if not self.names:
            return (self.model(images, mode='tensor'),)
        with record_attention(self.model, self.names) as maps:
            logits = self.model(images, mode='tensor')
        return logits, *(maps[name] for name in self.names)


def export(model: nn.Module, size: tuple[int, int], file: Path, names: list[str]) -> torch.export.ExportedProgram:
    """Write an ONNX file whose outputs are ``logits`` and the maps by name; batch, height and width stay open.

    Args:
        model (nn.Module): A classifier of MMPretrain in evaluation mode, best fused.
        size (tuple[int, int]): Height and width of the images that are traced.
        file (Path): What to write.
        names (list[str]): Attention maps to give.

    Returns:
        torch.export.ExportedProgram: What the file was made from.
    """
    images = torch.randn(2, input_channels(model), *size)
    shapes = {'images': {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    with torch.no_grad():
        program = torch.export.export(WithMaps(model, names), (images,), dynamic_shapes=shapes, strict=False)
        onnx_program = torch.onnx.export(
            program, input_names=['images'], output_names=['logits', *names], dynamo=True, verbose=False
        )
    onnx_program.save(str(file))
    return program


def runtime(file: Path, threads: int):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(file), options, providers=['CPUExecutionProvider'])


def check(file: Path, model: nn.Module, names: list[str], size: tuple[int, int], tolerance: float = 1e-3) -> float:
    """Largest difference of ONNX Runtime from the model, as a share of its largest value, on what was not traced.

    Raises:
        RuntimeError: If it is larger than ``tolerance``.
    """
    run, worst = runtime(file, torch.get_num_threads()), 0.0
    for batch, height, width in [(1, *size), (3, size[0] + 32, size[1] + 7)]:
        images = torch.randn(batch, input_channels(model), height, width)
        with torch.no_grad():
            expected = WithMaps(model, names)(images)
        for name, a, b in zip(['logits', *names], run.run(None, {'images': images.cpu().numpy()}), expected):
            difference = float((torch.from_numpy(a) - b).abs().max() / b.abs().max())
            worst = max(worst, difference)
            if difference > tolerance or a.shape != tuple(b.shape):
                raise RuntimeError(
                    f'{file}: {name} of {batch} images of {height}x{width} differs from the model by {difference:.2g} '
                    f'of its largest value (shape {a.shape}, expected {tuple(b.shape)}).'
                )
    return worst


def batches(model: BaseModel, loader: DataLoader) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images as the preprocessor gives them, and their labels."""
    for data in loader:
        data = model.data_preprocessor(data)
        yield data['inputs'].cpu().numpy(), np.array([int(sample.gt_label) for sample in data['data_samples']])


def quantise(file: Path, target: Path, images: list[np.ndarray]) -> None:
    """Static INT8 by ONNX Runtime: convolutions and products in 8 bits, a scale for each channel of the weights.

    The first convolution stays in float: on CIFAR-10 it alone would cost most of what accuracy is lost.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict | None:
            batch = next(self.left, None)
            return None if batch is None else {'images': batch}

    prepared = target.with_suffix('.prepared.onnx')
    quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
    stem = next(node.name for node in onnx.load(prepared).graph.node if node.op_type == 'Conv')
    quantize_static(
        str(prepared), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=['Conv', 'Gemm', 'MatMul'],
        nodes_to_exclude=[stem],
    )  # fmt: skip
    prepared.unlink()


def accuracy(run, data: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Share of images whose highest score is at the label, in percent."""
    right = [run.run(['logits'], {'images': images})[0].argmax(1) == labels for images, labels in data]
    return 100 * float(np.concatenate(right).mean())


def speed(calls: dict, images: int, rounds: int = 7) -> dict[str, float]:
    """Images a second of each call, the median of rounds in which they take turns."""
    found = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            found[name].append(images / (time.perf_counter() - begin))
    return {name: float(np.median(values)) for name, values in found.items()}


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


def build_model(config: str, checkpoint: str | None, options: dict) -> BaseModel:
    """The model of a config in evaluation mode, for which no data is needed."""
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(options)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
        model = MODELS.build(cfg.model)
    if checkpoint is None:
        model.init_weights()
    else:
        load_checkpoint(model, checkpoint)
    return model.eval()


def main(argv=None):
    parser = ArgumentParser(description='Export a classifier to ONNX, to a PyTorch program and to INT8.')
    parser.add_argument('config', help='config file of a classifier')
    parser.add_argument('checkpoint', help="checkpoint file, or 'none' for random weights")
    parser.add_argument('out', type=Path, help='ONNX file to write')
    parser.add_argument('--size', type=int, nargs=2, default=[224, 224], metavar=('H', 'W'), help='size that is traced')
    parser.add_argument('--maps', nargs='*', help='attention maps to give; default: all')
    parser.add_argument('--torch-export', action='store_true', help='write the exported program too (.pt2)')
    parser.add_argument('--int8', action='store_true', help='write a quantised file too (.int8.onnx)')
    parser.add_argument(
        '--calibration',
        type=int,
        default=256,
        help='training images that set the ranges of INT8; 0: noise, for its speed alone',
    )
    parser.add_argument('--images', type=int, help='measure the accuracy on so many test images')
    parser.add_argument(
        '--speed', type=int, metavar='BATCH', help='measure the speed at that batch, with OpenVINO too if it is there'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='settings of the config: key=value')
    args = parser.parse_args(argv)
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SystemExit(f'{error}. Exporting needs it: pip install onnx onnxruntime onnxscript') from error

    checkpoint = None if args.checkpoint == 'none' else args.checkpoint
    options = args.cfg_options or {}
    data, calibration = [], []
    if args.images:
        model, loader = load_classifier(args.config, checkpoint, options, args.images)
        data = list(batches(model.cpu(), loader))
    if args.int8 and args.calibration:
        model, loader = load_classifier(args.config, checkpoint, options, args.calibration, split='train')
        calibration = [image[None] for images, _ in batches(model.cpu(), loader) for image in images]
    if not (args.images or args.int8 and args.calibration):
        model = build_model(args.config, checkpoint, options)
    if args.int8 and not args.calibration:
        shape = (1, input_channels(model), *args.size)
        calibration = [np.random.default_rng(0).standard_normal(shape, 'float32')]
    names = list(attention_maps(model)) if args.maps is None else args.maps
    fused = fuse(model, mode='tensor')
    size = tuple(args.size)
    program = export(fused, size, args.out, names)
    print(f'{args.out}: differs from the model by at most {check(args.out, model, names, size):.2g}')
    if args.torch_export:
        torch.export.save(program, args.out.with_suffix('.pt2'))
        print(f'{args.out.with_suffix(".pt2")}: written')
    runs = {'onnx': runtime(args.out, torch.get_num_threads())}
    if args.int8:
        int8 = args.out.with_suffix('.int8.onnx')
        quantise(args.out, int8, calibration)
        runs['int8'] = runtime(int8, torch.get_num_threads())
    if args.images:
        for name, run in runs.items():
            print(f'{name}: {accuracy(run, data):.2f} % of {sum(len(labels) for _, labels in data)} images')
    if args.speed:
        images = torch.randn(args.speed, input_channels(model), *size)
        calls = {'eager, channels-last': torch_call(model, images), 'accelerate': torch_call(accelerate(model), images)}
        if has_fast_bfloat16():
            dtype = torch.bfloat16
            calls['accelerate, bfloat16'] = torch_call(accelerate(model, dtype=dtype), images.to(dtype))
        for name, run in runs.items():
            calls[name] = lambda run=run: run.run(['logits'], {'images': images.cpu().numpy()})
        calls.update(openvino_calls(args.out, images))
        for name, found in speed(calls, args.speed).items():
            print(f'{name}: {found:.4g} images/s at batch {args.speed}')


if __name__ == '__main__':
    run_tool(main)
