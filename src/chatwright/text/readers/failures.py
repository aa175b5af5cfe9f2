"""What the parsers of others raise on broken files: anything short of a reason to stop the program."""

from __future__ import annotations

import struct
import zipfile
import zlib

from chatwright.text.reasons import Detail

# pypdf, python-docx and lxml leave many kinds of errors for one broken byte; each of them means: this file is broken.
# MemoryError is not one of them: the file is good, and would be dropped because other programs were running.
PARSER_FAILURES: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    NameError,
    RuntimeError,  # RecursionError, NotImplementedError
    SyntaxError,  # lxml.etree.XMLSyntaxError
    TypeError,
    ValueError,  # UnicodeError
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def broken(error: BaseException) -> Detail:
    """What is said of a file that a parser fails on."""
    return Detail("it is damaged ({error}): fetch it again, or open it and save a copy", error=first_line(error))


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a table."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
