"""Third-party assets: pinned files, fetched on first need into a cache that holds only right bytes.

Nothing third-party is kept in the repository. `table` says what there is, `sources` where bytes
come from, `store` keeps them.
"""

from talkgs_cli.assets.store import (
    cache_dir,
    fetch,
    fetch_file,
    is_present,
    listing,
    pull,
    state,
)
from talkgs_cli.assets.table import ASSETS, Asset, AssetFile, HubFiles, PackageFile, needed_assets

__all__ = [
    "ASSETS",
    "Asset",
    "AssetFile",
    "HubFiles",
    "PackageFile",
    "cache_dir",
    "fetch",
    "fetch_file",
    "is_present",
    "listing",
    "needed_assets",
    "pull",
    "state",
]
