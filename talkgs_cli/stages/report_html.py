"""Parts of a self-contained HTML page: curves, contact sheets, tables; it measures nothing.

Everything is inline and the page forbids itself to load anything, so that opening it sends nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

STYLE_FILE = Path(__file__).with_name("report.css")
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
JPEG_QUALITY = 82


@dataclass(frozen=True)
class Line:
    """A line over a picture.

    Attributes:
        points: [P, 2] pixels of the picture, its first pixel's centre at 0.5.
        kind: CSS class that gives the colour.
        closed: Whether the last point is joined to the first.
    """

    points: NDArray[np.floating]
    kind: str
    closed: bool = False


@dataclass(frozen=True)
class Tile:
    """One picture of a contact sheet.

    Attributes:
        picture: Data URI.
        size: (height, width) of the picture, pixels; lines are in them.
        caption: What stands under it.
        lines: Drawn over it.
        overlay: Data URI of a transparent picture over it, or None.
    """

    picture: str
    size: tuple[int, int]
    caption: str
    lines: tuple[Line, ...] = ()
    overlay: str | None = None


def jpeg_uri(image: NDArray[np.uint8]) -> str:
    """A picture [H, W, 3] RGB as a data URI."""
    bgr = np.ascontiguousarray(image[..., ::-1])
    _, data = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def mask_uri(mask: NDArray[np.bool_], color: tuple[int, int, int, int]) -> str:
    """A mask [H, W] as a transparent picture in one colour (RGBA)."""
    image = np.zeros((*mask.shape, 4), np.uint8)
    red, green, blue, alpha = color
    image[mask] = (blue, green, red, alpha)
    _, data = cv2.imencode(".png", image, (cv2.IMWRITE_PNG_COMPRESSION, 5))
    return f"data:image/png;base64,{base64.b64encode(data.tobytes()).decode()}"


def contact_sheet(tiles: Sequence[Tile], layers: dict[str, str], hidden: Sequence[str] = ()) -> str:
    """Pictures in a grid, with boxes to switch what is drawn over them.

    Args:
        tiles: The pictures.
        layers: What can be switched, CSS class -> label; "overlay" is the tiles' overlay.
        hidden: Those that are off at first.
    """
    boxes = "".join(
        f'<input type="checkbox" id="show-{kind}" class="show-{kind}"'
        f"{'' if kind in hidden else ' checked'}>"
        f'<label for="show-{kind}" class="{kind}">{escape(label)}</label>'
        for kind, label in layers.items()
    )
    return f'<div class="sheet">{boxes}<div class="tiles">{"".join(map(_tile, tiles))}</div></div>'


def _tile(tile: Tile) -> str:
    height, width = tile.size
    overlay = f'<img class="overlay" src="{tile.overlay}" alt="">' if tile.overlay else ""
    lines = "".join(
        f'<path class="{line.kind}" d="{_path(line.points, closed=line.closed)}"/>'
        for line in tile.lines
    )
    return (
        f'<figure><div class="picture"><img src="{tile.picture}" alt="{escape(tile.caption)}">'
        f'{overlay}<svg viewBox="0 0 {width} {height}">{lines}</svg></div>'
        f"<figcaption>{escape(tile.caption)}</figcaption></figure>"
    )


def _path(points: NDArray[np.floating], *, closed: bool = False) -> str:
    """SVG path data; a point that is not a number ends a stroke."""
    parts, pen_down = [], False
    for x, y in points:
        if not (np.isfinite(x) and np.isfinite(y)):
            pen_down = False
            continue
        parts.append(f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}")
        pen_down = True
    return "".join(parts) + ("z" if closed else "")


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """A table of two columns."""
    cells = "".join(
        f"<tr><th scope=row>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A table of figures; the first `texts` columns are text, a leading `*` makes a cell bold."""
    head = "".join(
        f"<th scope=col{' class=text' if k < texts else ''}>{escape(name)}</th>"
        for k, name in enumerate(header)
    )
    body = "".join(
        f"<tr>{''.join(_cell(cell, k < texts) for k, cell in enumerate(row))}</tr>" for row in rows
    )
    return (
        f'<div class="figures"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(text: str, is_text: bool) -> str:
    tag = "th scope=row" if is_text else "td"
    best = text.startswith("*")
    shown = escape(text.removeprefix("*"))
    return f"<{tag}>{f'<b>{shown}</b>' if best else shown}</{tag.split()[0]}>"


def strip(pictures: Sequence[tuple[str, str]], caption: str) -> str:
    """Pictures of one moment side by side, each with its name under it.

    Args:
        pictures: (name, data URI).
        caption: What stands above them.
    """
    shown = "".join(
        f'<figure><img src="{uri}" alt="{escape(name)}"><figcaption>{escape(name)}</figcaption>'
        "</figure>"
        for name, uri in pictures
    )
    return f'<div class="strip"><p>{escape(caption)}</p><div>{shown}</div></div>'


def bullets(sentences: Sequence[str]) -> str:
    """A list."""
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def section(title: str, *parts: str) -> str:
    """A heading and what follows it; `parts` are HTML."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def paragraph(text: str) -> str:
    """Plain text as HTML."""
    return f"<p>{escape(text)}</p>"


def page(title: str, *sections: str) -> str:
    """The whole document; `sections` are HTML.

    A file name may hold bytes that are no text in any alphabet; a page can't, it shows "?".
    """
    style = STYLE_FILE.read_text(encoding="utf-8")
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>\n{chr(10).join(sections)}\n</main></body></html>\n"
    )
    return text.encode("utf-8", "replace").decode("utf-8")
