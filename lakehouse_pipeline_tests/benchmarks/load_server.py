"""The feed server of the load benchmark, a process of its own: many busy symbols, market time fast.

Prints its address; ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys

from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer


async def serve(names: list[str], speed: float) -> None:
    market = generated_market(names, pace=20)
    async with FeedServer(market, speed=speed, keep_sent=False) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[2:], float(sys.argv[1])))
