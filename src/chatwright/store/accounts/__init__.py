"""Accounts: users, what they come in with (passwords, sessions, keys, links), and what keeps guessers away.

`service.Accounts` is what the server and the command line use; the other files are its parts.
"""
