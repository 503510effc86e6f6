"""The websocket shell against a small real server, whose path says how it behaves."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import pytest
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from lakehouse_pipeline.errors import (
    Banned,
    FeedSilent,
    HandshakeRefused,
    ProtocolFault,
    RedirectRefused,
    SettingsError,
    TransportError,
)
from lakehouse_pipeline.settings import FeedSettings
from lakehouse_pipeline.tradingview.client import MAX_REDIRECTS, connect
from lakehouse_pipeline.tradingview.frames import encode
from lakehouse_pipeline.tradingview.messages import Malformed
from lakehouse_pipeline.tradingview.protocol import ClientProtocol
from lakehouse_pipeline.tradingview.server_protocol import ServerProtocol

NOW = datetime(2025, 12, 20, 22, 12, 8, tzinfo=UTC)
ORIGIN = "https://www.tradingview.com"


class SmallServer:
    """A websocket server on a free port; what it does is chosen by the path asked for."""

    def __init__(self):
        self.requests = []
        self.heard = []
        self.connected = asyncio.Event()

    @asynccontextmanager
    async def run(self):
        async with serve(
            self._talk, "127.0.0.1", 0, process_request=self._admit, close_timeout=0.1
        ) as server:
            port = server.sockets[0].getsockname()[1]
            self.host = f"127.0.0.1:{port}"
            yield self

    def settings(self, path, **options):
        return FeedSettings(url=f"ws://{self.host}{path}", **options)

    def _admit(self, connection, request):
        self.requests.append(request)
        if request.path.startswith("/status/"):
            status = HTTPStatus(int(request.path.rpartition("/")[2]))
            return connection.respond(status, "no")
        if request.path == "/moved-by-http":
            response = connection.respond(HTTPStatus.FOUND, "elsewhere")
            response.headers["Location"] = f"ws://{self.host}/echo"
            return response
        return None

    async def _talk(self, websocket):
        self.connected.set()
        await getattr(self, "_" + websocket.request.path.strip("/").partition("?")[0])(websocket)

    async def _greet(self, websocket):
        protocol = ServerProtocol()
        protocol.hello(session_id="0.1_small", now=NOW)
        for text in protocol.texts_to_send():
            await websocket.send(text)

    async def _echo(self, websocket):
        await self._greet(websocket)
        async for text in websocket:
            self.heard.append(text)
            await websocket.send(text)

    async def _greeting_then_silence(self, websocket):
        await self._greet(websocket)
        await websocket.wait_closed()

    async def _standstill(self, websocket):
        """Sends while nobody can look: this loop is the client's too."""
        await self._greet(websocket)
        await websocket.recv()
        await websocket.send("late")
        time.sleep(0.4)  # noqa: ASYNC251  # that is the point
        await websocket.wait_closed()

    async def _silence(self, websocket):
        await websocket.wait_closed()

    async def _deaf(self, websocket):
        """Greets, then reads nothing: not even our goodbye."""
        await self._greet(websocket)
        websocket.transport.pause_reading()
        await websocket.wait_closed()

    async def _goodbye(self, websocket):
        await self._greet(websocket)
        await websocket.close(1001, "going away")

    async def _cut(self, websocket):
        await self._greet(websocket)
        websocket.transport.abort()

    async def _banned(self, websocket):
        await websocket.send(encode('{"m":"protocol_error","p":["banned by ip"]}'))
        await websocket.wait_closed()

    async def _other(self, websocket):
        await websocket.send("hello?")
        await websocket.wait_closed()

    async def _big(self, websocket):
        await self._greet(websocket)
        await websocket.send(encode('{"m":"x","p":["' + "0" * (3 << 20) + '"]}'))
        await websocket.wait_closed()

    async def _broken_text(self, websocket):
        await self._greet(websocket)
        frame = Frame(Opcode.TEXT, b"~m~2~m~\xff\xfe").serialize(mask=False)
        websocket.transport.write(frame)
        await websocket.send(encode("~h~1"))
        await websocket.wait_closed()

    async def _moved(self, websocket):
        """Sends the client here again, until the path below has been asked for often enough."""
        protocol = ServerProtocol()
        if len(self.requests) > self.redirects:
            protocol.hello(session_id="0.1_there", now=NOW)
        else:
            protocol.redirect(self.elsewhere or self.host)
        for text in protocol.texts_to_send():
            await websocket.send(text)
        await websocket.wait_closed()

    redirects = 0
    elsewhere: str | None = None  # where to instead of here


@pytest.fixture
def in_loop():
    """Run a scenario against a fresh server, in a fresh event loop."""

    def run(scenario):
        async def main():
            async with SmallServer().run() as server:
                await scenario(server)

        asyncio.run(main())

    return run


