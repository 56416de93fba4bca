"""glibc gives large blocks back to the system at every free, and PyTorch on CPUs has no cache above it.

Every feature map is then mapped, and zeroed page by page, anew in every layer: about a tenth of a forward pass of
Attention-56 on two cores.
"""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_large_blocks() -> bool:
    """Let this process keep what it frees, up to 1 GiB, for its next feature maps.

    No block is mapped on its own any more: the threshold for that ends at 32 MiB, and maps of 16 images of 224x224 are
    larger.

    Returns:
        bool: Whether the C library could be asked to: glibc on 64-bit Linux.
    """
    if platform.libc_ver()[0] != 'glibc':
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, 1 << 30))
