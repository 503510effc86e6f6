"""The few HTTP answers clients ask for beside the websocket, on the same port.

Symbol search, the scanner's symbol check and the metadata of the studies served here; anything
else is 404. What is traded belongs to the market.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Response

from .instruments import Instrument
from .studies import STUDIES, is_pine
from .world import World

PINE_VERSION = "1.0"


def answer(world: World, target: str) -> Response:
    """Return the response to a GET of *target*, path and query."""
    url = urlsplit(target)
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    path = unquote(url.path)
    if path.startswith("/symbol_search"):
        return _json(_search(world, query))
    if path.startswith("/pine-facade/translate/"):
        return _study(path.split("/")[3])
    if path.startswith("/pine-facade/list"):
        return _json([_listed(key) for key in STUDIES if is_pine(key)])
    if path.startswith("/symbols/"):
        name = path.removeprefix("/symbols/").strip("/").replace("-", ":", 1)
        return _symbol(world, name, "description")
    if path == "/symbol":
        return _symbol(world, query.get("symbol", ""), query.get("fields", ""))
    return _json({"error": f"{path} is not served here"}, HTTPStatus.NOT_FOUND)


def _search(world: World, query: dict[str, str]) -> dict[str, Any]:
    text = query.get("text", "").upper()
    exchange = query.get("exchange", "").upper()
    found = [
        _found(instrument)
        for name, instrument in world.market.instruments().items()
        if text in name and exchange in ("", instrument.exchange)
    ]
    start = int(query.get("start", "0")) if query.get("start", "0").isdigit() else 0
    page = found[start : start + 50]
    return {"symbols_remaining": max(0, len(found) - start - len(page)), "symbols": page}


def _found(instrument: Instrument) -> dict[str, Any]:
    fields = instrument.resolved_fields()
    return {
        "symbol": instrument.ticker,
        "description": fields["description"],
        "type": fields["type"],
        "exchange": fields["exchange"],
        "currency_code": fields["currency_code"],
        "provider_id": fields["provider_id"],
        "source2": {"id": instrument.exchange, "name": fields["exchange"]},
        "source_id": instrument.exchange,
        "prefix": instrument.exchange,
        "typespecs": fields["typespecs"],
    }


def _symbol(world: World, name: str, fields: str) -> Response:
    values = world.snapshot(name)
    if values is None:
        return _json({"error": f"{name} is not traded here"}, HTTPStatus.NOT_FOUND)
    known = values | {"market": "crypto", "close": values.get("lp")}
    asked = [field for field in fields.split(",") if field] or list(known)
    return _json({field: known[field] for field in asked if field in known})


def _study(key: str) -> Response:
    """Return the metadata a client needs to ask for the study and to read its values."""
    if key not in STUDIES:
        return _json({"success": False, "reason": f"Study {key} is not computed here"})
    study = STUDIES[key]
    # The script's text is opaque to clients; they send it back with create_study.
    text = f"feed-server:{key}"
    hidden = [
        {"id": "text", "name": "ILScript", "type": "text", "defval": text},
        {"id": "pineId", "name": "pineId", "type": "text", "defval": key},
        {"id": "pineVersion", "name": "pineVersion", "type": "text", "defval": PINE_VERSION},
    ]
    inputs = [
        {"id": f"in_{i}", "name": one.title, "type": one.type, "defval": one.default}
        for i, one in enumerate(study.inputs)
    ]
    plots = [
        {"id": f"plot_{i}", "type": "line"}
        if plot.colors is None
        else {"id": f"plot_{i}", "type": "colorer", "target": f"plot_{plot.colors}"}
        for i, plot in enumerate(study.plots)
    ]
    lines = {
        f"plot_{i}": {"title": plot.title, "histogramBase": 0, "joinPoints": False}
        for i, plot in enumerate(study.plots)
        if plot.colors is None
    }
    meta = {
        "id": "Script$" + key + "@tv-scripting-101!",
        "scriptIdPart": key,
        "description": study.description,
        "shortDescription": key.rpartition(";")[2],
        "pine": {"digest": "", "version": PINE_VERSION},
        "inputs": [one | {"isHidden": True, "isFake": True} for one in hidden]
        + [one | {"isHidden": False, "isFake": True} for one in inputs],
        "plots": plots,
        "styles": lines,
        "defaults": {"inputs": {one["id"]: one["defval"] for one in inputs}, "styles": {}},
        "is_price_study": False,
    }
    return _json({"success": True, "result": {"IL": text, "ilTemplate": text, "metaInfo": meta}})


def _listed(key: str) -> dict[str, Any]:
    return {
        "scriptIdPart": key,
        "scriptName": STUDIES[key].description,
        "version": PINE_VERSION,
        "extra": {"kind": "study", "shortDescription": key.rpartition(";")[2]},
    }


def _json(body: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    content = json.dumps(body).encode()
    headers = Headers(
        {
            "Content-Type": "application/json; charset=utf-8",
            "Content-Length": str(len(content)),
            "Access-Control-Allow-Origin": "*",
            "Connection": "close",
        }
    )
    return Response(status.value, status.phrase, headers, content)
