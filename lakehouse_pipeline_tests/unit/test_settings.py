"""Which source wins, and what is no value."""

from __future__ import annotations

import traceback
from datetime import timedelta
from pathlib import Path

import pytest

from lakehouse_pipeline.errors import SettingsError
from lakehouse_pipeline.settings import load_settings


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exchanges.yaml").write_text(
        "feed: {url: ws://yaml, http_url: http://yaml}\n"
        "exchanges: {OKX: {symbols: [BTCUSDT, BTCUSDT.P]}}\n"
    )


def test_arguments_win_over_environment_over_dotenv_over_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / ".env").write_text(
        "LAKEHOUSE_FEED__URL=ws://dotenv\nLAKEHOUSE_UI__PORT=1\nLAKEHOUSE_GRPC__PORT=1\n"
    )
    monkeypatch.setenv("LAKEHOUSE_UI__PORT", "2")
    monkeypatch.setenv("LAKEHOUSE_GRPC__PORT", "2")

    settings = load_settings(grpc={"port": 3})

    assert settings.feed.http_url == "http://yaml"
    assert settings.feed.url == "ws://dotenv"
    assert (settings.ui.port, settings.grpc.port) == (2, 3)


def test_a_secret_or_path_set_to_nothing_is_none(monkeypatch: pytest.MonkeyPatch):
    """The stack hands every setting on by environment; an empty token is not a token."""
    monkeypatch.setenv("LAKEHOUSE_FEED__TOKEN", "")
    monkeypatch.setenv("LAKEHOUSE_ALERTS__FILE", "")

    assert load_settings().feed.token is None
    assert load_settings().alerts.file is None


def test_symbols_are_full_names():
    assert load_settings().symbols("OKX") == ["OKX:BTCUSDT", "OKX:BTCUSDT.P"]


def test_an_unknown_exchange_names_the_known_ones():
    with pytest.raises(SettingsError, match=r"'BYBIT' is not in .*Known: OKX"):
        load_settings().symbols("BYBIT")


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LAKEHOUSE_FEED__TOKEN", "hunter2")

    settings = load_settings()

    assert "hunter2" not in repr(settings) + str(settings.model_dump())


@pytest.mark.parametrize("name", ["TOKEN", "SESSIONID", "SESSIONID_SIGN"])
def test_a_secret_copied_with_a_line_break_is_taken_without_it(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(f"LAKEHOUSE_FEED__{name}", " hunter2\r\n")

    secret = getattr(load_settings().feed, name.lower())

    assert secret.get_secret_value() == "hunter2"


@pytest.mark.parametrize("name", ["TOKEN", "SESSIONID", "SESSIONID_SIGN"])
@pytest.mark.parametrize("value", ["hun\nter2", "hun;ter2", "hun ter2", "hünter2", "hun\x00ter2"])
def test_a_secret_that_no_header_can_hold_is_one_line_that_does_not_show_it(name: str, value: str):
    with pytest.raises(SettingsError) as failure:
        load_settings(feed={name.lower(): value})

    assert "\n" not in str(failure.value)
    assert f"LAKEHOUSE_FEED__{name}" in str(failure.value)
    assert "ter2" not in "".join(traceback.format_exception(failure.value))


def test_durations_are_read_as_seconds_or_iso(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LAKEHOUSE_INGEST__COMMIT_INTERVAL", "2.5")
    monkeypatch.setenv("LAKEHOUSE_INGEST__LEASE", "PT1H")

    ingest = load_settings().ingest

    assert ingest.commit_interval == timedelta(seconds=2.5)
    assert ingest.lease == timedelta(hours=1)
