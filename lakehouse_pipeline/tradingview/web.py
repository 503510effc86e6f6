"""The feed's HTTP side, as far as a worker needs it: study descriptions and tokens.

Blocking calls in threads, one at a time and seldom. What the answers mean belongs to ``scripts``
and ``token``.
"""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException, HTTPResponse
from types import MappingProxyType
from urllib.parse import quote

import msgspec

from lakehouse_pipeline.errors import AuthError, ProtocolFault, TransportError
from lakehouse_pipeline.settings import FeedSettings

from .scripts import Script, parse_script

MAX_BYTES = 4 << 20


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow none: the cookies would go along, to whatever host it names."""


_STAYING = urllib.request.build_opener(_NoRedirect)


async def fetch_script(feed: FeedSettings, pine_id: str) -> Script:
    """Return the newest version of the script *pine_id* (``STD;RSI``).

    Raises:
        StudyError, ProtocolFault, TransportError: see ``scripts`` and ``errors``.
    """
    url = f"{feed.http_url}/pine-facade/translate/{quote(pine_id, safe='')}/last"
    return parse_script(await asyncio.to_thread(_get, url, feed))


async def fetch_token(feed: FeedSettings) -> str:
    """Return a fresh token for the cookies of *feed*, which must be set.

    Raises:
        AuthError: the cookies are no good, or no longer.
        TransportError, ProtocolFault: no answer, or none that is a token.
    """
    assert feed.sessionid is not None
    cookies = {"sessionid": feed.sessionid.get_secret_value()}
    if feed.sessionid_sign is not None:
        cookies["sessionid_sign"] = feed.sessionid_sign.get_secret_value()
    joined = "; ".join(f"{name}={value}" for name, value in cookies.items())
    url = f"{feed.origin}/quote_token/"
    answer = await asyncio.to_thread(_get, url, feed, {"Cookie": joined}, _STAYING.open)
    try:
        token = msgspec.json.decode(answer, type=str)
    except msgspec.MsgspecError:
        # Not chained: the answer may hold a secret.
        raise ProtocolFault("The feed's answer to our cookies is no token.") from None
    if not token:
        raise AuthError("The feed gave no token for our cookies.", mend="Log in anew.")
    return token


def _get(
    url: str,
    feed: FeedSettings,
    headers: Mapping[str, str] = MappingProxyType({}),
    open_url: Callable[..., HTTPResponse] = urllib.request.urlopen,
) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise TransportError(f"{url} is no web address.", mend="Set LAKEHOUSE_FEED__HTTP_URL.")
    ours = {"Origin": feed.origin, "Referer": f"{feed.origin}/", "User-Agent": feed.user_agent}
    request = urllib.request.Request(url, headers={**ours, **headers})  # noqa: S310  # checked above
    try:
        with open_url(request, timeout=feed.connect_timeout.total_seconds()) as response:
            return response.read(MAX_BYTES)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403) or 300 <= error.code < 400:  # to the login
            raise AuthError(f"{url} answered HTTP {error.code}.", mend="Log in anew.") from None
        raise TransportError(f"{url} answered HTTP {error.code}.") from error
    except (OSError, HTTPException) as error:
        raise TransportError(f"{url} could not be read: {error}.") from error
    except ValueError:
        # Not chained: it shows the header, which may be a cookie.
        raise AuthError(
            "The request's address, cookies or other headers have characters no header can hold.",
            mend="Set LAKEHOUSE_FEED__SESSIONID and LAKEHOUSE_FEED__SESSIONID_SIGN anew.",
        ) from None
