"""Training on several processes, cards or machines: what `accelerate launch` set up.

    accelerate launch --multi_gpu --num_processes 2 -m talkgs_cli translator train --synthetic

The engine is Hugging Face Accelerate's; here is only how this process finds its place in it.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from talkgs_cli.errors import MachineLacks

LAUNCHER = "ACCELERATE_"
"""How the variables begin that `accelerate launch` sets."""


def launched() -> bool:
    """Whether `accelerate launch` or torchrun started this process."""
    several = int(os.environ.get("WORLD_SIZE") or 1) > 1
    return several or any(name.startswith(LAUNCHER) for name in os.environ)


def accelerator_here() -> Any:
    """The `accelerate.Accelerator` of this process, or None where nothing was launched.

    Raises:
        MachineLacks: launched by torchrun without the package accelerate.
    """
    if not launched():
        return None
    if find_spec("accelerate") is None:
        raise MachineLacks(
            "Training on several processes needs the package accelerate.",
            hint="Install it with: pip install 'talkgs[train]'",
        )
    import torch
    from accelerate import Accelerator

    # Left alone, Accelerate joins processes only where it finds cards.
    return Accelerator(cpu=not torch.cuda.is_available())


def is_main(accelerator: Any) -> bool:
    """Whether this process is the one that writes and tells."""
    return accelerator is None or bool(accelerator.is_main_process)
