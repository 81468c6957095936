"""`doctor`: what this machine has, what it lacks, and the fix. It changes and downloads nothing.

Every look is made separately, so that one broken package doesn't hide the rest.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from talkgs_cli import __version__, assets
from talkgs_cli.errors import TalkgsError
from talkgs_cli.runtime import require_writable

LOWEST_PYTHON = (3, 11)
ENOUGH_DISK_GB = 2.0
"""A prepared and fitted minute of 512-pixel video takes about half of this."""

PACKAGES = ("numpy", "scipy", "cv2", "skimage", "librosa", "ctranslate2", "ai_edge_litert")
"""What the stages import besides torch and numba."""


EXTRAS = {
    "cuda": "gsplat",
    "wav2vec2": "transformers",
    "train": "accelerate",
    "ray": "ray",
    "c2pa": "c2pa",
    "mediapipe": "mediapipe",
    "fan": "face_alignment",
}
"""The package that each extra of talkgs brings."""


def doctor(*, online: bool = False) -> dict[str, Any]:
    """Look at the machine.

    Args:
        online: Also ask the Hub whether it answers; otherwise nothing touches the network.

    Returns:
        The JSON answer of `talkgs doctor`: `ok` is true when `problems` is empty.
    """
    problems: list[dict[str, str]] = []
    torch = _torch(problems)
    backends = {"numba": _numba(problems), "gsplat": _gsplat()}
    has_cuda = bool(torch.get("cuda"))
    advice = []
    if has_cuda and not backends["gsplat"]["usable"]:
        advice.append(
            "There is a CUDA card but gsplat can't use it, so fitting runs on the CPU: "
            "pip install 'talkgs[cuda]'"
        )
    _look_at_python(problems)
    _look_at_packages(problems)
    answer = {
        "talkgs": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "torch": torch,
        "device": "cuda" if has_cuda and backends["gsplat"]["usable"] else "cpu",
        "backends": backends,
        "ffmpeg": _ffmpeg(problems),
        "cache": _cache(problems),
        "disk_free_gb": _disk(problems),
        "assets": _assets(problems),
        "hub": _hub(problems, online),
        "extras": {name: find_spec(package) is not None for name, package in EXTRAS.items()},
        "problems": problems,
        "advice": advice,
    }
    return {"ok": not problems, **answer}


def _problem(what: str, fix: str) -> dict[str, str]:
    return {"what": what, "fix": fix}


def _look_at_python(problems: list[dict[str, str]]) -> None:
    if sys.version_info < LOWEST_PYTHON:
        problems.append(
            _problem(f"Python {platform.python_version()} is too old.", "Use Python 3.11 or newer.")
        )


def _look_at_packages(problems: list[dict[str, str]]) -> None:
    for name in PACKAGES:
        if reason := _import_failure(name):
            problems.append(
                _problem(
                    f"The package {name} can't be imported: {reason}.",
                    "pip install --force-reinstall talkgs",
                )
            )


def _import_failure(name: str) -> str | None:
    """Why a package can't be imported, or None; a broken library may raise nearly anything."""
    try:
        importlib.import_module(name)
    except (ImportError, OSError, AttributeError, RuntimeError, ValueError) as error:
        return (str(error) or type(error).__name__).splitlines()[0]
    return None


def _torch(problems: list[dict[str, str]]) -> dict[str, Any]:
    if reason := _import_failure("torch"):
        problems.append(_problem(f"torch can't be imported: {reason}.", "pip install torch"))
        return {"version": None, "cuda": None, "threads": None}
    import torch

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"version": torch.__version__, "cuda": card, "threads": torch.get_num_threads()}


def _numba(problems: list[dict[str, str]]) -> dict[str, Any]:
    if reason := _import_failure("numba"):
        problems.append(_problem(f"numba can't be imported: {reason}.", "pip install numba"))
        return {"usable": False, "reason": reason}
    import numba

    return {"usable": True, "reason": f"numba {numba.__version__}"}


def _gsplat() -> dict[str, Any]:
    if reason := _import_failure("talkgs_cli.rendering.gsplat_backend"):
        return {"usable": False, "reason": reason}
    from talkgs_cli.rendering.gsplat_backend import gsplat_status

    status = gsplat_status()
    return {"usable": status.usable, "reason": status.reason}


def _ffmpeg(problems: list[dict[str, str]]) -> dict[str, Any]:
    from talkgs_cli.media.ffmpeg import ffmpeg_program

    try:
        program = ffmpeg_program()
        said = subprocess.run([program, "-version"], capture_output=True, text=True, check=True)
    except TalkgsError as error:
        problems.append(_problem(error.message, error.hint or "pip install imageio-ffmpeg"))
        return {"usable": False, "program": None, "version": None}
    except (OSError, subprocess.CalledProcessError) as error:
        problems.append(
            _problem(
                f"ffmpeg does not run: {error}.", "pip install --force-reinstall imageio-ffmpeg"
            )
        )
        return {"usable": False, "program": None, "version": None}
    words = said.stdout.split()
    version = words[2] if words[:2] == ["ffmpeg", "version"] else None
    return {"usable": True, "program": program, "version": version}


def _cache(problems: list[dict[str, str]]) -> dict[str, Any]:
    folder = assets.cache_dir()
    try:
        require_writable(folder)
    except (TalkgsError, OSError):
        problems.append(
            _problem(
                f"The cache {folder} can't be written to.",
                "Set TALKGS_CACHE to a folder you may write to.",
            )
        )
        return {"folder": str(folder), "writable": False}
    return {"folder": str(folder), "writable": True}


def _disk(problems: list[dict[str, str]]) -> float:
    free_gb = round(shutil.disk_usage(Path.cwd()).free / 1e9, 1)
    if free_gb < ENOUGH_DISK_GB:
        problems.append(
            _problem(
                f"Only {free_gb} GB are free in {Path.cwd()}.",
                f"Free some: a minute of video needs up to {ENOUGH_DISK_GB:.0f} GB.",
            )
        )
    return free_gb


def _assets(problems: list[dict[str, str]]) -> list[dict[str, Any]]:
    found = assets.listing()["assets"]
    for state in ("missing", "damaged"):
        names = [
            asset["name"]
            for asset in found
            if asset["state"] == state and (state == "damaged" or not asset["extra"])
        ]
        if names:
            problems.append(
                _problem(f"Assets {state}: {', '.join(names)}.", "talkgs assets --pull")
            )
    told = ("name", "state", "size", "licence", "extra")
    return [{key: asset[key] for key in told} for asset in found]


def _hub(problems: list[dict[str, str]], online: bool) -> dict[str, Any]:
    """Which Hub, whether it is switched off, and when asked whether it answers (else None)."""
    from talkgs_cli.assets.hub import endpoint, is_switched_off, why_unreachable

    place = endpoint() or "the Hugging Face Hub"
    off = is_switched_off()
    answer = {"endpoint": place, "switched_off": off, "reachable": None}
    if online and not off:
        reason = why_unreachable()
        answer["reachable"] = reason is None
        if reason is not None:
            problems.append(
                _problem(
                    f"{place} does not answer: {reason}.",
                    "Check the network and proxy; what is in the cache works without.",
                )
            )
    return answer
