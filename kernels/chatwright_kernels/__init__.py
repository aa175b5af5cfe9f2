"""Compiled CPU kernels of Chatwright: this package only holds the library; `chatwright.engine.kernels` loads it."""

__version__ = "0.1.0"
