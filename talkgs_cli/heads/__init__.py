"""Parametric head models behind `types.HeadModel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from talkgs_cli.errors import UsageError

if TYPE_CHECKING:
    from talkgs_cli.types import HeadModel


def load_head(name: str) -> HeadModel:
    """Load a head model by the name that `prepare --head` takes.

    Args:
        name: "open", "flame:PATH" of a FLAME file that was converted, or "flame:KEY".

    Raises:
        UsageError: no such head.
        BadInput: the FLAME head is not in the cache.
    """
    if name == "open":
        from talkgs_cli.heads.open_head import OpenHead

        return OpenHead.load()
    if name.partition(":")[0] == "flame":
        from talkgs_cli.heads.flame import FlameHead

        return FlameHead.load(name)
    raise UsageError(
        f"There is no head model {name!r}.", hint="Use --head open or --head flame:PATH"
    )
