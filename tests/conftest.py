"""Fixtures of every test: the clips beside the checkout, assets, a cache of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from talkgs_cli import assets

TESTS = Path(__file__).parent

# The made-up speaker with known motion (`demo_video`, `prepared_speaker`, ...), a made-up asset
# (`toy`, `fake_pip`), a Hub with a made-up translator (`hub`).
pytest_plugins = ["demo_fixtures", "toy_asset", "lips_release"]


@pytest.fixture(scope="session", autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory):
    """Certificates and the like are made in a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALKGS_CONFIG", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of real clips beside the checkout; skips where there is none."""
    folder = TESTS.parent.parent / "shared" / "clips"
    if not folder.is_dir():
        pytest.skip("there are no ../shared/clips beside this checkout")
    return folder


@pytest.fixture(scope="session")
def require_assets() -> Callable[..., None]:
    """Call it with asset names: skips unless the cache holds them (no network in tests)."""

    def require(*names: str) -> None:
        absent = [name for name in names if not assets.is_present(name)]
        if absent:
            pytest.skip(f"not in the cache: {', '.join(absent)}; run: talkgs assets --pull")

    return require


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, and no sources named in the environment."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("TALKGS_CACHE", str(cache))
    monkeypatch.delenv("TALKGS_ASSETS_DIR", raising=False)
    monkeypatch.delenv("TALKGS_ASSETS_REPO", raising=False)
    return cache
