"""A crypto lakehouse that says what it knows.

Layers, each importing only those below it (checked by import-linter)::

    cli | api | definitions      what people touch
    defs | stack                 Dagster, and the owner of the processes
    engine                       build functions mapped over partitions
    build                        one function a table: slice, read, compute, write
    feedserver | charts | ingest the feed server, charts, the recording worker
    tradingview | lake           the protocol without sockets, Iceberg
    market                       pure: what the data means
    settings | errors | telemetry
"""

__version__ = "0.1.0"
