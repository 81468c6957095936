"""`bench`: the answer's keys, and that its baseline draws the same picture."""

from __future__ import annotations

import json

import pytest
import torch

from talkgs_cli.errors import UsageError
from talkgs_cli.rendering import numba_jit, rasterize
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.stages.bench import bench, head_like_request
from talkgs_cli.stages.bench_baseline import torch_tiles


def test_the_baseline_draws_what_rasterize_draws() -> None:
    request = head_like_request(2000, 100)
    image, alpha = torch_tiles(request)
    ours, our_alpha, _ = rasterize(
        request.means, request.quats, request.scales, request.opacities, request.colors,
        request.viewmats, request.Ks, 100, 100, sh_degree=3, backgrounds=request.backgrounds,
    )  # fmt: skip
    # rounding may decide a few pixels at the 1/255 threshold
    assert float((image - ours[0]).abs().max()) < 5e-3
    assert float((image - ours[0]).abs().mean()) < 1e-5
    assert float((alpha - our_alpha[0]).abs().mean()) < 1e-5


def test_speak_frame_answers_with_times_rates_and_the_machine() -> None:
    threads = numba_jit.threads()
    answer = bench("speak-frame", SilentProgress(), rounds=1)
    assert {"machine", "rows", "ratios"} <= set(answer)
    assert {"cpu", "cores", "threads", "torch", "numba", "gsplat"} <= set(answer["machine"])
    for row in answer["rows"]:
        assert row["name"].startswith("speak-frame 10k @512")
        assert 0 < row["best_ms"] <= row["median_ms"]
        assert row["frames_per_s"] > 0
    json.dumps(answer)
    assert numba_jit.threads() == threads


def test_speak_from_end_to_end_is_split_by_part() -> None:
    (row,) = bench("speak", SilentProgress(), rounds=1)["rows"]
    assert set(row["parts_ms"]) == {"read", "render", "composite", "encode"}
    assert row["frames_per_s"] == pytest.approx(1e3 / row["median_ms"], rel=0.01)
    slowest = max(row["parts_ms"].values())
    assert slowest <= 1.05 * row["median_ms"]  # no step takes longer than all of them together


def test_ratios_are_of_times_taken_in_the_same_run() -> None:
    answer = bench("fit-step", SilentProgress(), rounds=1)
    for side in (256, 512):
        assert answer["ratios"][f"fit-step 10k @{side}: torch / numba"] > 1
    assert set(answer["rows"][0]["parts_ms"]) == {"pose", "raster", "ssim", "adam"}


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(UsageError, match="no bench 'disk'"):
        bench("disk", SilentProgress())


def test_the_scene_is_the_same_every_time() -> None:
    assert torch.equal(head_like_request(50, 64).means, head_like_request(50, 64).means)
