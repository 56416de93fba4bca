import platform
import sys

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc' or sys.maxsize < 2**32, reason='another C library')
def test_freed_feature_maps_are_not_mapped_again(python):
    """Pages that the system must give for five maps of 100 MiB, made and freed one after the other."""
    code = (
        'import resource, runpy, torch\n'
        'def faults():\n'
        '    usage = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n'
        '    torch.ones(25 << 20).add(1)\n'
        '    before = usage()\n'
        '    for _ in range(5):\n'
        '        torch.ones(25 << 20).add(1)\n'
        '    return usage() - before\n'
        'given_back = faults()\n'
        'assert runpy.run_path("mmresattn/compat/cpu_memory.py")["keep_large_blocks"]()\n'
        'faults()\n'  # the heap grows to what they need
        'print(given_back, faults())\n'
    )
    given_back, kept = map(int, python('-c', code).stdout.split())
    assert kept < 0.1 * given_back
