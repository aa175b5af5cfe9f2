"""Chatwright: build, train and run your own ChatGPT."""

__version__ = "0.1.0"
