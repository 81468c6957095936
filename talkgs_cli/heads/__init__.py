"""Parametric head models behind `types.HeadModel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from talkgs_cli.errors import UsageError

if TYPE_CHECKING:
    from talkgs_cli.types import HeadModel


def load_head(name: str) -> HeadModel:
    """Load a head model by the name that `prepare --head` takes.

    Args:
        name: "open", or "flame:PATH" in a later release.

    Raises:
        UsageError: no such head.
    """
    if name == "open":
        from talkgs_cli.heads.open_head import OpenHead

        return OpenHead.load()
    if name.partition(":")[0] == "flame":
        raise UsageError(
            f"The head {name!r} can't be used yet: FLAME arrives in a later release.",
            hint="Use the open head: --head open",
        )
    raise UsageError(f"There is no head model {name!r}.", hint="Use --head open")
