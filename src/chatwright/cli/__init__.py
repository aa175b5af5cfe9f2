"""The `chatwright` command. One file a verb group, thin; what they do lives in the packages below.

Data goes to standard output, progress and messages to standard error; exit codes: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C.
"""

from chatwright.cli.edge import main

__all__ = ["main"]
