"""An OpenID Connect provider (OpenID Connect Core 1.0, 3.1): what is asked of it, and what of its answers is believed.

The authorization code comes back through the browser, everything else from the provider itself. PKCE (RFC 7636), state and nonce
always; a signature by one of the provider's own keys always, with a public-key algorithm, whatever the provider says it supports:
its list may name "none".
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from chatwright.server.address import own_address
from chatwright.settings import Settings
from chatwright.store import clock
from chatwright.store.accounts.identities import KnownAs, Login

log = logging.getLogger(__name__)

CALLBACK = "/api/oidc/callback"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
SCOPE = "openid email profile"
TIMEOUT_S = 10.0
# How long what the provider says of itself is believed, its keys included; a key that is not among them is asked for at once.
METADATA_LIFE_S = 3600.0
MAX_BYTES = 1_000_000
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
UNREACHABLE = (httpx2.HTTPError, httpx2.InvalidURL)
LEEWAY_S = 60


class ProviderError(Exception):
    """The provider cannot be asked, or what it says cannot be believed. `str(error)` is for the log."""


@dataclass(frozen=True)
class Metadata:
    """What the provider says of itself."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    client_authentication: str
    read_at: float


class Provider:
    """One per server."""

    def __init__(self, settings: Settings) -> None:
        assert settings.oidc_issuer is not None
        assert settings.oidc_client_id is not None
        self.issuer = settings.oidc_issuer
        self.client_id = settings.oidc_client_id
        self.name = settings.oidc_name or urlsplit(self.issuer).netloc
        self._secret = settings.oidc_client_secret
        self._redirect_uri = own_address(settings) + CALLBACK
        self._metadata: Metadata | None = None
        self._keys: KeySet | None = None

    async def authorization_url(self, login: Login) -> str:
        """Where the browser is sent. Raises ProviderError."""
        metadata = await self._read_metadata()
        client = self._client(metadata)
        async with client:
            url, _ = client.create_authorization_url(
                metadata.authorization_endpoint, state=login.state, nonce=login.nonce, code_verifier=login.verifier
            )
        return str(url)

    async def identify(self, code: str, login: Login) -> KnownAs:
        """Who came back with this code. Raises ProviderError."""
        metadata = await self._read_metadata()
        async with self._client(metadata) as client:
            try:
                token = await client.fetch_token(
                    metadata.token_endpoint,
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=login.verifier,
                    redirect_uri=self._redirect_uri,
                )
            except (OAuthError, *UNREACHABLE, ValueError, TypeError) as error:
                raise ProviderError(f"the code was not taken ({_short(error)})") from error
            id_token = token.get("id_token")
            if not isinstance(id_token, str):
                raise ProviderError("there is no id_token beside the access token")
            claims = await self._check(metadata, id_token, login.nonce)
            if "email" not in claims and metadata.userinfo_endpoint and isinstance(token.get("access_token"), str):
                claims = await _with_userinfo(metadata.userinfo_endpoint, token["access_token"], claims)
        return _known_as(self.issuer, claims)

    def _client(self, metadata: Metadata) -> Any:
        return AsyncOAuth2Client(
            client_id=self.client_id,
            client_secret=self._secret.get_secret_value() if self._secret is not None else None,
            token_endpoint_auth_method=metadata.client_authentication,
            scope=SCOPE,
            redirect_uri=self._redirect_uri,
            code_challenge_method="S256",
            timeout=TIMEOUT_S,
            follow_redirects=False,
        )

    async def _read_metadata(self) -> Metadata:
        """As the provider publishes it (OpenID Connect Discovery 1.0, 4)."""
        if self._metadata is not None and time.monotonic() - self._metadata.read_at < METADATA_LIFE_S:
            return self._metadata
        found = await _get(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self.issuer:
            raise ProviderError(f"it calls itself {found.get('issuer')!r:.200}: write oidc_issuer so, if that is right")
        methods = found.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if self._secret is None:
            authentication = "none"
        else:
            authentication = "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post"
        userinfo = found.get("userinfo_endpoint")
        self._metadata = Metadata(
            authorization_endpoint=_endpoint(found, "authorization_endpoint"),
            token_endpoint=_endpoint(found, "token_endpoint"),
            jwks_uri=_endpoint(found, "jwks_uri"),
            userinfo_endpoint=_endpoint(found, "userinfo_endpoint") if userinfo is not None else None,
            client_authentication=authentication,
            read_at=time.monotonic(),
        )
        self._keys = None
        return self._metadata

    async def _check(self, metadata: Metadata, id_token: str, nonce: str) -> Mapping[str, Any]:
        """The claims of a token that this provider signed, for us, now, for this very login."""
        try:
            try:
                token = jwt.decode(id_token, await self._key_set(metadata), algorithms=ALGORITHMS)
            except InvalidKeyIdError:  # it has new keys
                self._keys = None
                token = jwt.decode(id_token, await self._key_set(metadata), algorithms=ALGORITHMS)
            claims = token.claims
            jwt.JWTClaimsRegistry(
                now=clock.now,
                leeway=LEEWAY_S,
                iss={"essential": True, "value": self.issuer},
                sub={"essential": True},
                aud={"essential": True, "value": self.client_id},
                exp={"essential": True},
                iat={"essential": True},
                nonce={"essential": True, "value": nonce},
            ).validate(claims)
        except (JoseError, ValueError) as error:
            raise ProviderError(f"its id_token is not good ({_short(error)})") from error
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else self.client_id) != self.client_id:
            raise ProviderError("its id_token is for another client")
        return claims

    async def _key_set(self, metadata: Metadata) -> KeySet:
        if self._keys is None:
            found = await _get(metadata.jwks_uri)
            try:
                self._keys = KeySet.import_key_set(found)  # type: ignore[arg-type]
            except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ProviderError(f"its keys cannot be read ({_short(error)})") from error
        return self._keys


