"""Every error this project raises on purpose, in one tree.

::

    LakehouseError                 one clear line with the mend; exit_code says whose turn it is
    ├── UsageError                 exit 2: a wrong argument, setting or file of the user's
    │   ├── SettingsError          a setting or exchanges.yaml entry
    │   └── InputFileError         a Parquet, recording or fault file
    ├── EnvironmentFault           exit 1: the machine or a service it needs
    │   ├── PortInUse
    │   ├── StateDirectoryError    read-only, full, not a directory
    │   ├── FeedUnreachable
    │   └── LakeError
    │       ├── CatalogUnreachable
    │       ├── CatalogTooNew      written by a newer version of this project
    │       ├── TableDamaged       a file the table needs is missing or unreadable
    │       └── CommitConflict     somebody else changed the slice: read again, compute again
    ├── FeedError                  what the feed said or did (see its own tree below)
    │   ├── TransportError         no connection, or it broke
    │   │   ├── HandshakeRefused   HTTP status instead of a websocket (403, 429)
    │   │   ├── RedirectRefused    to a host that must not see the token
    │   │   ├── FeedSilent         no frame at all for the watchdog's time
    │   │   └── NoAnswer           one question was not answered in time
    │   ├── ProtocolFault          text that is not the protocol
    │   ├── AuthError              token refused or expired
    │   ├── Banned                 stop and tell a person
    │   ├── LimitError             connections, series or studies
    │   ├── EntitlementError       not in this subscription: never retried
    │   ├── SymbolError            unknown or refused symbol
    │   └── StudyError             a study that is unknown, or failed
    └── SpoolError                 the spool file cannot be used
        ├── SpoolLocked            another process records on it
        └── SpoolFull              the disk or the limit is reached

Add an error here when a caller must tell it from its neighbours; else raise the nearest one.
"""

from __future__ import annotations


class LakehouseError(Exception):
    """Root of the tree. ``str(error)`` is one line: what is wrong, then the mend."""

    exit_code = 1

    def __init__(self, problem: str, *, mend: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.problem} {self.mend}".strip()


class UsageError(LakehouseError):
    exit_code = 2


class SettingsError(UsageError):
    pass


class InputFileError(UsageError):
    pass


class EnvironmentFault(LakehouseError):
    exit_code = 1


class PortInUse(EnvironmentFault):
    def __init__(self, port: int, *, setting: str) -> None:
        super().__init__(
            f"Port {port} is in use.", mend=f"Stop what listens there or set {setting}."
        )
        self.port = port
        self.setting = setting


class StateDirectoryError(EnvironmentFault):
    pass


class FeedUnreachable(EnvironmentFault):
    pass


class LakeError(EnvironmentFault):
    pass


class CatalogUnreachable(LakeError):
    pass


class CatalogTooNew(LakeError):
    pass


class TableDamaged(LakeError):
    pass


class CommitConflict(LakeError):
    pass


class FeedError(LakehouseError):
    pass


class TransportError(FeedError):
    pass


class HandshakeRefused(TransportError):
    def __init__(self, status: int) -> None:
        super().__init__(f"The feed answered the handshake with HTTP {status}.")
        self.status = status


class RedirectRefused(TransportError):
    def __init__(self, host: str, *, configured: str) -> None:
        super().__init__(
            f"The feed redirected to {host!r}, which must not see a token meant for {configured}.",
            mend="If you trust it, set LAKEHOUSE_FEED__URL to it.",
        )
        self.host = host


class FeedSilent(TransportError):
    pass


class NoAnswer(TransportError):
    pass


class ProtocolFault(FeedError):
    pass


class AuthError(FeedError):
    pass


class Banned(FeedError):
    pass


class LimitError(FeedError):
    pass


class EntitlementError(FeedError):
    pass


class SymbolError(FeedError):
    pass


class StudyError(FeedError):
    pass


class SpoolError(LakehouseError):
    pass


class SpoolLocked(SpoolError):
    pass


class SpoolFull(SpoolError):
    pass
