"""Make a process ready to render on the CPU: compile the kernels, say so, keep freed memory.

Commands that render call `compile_kernels` first: the user then sees why nothing moves, and the
first frame is not counted into rates.
"""

from __future__ import annotations

import ctypes
import sys

from talkgs_cli.runtime import Progress

COMPILE_S = 20
"""What compiling takes on two slow cores, for the message."""


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
GIBIBYTE = 1 << 30


def keep_freed_memory() -> bool:
    """Ask glibc to hand freed images out again instead of giving them back to the system.

    A fit at 512 pixels otherwise faults in some 2000 pages a step, a tenth of its time. The peak
    does not grow. Elsewhere than on glibc nothing happens.

    Returns:
        Whether it was done.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, GIBIBYTE) and mallopt(M_TRIM_THRESHOLD, GIBIBYTE))


def compile_kernels(progress: Progress, backward: bool = True) -> None:
    """Load the kernels from the cache, or compile them into it with a note to the user.

    Args:
        progress: Gets one sentence if there is something to wait for.
        backward: Whether gradients and SSIM are needed as well.
    """
    import torch

    from talkgs_cli.rendering import numba_jit
    from talkgs_cli.rendering.rasterizer import rasterize
    from talkgs_cli.rendering.ssim import ssim

    keep_freed_memory()
    if not numba_jit.is_compiled():
        again = "once" if numba_jit.CACHE_FOLDER else "in every run: the cache can't be written"
        progress.note(f"Compiling the renderer, about {COMPILE_S} s ({again}).")
    means = torch.tensor([[0.0, 0.0, 1.0]])
    with torch.enable_grad():
        image, _, _ = rasterize(
            means.requires_grad_(backward),
            torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
            torch.full((1, 3), 0.1),
            torch.tensor([0.5]),
            torch.zeros(1, 1, 3),
            torch.eye(4)[None],
            torch.tensor([[[16.0, 0, 8], [0, 16, 8], [0, 0, 1]]]),
            16,
            16,
            sh_degree=0,
        )
        if backward:
            ssim(image[0].permute(2, 0, 1), torch.zeros(3, 16, 16)).backward()
            numba_jit.mark_compiled()
