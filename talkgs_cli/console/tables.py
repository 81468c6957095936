"""Answers of the commands drawn for people, on stdout."""

from __future__ import annotations

import math
import sys
from typing import Any

from talkgs_cli.console.lines import print_error, print_result


def print_table(title: str, header: list[str], rows: list[list[str]], texts: int = 1) -> None:
    """A table on stdout; the first `texts` columns are text, the others figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index < texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 120
    Console(width=width, markup=False, highlight=False).print(table)


def figure(value: Any) -> str:
    """One figure of an answer: a number, `{mean, low, high}`, or nothing."""
    if isinstance(value, dict):
        mean, low, high = (value.get(key) for key in ("mean", "low", "high"))
        if low is None or high is None:
            return figure(mean)
        return f"{figure(mean)} [{figure(low)}, {figure(high)}]"
    if value is None:
        return "-"
    if isinstance(value, float):
        if math.isinf(value):
            return "inf"
        return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)


def print_score(answer: dict[str, Any]) -> None:
    """The score as one table of rows and regions, then the lips' behaviour; or a comparison."""
    if comparison := answer.get("comparison"):
        names = [str(system["system"]) for system in comparison]
        table = [
            [title, *(figure(system[title]) for system in comparison)]
            for title in comparison[0]
            if title != "system"
        ]
        print_table(answer["protocol"], ["", *names], table)
        return
    rows = answer.get("rows") or {}
    metrics = list(
        dict.fromkeys(
            metric for regions in rows.values() for values in regions.values() for metric in values
        )
    )
    shares = answer.get("ground_truth_share") or {}
    table = [
        [
            row,
            region,
            figure((shares.get(row) or {}).get(region)),
            *(_mean(values.get(metric)) for metric in metrics),
        ]
        for row, regions in rows.items()
        for region, values in regions.items()
        if any(value is not None for value in values.values())
    ]
    title = f"{answer.get('protocol', '')}, {answer.get('frames', '?')} frames"
    print_table(title, ["row", "region", "true pixels", *metrics], table, texts=2)
    behaviour = answer.get("behaviour") or {}
    if behaviour:
        print_result("")
        print_table("lips", ["", "value"], [[k, figure(v)] for k, v in behaviour.items()])
    if speed := answer.get("speed"):
        print_result("")
        print_result(f"speak: {figure(speed['fps_end_to_end'])} frames a second, {speed['size']}")


def _mean(value: Any) -> str:
    return figure(value.get("mean") if isinstance(value, dict) else value)


def print_doctor(answer: dict[str, Any]) -> None:
    """What `doctor` found, problems last."""
    for name in ("talkgs", "python", "system", "torch", "device", "ffmpeg", "cache"):
        print_result(f"{name:<10}{_one_line(answer[name])}")
    print_result(f"{'disk':<10}{answer['disk_free_gb']} GB free")
    for name, backend in answer["backends"].items():
        usable = "usable" if backend["usable"] else "not usable"
        print_result(f"{name:<10}{usable}: {backend['reason']}")
    needed = [asset for asset in answer["assets"] if not asset["extra"]]
    present = [asset["name"] for asset in needed if asset["state"] == "present"]
    print_result(f"{'assets':<10}{len(present)} of {len(needed)} in the cache")
    hub, extras = answer["hub"], answer["extras"]
    print_result(f"{'hub':<10}{hub['endpoint']}, {_hub_state(hub)}")
    print_result(f"{'extras':<10}{', '.join(k for k, there in extras.items() if there) or 'none'}")
    for problem in answer["problems"]:
        print_result(f"Problem: {problem['what']}\n    Fix: {problem['fix']}")
    for advice in answer["advice"]:
        print_result(f"Advice: {advice}")
    if answer["ok"]:
        print_result("Everything talkgs needs is here.")


def _hub_state(hub: dict[str, Any]) -> str:
    if hub["switched_off"]:
        return "switched off by HF_HUB_OFFLINE"
    states = {None: "not asked (--online asks)", True: "answers", False: "does not answer"}
    return states[hub["reachable"]]


def _one_line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item is not None)
    return str(value)


def print_assets(answer: dict[str, Any]) -> None:
    """The table of third-party assets."""
    rows = [
        [
            asset["name"],
            asset["licence"],
            f"{asset['size'] / 1e6:.1f} MB",
            asset["state"] + (f", for talkgs[{asset['extra']}]" if asset["extra"] else ""),
            asset["sources"][0],
        ]
        for asset in answer["assets"]
    ]
    print_table("", ["asset", "licence", "size", "state", "source"], rows, texts=5)
    print_error(f"Cache: {answer['cache']}")


def print_bench(answer: dict[str, Any]) -> None:
    """Timings and ratios of `bench`."""
    rows = answer.get("rows") or []
    header = list(dict.fromkeys(key for row in rows for key in row))
    print_result(_one_line(answer.get("machine")))
    print_table("", header, [[figure(row.get(key)) for key in header] for row in rows])
    for name, value in (answer.get("ratios") or {}).items():
        print_result(f"{name}: {figure(value)}")