def connecting(server, path, **options):
    return connect(server.settings(path, **options), now=lambda: NOW)


def test_the_greeting_is_read_and_is_the_first_text(in_loop):
    async def scenario(server):
        async with connecting(server, "/echo") as connection:
            text, received_at = await anext(connection)

            assert connection.hello.server_time == NOW
            assert ClientProtocol().receive_text(text, received_at) == [connection.hello]
            assert received_at == NOW

    in_loop(scenario)


def test_texts_go_out_one_message_each_and_come_back_in_order(in_loop):
    async def scenario(server):
        async with connecting(server, "/echo") as connection:
            await connection.send([encode("~h~1"), encode("~h~2")])

            texts = [(await anext(connection))[0] for _ in range(3)]

            assert texts[1:] == server.heard == ["~m~4~m~~h~1", "~m~4~m~~h~2"]

    in_loop(scenario)


def test_the_handshake_says_who_we_are_and_keeps_the_query(in_loop):
    async def scenario(server):
        path = "/echo?from=chart%2F&type=chart"
        async with connecting(server, path, user_agent="Mozilla/5.0 test"):
            (request,) = server.requests

            assert request.path == path
            assert request.headers.get_all("Origin") == [ORIGIN]
            assert request.headers.get_all("User-Agent") == ["Mozilla/5.0 test"]
            assert "permessage-deflate" in request.headers["Sec-WebSocket-Extensions"]

    in_loop(scenario)


@pytest.mark.parametrize("status", [403, 429, 503])
def test_a_refused_handshake_tells_its_status(in_loop, status):
    async def scenario(server):
        with pytest.raises(HandshakeRefused) as refusal:
            async with connecting(server, f"/status/{status}"):
                pass

        assert refusal.value.status == status

    in_loop(scenario)


def test_a_refusal_instead_of_a_greeting_is_its_error(in_loop):
    async def scenario(server):
        with pytest.raises(Banned):
            async with connecting(server, "/banned"):
                pass

    in_loop(scenario)


def test_text_instead_of_a_greeting_is_a_protocol_fault(in_loop):
    async def scenario(server):
        with pytest.raises(ProtocolFault):
            async with connecting(server, "/other"):
                pass

    in_loop(scenario)


def test_redirects_are_followed(in_loop):
    async def scenario(server):
        server.redirects = MAX_REDIRECTS
        async with connecting(server, "/moved?type=chart") as connection:
            assert connection.hello.session_id == "0.1_there"

        assert {request.path for request in server.requests} == {"/moved?type=chart"}

    in_loop(scenario)


SECRETS = [{"token": "secret"}, {"sessionid": "secret"}]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_token_follows_no_redirect_to_another_host(in_loop, secret):
    async def scenario(server):
        server.redirects = 1
        server.elsewhere = server.host.replace("127.0.0.1", "localhost")
        with pytest.raises(RedirectRefused) as refusal:
            async with connecting(server, "/moved", **secret):
                pass

        assert refusal.value.host == server.elsewhere
        assert "\n" not in str(refusal.value)
        assert len(server.requests) == 1

    in_loop(scenario)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_token_follows_redirects_of_the_same_host(in_loop, secret):
    async def scenario(server):
        server.redirects = 2
        async with connecting(server, "/moved", **secret) as connection:
            assert connection.hello.session_id == "0.1_there"

    in_loop(scenario)


def test_without_a_token_a_redirect_to_another_host_is_followed(in_loop):
    async def scenario(server):
        server.redirects = 1
        server.elsewhere = server.host.replace("127.0.0.1", "localhost")
        async with connecting(server, "/moved") as connection:
            assert connection.hello.session_id == "0.1_there"

        assert server.requests[-1].headers["Host"] == server.elsewhere

    in_loop(scenario)


def test_an_http_redirect_is_not_followed(in_loop):
    async def scenario(server):
        with pytest.raises(HandshakeRefused) as refusal:
            async with connecting(server, "/moved-by-http", token="secret"):
                pass

        assert refusal.value.status == 302
        assert len(server.requests) == 1

    in_loop(scenario)


def test_redirects_without_end_are_not_followed(in_loop):
    async def scenario(server):
        server.redirects = 1000
        with pytest.raises(TransportError, match="redirected"):
            async with connecting(server, "/moved"):
                pass

        assert len(server.requests) == MAX_REDIRECTS + 1

    in_loop(scenario)


def test_a_server_that_never_greets_is_silent(in_loop):
    async def scenario(server):
        with pytest.raises(FeedSilent):
            async with connecting(server, "/silence", connect_timeout=timedelta(milliseconds=200)):
                pass

    in_loop(scenario)


