"""Which hosts may see a token: those of the site it was made for."""

from __future__ import annotations

from urllib.parse import urlsplit

# Whose hosts are one owner's. Of any other name nothing tells that without a list of all suffixes,
# so there only what lies below the host itself is its own.
SITES = ("tradingview.com",)


def may_see_token(url: str, configured: str) -> bool:
    """Tell whether the host of *url* may see what is meant for the host of *configured*.

    It may if it is the same host, lies below it, or both belong to one of ``SITES``. Ports do not
    matter. An address without a host may not.
    """
    host, own = _host(url), _host(configured)
    if not host or not own:
        return False
    owner = next((site for site in SITES if _is_below(own, site)), own)
    return _is_below(host, owner)


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_below(host: str, site: str) -> bool:
    return host == site or host.endswith(f".{site}")
