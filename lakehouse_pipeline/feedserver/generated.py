"""A market made of seeded noise: any instant can be asked, days of history cost little.

The price of an instant is a sum of smooth noises, so two neighboring hours fit together without
being generated in order; trades of an hour come from a generator seeded with that hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from .instruments import BASES, Instrument, check_name, split_pair
from .noise import Floats, key_of, smooth
from .tape import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Book, Ints, Tape
from .ticker import INTERVAL, Hour, TapeMarket

EXCHANGES = ("BINANCE", "OKX", "BYBIT")
DEFAULT_SYMBOLS = tuple(f"{exchange}:{base}USDT" for exchange in EXCHANGES for base in BASES)

# How far the logarithm of the price swings, and in what time.
_SWINGS = (
    (0.08, 20 * DAY_US),
    (0.03, 2 * DAY_US),
    (0.012, 6 * HOUR_US),
    (0.005, HOUR_US),
    (0.0018, 9 * MINUTE_US),
    (0.0006, MINUTE_US),
    (0.00025, 11 * SECOND_US),
    (0.0001, 2 * SECOND_US),
)
REST_US = 2_300_000
_FIRST_HOUR = 17_167 * 24  # 2017-01-01: nothing was traded before


def generated_market(
    symbols: Sequence[str] = DEFAULT_SYMBOLS,
    *,
    seed: int = 0,
    interval: timedelta = INTERVAL,
    late_volume: float = 0.25,
    pace: float = 1.0,
) -> TapeMarket:
    """Return a market of *symbols*; the same *seed* gives the same trades at the same times.

    The feed sends at most one trade packet in *interval* for a symbol; in a share *late_volume*
    of them the volume follows with the next packet of the same minute, as it does in captures.
    *pace* multiplies the number of trades.
    """
    makers = {name: _Maker(check_name(name), seed=seed, pace=pace) for name in symbols}
    return TapeMarket(
        {name: maker.instrument for name, maker in makers.items()},
        lambda symbol, hour: makers[symbol].hour(hour),
        span=lambda _: range(_FIRST_HOUR, 1 << 31),
        interval=interval,
        late_volume=late_volume,
    )


class _Maker:
    """Makes the hours of one symbol."""

    def __init__(self, name: str, *, seed: int, pace: float) -> None:
        exchange, _, ticker = name.partition(":")
        base, currency = split_pair(ticker)
        # The coin moves alike on all exchanges; each exchange adds its own little noise.
        self._coin = key_of(seed, base, currency)
        self._own = key_of(seed, name)
        _, level, price_digits, size_digits, rate = BASES.get(base, _invented(self._coin))
        self.instrument = Instrument(name, 10**price_digits, 10**size_digits)
        self._level = level * self.instrument.price_scale
        self._rate = rate * pace * (1.0 if exchange == "BINANCE" else 0.6)
        self._lots = self.instrument.size_scale * 2_000 / level  # a trade of some 2,000 dollars

    def hour(self, hour: int) -> Hour:
        start = hour * HOUR_US
        random = np.random.default_rng([self._own, hour])
        bids = self._bids(start)
        return Hour(self._trades(start, bids, random), self._book(start, bids, random))

    def _trades(self, start: int, bids: Ints, random: np.random.Generator) -> Tape:
        minutes = start + MINUTE_US * np.arange(60, dtype=np.int64)
        mood = 1.0 + 0.8 * smooth(self._own, minutes, 7 * MINUTE_US)
        counts = random.poisson(self._rate * 60 * mood)
        count = int(counts.sum())
        offsets: Ints = random.integers(0, MINUTE_US, count)
        time = np.sort(np.repeat(minutes, counts) + offsets)
        buy: NDArray[np.bool_] = random.random(count) < 0.5
        ticks = np.maximum(1, _at(bids, start, time) + buy + self._sweeps(buy, random))
        lots = np.maximum(1, random.lognormal(-1.0, 1.4, count) * self._lots).astype(np.int64)
        return Tape(time, ticks, lots, buy)

    def _book(self, start: int, bids: Ints, random: np.random.Generator) -> Book:
        """Return the best quotes about once in two seconds: bid and ask are a tick apart."""
        count = int(random.poisson(1_800 * min(1.0, self._rate)))
        time: Ints = np.sort(start + random.integers(0, HOUR_US, count))
        bid = _at(bids, start, time)
        sizes = np.maximum(1, random.lognormal(0.5, 1.0, (2, count)) * self._lots).astype(np.int64)
        return Book(time, bid, sizes[0], bid + 1, sizes[1])

    def _sweeps(self, buy: NDArray[np.bool_], random: np.random.Generator) -> Ints:
        """Return how many ticks each trade went through the book: few do, both ways."""
        depth: Ints = random.geometric(0.15, len(buy))
        sweeps: Ints = np.where(random.random(len(buy)) < 0.03, depth * (2 * buy - 1), 0)
        return sweeps

    def _bids(self, start: int) -> Ints:
        """Return the best bid in ticks through an hour; it rests for a while before it moves."""
        first = start // REST_US
        time = REST_US * np.arange(first, (start + HOUR_US) // REST_US + 1, dtype=np.int64)
        swing: Floats = 0.00005 * smooth(self._own, time, 5 * SECOND_US)
        for depth, (size, period) in enumerate(_SWINGS):
            swing = swing + size * smooth(self._coin + depth, time, period)
        bids: Ints = np.maximum(20, np.floor(self._level * np.exp(swing))).astype(np.int64)
        return bids


def _at(bids: Ints, start: int, time: Ints) -> Ints:
    """Return the bid of the hour that began at *start*, at each *time*."""
    found: Ints = bids[time // REST_US - start // REST_US]
    return found


def _invented(key: int) -> tuple[str, float, int, int, float]:
    """Return a level and habits for a coin nobody knows."""
    level = 10.0 ** (key % 5 - 1)
    return "", level * (1 + key % 97 / 10), 5 if level < 1 else 3, 2, 0.2 + key % 13 / 10
