"""The frame schema of every table: column names, types and order, in polars' terms.

``lake.tables`` gives the same columns their Iceberg field IDs, docs and partition specs; a test
keeps the two alike. Change both together, additively.
"""

from __future__ import annotations

import polars as pl

UTC_TIME = pl.Datetime("us", "UTC")

QUOTES = pl.Schema(
    {
        "exchange": pl.String(),
        "symbol": pl.String(),  # the full name, "BINANCE:BTCUSDT"
        "event_time": UTC_TIME,
        "received_at": UTC_TIME,
        "kind": pl.String(),  # quotes.Kind
        "changed": pl.String(),  # columns this update carried, comma separated, in schema order
        "last_price": pl.Float64(),
        "last_time": UTC_TIME,  # whole seconds
        "cumulative_volume": pl.Float64(),  # the feed's counter, base currency
        "change": pl.Float64(),
        "change_percent": pl.Float64(),
        "bid": pl.Float64(),
        "ask": pl.Float64(),
        "bid_size": pl.Float64(),
        "ask_size": pl.Float64(),
        "day_open": pl.Float64(),
        "day_high": pl.Float64(),
        "day_low": pl.Float64(),
        "prev_day_close": pl.Float64(),
        "day_open_time": UTC_TIME,
        "update_mode": pl.String(),
        "session_id": pl.String(),
        "writer_id": pl.String(),
        "sequence": pl.Int64(),
    }
)

COVERAGE = pl.Schema(
    {
        "exchange": pl.String(),
        "session_id": pl.String(),
        "kind": pl.String(),  # coverage.Mark
        "symbol": pl.String(),  # null: the whole session
        "start": UTC_TIME,  # received time
        "end": UTC_TIME,  # received time; equals start for a point
        "reason": pl.String(),
        "detail": pl.String(),
        "writer_id": pl.String(),
        "sequence": pl.Int64(),
    }
)

REJECTS = pl.Schema(
    {
        "exchange": pl.String(),
        "session_id": pl.String(),
        "received_at": UTC_TIME,
        "symbol": pl.String(),
        "reason": pl.String(),
        "payload": pl.String(),
        "writer_id": pl.String(),
        "sequence": pl.Int64(),
    }
)

RAW_INDICATORS = pl.Schema(
    {
        "exchange": pl.String(),
        "symbol": pl.String(),
        "event_time": UTC_TIME,
        "received_at": UTC_TIME,
        "name": pl.String(),
        "parameters": pl.String(),
        "plot": pl.String(),
        "value": pl.Float64(),
        "session_id": pl.String(),
        "writer_id": pl.String(),
        "sequence": pl.Int64(),
    }
)

BARS = pl.Schema(
    {
        "exchange": pl.String(),
        "symbol": pl.String(),
        "open_time": UTC_TIME,
        "open": pl.Float64(),
        "high": pl.Float64(),
        "low": pl.Float64(),
        "close": pl.Float64(),
        "prev_close": pl.Float64(),
        "volume": pl.Float64(),
        "volume_basis": pl.String(),  # volume.Basis
        "counter_start": pl.Float64(),
        "counter_end": pl.Float64(),
        "price_updates": pl.Int32(),
        "volume_updates": pl.Int32(),
        "time_updates": pl.Int32(),
        "quote_updates": pl.Int32(),
        "late_updates": pl.Int32(),
        "bid": pl.Float64(),
        "ask": pl.Float64(),
        "spread": pl.Float64(),  # time-weighted mean of ask - bid over the interval
        "observed_seconds": pl.Int32(),  # seconds of the interval with a price observation
        "covered_seconds": pl.Float64(),  # seconds of the interval in which the symbol was seen
        "state": pl.String(),  # bars.State
        "source": pl.String(),  # bars.Source
        "flags": pl.Int32(),  # quality.Flag bits
    }
)

MINUTE_BARS = pl.Schema(
    {
        **BARS,
        # What was streamed minus what is official; null where either is missing.
        "price_deviation": pl.Float64(),  # the largest of open, high, low and close, absolute
        "volume_deviation": pl.Float64(),
    }
)

HISTORY = pl.Schema(
    {
        "exchange": pl.String(),
        "symbol": pl.String(),
        "open_time": UTC_TIME,
        "open": pl.Float64(),
        "high": pl.Float64(),
        "low": pl.Float64(),
        "close": pl.Float64(),
        "volume": pl.Float64(),  # null where the feed gives none
        "fetched_at": UTC_TIME,  # when it was first seen with these values
    }
)

FETCHES = pl.Schema(
    {
        "exchange": pl.String(),
        "symbol": pl.String(),
        "start": UTC_TIME,  # of what was asked for, whole minutes
        "end": UTC_TIME,
        "reached": UTC_TIME,  # the answer speaks for [reached, end); null if it was refused
        "ended": pl.String(),  # repair.Ended
        "detail": pl.String(),  # what the feed said when it refused
        "fetched_at": UTC_TIME,
    }
)

GAPS = pl.Schema(
    {
        "gap_id": pl.String(),
        "exchange": pl.String(),
        "symbol": pl.String(),
        "start": UTC_TIME,
        "end": UTC_TIME,
        "cause": pl.String(),  # gaps.Cause
        "evidence": pl.String(),
        "missed_volume": pl.Float64(),
        "counter_before": pl.Float64(),
        "counter_after": pl.Float64(),
    }
)

INDICATORS = pl.Schema(
    {
        "exchange": pl.String(),
        "symbol": pl.String(),
        "open_time": UTC_TIME,
        "name": pl.String(),
        "parameters": pl.String(),
        "plot": pl.String(),
        "value": pl.Float64(),
        "source": pl.String(),
        "flags": pl.Int32(),
    }
)

RECONCILIATION = pl.Schema(
    {
        "exchange": pl.String(),
        "symbol": pl.String(),
        "start": UTC_TIME,  # of the day, or of the gap
        "end": UTC_TIME,
        "scope": pl.String(),  # "day" or "gap"
        "gap_id": pl.String(),
        "status": pl.String(),  # reconcile.Agreement of a day, repair.Status of a gap
        "seconds_observed": pl.Float64(),
        "seconds_filled": pl.Float64(),
        "seconds_lost": pl.Float64(),
        "minutes_compared": pl.Int32(),
        "close_mismatches": pl.Int32(),
        "max_high_deviation": pl.Float64(),
        "max_low_deviation": pl.Float64(),
        "missed_volume": pl.Float64(),
        "filled_volume": pl.Float64(),
        "volume_residual": pl.Float64(),
        "worst": pl.String(),
        "reason": pl.String(),  # repair.Reason why a gap cannot be filled
        "minutes_unseen": pl.Int32(),
    }
)

SYMBOLS = pl.Schema(
    {
        "exchange": pl.String(),
        "symbol": pl.String(),
        "description": pl.String(),
        "currency": pl.String(),
        "type": pl.String(),
        "pricescale": pl.Int64(),
        "minmov": pl.Int64(),
        "update_mode": pl.String(),
        "counter_kind": pl.String(),
        "counter_evidence": pl.String(),
        "valid_from": UTC_TIME,
        "valid_to": UTC_TIME,
    }
)