def test_a_host_that_never_answers_the_handshake_is_given_up():
    async def scenario():
        async def accept(_reader, writer):
            await gone.wait()
            writer.close()

        gone = asyncio.Event()
        async with await asyncio.start_server(accept, "127.0.0.1", 0) as mute:
            port = mute.sockets[0].getsockname()[1]
            feed = FeedSettings(
                url=f"ws://127.0.0.1:{port}/", connect_timeout=timedelta(milliseconds=200)
            )
            with pytest.raises(TransportError, match="did not answer"):
                async with connect(feed, now=lambda: NOW):
                    pass
            gone.set()

    asyncio.run(scenario())


def test_a_port_where_nobody_listens_is_a_transport_error():
    async def scenario():
        with pytest.raises(TransportError, match="could not be reached"):
            async with connect(FeedSettings(url="ws://127.0.0.1:1/"), now=lambda: NOW):
                pass

    asyncio.run(scenario())


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "feed.example"])
def test_an_address_that_is_none_is_the_users_to_mend(url):
    async def scenario():
        with pytest.raises(SettingsError, match=r"feed\.url"):
            async with connect(FeedSettings(url=url), now=lambda: NOW):
                pass

    asyncio.run(scenario())


def test_silence_after_the_greeting_ends_the_reading(in_loop):
    async def scenario(server):
        async with connecting(
            server, "/greeting_then_silence", silence_timeout=timedelta(milliseconds=200)
        ) as connection:
            await anext(connection)

            with pytest.raises(FeedSilent):
                await anext(connection)

    in_loop(scenario)


def test_a_loop_that_stood_still_does_not_take_its_feed_for_silent(in_loop):
    """What came meanwhile is read before silence is judged."""

    async def scenario(server):
        async with connecting(
            server, "/standstill", silence_timeout=timedelta(milliseconds=200)
        ) as connection:
            await anext(connection)
            await connection.send(["go"])

            assert await anext(connection) == ("late", NOW)

    in_loop(scenario)


def test_silence_is_counted_from_the_last_text(in_loop):
    async def scenario(server):
        loop, patience = asyncio.get_running_loop(), timedelta(milliseconds=300)
        async with connecting(server, "/echo", silence_timeout=patience) as connection:
            await anext(connection)
            for _ in range(3):
                loop.call_later(0.2, loop.create_task, connection.send(["x"]))
                await anext(connection)
            last = loop.time()

            with pytest.raises(FeedSilent):
                await anext(connection)

            assert loop.time() - last >= patience.total_seconds()

    in_loop(scenario)


@pytest.mark.parametrize("path", ["/goodbye", "/cut"])
def test_a_connection_that_ends_is_a_transport_error(in_loop, path):
    async def scenario(server):
        async with connecting(server, path) as connection:
            await anext(connection)

            with pytest.raises(TransportError, match="ended"):
                await anext(connection)
            with pytest.raises(TransportError, match="ended"):
                await connection.send(["x"])

    in_loop(scenario)


def test_three_megabytes_of_history_arrive_as_one_text(in_loop):
    async def scenario(server):
        async with connecting(server, "/big") as connection:
            await anext(connection)

            text, _ = await anext(connection)

            assert len(text) > 3 << 20

    in_loop(scenario)


def test_bytes_that_are_no_text_become_malformed_and_reading_goes_on(in_loop):
    async def scenario(server):
        async with connecting(server, "/broken_text") as connection:
            await anext(connection)
            client = ClientProtocol()

            (broken,) = client.receive_text(*await anext(connection))
            await anext(connection)

            assert isinstance(broken, Malformed)

    in_loop(scenario)


def test_leaving_a_server_that_does_not_read_ends(in_loop):
    async def scenario(server):
        async with connecting(
            server, "/deaf", silence_timeout=timedelta(milliseconds=200)
        ) as connection:
            megabyte = random.Random(1).randbytes(1 << 19).hex()  # does not compress away

            with pytest.raises(TransportError, match="no longer reads"):
                await connection.send([megabyte] * 100)

    in_loop(scenario)


def test_leaving_closes_the_connection_in_order(in_loop):
    async def scenario(server):
        closed = asyncio.get_running_loop().create_future()

        async def hear_the_end(websocket):
            await server._greet(websocket)
            try:
                await websocket.recv()
            except ConnectionClosed as error:
                closed.set_result(error.rcvd.code)

        server._polite = hear_the_end
        async with connecting(server, "/polite") as connection:
            await anext(connection)

        assert await closed == 1000

    in_loop(scenario)


def test_cancelling_a_reader_closes_the_connection(in_loop):
    async def scenario(server):
        async def read():
            async with connecting(server, "/greeting_then_silence") as connection:
                async for _ in connection:
                    reading.set()

        reading = asyncio.Event()
        task = asyncio.create_task(read())
        await reading.wait()

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

    in_loop(scenario)
