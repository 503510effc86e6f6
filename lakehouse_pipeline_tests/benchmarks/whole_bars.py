"""The whole one-second bar, as each peer of the kernel makes it from quotes in sealed order.

All columns that come from the quotes (BAR): prices with the one before, the volume as differences
of the counter and its two ends, updates by kind and late ones, newest bid and ask, and the spread
weighted by the time it held in the second. What no peer is asked for is what none could take from
the quotes alone: coverage, basis, state, source and flags. Peers take on trust what ours looks up:
order, repeats, overlapping lines, resets, holes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

BAR = [
    *("symbol", "open_time", "open", "high", "low", "close", "prev_close", "volume"),
    *("counter_start", "counter_end", "price_updates", "volume_updates", "time_updates"),
    *("quote_updates", "late_updates", "bid", "ask", "spread"),
]
USED = [
    *("symbol", "kind", "sequence", "event_time", "received_at", "last_price"),
    *("cumulative_volume", "bid", "ask"),
]
LATE_US = 6_000_000  # after the second's begin: its length and the lateness
SECOND_US = 1_000_000

Arrays = Mapping[str, Any]  # numpy arrays of several types

SQL = """
WITH trades AS (
  SELECT symbol, kind, sequence, event_time, received_at, last_price AS price,
    cumulative_volume AS counter,
    {lag}(last_price) OVER happened AS price_before,
    {lag}(cumulative_volume) OVER happened AS counter_before
  FROM {source} WHERE kind <> 'quote'
  WINDOW happened AS (PARTITION BY symbol ORDER BY event_time, received_at, sequence {frame})
), prices AS (
  SELECT symbol, {second}(event_time) AS open_time,
    {first}(price, sequence) AS open, max(price) AS high, min(price) AS low,
    {last}(price, sequence) AS close, {first}(price_before, sequence) AS prev_close,
    sum(counter - counter_before) AS volume,
    {first}(counter_before, sequence) AS counter_start, {last}(counter, sequence) AS counter_end,
    {count}(kind = 'price') AS price_updates, {count}(kind = 'volume') AS volume_updates,
    {count}(kind = 'time') AS time_updates,
    {count}({us}(received_at) - {us}({second}(event_time)) > 6000000) AS late_updates
  FROM trades WHERE kind <> 'restore' GROUP BY symbol, open_time
), books AS (
  SELECT symbol, {second}(event_time) AS open_time, {count}(kind = 'quote') AS quote_updates,
    {last}(bid, sequence) AS bid, {last}(ask, sequence) AS ask
  FROM {source} GROUP BY symbol, open_time
), states AS (
  SELECT symbol, sequence, {us}(received_at) AS seen, intDiv({us}(received_at), 1000000) AS second,
    ask - bid AS spread, {lag}({null}(ask - bid)) OVER received AS before,
    {lead}({null}({us}(received_at))) OVER received AS following
  FROM {source}
  WINDOW received AS (PARTITION BY symbol ORDER BY received_at, sequence {frame})
), moving AS (
  SELECT symbol, second,
    sum(spread * (
      least(coalesce(following, (second + 1) * 1000000), (second + 1) * 1000000) - seen
    )) AS held,
    {first}(before, sequence) AS before, min(seen) - second * 1000000 AS ahead,
    {last}(spread, sequence) AS last_spread
  FROM states GROUP BY symbol, second
)
SELECT {columns}
FROM (
  SELECT *, intDiv({us}(open_time), 1000000) AS asked
  FROM prices JOIN books USING (symbol, open_time)
) AS b
ASOF LEFT JOIN moving AS m ON b.symbol = m.symbol AND b.asked >= m.second
ORDER BY symbol, open_time
"""
SPREAD = """CASE WHEN m.second < b.asked THEN m.last_spread
  WHEN m.before IS NULL THEN m.held / (1000000 - m.ahead)
  ELSE (m.before * m.ahead + m.held) / 1000000 END AS spread"""
COLUMNS = ", ".join(SPREAD if name == "spread" else f"b.{name} AS {name}" for name in BAR)


def by_duckdb(quotes: pl.DataFrame) -> pl.DataFrame:
    sql = SQL.replace("intDiv(", "divide(").format(
        first="arg_min",
        last="arg_max",
        count="count_if",
        second="trunc_second",
        us="epoch_us",
        lag="lag",
        lead="lead",
        null="",
        frame="",
        source="quotes",
        columns=COLUMNS,
    )
    sql = sql.replace("trunc_second(", "date_trunc('second', ")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        # Left to itself it joins by nested loops, for minutes.
        connection.execute("SET asof_loop_join_threshold = 0")
        connection.register("quotes", quotes.select(USED).to_arrow())
        return connection.execute(sql).pl()


def by_chdb(path: Path) -> pl.DataFrame:
    import chdb  # its import starts threads

    sql = SQL.format(
        first="argMin",
        last="argMax",
        count="countIf",
        second="toStartOfSecond",
        us="toUnixTimestamp64Micro",
        lag="lagInFrame",
        lead="leadInFrame",
        null="toNullable",
        frame="ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
        source=f"file('{path}', Parquet)",
        columns=COLUMNS,
    )
    return pl.DataFrame(pl.from_arrow(chdb.query(sql, "ArrowTable")))


def by_polars(quotes: pl.DataFrame) -> pl.DataFrame:
    kind, counter, price = pl.col("kind"), pl.col("cumulative_volume"), pl.col("last_price")
    second = pl.col("event_time").dt.truncate("1s")
    late = pl.col("received_at") - second > pl.duration(microseconds=LATE_US)
    rows = quotes.lazy()
    prices = (
        rows.filter(kind != "quote")
        .with_columns(
            price_before=price.shift().over("symbol"), counter_before=counter.shift().over("symbol")
        )
        .filter(kind != "restore")
        .group_by("symbol", second.alias("open_time"), maintain_order=True)
        .agg(
            open=price.first(),
            high=price.max(),
            low=price.min(),
            close=price.last(),
            prev_close=pl.col("price_before").first(),
            volume=(counter - pl.col("counter_before")).sum(),
            counter_start=pl.col("counter_before").first(),
            counter_end=counter.last(),
            price_updates=(kind == "price").sum(),
            volume_updates=(kind == "volume").sum(),
            time_updates=(kind == "time").sum(),
            late_updates=late.sum(),
        )
    )
    books = rows.group_by("symbol", second.alias("open_time")).agg(
        pl.col("bid", "ask").get(pl.col("sequence").arg_max()),
        quote_updates=(kind == "quote").sum(),
    )
    received, spread = pl.col("received_at"), pl.col("spread")
    began = received.dt.truncate("1s")
    ends = began + pl.duration(seconds=1)
    held = pl.min_horizontal(pl.col("following").fill_null(ends), ends) - received
    ahead = (received.first() - began.first()).dt.total_microseconds()
    moving = (
        rows.select("symbol", "received_at", "sequence", spread=pl.col("ask") - pl.col("bid"))
        .sort("symbol", "received_at", "sequence")
        .with_columns(
            before=spread.shift().over("symbol"), following=received.shift(-1).over("symbol")
        )
        .group_by("symbol", began.alias("second"), maintain_order=True)
        .agg(
            last_spread=spread.last(),
            moving=(
                pl.col("before").first().fill_null(0) * ahead
                + (spread * held.dt.total_microseconds()).sum()
            )
            / (
                pl.when(pl.col("before").first().is_null())
                .then(SECOND_US - ahead)
                .otherwise(SECOND_US)
            ),
        )
    )
    moves = pl.col("second") == pl.col("open_time")
    return (
        prices.join(books, on=["symbol", "open_time"])
        .sort("symbol", "open_time")
        .join_asof(
            moving,
            left_on="open_time",
            right_on="second",
            by="symbol",
            coalesce=False,
            check_sortedness=False,
        )
        .with_columns(spread=pl.when(moves).then("moving").otherwise("last_spread"))
        .select(BAR)
        .collect()
    )


def as_arrays(quotes: pl.DataFrame) -> Arrays:
    """Return the sorted columns that numpy is handed; kinds it does not count are 0."""
    kind = np.zeros(quotes.height, dtype=np.int8)
    for code, name in enumerate(("price", "volume", "time", "quote"), start=1):
        kind += (quotes["kind"] == name).to_numpy() * np.int8(code)
    numbers = ("last_price", "cumulative_volume", "bid", "ask")
    return {
        "symbol": quotes["symbol"].rle_id().to_numpy().astype(np.int64),
        "happened": quotes["event_time"].to_physical().to_numpy(),
        "received": quotes["received_at"].to_physical().to_numpy(),
        "kind": kind,
        **{name: quotes[name].to_numpy() for name in numbers},
    }


def by_numpy(columns: Arrays) -> Arrays:
    """Return the bars but for their symbols; nothing but runs, ``reduceat`` and look-ups."""
    touching = np.flatnonzero(columns["kind"] != 4)
    counter, price = columns["cumulative_volume"][touching], columns["last_price"][touching]
    trades = np.flatnonzero(columns["kind"][touching])
    at = touching[trades]
    kind = columns["kind"][at]
    second = columns["happened"] // SECOND_US
    edge = (columns["symbol"][1:] != columns["symbol"][:-1]) | (second[1:] != second[:-1])
    runs = np.flatnonzero(np.append(True, edge))  # of all rows
    starts = np.flatnonzero(
        np.append(
            True,
            (columns["symbol"][at[1:]] != columns["symbol"][at[:-1]])
            | (second[at[1:]] != second[at[:-1]]),
        )
    )
    ends = np.append(starts[1:], trades.size) - 1
    first, last = trades[starts], trades[ends]
    run = np.searchsorted(runs, at[starts], side="right") - 1
    book = np.append(runs[1:], second.size)[run] - 1
    traded = at[ends]
    newest = np.where(columns["received"][traded] > columns["received"][book], traded, book)
    quotes = np.cumsum(columns["kind"] == 4)
    prices = price[trades]
    delta = np.diff(counter, prepend=0.0)[trades]
    open_time = second[at[starts]]
    late = columns["received"][at] - second[at] * SECOND_US > LATE_US
    return {
        "open": prices[starts],
        "high": np.maximum.reduceat(prices, starts),
        "low": np.minimum.reduceat(prices, starts),
        "close": prices[ends],
        "prev_close": price[first - 1],
        "volume": np.add.reduceat(delta, starts),
        "counter_start": counter[first - 1],
        "counter_end": counter[last],
        "price_updates": np.add.reduceat(kind == 1, starts, dtype=np.int32),
        "volume_updates": np.add.reduceat(kind == 2, starts, dtype=np.int32),
        "time_updates": np.add.reduceat(kind == 3, starts, dtype=np.int32),
        "quote_updates": quotes[book] - quotes[runs[run]] + (columns["kind"][runs[run]] == 4),
        "late_updates": np.add.reduceat(late, starts, dtype=np.int32),
        "bid": columns["bid"][newest],
        "ask": columns["ask"][newest],
        "spread": _spread(columns, columns["symbol"][at[starts]], open_time),
    }


def _spread(columns: Arrays, of: Any, asked: Any) -> Any:  # arrays
    span = 1 << 36  # seconds; received times fit beside the symbol
    order = np.argsort(columns["symbol"] * (1 << 56) + columns["received"], kind="stable")
    symbol, received = columns["symbol"], columns["received"][order]
    spread = (columns["ask"] - columns["bid"])[order]
    second = received // SECOND_US
    begun = np.flatnonzero(
        np.append(True, (symbol[1:] != symbol[:-1]) | (second[1:] != second[:-1]))
    )
    last = np.append(begun[1:], spread.size) - 1
    held = np.append(received[1:], 0) - received
    held[last] = (second[last] + 1) * SECOND_US - received[last]
    lead = received[begun] - second[begun] * SECOND_US
    before = np.append(0.0, spread[last[:-1]])
    whole = np.full(begun.size, SECOND_US)
    fresh = np.append(True, symbol[begun[1:]] != symbol[begun[:-1]])
    before[fresh], whole[fresh] = 0.0, SECOND_US - lead[fresh]
    moving = (before * lead + np.add.reduceat(spread * held, begun)) / whole
    there, wanted = symbol[begun] * span + second[begun], of * span + asked
    found = np.searchsorted(there, wanted, side="right") - 1
    return np.where(there[found] == wanted, moving[found], spread[last[found]])
