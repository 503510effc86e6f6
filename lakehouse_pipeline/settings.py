"""The only reader of environment variables and YAML.

Order of precedence: arguments > environment ``LAKEHOUSE_…`` (nested by ``__``) > ``.env`` >
``exchanges.yaml`` > defaults. Settings are read once and passed down as values; nothing below the
shells imports the environment. Add a setting here with a description: the reference page is made
of them. What a value *means* belongs to the module that uses it.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from .errors import SettingsError

CONFIG_FILE = "exchanges.yaml"
TRADINGVIEW_URL = "wss://data.tradingview.com/socket.io/websocket?from=chart%2F&type=chart"
EXCHANGE_NAME = re.compile(r"[A-Z][A-Z0-9_]{1,19}")
HEADER_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]+")  # a cookie's, by RFC 6265; a JWT's are fewer
TICKER = re.compile(r"[A-Z0-9][A-Z0-9._!-]{0,39}")


def _ticker(name: str) -> str:
    if not TICKER.fullmatch(name):
        raise ValueError(
            f"symbol {name!r} is malformed; write the ticker alone, in capitals, such as BTCUSDT"
        )
    return name


def _stripped(value: Any) -> Any:  # Any: as below
    """A secret copied or read from a file often ends in a line break."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return text.strip() if isinstance(text, str) else text


def _fits_a_header(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None and not HEADER_VALUE.fullmatch(secret.get_secret_value()):
        raise ValueError(
            "it holds a line break, space, quote or other character that no cookie or token has; "
            "copy it anew"
        )
    return secret


def _none_if_empty(value: Any) -> Any:  # Any: whatever a source holds, checked afterwards
    """An environment variable that is set to nothing is no secret and no path."""
    return None if value == "" else value


def _seconds(length: Any) -> Any:  # Any: as above
    """A plain number is seconds, also as text; anything else is left to ISO 8601."""
    try:
        return timedelta(seconds=float(length)) if isinstance(length, str) else length
    except ValueError:
        return length


# Before-validators are run from the last to the first.
Secret = Annotated[SecretStr | None, BeforeValidator(_none_if_empty), BeforeValidator(_stripped)]
Credential = Annotated[Secret, AfterValidator(_fits_a_header)]
Port = Annotated[int, Field(ge=0, le=65535)]
Ticker = Annotated[str, AfterValidator(_ticker)]
Positive = Annotated[timedelta, BeforeValidator(_seconds), Field(gt=timedelta(0))]
NotNegative = Annotated[timedelta, BeforeValidator(_seconds), Field(ge=timedelta(0))]


def _none_is_usual(value: Any) -> Any:
    """Read ``rsi:`` without parameters as the usual ones."""
    return {} if value is None else value


IndicatorParameters = Annotated[dict[str, int | float], BeforeValidator(_none_is_usual)]


class _Section(BaseModel):
    # A rejected input may be a secret.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class FeedSettings(_Section):
    """Where quotes come from and who we say we are."""

    url: str = Field(TRADINGVIEW_URL, description="The websocket that sends quotes")
    http_url: str = Field(
        "https://pine-facade.tradingview.com", description="The HTTP host that describes studies"
    )
    origin: str = Field("https://www.tradingview.com", description="The Origin header to send")
    user_agent: str = Field(
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)",
        description="The User-Agent header to send",
    )
    token: Credential = Field(None, description="A JWT to show; anonymous without")
    sessionid: Credential = Field(
        None, description="The cookie of this name, exchanged for a JWT that is kept fresh"
    )
    sessionid_sign: Credential = Field(None, description="The cookie that goes with it")
    connect_timeout: Positive = Field(
        timedelta(seconds=15), description="A connect that takes longer has failed"
    )
    silence_timeout: Positive = Field(
        timedelta(seconds=22), description="No frame at all for so long: the socket is dead"
    )
    connect_interval: NotNegative = Field(
        timedelta(seconds=5),
        description="At most one connect per host in this time, over all processes",
    )
    backoff_max: Positive = Field(
        timedelta(seconds=60), description="The longest wait between two tries to connect"
    )
    refused_pause: Positive = Field(
        timedelta(minutes=5), description="The wait after HTTP 403 or 429"
    )


class ClockSettings(_Section):
    """A worker's clock: the machine's, or the feed's own for replays at another speed."""

    source: Literal["wall", "feed"] = Field("wall", description="Whose clock it is")
    speed: Annotated[float, Field(gt=0)] = Field(
        1.0, description="How many times faster the feed's clock runs"
    )


class ExchangeSettings(_Section):
    """What to record of one exchange."""

    symbols: Annotated[list[Ticker], Field(min_length=1)] = Field(
        description="Tickers as TradingView writes them, in capitals, without the exchange"
    )


class LakeSettings(_Section):
    """Where tables live. Empty uri and warehouse mean SQLite and files under the state folder."""

    catalog_type: Literal["sql", "rest"] = Field(
        "sql", description="SQLite or PostgreSQL, or an Iceberg REST catalog"
    )
    catalog_uri: str = Field("", description="The catalog's address")
    warehouse: str = Field("", description="The folder or bucket of the tables' files")
    properties: dict[str, str] = Field(
        {}, description="Passed to the catalog as they are: `s3.endpoint`, `credential`, …"
    )


class IngestSettings(_Section):
    """How a worker lands what it records."""

    commit_interval: Positive = Field(
        timedelta(seconds=15), description="How often the spool is committed to the lake"
    )
    commit_rows: Annotated[int, Field(ge=1)] = Field(
        200_000, description="Commit earlier at this many rows"
    )
    group_commit: Positive = Field(
        timedelta(milliseconds=250), description="Rows are durable in the spool after this"
    )
    spool_max_bytes: Annotated[int, Field(ge=1 << 20)] = Field(
        8 << 30, description="The most bytes a spool may hold while the lake is away"
    )
    lease: Positive = Field(timedelta(hours=6), description="A worker is succeeded after this")
    hand_over: Positive = Field(
        timedelta(minutes=30), description="And ends so long after it, succeeded or not"
    )


