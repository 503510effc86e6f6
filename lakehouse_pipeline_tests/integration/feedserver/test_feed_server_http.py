"""The HTTP answers on the websocket's port."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request

from lakehouse_pipeline.feedserver import FeedServer, generated_market

MARKET = generated_market(["BINANCE:BTCUSDT", "OKX:BTCUSDT", "OKX:ETHUSDT"])


def get(path, noon):
    def fetch(url):
        try:
            with urllib.request.urlopen(url) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    async def scenario():
        async with FeedServer(MARKET, start=noon) as server:
            return await asyncio.to_thread(fetch, server.http_url + path)

    return asyncio.run(scenario())


def test_a_traded_symbol_is_validated_and_another_is_not_found(noon):
    path = "/symbol?symbol={}&fields=market&no_404=false"

    assert get(path.format("BINANCE%3ABTCUSDT"), noon) == (200, {"market": "crypto"})
    assert get(path.format("BINANCE%3ANOPE"), noon)[0] == 404


def test_a_search_finds_by_text_and_exchange(noon):
    status, found = get("/symbol_search/v3/?text=btc&exchange=OKX&hl=0", noon)

    assert status == 200
    assert [(one["prefix"], one["symbol"]) for one in found["symbols"]] == [("OKX", "BTCUSDT")]
    assert found["symbols_remaining"] == 0


def test_a_study_tells_its_inputs_and_plots(noon):
    status, body = get("/pine-facade/translate/STD%3BMACD/last", noon)
    meta = body["result"]["metaInfo"]

    assert (status, body["success"]) == (200, True)
    assert [one["id"] for one in meta["inputs"]][:4] == ["text", "pineId", "pineVersion", "in_0"]
    assert [meta["styles"][p["id"]]["title"] for p in meta["plots"] if p["type"] == "line"] == [
        "Histogram",
        "MACD",
        "Signal",
    ]


def test_an_unknown_study_and_an_unknown_path_say_so(noon):
    assert get("/pine-facade/translate/STD%3BZebra/last", noon)[1]["success"] is False
    assert get("/nowhere", noon)[0] == 404
