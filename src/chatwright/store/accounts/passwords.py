"""Passwords: argon2id, off the event loop and few at a time, and the little that a new one must satisfy."""

from __future__ import annotations

import asyncio
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from chatwright.errors import InvalidRequestError

MIN_LENGTH = 10
MAX_LENGTH = 500
MIN_DIFFERENT = 5
# Each takes 64 MiB for some fifty milliseconds: a crowd that signs in, or guesses, must not take all memory.
AT_ONCE = 2


class Passwords:
    """One per process. The parameters are argon2-cffi's, RFC 9106's second choice: 64 MiB, three passes."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._places = asyncio.Semaphore(AT_ONCE)
        # Checked where there is no account: its absence must take as long to find out as a wrong password.
        self._nobody = self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """The hash of a password, with its parameters and a salt of its own."""
        async with self._places:
            return await asyncio.to_thread(self._hasher.hash, normalised(password))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether it is this password. Without a hash it never is, and takes as long."""
        async with self._places:
            matches = await asyncio.to_thread(self._matches, password_hash or self._nobody, normalised(password))
        return matches and password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Whether it was made with other parameters than are used now."""
        return self._hasher.check_needs_rehash(password_hash)

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False


def normalised(password: str) -> str:
    """One form for what looks the same but is typed as other code points on another keyboard (NIST SP 800-63B, 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def check_password(password: str, email: str) -> None:
    """Raise InvalidRequestError for a password that is too easy. Length is what counts; no mixture of signs is asked for."""
    weak = {"param": "password", "code": "weak_password"}
    if len(password) < MIN_LENGTH:
        raise InvalidRequestError("A password has at least {n} characters.", n=MIN_LENGTH, **weak)
    if len(password) > MAX_LENGTH:
        raise InvalidRequestError("A password has at most {n} characters.", n=MAX_LENGTH, **weak)
    if len(set(password)) < MIN_DIFFERENT:
        raise InvalidRequestError("This password repeats the same few characters: choose another one.", **weak)
    name = email.partition("@")[0].lower()
    if len(name) >= 4 and name in password.lower() and len(password) - len(name) < MIN_LENGTH // 2:
        raise InvalidRequestError("This password is little more than the email address: choose another one.", **weak)
