"""Every column of every table: its name, its type and what it means, in the order they stand in.

The one place where columns are declared. ``schemas`` gives them as polars schemas, ``lake.tables``
gives them Iceberg field IDs, the UI and the reference page show their meaning. Append a column at
the end of its table: field IDs are positions and never move. Types are words, as Iceberg spells
them: what only shows the columns, as the deployment's definitions do, need not load polars.
"""

from __future__ import annotations

from enum import StrEnum


class Type(StrEnum):
    """What a column holds."""

    TEXT = "string"
    REAL = "double"
    INT = "int"
    LONG = "long"
    UTC_TIME = "timestamptz"  # microseconds


Column = tuple[str, Type, str]

TEXT, REAL, INT, LONG, UTC_TIME = Type

_EXCHANGE: Column = ("exchange", TEXT, "The exchange's name as TradingView writes it: BINANCE")
_SYMBOL: Column = ("symbol", TEXT, "The full name: BINANCE:BTCUSDT")
# The row's identity: exactly once means that no two rows share it.
_POSITION: tuple[Column, ...] = (
    ("writer_id", TEXT, "The spool file that took it; with sequence, the row's identity"),
    ("sequence", LONG, "The row's number in its spool file"),
)
_WRITER: tuple[Column, ...] = (
    ("session_id", TEXT, "The connection and quote session that carried it"),
    *_POSITION,
)

QUOTES: tuple[Column, ...] = (
    _EXCHANGE,
    _SYMBOL,
    ("event_time", UTC_TIME, "When it happened: last_time, or received_at for quote updates"),
    ("received_at", UTC_TIME, "When the worker saw the frame"),
    ("kind", TEXT, "price, volume, time, quote or restore"),
    ("changed", TEXT, "Columns this update carried, comma separated"),
    ("last_price", REAL, "Price of the last trade"),
    ("last_time", UTC_TIME, "Time of the last trade, whole seconds"),
    ("cumulative_volume", REAL, "The feed's volume counter, base currency"),
    ("change", REAL, "Price change since the previous day's close"),
    ("change_percent", REAL, "The same in percent"),
    ("bid", REAL, "Best bid"),
    ("ask", REAL, "Best ask"),
    ("bid_size", REAL, "Size at the best bid"),
    ("ask_size", REAL, "Size at the best ask"),
    ("day_open", REAL, "The session's open"),
    ("day_high", REAL, "The session's high"),
    ("day_low", REAL, "The session's low"),
    ("prev_day_close", REAL, "The previous session's close"),
    ("day_open_time", UTC_TIME, "When the session opened"),
    ("update_mode", TEXT, "streaming, delayed_streaming_900, …"),
    *_WRITER,
)

COVERAGE: tuple[Column, ...] = (
    _EXCHANGE,
    ("session_id", TEXT, "The connection and quote session"),
    ("kind", TEXT, "opened, alive, [un]subscribed, refused, described, stalled, shed, ended"),
    ("symbol", TEXT, "The symbol concerned; null is the whole session"),
    ("start", UTC_TIME, "From, in received time"),
    ("end", UTC_TIME, "To, in received time; equals start for a point"),
    ("reason", TEXT, "Why it ended or was refused"),
    ("detail", TEXT, "The evidence in words; described: the symbol's facts as JSON"),
    *_POSITION,
)

RAW_INDICATORS: tuple[Column, ...] = (
    _EXCHANGE,
    _SYMBOL,
    ("event_time", UTC_TIME, "Open time of the bar the value belongs to"),
    ("received_at", UTC_TIME, "When the worker saw the frame"),
    ("name", TEXT, "The study: rsi, macd (indicators.STUDIES)"),
    ("parameters", TEXT, "Its inputs in their order: length=14; fast=12,slow=26,signal=9"),
    ("plot", TEXT, "Which of its lines: of rsi rsi; of macd macd, signal or histogram"),
    ("value", REAL, "The value"),
    *_WRITER,
    ("chart_bars", LONG, "Bars of the study's chart up to this one; null: of an earlier version"),
)

REJECTS: tuple[Column, ...] = (
    _EXCHANGE,
    ("session_id", TEXT, "The connection and quote session"),
    ("received_at", UTC_TIME, "When the worker saw it"),
    ("symbol", TEXT, "The symbol, where it could be read"),
    ("reason", TEXT, "Why it was refused"),
    ("payload", TEXT, "What was refused, as received"),
    *_POSITION,
)

BARS: tuple[Column, ...] = (
    _EXCHANGE,
    _SYMBOL,
    ("open_time", UTC_TIME, "Start of the interval, which is half-open"),
    ("open", REAL, "First price observed in the interval"),
    ("high", REAL, "Highest price observed"),
    ("low", REAL, "Lowest price observed"),
    ("close", REAL, "Last price observed"),
    ("prev_close", REAL, "Last price observed before the interval"),
    ("volume", REAL, "Base currency; null where it cannot be known"),
    (
        "volume_basis",
        TEXT,
        "How the volume is known: counter_delta, official, mixed, … (volume.Basis)",
    ),
    ("counter_start", REAL, "The volume counter at the start"),
    ("counter_end", REAL, "The volume counter at the end"),
    ("price_updates", INT, "Updates that carried a price"),
    ("volume_updates", INT, "Updates that carried a volume and no price"),
    ("time_updates", INT, "Updates that carried a trade time alone"),
    ("quote_updates", INT, "Updates of bid or ask alone"),
    ("late_updates", INT, "Updates received after close and lateness"),
    ("bid", REAL, "Best bid at the end"),
    ("ask", REAL, "Best ask at the end"),
    ("spread", REAL, "Time-weighted mean of ask minus bid"),
    ("observed_seconds", INT, "Seconds with a price observation"),
    ("covered_seconds", REAL, "Seconds in which the symbol was seen"),
    (
        "state",
        TEXT,
        "closed: its time has passed; final: its UTC day as well (bars.State)",
    ),
    ("source", TEXT, "stream, official, or mixed: seen in part, official prices (bars.Source)"),
    ("flags", INT, "What to know before trusting it, as bits (quality.Flag)"),
)

