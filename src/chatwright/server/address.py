"""Where this server is reached: by its settings, never by the Host that a client wrote, which would lead to wherever they like."""

from __future__ import annotations

from chatwright.settings import Settings


def own_address(settings: Settings) -> str:
    """Scheme, host and port, without a slash at the end."""
    if settings.public_url:
        return settings.public_url
    host = settings.host if ":" not in settings.host else f"[{settings.host}]"
    return f"http://{host}:{settings.port}"
