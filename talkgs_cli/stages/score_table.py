"""The figures of scores as tables, for the page; the terminal has its own in `console`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from talkgs_cli.stages import report_html as html

METRIC_NAMES = {
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "lpips_alex": "LPIPS alex",
    "lpips_vgg": "LPIPS vgg",
    "lmd_px": "LMD px",
    "lmd_iod": "LMD iod",
    "lse_d": "LSE-D",
    "lse_c": "LSE-C",
}
# Title, region, metric, whether higher is better.
COMPARED = (
    ("face PSNR", "face", "psnr", True),
    ("face SSIM", "face", "ssim", True),
    ("face LPIPS", "face", "lpips_alex", False),
    ("mouth LPIPS", "mouth", "lpips_alex", False),
    ("full PSNR", "full", "psnr", True),
    ("LMD px", "full", "lmd_px", False),
    ("LMD iod", "full", "lmd_iod", False),
    ("LSE-C", "full", "lse_c", None),
    ("LSE-D", "full", "lse_d", False),
)
COMPARED_BEHAVIOUR = ("opening_r", "opening_spread", "closure_recall", "jitter_ratio")


def rows_table(answer: dict[str, Any]) -> str:
    """Every row and region of one answer, with intervals."""
    measured = {
        metric
        for regions in answer["rows"].values()
        for values in regions.values()
        for metric, value in values.items()
        if value is not None
    }
    metrics = [metric for metric in METRIC_NAMES if metric in measured]
    shares = answer.get("ground_truth_share") or {}
    rows = []
    for row, regions in answer["rows"].items():
        for region, values in regions.items():
            if all(values.get(metric) is None for metric in metrics):
                continue
            share = (shares.get(row) or {}).get(region)
            true = "-" if share is None else f"{share:.0%}"
            figures = [with_interval(values.get(metric), metric) for metric in metrics]
            rows.append([row, region, true, *figures])
    header = ["row", "region", "true pixels", *(METRIC_NAMES[metric] for metric in metrics)]
    return html.table(header, rows, texts=2)


def behaviour_table(answer: dict[str, Any]) -> str:
    """How the lips of each row behave."""
    rows = answer.get("behaviour_rows") or {"generated": answer["behaviour"]}
    names = list(answer["behaviour"])
    table = [
        [row, *("-" if values.get(name) is None else f"{values[name]:.2f}" for name in names)]
        for row, values in rows.items()
    ]
    return html.table(["row", *(name.replace("_", " ") for name in names)], table)


def comparison_table(answers: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """One column a system, one line a figure, the best of each line bold."""
    rows = [["row", *(lead_row(answer) for _, answer in answers)]]
    for title, values, higher in compared(answers):
        best = _best(values, higher)
        rows.append([title, *(("*" if best == value else "") + shown(value) for value in values)])
    return html.table(["", *(name for name, _ in answers)], rows)


def compared(
    answers: Sequence[tuple[str, dict[str, Any]]],
) -> list[tuple[str, list[float | None], bool | None]]:
    """Lines of the comparison: (title, one value a system, whether higher is better)."""
    columns: list[tuple[str, list[float | None], bool | None]] = []
    leads = [(answer, lead_row(answer)) for _, answer in answers]
    columns.append(("frames", [float(answer["frames"]) for answer, _ in leads], None))
    shares = [
        ((answer.get("ground_truth_share") or {}).get(row) or {}).get("full")
        for answer, row in leads
    ]
    columns.append(("share of true pixels", shares, None))
    for title, region, metric, higher in COMPARED:
        values = [
            _mean(answer["rows"].get(row, {}).get(region, {}).get(metric)) for answer, row in leads
        ]
        columns.append((title, values, higher))
    for name in COMPARED_BEHAVIOUR:
        higher = True if name in ("opening_r", "closure_recall") else None
        values = [(answer.get("behaviour") or {}).get(name) for answer, _ in leads]
        columns.append((name.replace("_", " "), values, higher))
    speeds = [(answer.get("speed") or {}).get("fps_end_to_end") for answer, _ in leads]
    columns.append(("frames/s", speeds, True))
    return [column for column in columns if any(value is not None for value in column[1])]


def lead_row(answer: dict[str, Any]) -> str:
    """The row a system is judged by: made from sound where there is one."""
    measured = [
        row
        for row in ("audio", "generated", "tracked")
        if row in answer["rows"]
        and any(value is not None for value in answer["rows"][row]["full"].values())
    ]
    return measured[0] if measured else next(iter(answer["rows"]))


def with_interval(value: Any, metric: str) -> str:
    """A figure and the half width of its interval."""
    if not isinstance(value, dict):
        return shown(value)
    spread = (value["high"] - value["low"]) / 2
    return f"{shown(value['mean'])} ± {spread:.2g}" if spread else shown(value["mean"])


def shown(value: float | None) -> str:
    """A figure with the digits that mean something."""
    if value is None:
        return "-"
    if value == int(value) and abs(value) >= 1:
        return f"{int(value)}"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"


def _mean(value: Any) -> float | None:
    return value["mean"] if isinstance(value, dict) else value


def _best(values: Sequence[float | None], higher: bool | None) -> float | None:
    known = [value for value in values if value is not None]
    if higher is None or len(known) < 2 or min(known) == max(known):
        return None
    return max(known) if higher else min(known)
