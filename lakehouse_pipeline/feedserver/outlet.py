"""What the sessions need of the connection they belong to."""

from __future__ import annotations

from typing import Any, Protocol

from .access import Plan


class QuoteOutlet(Protocol):
    """What quote sessions need of their connection."""

    def send(self, method: str, params: list[Any]) -> None:
        """Send a message to the client."""
        ...

    def send_quote(self, session: str, name: str, values: dict[str, Any], tail: str) -> None:
        """Send a quote packet of *values*, whose JSON is *tail*."""
        ...

    def snapshot(self, symbol: str) -> dict[str, Any] | None:
        """Return all values of *symbol* as of the last update sent; None when it is unknown."""
        ...

    def holds(self, symbol: str) -> bool:
        """Say whether updates of *symbol* must wait."""
        ...


class ChartOutlet(Protocol):
    """What chart sessions need of their connection."""

    @property
    def plan(self) -> Plan:
        """What the client's subscription allows."""
        ...

    def send(self, method: str, params: list[Any]) -> None:
        """Send a message to the client."""
        ...

    def send_stamped(self, method: str, params: list[Any]) -> None:
        """Send a message that carries the server's time."""
        ...
