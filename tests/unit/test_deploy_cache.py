import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.native.install.cache import cache_root, cached


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))


def test_an_entry_is_built_once_however_many_ask_for_it() -> None:
    built = []

    def build(directory: Path) -> None:
        built.append(directory)
        (directory / "whole").touch()

    with ThreadPoolExecutor(max_workers=4) as pool:
        places = list(pool.map(lambda _: cached("thing", build), range(4)))

    assert len(built) == 1
    assert set(places) == {cache_root() / "thing"}
    assert (cache_root() / "thing" / "whole").exists()


def test_a_build_that_fails_leaves_nothing_and_the_next_one_starts_afresh() -> None:
    def break_off(directory: Path) -> None:
        (directory / "half").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cached("thing", break_off)
    assert not [path for path in cache_root().iterdir() if path.is_dir()]

    place = cached("thing", lambda directory: (directory / "whole").touch())
    assert [path.name for path in place.iterdir()] == ["whole"]


def test_what_a_killed_build_left_is_never_taken_for_whole() -> None:
    leftover = cache_root() / ".thing.k1ll3d"
    leftover.mkdir(parents=True)
    (leftover / "half").touch()

    place = cached("thing", lambda directory: (directory / "whole").touch())

    assert [path.name for path in place.iterdir()] == ["whole"]
    assert not leftover.exists()


def test_an_unfinished_entry_is_invisible() -> None:
    seen = threading.Event()

    def build(directory: Path) -> None:
        (directory / "half").touch()
        assert not (cache_root() / "thing").exists()
        seen.set()

    cached("thing", build)

    assert seen.is_set()
