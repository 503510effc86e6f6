"""The feed server of the load benchmark, a process of its own: a fixed rate of real-shaped updates.

A minute of the generated market is rendered once and sent again and again, its times moved on, so
that the load costs its sender next to nothing and never exceeds what was asked for: a server that
computes while it sends would be what is measured. Prints its address; ends with its standard
input.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta

from websockets.asyncio.server import ServerConnection, serve

from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.market import Counter
from lakehouse_pipeline.feedserver.quote_session import encode as encode_values
from lakehouse_pipeline.tradingview.frames import FrameDecoder, encode

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MODELS = 20
TICK = 0.01  # seconds
HEARTBEAT = 10.0
_TIME = re.compile(r'"lp_time":\d+')


class Load:
    """What is sent of some symbols, over and over."""

    def __init__(self, names: list[str], rate: float) -> None:
        models = names[:MODELS]  # whose prices the others share
        market = generated_market(models, pace=20)
        until = NOON + timedelta(minutes=1)
        updates = sorted(
            (update.at, name, encode_values(update.values))
            for number, model in enumerate(models)
            for update in market.updates(model, NOON, until, Counter.SESSION)
            for name in names[number::MODELS]
        )
        self.snapshots = {
            name: market.snapshot(models[number % MODELS], NOON, Counter.SESSION)
            for number, name in enumerate(names)
        }
        self.updates = [(name, values) for _, name, values in updates]
        self.rate = rate

    async def serve_client(self, socket: ServerConnection) -> None:
        now = time.time()
        hello = {"session_id": uuid.uuid4().hex, "timestamp": int(now), "timestampMs": now * 1e3}
        await socket.send(encode(json.dumps(hello | {"release": "load", "protocol": "json"})))
        asked: list[str] = []
        session, decoder = "", FrameDecoder()
        sending: asyncio.Task[None] | None = None
        async for message in socket:
            for payload in decoder.decode(str(message)):
                if payload.startswith("~h~"):
                    continue
                call = json.loads(payload)
                if call["m"] == "quote_add_symbols":
                    session, *names = call["p"]
                    asked += names
                    for name in names:
                        await self._restore(socket, session, name)
                    if len(asked) == len(self.snapshots):
                        sending = asyncio.create_task(self._send(socket, session))
        if sending is not None:
            sending.cancel()

    async def _restore(self, socket: ServerConnection, session: str, name: str) -> None:
        values = {**self.snapshots[name], "lp_time": int(time.time())}
        quote = {"n": name, "s": "ok", "v": values}
        for method, params in (("qsd", [session, quote]), ("quote_completed", [session, name])):
            await socket.send(encode(json.dumps({"m": method, "p": params}, separators=(",", ":"))))

    async def _send(self, socket: ServerConnection, session: str) -> None:
        began, sent, beats = time.monotonic(), 0, 0
        count = len(self.updates)
        while True:
            await asyncio.sleep(TICK)
            elapsed = time.monotonic() - began
            if elapsed >= (beats + 1) * HEARTBEAT:
                beats += 1
                await socket.send(encode(f"~h~{beats}"))
            moment = f'"lp_time":{int(time.time())}'
            for number in range(sent, int(elapsed * self.rate)):
                name, values = self.updates[number % count]
                values = _TIME.sub(moment, values)
                payload = f'{{"m":"qsd","p":["{session}",{{"n":"{name}","s":"ok","v":{values}}}]}}'
                await socket.send(encode(payload))
                sent = number + 1


async def main(names: list[str], rate: float, *, deflate: bool) -> None:
    load = Load(names, rate)
    compression = "deflate" if deflate else None
    async with serve(
        load.serve_client, "127.0.0.1", 0, compression=compression, ping_interval=None
    ) as server:
        port = server.sockets[0].getsockname()[1]
        sys.stdout.write(f"ws://127.0.0.1:{port}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[2:], float(sys.argv[1]), deflate=True))
