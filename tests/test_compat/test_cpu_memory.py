import platform
import sys

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc' or sys.maxsize < 2**32, reason='another C library')
def test_freed_feature_maps_are_not_mapped_again(python):
    """Pages that the system must give for twenty maps of 100 MiB, made and freed one after the other."""
    code = (
        'import resource, sys, torch\n'
        'if sys.argv[1] == "keep":\n'
        '    from mmresattn.compat.cpu_memory import keep_large_blocks\n'
        '    assert keep_large_blocks()\n'
        'faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n'
        'torch.ones(25 << 20).add(1)\n'
        'before = faults()\n'
        'for _ in range(20):\n'
        '    torch.ones(25 << 20).add(1)\n'
        'print(faults() - before)\n'
    )
    kept, given_back = (int(python('-c', code, way).stdout) for way in ('keep', 'plain'))
    assert kept < 0.1 * given_back
