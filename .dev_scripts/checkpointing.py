"""What gradient checkpointing (with_cp) saves and costs: memory and time of a training step, with it and without.

python .dev_scripts/checkpointing.py configs/resattn/attention92_imagenet.py --size 224 --batch-size 2

Every measurement is a fresh process, on the CPU, and the two ways take turns. "saved" is exact, and does not depend on
the device: all that the forward pass keeps for the backward pass but the weights.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from mmresattn.apis import build_model
from mmresattn.apis.command_line import ArgumentParser, markdown_table, run_tool


@contextmanager
def saved_storages(model: nn.Module) -> Iterator[dict[int, int]]:
    """Address and bytes of every storage that is kept in this context for a backward pass, but for the parameters."""
    own, found = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}, {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:  # a linear layer keeps a view of its weight
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def step(config: str, with_cp: bool, size: int, batch_size: int) -> tuple[int, int, float]:
    """Bytes saved, peak of resident bytes over that of the model, and seconds of a forward and backward pass."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cfg = Config.fromfile(config)
    cfg.model.backbone.with_cp = with_cp
    model = build_model(cfg)
    images = torch.randn(batch_size, 3, size, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    with saved_storages(model) as saved:
        loss = model(images, mode='tensor').square().mean()
    loss.backward()
    seconds = time.perf_counter() - begin
    return sum(saved.values()), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, seconds


def main(argv=None):
    parser = ArgumentParser(description='Memory and time of a training step with and without checkpointing.')
    parser.add_argument('config', help='config file of a classifier whose backbone has with_cp')
    parser.add_argument('--size', type=int, default=224, help='height and width of the images')
    parser.add_argument('--batch-size', type=int, default=2, help='images of a batch')
    parser.add_argument('--rounds', type=int, default=3, help='fresh processes for each way')
    args = parser.parse_args(argv)
    found = {False: [], True: []}
    for _ in range(args.rounds):
        for with_cp, results in found.items():
            with get_context('spawn').Pool(1) as pool:
                results.append(pool.apply(step, (args.config, with_cp, args.size, args.batch_size)))
    header = ('with_cp', 'saved (MiB)', 'peak of resident memory over the model (MiB)', 'seconds, one thread')
    rows = []
    for with_cp, results in found.items():
        saved, peak, seconds = zip(*results)
        spread = [f'{min(values):.{digits}f} to {max(values):.{digits}f}'
                  for values, digits in (([value / 2**20 for value in peak], 0), (seconds, 1))]  # fmt: skip
        rows.append((with_cp, f'{saved[0] / 2**20:.1f}', *spread))
    print(markdown_table(header, rows), end='')


if __name__ == '__main__':
    run_tool(main)
