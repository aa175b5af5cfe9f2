"""Which machine a request comes from: the one that is connected, or the one that a proxy which we trust names."""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request


def client_address(request: Request, trusted_proxies: Collection[str]) -> str:
    """An address, only ever used to count tries. Of X-Forwarded-For the last entry that is no proxy of ours counts: what stands
    before it, the client wrote itself."""
    address = request.client.host if request.client else ""
    if address not in trusted_proxies:
        return address
    written = [part.strip() for header in request.headers.getlist("x-forwarded-for") for part in header.split(",")]
    return next((part[:100] for part in reversed(written) if part and part not in trusted_proxies), address)
