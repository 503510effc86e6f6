"""Chart sessions over a real websocket: history, live bars, limits, studies, refusals."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise

import polars as pl
import pytest

from lakehouse_pipeline.feedserver import FeedServer, generated_market

BTC, ETH = "BINANCE:BTCUSDT", "BINANCE:ETHUSDT"
MARKET = generated_market([BTC, ETH])
MINUTE = timedelta(minutes=1)


async def ask(client, count, *rest, resolution="1", series="sds_1", symbol=BTC):
    await client.say("chart_create_session", "cs_1", "")
    await client.say("resolve_symbol", "cs_1", "sds_sym_1", f'={{"symbol": "{symbol}"}}')
    await client.say("create_series", "cs_1", series, "s1", "sds_sym_1", resolution, count, *rest)


def bars_of(update, series="sds_1"):
    return [bar["v"] for bar in update[1][series]["s"]]


def rows(frame):
    times = frame["open_time"].dt.epoch("s").cast(pl.Float64)
    return [list(row) for row in frame.with_columns(open_time=times).rows()]


def test_history_comes_in_one_message_in_the_order_clients_need(talk, noon):
    async def scenario():
        start = noon + timedelta(seconds=30)
        async with FeedServer(MARKET, start=start) as server, talk(server.url) as client:
            await ask(client, 300, "")
            completed = await client.until("series_completed")
            update = next(p for p in client.seen if p.get("m") == "timescale_update")
            raw = next(text for text in client.raw if "timescale_update" in text)
        return client.methods(), update, completed, raw

    methods, update, completed, raw = asyncio.run(scenario())

    assert methods == [
        "symbol_resolved",
        "series_loading",
        "timescale_update",
        "series_timeframe",
        "series_completed",
    ]
    assert {"t", "t_ms"} <= set(update)
    assert completed == ["cs_1", "sds_1", "streaming", "s1", {"rt_update_period": 0}]
    series = update["p"][1]["sds_1"]
    assert [bar["i"] for bar in series["s"]] == list(range(300))
    assert series["t"] == "s1"
    assert series["ns"] == {"d": "", "indexes": []}
    assert raw.index('"s":[{"i":0,"v":[') < raw.index('"ns"')
    complete = MARKET.bars(BTC, MINUTE, noon - 299 * MINUTE, noon)
    assert bars_of(update["p"])[:299] == rows(complete)


def test_the_forming_bar_is_updated_and_a_new_one_begins(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon, speed=60) as server, talk(server.url) as client:
            await ask(client, 10)
            await client.until("series_completed")
            live = await client.until("du")
            new = await client.until("timescale_update")
            await client.until("timescale_update")
        return client.seen, live, new

    seen, live, new = asyncio.run(scenario())

    series = live[1]["sds_1"]
    assert series["ns"]["indexes"] == "nochange"
    assert series["t"] == "s1"
    assert series["lbs"]["bar_close_time"] == series["s"][0]["v"][0] + 60
    assert new[1]["sds_1"]["s"][0]["v"][0] == series["s"][0]["v"][0] + 60
    closed = [
        packet["p"][1]["sds_1"]["s"][0]["v"]
        for packet in seen
        if isinstance(packet, dict) and packet.get("m") in ("du", "timescale_update")
    ]
    opened = new[1]["sds_1"]["s"][0]["v"][0]
    final = [values for values in closed if values[0] == opened][-1]
    truth = MARKET.bars(
        BTC,
        MINUTE,
        noon.fromtimestamp(opened, noon.tzinfo),
        noon.fromtimestamp(opened + 60, noon.tzinfo),
    )
    assert final == rows(truth)[0]


def test_a_client_pages_back_until_the_limit_of_its_plan(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon) as server, talk(server.url) as client:
            await ask(client, 4_990)
            first = await client.until("timescale_update")
            await client.until("series_completed")
            await client.say("request_more_data", "cs_1", "sds_1", 5)
            older = await client.until("timescale_update")
            done = await client.until("series_completed")
            await client.say("request_more_data", "cs_1", 50_000)
            rest = await client.until("timescale_update")
            limit = await client.until("series_completed")
            await client.say("request_more_data", "cs_1", "sds_1", 100)
            nothing = await client.until("series_completed")
        return first, older, done, rest, limit, nothing, client.methods().count("timescale_update")

    first, older, done, rest, limit, nothing, updates = asyncio.run(scenario())

    assert len(bars_of(older)) == 5
    assert bars_of(older)[-1][0] == bars_of(first)[0][0] - 60
    assert "data_completed" not in done[4]
    assert limit[4]["data_completed"] == "limit"
    assert 5_000 <= 4_995 + len(bars_of(rest)) < 5_500
    assert nothing[4]["data_completed"] == "limit"
    assert updates == 3


def test_the_end_of_history_is_told(talk, noon):
    thin = generated_market([BTC], pace=0.02)

    async def scenario():
        async with FeedServer(thin, start=noon) as server, talk(server.url) as client:
            await ask(client, 5_000, resolution="1W")
            update = await client.until("timescale_update")
            completed = await client.until("series_completed")
        return update, completed

    update, completed = asyncio.run(scenario())

    assert completed[4]["data_completed"] == "end"
    times = [bar[0] for bar in bars_of(update)]
    assert {(b - a) for a, b in pairwise(times)} == {7 * 86_400.0}
    assert all(time % (7 * 86_400) == 4 * 86_400 for time in times), "weeks begin on Monday"


def test_ranges_and_counts_up_to_a_time_give_just_those_bars(talk, noon):
    end = int(noon.timestamp()) - 3_600

    async def scenario():
        async with FeedServer(MARKET, start=noon) as server, talk(server.url) as client:
            await ask(client, 0, f"r,{end - 300}:{end}")
            ranged = await client.until("timescale_update")
            await client.say(
                "modify_series", "cs_1", "sds_1", "s2", "sds_sym_1", "1", "", f"r,{end}:{end + 60}"
            )
            modified = await client.until("timescale_update")
            await client.say("remove_series", "cs_1", "sds_1")
            await client.say(
                "create_series", "cs_1", "p", "s3", "sds_sym_1", "1", ["bar_count", end, 4]
            )
            counted = await client.until("timescale_update")
        return ranged, modified, counted

    ranged, modified, counted = asyncio.run(scenario())

    assert [bar[0] - end for bar in bars_of(ranged)] == [-300, -240, -180, -120, -60, 0]
    assert [bar[0] - end for bar in bars_of(modified)] == [0, 60]
    assert modified[1]["sds_1"]["t"] == "s2"
    assert [bar[0] - end for bar in bars_of(counted, "p")] == [-180, -120, -60, 0]


def test_an_anonymous_chart_has_one_series_and_deleting_frees_it(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon) as server, talk(server.url) as client:
            await ask(client, 10)
            await client.say("create_series", "cs_1", "sds_2", "s2", "sds_sym_1", "5", 10)
            refused = await client.until("critical_error")
            await client.say("remove_series", "cs_1", "sds_1")
            await client.say("create_series", "cs_1", "sds_2", "s2", "sds_sym_1", "5", 10)
            await client.until("series_completed", p=lambda p: p[1] == "sds_2")
        return refused

    assert asyncio.run(scenario())[1] == "exceed limit of series in the session"


@pytest.mark.parametrize(
    ("resolution", "reason"),
    [("1S", "seconds_not_entitled"), ("2", "custom_resolution"), ("720", "custom_resolution")],
)
def test_a_resolution_beyond_the_plan_is_a_series_error(talk, noon, resolution, reason):
    async def scenario(token):
        async with FeedServer(MARKET, start=noon) as server, talk(server.url) as client:
            await client.say("set_auth_token", token)
            await ask(client, 10, resolution=resolution)
            if token == "unauthorized_user_token":
                return await client.until("series_error")
            return await client.until("series_completed")

    assert asyncio.run(scenario("unauthorized_user_token"))[1:4] == ["sds_1", "s1", reason]
    assert asyncio.run(scenario("a premium token"))[1] == "sds_1"


def test_an_unknown_symbol_is_an_error_of_symbol_and_series(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon) as server, talk(server.url) as client:
            await ask(client, 10, symbol="NO:SUCH")
            symbol = await client.until("symbol_error")
            series = await client.until("series_error")
        return symbol, series

    symbol, series = asyncio.run(scenario())
    assert symbol == ["cs_1", "sds_sym_1", "invalid symbol"]
    assert series[:4] == ["cs_1", "sds_1", "s1", "resolve error"]


def test_senseless_parameters_are_a_critical_error_with_their_words(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon) as server, talk(server.url) as client:
            await ask(client, 100, resolution="XX", series="$prices")
            return await client.until("critical_error")

    assert asyncio.run(scenario()) == [
        "cs_1",
        "invalid parameters",
        'method: create_series. args: "[$prices, s1, sds_sym_1, XX, 100]"',
    ]


RSI = {"text": "x", "pineId": "STD;RSI", "in_0": {"v": 14, "f": True, "t": "integer"}}


def test_a_study_comes_as_du_and_follows_the_series(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon, speed=60) as server, talk(server.url) as client:
            await ask(client, 100)
            await client.say(
                "create_study", "cs_1", "st1", "st1", "sds_1", "Script@tv-scripting-101!", RSI
            )
            await client.until("study_loading")
            history = await client.until("du", p=lambda p: "st1" in p[1])
            completed = await client.until("study_completed")
            live = await client.until("du", p=lambda p: "st1" in p[1])
        return history, completed, live

    history, completed, live = asyncio.run(scenario())

    study = history[1]["st1"]
    assert study["t"] == completed[2] == "s1_st1"
    assert study["ns"] == {"d": "", "indexes": "nochange"}
    assert [row["i"] for row in study["st"]] == list(range(100))
    assert all(0 <= row["v"][1] <= 100 for row in study["st"])
    assert len(live[1]["st1"]["st"]) <= 2


def test_built_in_volume_needs_no_plan_and_pine_does(talk, noon):
    async def scenario():
        async with (
            FeedServer(MARKET, start=noon, tokens=["t"]) as server,
            talk(server.url) as client,
        ):
            await ask(client, 30)
            await client.say(
                "create_study",
                "cs_1",
                "v",
                "v1",
                "sds_1",
                "Volume@tv-basicstudies-246",
                {"length": 20},
            )
            volume = await client.until("du", p=lambda p: "v" in p[1])
            await client.say(
                "create_study", "cs_1", "r", "r1", "sds_1", "Script@tv-scripting-101!", RSI
            )
            refused = await client.until("study_error")
        return volume, refused

    volume, refused = asyncio.run(scenario())
    assert len(volume[1]["v"]["st"]) == 30
    assert refused[1:4] == [
        "r",
        "r1",
        "The maximum number of studies per chart has been reached for current subscription",
    ]


def test_a_study_nobody_computes_is_a_study_error(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon) as server, talk(server.url) as client:
            await ask(client, 30)
            await client.say(
                "create_study", "cs_1", "z", "z1", "sds_1", "Zebra@tv-basicstudies-1", {}
            )
            return await client.until("study_error")

    assert asyncio.run(scenario())[3] == "unknown study: Zebra@tv-basicstudies-1"
