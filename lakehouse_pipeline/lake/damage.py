"""What a broken file of the format means: libraries raise what their decoder happened to hit.

Used where metadata is read; whether all files are there and whole is examined by ``health``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError as ModelError
from pyiceberg.exceptions import ValidationError

from lakehouse_pipeline.errors import TableDamaged

# Seen on files cut short, emptied or overwritten, of JSON and of Avro.
UNDECODABLE = (EOFError, ValueError, SystemError, KeyError, IndexError, TypeError, AssertionError)


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Raise what decoders raise on a broken file as ``TableDamaged``.

    Raises:
        TableDamaged: *what* is cut short or is no such file.
    """
    try:
        yield
    except (*UNDECODABLE, ValidationError, ModelError) as error:
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise TableDamaged(
            f"{what} is damaged: {first_line}.",
            mend="`lakehouse doctor` says what is left and how to mend it.",
        ) from error