class HistorySettings(_Section):
    """Official bars from chart history: how far back, and how gently."""

    reach: Positive = Field(
        timedelta(minutes=5_000), description="How far back an anonymous client is sure to get"
    )
    pace: NotNegative = Field(timedelta(seconds=2.5), description="Between requests")
    answer_timeout: Positive = Field(
        timedelta(seconds=60), description="For one symbol; chart links are known to hang"
    )


class UiSettings(_Section):
    """Dagster's UI. It has no login: beyond loopback put a proxy with one in front."""

    host: str = Field("127.0.0.1", description="The address it listens on")
    port: Port = Field(3000, description="The port it listens on; 0 is any that is free")
    read_only: bool = Field(
        False, description="Nothing can be launched, stopped or switched from it"
    )


class GrpcSettings(_Section):
    """Where Dagster's processes find the code of the pipeline."""

    host: str = Field("127.0.0.1", description="The address it listens on")
    port: Port = Field(4266, description="The port it listens on; 0 is any that is free")


class AlertSettings(_Section):
    """Who is told that a run failed, besides the log."""

    file: Annotated[Path | None, BeforeValidator(_none_if_empty)] = Field(
        None, description="A line of JSON for each; below the state folder if relative"
    )
    webhook: Secret = Field(
        None, description="An address to POST JSON to; a secret, as it often holds one"
    )


class Settings(BaseSettings):
    """Everything a deployment can set."""

    model_config = SettingsConfigDict(
        env_prefix="LAKEHOUSE_",
        env_nested_delimiter="__",
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # it may be a secret
    )

    state_dir: Path = Field(
        Path(".lakehouse"), description="The folder of the catalog, tables, spools, runs and logs"
    )
    config: Path = Field(
        Path(CONFIG_FILE), description="The file of settings; named by argument or environment only"
    )
    feed: FeedSettings = FeedSettings()
    clock: ClockSettings = ClockSettings()
    lake: LakeSettings = LakeSettings()
    ingest: IngestSettings = IngestSettings()
    history: HistorySettings = HistorySettings()
    ui: UiSettings = UiSettings()
    grpc: GrpcSettings = GrpcSettings()
    alerts: AlertSettings = AlertSettings()
    exchanges: dict[str, ExchangeSettings] = Field({}, description="What to record, by exchange")
    indicators: dict[str, IndicatorParameters] = Field(
        {"rsi": {}, "macd": {}},
        description="Stored beside the price, with their parameters; others are computed on read",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # secrets come by environment
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings, _YamlSource(settings_cls)

    def symbols(self, exchange: str) -> list[str]:
        """Return the full names (``BINANCE:BTCUSDT``) to record for *exchange*.

        Raises:
            SettingsError: if the exchange is not configured.
        """
        if exchange not in self.exchanges:
            raise SettingsError(
                f"Exchange {exchange!r} is not in {self.config}.",
                mend=f"Known: {', '.join(self.exchanges) or 'none'}; add it under 'exchanges:'.",
            )
        return [f"{exchange}:{ticker}" for ticker in self.exchanges[exchange].symbols]

    def resolved(self) -> Self:
        """Return a copy whose paths are absolute, so that child processes agree on them."""
        return self.model_copy(
            update={"state_dir": self.state_dir.resolve(), "config": self.config.resolve()}
        )


class _YamlSource(PydanticBaseSettingsSource):
    """``exchanges.yaml``: the sections ``feed`` and ``exchanges``, and any other section."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002  # abstract in the base
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        path = Path(self.current_state.get("config") or CONFIG_FILE)
        if not path.exists():
            return {}
        return read_yaml(path)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in *path*, exchange names checked.

    Raises:
        SettingsError: if the file is not YAML, not a mapping or names something unknown.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        place = f" line {line + 1}" if line is not None else ""
        raise SettingsError(f"{path}{place} is not valid YAML.", mend="Mend its syntax.") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{path} holds no mapping.", mend="Start it with 'exchanges:'.")
    unknown = set(content) - set(Settings.model_fields) | set(content) & {"config"}
    if unknown:
        raise SettingsError(
            f"{path}: unknown key {min(map(str, unknown))!r}.",
            mend=f"Known keys: {', '.join(sorted(set(Settings.model_fields) - {'config'}))}.",
        )
    for name in content.get("exchanges") or {}:
        if not isinstance(name, str) or not EXCHANGE_NAME.fullmatch(name):
            raise SettingsError(
                f"{path}: exchange {name!r} is malformed.",
                mend="Write it as TradingView does, in capitals, such as BINANCE.",
            )
    return content


def load_settings(**arguments: Any) -> Settings:
    """Return the settings of this process; *arguments* win over every other source.

    Raises:
        SettingsError: one line naming the setting, what was wrong and the mend.
    """
    config = arguments.get("config") or os.environ.get("LAKEHOUSE_CONFIG")
    if config is not None and not Path(config).exists():
        raise SettingsError(
            f"Configuration file {config} does not exist.", mend="Set LAKEHOUSE_CONFIG to it."
        )
    try:
        return Settings(**arguments)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        name = "LAKEHOUSE_" + "__".join(part.upper() for part in path)
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(
            f"Setting {'.'.join(path)}: {message}.",
            mend=f"Mend it in {config or CONFIG_FILE} or in {name}.",
        ) from error
