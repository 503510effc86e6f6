"""How a session refuses a message: the connection survives, the client is told."""

from __future__ import annotations


class Refused(Exception):
    """Becomes ``critical_error [session, reason, detail]``."""

    def __init__(self, session: str, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.session = session
        self.reason = reason
        self.detail = detail