MINUTE_BARS: tuple[Column, ...] = (
    *BARS,
    ("price_deviation", REAL, "Largest streamed minus official price, absolute; null without both"),
    ("volume_deviation", REAL, "Streamed minus official volume; null without both"),
)

HISTORY: tuple[Column, ...] = (
    _EXCHANGE,
    _SYMBOL,
    ("open_time", UTC_TIME, "Start of the minute"),
    ("open", REAL, "Official open"),
    ("high", REAL, "Official high"),
    ("low", REAL, "Official low"),
    ("close", REAL, "Official close"),
    ("volume", REAL, "Base currency; null where the feed gives none"),
    ("fetched_at", UTC_TIME, "When it was first seen with these values"),
)

FETCHES: tuple[Column, ...] = (
    _EXCHANGE,
    _SYMBOL,
    ("start", UTC_TIME, "Of what was asked for"),
    ("end", UTC_TIME, "Of what was asked for, exclusive"),
    ("reached", UTC_TIME, "The answer speaks for what is from here on; null if it was refused"),
    ("ended", TEXT, "Why there is nothing older: reached, end, limit, empty, or a refusal"),
    ("detail", TEXT, "What the feed said when it refused"),
    ("fetched_at", UTC_TIME, "When it was answered"),
)

GAPS: tuple[Column, ...] = (
    ("gap_id", TEXT, "Kept when a gap is split at midnight"),
    _EXCHANGE,
    _SYMBOL,
    ("start", UTC_TIME, "From"),
    ("end", UTC_TIME, "To, exclusive"),
    ("cause", TEXT, "Why nothing was seen (causes.Cause)"),
    ("evidence", TEXT, "What shows it"),
    ("missed_volume", REAL, "The counter's delta over the gap, base currency"),
    ("counter_before", REAL, "The counter before the gap"),
    ("counter_after", REAL, "The counter after the gap"),
)

INDICATORS: tuple[Column, ...] = (
    _EXCHANGE,
    _SYMBOL,
    ("open_time", UTC_TIME, "Open time of the bar"),
    ("name", TEXT, "The indicator: rsi, macd (indicators.STUDIES)"),
    ("parameters", TEXT, "Its inputs in their order: length=14; fast=12,slow=26,signal=9"),
    ("plot", TEXT, "Which of its lines: of rsi rsi; of macd macd, signal or histogram"),
    ("value", REAL, "The value"),
    ("source", TEXT, "computed or tradingview"),
    ("flags", INT, "What to know before trusting it, as bits (quality.Flag)"),
)

RECONCILIATION: tuple[Column, ...] = (
    _EXCHANGE,
    _SYMBOL,
    ("start", UTC_TIME, "Of the day, or of the gap"),
    ("end", UTC_TIME, "Of the day, or of the gap; exclusive"),
    ("scope", TEXT, "day or gap"),
    ("gap_id", TEXT, "The gap, where the scope is one"),
    (
        "status",
        TEXT,
        "A day: agrees, differs, unchecked; a gap: filled, open, … (repair.Status)",
    ),
    ("seconds_observed", REAL, "Seconds the symbol was seen"),
    ("seconds_filled", REAL, "Seconds filled from history"),
    ("seconds_lost", REAL, "Seconds neither seen nor filled"),
    ("minutes_compared", INT, "Minutes with a streamed and an official bar"),
    ("close_mismatches", INT, "Of these, closes that differ"),
    ("max_high_deviation", REAL, "Largest difference of highs, price units"),
    ("max_low_deviation", REAL, "Largest difference of lows, price units"),
    ("missed_volume", REAL, "Volume the gaps missed, base currency"),
    ("filled_volume", REAL, "Of it, filled from history"),
    ("volume_residual", REAL, "Streamed and filled volume minus official volume"),
    ("worst", TEXT, "The worst minutes, or the volumes of a gap that differ, in words"),
    ("reason", TEXT, "Why a gap, or its rest, cannot be filled (repair.Reason)"),
    ("minutes_unseen", INT, "Covered minutes with an official bar and no streamed one"),
)

SYMBOLS: tuple[Column, ...] = (
    _EXCHANGE,
    _SYMBOL,
    ("description", TEXT, "Its name in words"),
    ("currency", TEXT, "The quote currency"),
    ("type", TEXT, "spot, swap, futures, …"),
    ("pricescale", LONG, "Prices are multiples of minmov / pricescale"),
    ("minmov", LONG, "The smallest step, in units of 1 / pricescale"),
    ("update_mode", TEXT, "streaming, delayed_streaming_900, …"),
    ("counter_kind", TEXT, "session, rolling, rolling_minute or unknown: volume.CounterKind"),
    ("counter_evidence", TEXT, "What shows it"),
    ("valid_from", UTC_TIME, "From when this row holds"),
    ("valid_to", UTC_TIME, "Until when; null is now"),
    ("volume_basis", TEXT, "What its bars' volume is: counter_delta, rolled_comp or unknown"),
)
