"""`bench`: how fast this machine renders and fits, and ratios that hold on a noisy one.

What is compared is timed in turns within one run, so that a busy neighbour slows both; medians are
reported, and ratios are those of the medians. `cpu_ms` is the time all threads worked, which
neighbours change less. It makes its own scene and needs no speaker.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from talkgs_cli.errors import UsageError
from talkgs_cli.runtime import Progress, peak_rss_mb

if TYPE_CHECKING:
    from talkgs_cli.rendering.request import Request

PARTS = ("raster", "fit-step", "speak-frame", "speak")
SIZES = ((10_000, 256), (10_000, 512), (50_000, 512))
"""Gaussians and image side of `raster`."""

ROUNDS = 11
SLOW_ROUNDS = 3
"""Rounds with the baselines, which take hundreds of milliseconds."""


def bench(what: str | None, progress: Progress, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Time the inner loops.

    Args:
        what: A name of PARTS, or None for all.
        progress: Gets a stage for each part.
        rounds: How often everything is timed.

    Returns:
        machine, rows (name, median_ms, best_ms, ...) and ratios: of times, baseline over ours.

    Raises:
        UsageError: there is no such part.
    """
    if what is not None and what not in PARTS:
        raise UsageError(f"There is no bench {what!r}.", hint=f"Known: {', '.join(PARTS)}.")
    from talkgs_cli.rendering.warm_up import compile_kernels
    from talkgs_cli.stages import bench_parts, bench_speak

    compile_kernels(progress)
    timer = Timer(progress, rounds)
    for part in PARTS if what is None else (what,):
        {
            "raster": bench_parts.raster,
            "fit-step": bench_parts.fit_step,
            "speak-frame": bench_parts.speak_frame,
            "speak": bench_speak.speak,
        }[part](timer)
    return {
        "machine": machine(),
        "rows": timer.rows,
        "ratios": timer.ratios,
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }


class Timer:
    """Times functions in turns and collects the rows and ratios of the answer."""

    def __init__(self, progress: Progress, rounds: int) -> None:
        self.progress = progress
        self.rounds = rounds
        self.rows: list[dict[str, Any]] = []
        self.ratios: dict[str, float] = {}

    def interleave(self, name: str, runs: Mapping[str, Callable[[], Any]], rounds: int) -> None:
        """Time every function once a round, after one round that is not counted."""
        times: dict[str, list[float]] = {key: [] for key in runs}
        spent: dict[str, list[float]] = {key: [] for key in runs}
        with self.progress.stage(f"Timing {name}", rounds * len(runs)) as advance:
            for index in range(rounds + 1):
                for key, run in runs.items():
                    started, cpu = time.perf_counter(), time.process_time()
                    run()
                    if index:
                        times[key].append((time.perf_counter() - started) * 1e3)
                        spent[key].append((time.process_time() - cpu) * 1e3)
                        advance(1)
        for key, values in times.items():
            self.rows.append(
                {
                    "name": f"{name} {key}",
                    "median_ms": round(statistics.median(values), 2),
                    "best_ms": round(min(values), 2),
                    "cpu_ms": round(statistics.median(spent[key]), 2),
                    "rounds": rounds,
                }
            )

    def figure(self, name: str, column: str = "median_ms") -> float:
        """One number of a row."""
        return float(next(row[column] for row in self.rows if row["name"] == name))

    def ratio(self, label: str, slow: str, fast: str, column: str = "median_ms") -> None:
        """Keep the quotient of two rows' numbers."""
        self.ratios[label] = round(
            self.figure(slow, column) / max(self.figure(fast, column), 1e-3), 2
        )


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import numba
    import torch

    from talkgs_cli.rendering import numba_jit
    from talkgs_cli.rendering.gsplat_backend import gsplat_status

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": numba_jit.threads(),
        "load": load,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "gsplat": gsplat_status().reason,
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        names = []
    from llvmlite import binding

    return f"{names[0] if names else platform.processor()} ({binding.get_host_cpu_name()})"


def head_like_request(count: int, side: int, seed: int = 0) -> Request:
    """Gaussians on an ellipsoid of a head's size, 0.7 to 2 px at 512, SH degree 3.

    Args:
        count: Gaussians.
        side: Image side; the head fills the same share of any.
        seed: Of the scene.
    """
    import torch

    from talkgs_cli.rendering.request import Request

    g = torch.Generator().manual_seed(seed)
    outward = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1)
    pixel = 0.6 / 1047  # metres a pixel covers at the head's distance, at 512
    size = pixel * (0.67 + 1.33 * torch.rand(count, 1, generator=g))
    flat = torch.rand(count, 3, generator=g) * torch.tensor([0.0, 0.6, 0.3])
    colors = torch.randn(count, 16, 3, generator=g) * 0.1
    colors[:, 0] = (torch.rand(count, 3, generator=g) - 0.5) / 0.2820947917738781
    viewmat = torch.eye(4)
    viewmat[2, 3] = 0.6
    focal = 1047 * side / 512
    K = torch.tensor([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]])
    return Request(
        means=outward * torch.tensor([0.075, 0.11, 0.095]),
        quats=torch.randn(count, 4, generator=g),
        scales=size * (torch.tensor([1.0, 0.4, 0.2]) + flat),
        opacities=0.3 + 0.69 * torch.rand(count, generator=g),
        colors=colors,
        viewmats=viewmat[None],
        Ks=K[None],
        width=side,
        height=side,
        sh_degree=3,
        backgrounds=torch.tensor([[0.2, 0.3, 0.4]]),
        near_plane=0.01,
        far_plane=1e10,
        eps2d=0.3,
        render_mode="RGB",
        rasterize_mode="classic",
        absgrad=False,
    )
