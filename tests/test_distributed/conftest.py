import gc

import pytest
import torch
from torch import distributed, multiprocessing


def enter(rank, function, folder, processes, args):
    gc.enable()
    torch.set_num_threads(1)
    store = f'file://{folder / "store"}'
    distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=processes)
    torch.save(function(rank, *args), folder / f'{rank}.pth')
    distributed.destroy_process_group()


@pytest.fixture
def in_processes(tmp_path_factory):
    """Runs ``function(rank, *args)`` in processes that gloo joins, and gives what each of them returned.

    They are forked from the server of tests/conftest.py. Those that use CUDA must be spawned.
    """

    def run(function, *args, processes=2, start_method='forkserver'):
        folder = tmp_path_factory.mktemp('processes')
        multiprocessing.start_processes(
            enter, (function, folder, processes, args), processes, start_method=start_method
        )
        return [torch.load(folder / f'{rank}.pth', weights_only=False) for rank in range(processes)]

    return run