async def _with_userinfo(endpoint: str, access_token: str, claims: Mapping[str, Any]) -> Mapping[str, Any]:
    """Some providers keep the address out of the token."""
    found = await _get(endpoint, {"Authorization": f"Bearer {access_token}"})
    if found.get("sub") != claims["sub"]:  # OpenID Connect Core 1.0, 5.3.2
        raise ProviderError("its userinfo is about somebody else")
    return {**found, **claims}


def _known_as(issuer: str, claims: Mapping[str, Any]) -> KnownAs:
    subject, email, name = claims["sub"], claims.get("email"), claims.get("name")
    if not 1 <= len(subject) <= 255 or not subject.isprintable():
        raise ProviderError("the name (sub) that it gives is not usable")
    said = claims.get("email_verified")
    verified = said is True or said == "true"  # some write it as a word
    return KnownAs(
        issuer=issuer,
        subject=subject,
        email=email if verified and isinstance(email, str) else None,
        name=name if isinstance(name, str) else None,
    )


async def _get(url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A JSON object."""
    try:
        async with httpx2.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client:
            response = await client.get(url, headers=headers)
        content = response.content
        if response.status_code != 200 or len(content) > MAX_BYTES:
            raise ProviderError(f"{url} answers {response.status_code} with {len(content)} bytes")
        found = orjson.loads(content)
    except (*UNREACHABLE, ValueError) as error:
        raise ProviderError(f"{url} cannot be read ({_short(error)})") from error
    if not isinstance(found, dict):
        raise ProviderError(f"{url} is no JSON object")
    return found


def _endpoint(metadata: Mapping[str, Any], name: str) -> str:
    """An address of the provider's, over TLS, but on this machine."""
    url = metadata.get(name)
    if isinstance(url, str):
        try:
            scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
        except ValueError:
            scheme, host = "", None
        if host and (scheme == "https" or (scheme == "http" and host in LOOPBACK_HOSTS)):
            return url
    raise ProviderError(f"its {name} is no address over TLS")


def _short(error: Exception) -> str:
    """For the log: what kind, and a little of what it says; never a token, which is long."""
    return f"{type(error).__name__}: {error}"[:200]
