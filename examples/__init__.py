"""Data to try Chatwright on, fetched by name or written by rule: run as `python -m examples.NAME` from the project's root."""
