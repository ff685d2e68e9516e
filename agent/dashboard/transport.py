"""The only module that uses HTTP, by way of requests.

The time-out covers the whole request, including name look-up and a slow, dripping answer. The size of the answer is
limited, and it is never decompressed. Redirects are not followed, so that the API key is sent to no other host.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, LocationParseError

from agent import __version__
from agent.config import Config
from agent.dashboard.answer import Answer
from agent.dashboard.proxy import check_proxy, is_exempt, unusable_proxy
from agent.errors import ConfigError, DashboardUnreachable
from agent.sanitize import clean, hide

#: Only this many bytes of an answer are read. A longer 422, which names thousands of records, is treated as one that
#: names none.
LONGEST_ANSWER = 1 << 20
#: Where distributions keep the certificate authorities that the host trusts, including those of the site.
CA_STORES = ("/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/ca-bundle.pem")


class RequestsTransport:
    """Sends with requests, over one persistent connection.

    The configuration's CA bundle is trusted instead of the host's authorities, and of those that REQUESTS_CA_BUNDLE
    names. Its API key is removed from every answer and every error message.

    :raises ConfigError: if one of its files can't be used.
    """

    def __init__(self, config: Config, ca_stores: Sequence[str] = CA_STORES) -> None:
        self._timeout = config.timeout  # seconds that a request may take as a whole
        self._secret = config.api_key
        self._verify = _checked_ca_bundle(config.ca_bundle)
        self._ca_store = next((store for store in ca_stores if Path(store).is_file()), True)  # True: certifi's
        self._cert = _checked_client_cert(config.client_cert, config.client_key)
        self._session: requests.Session | None = None
        self._adapter = _Adapter()

    def __call__(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> Answer:
        """Sends one request.

        :raises ConfigError: if the URL, or that of the proxy, can't be used at all.
        :raises DashboardUnreachable: if there is no answer.
        """
        proxy = _proxy_for(url)
        session = self._session = self._session or self._open_session()
        try:
            answer: Answer = _within(self._timeout, lambda: self._exchange(session, method, url, headers, body))
        except requests.exceptions.InvalidProxyURL as error:
            raise unusable_proxy(proxy) from error
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, LocationParseError) as error:
            raise ConfigError(f"cannot send a request to {url}: {self._words(error)}", hint="check api_url") from error
        except (requests.exceptions.ReadTimeout, TimeoutError) as error:
            # The dashboard may still be processing it; an immediate retry would only add to the load.
            self._adapter.cut_off()
            self._session = None
            words = f"no answer from {url} within {self._timeout:g} s"
            raise DashboardUnreachable(
                words, hint=_SLOW_HINT, permanent=True, timed_out=True, overwhelmed=True
            ) from error
        except (OSError, ValueError, HTTPError, http.client.HTTPException) as error:  # those of requests are OSErrors
            self._session = None
            raise self._explain(error, url, proxy) from error
        return answer

    def _open_session(self) -> requests.Session:
        session = _Session()
        self._adapter = _Adapter()
        session.mount("http://", self._adapter)
        session.mount("https://", self._adapter)
        session.headers["User-Agent"] = f"slurm-usage-history-exporter/{__version__}"
        session.headers["Accept-Encoding"] = "identity"
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.auth = _no_auth
        session.verify = self._ca_store
        session.cert = self._cert
        return session

    def _exchange(
        self, session: requests.Session, method: str, url: str, headers: Mapping[str, str], body: Any
    ) -> Answer:
        with session.request(
            method,
            url,
            headers=dict(headers),
            data=body,
            timeout=self._timeout,
            allow_redirects=False,
            stream=True,
            verify=self._verify,
            proxies={"no_proxy": "*"} if is_exempt(url) else {},
        ) as response:
            text = _read(response).decode("utf-8", "replace")
            return Answer(response.status_code, response.headers, hide(text, self._secret), self._secret)

    def _explain(self, error: BaseException, url: str, proxy: str) -> DashboardUnreachable:
        """Explains a network error; ``proxy`` is the proxy in use, without its password."""
        words, root = self._words(error), _root(error)
        broken_off = isinstance(root, _BROKEN_OFF)
        if isinstance(error, requests.exceptions.ProxyError) and proxy:
            nameless = any(f"failed: {status}" in words for status in (401, 407))
            hint = _PASSWORD_HINT if nameless else f"check the proxy, and what it allows: {_PROXY_HINT}"
            return DashboardUnreachable(
                f"cannot connect through the proxy {proxy}: {words}",
                hint=hint,
                permanent=nameless or "failed: 403" in words,
            )
        if isinstance(error, requests.exceptions.SSLError) and not broken_off:
            return DashboardUnreachable(f"no secure connection to {url}: {words}", hint=_TLS_HINT, permanent=True)
        if isinstance(root, ValueError):  # an invalid number, or a missing one in an answer that was cut off
            words, broken_off = f"the answer was cut off or is not HTTP: {words}", True
        return DashboardUnreachable(f"no answer from {url}: {words}", hint=_REACH_HINT, overwhelmed=broken_off)

    def _words(self, error: BaseException) -> str:
        """The message of an error's root cause, without the key and without a proxy's password."""
        root = _root(error)
        words = root.strerror if isinstance(root, OSError) else ""
        shown = hide(str(words or root or type(root).__name__), self._secret)
        return clean(re.sub(r"//[^/@\s]+@", "//***@", shown))


class _Session(requests.Session):
    """Ignores redirects: requests would read the whole answer, decompress it and parse the target."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Reports no redirect."""


class _Response(http.client.HTTPResponse):
    """Skips interim answers, such as 102 and 103: http.client skips only 100."""

    def begin(self) -> None:
        """Reads up to the final answer.

        :raises http.client.HTTPException: if there is none because the other side changes the protocol.
        """
        super().begin()
        while self.status < 200:
            if self.status == 101:
                raise http.client.HTTPException("101, a change of protocol that was not requested")
            self.headers = self.msg = None  # type: ignore[assignment]  # otherwise begin() returns at once
            super().begin()


class _Adapter(HTTPAdapter):
    """Keeps track of the connection in use, so that an abandoned request does not continue in its thread."""

    connection: HTTPConnection | None = None  # the one in use
    is_cut_off = False

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Tracks direct connections to the dashboard."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._pool_classes()

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Tracks connections through a proxy."""
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = self._pool_classes()
        return manager

    def cut_off(self) -> None:
        """Shuts down the connection, which wakes the thread that waits for it; one that comes later sends nothing."""
        self.is_cut_off = True
        connection = self.connection
        try:
            if connection is not None and connection.sock is not None:
                connection.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # already closed

    def _pool_classes(self) -> dict[str, type[HTTPConnectionPool]]:
        """urllib3's classes by scheme, with connections that this adapter keeps track of."""

        def tracked(pool: type[HTTPConnectionPool], connection: type[HTTPConnection]) -> type[HTTPConnectionPool]:
            own = type(connection.__name__, (_TrackedConnection, connection), {"adapter": self})
            return type(pool.__name__, (pool,), {"ConnectionCls": own})

        return {
            "http": tracked(HTTPConnectionPool, HTTPConnection),
            "https": tracked(HTTPSConnectionPool, HTTPSConnection),
        }


class _TrackedConnection(HTTPConnection):
    """A connection of :class:`_Adapter`; with or without TLS, depending on the other base class."""

    adapter: _Adapter
    response_class = _Response

    def connect(self) -> None:
        """Connects, unless the request has been abandoned: a name server may answer only then.

        :raises ConnectionAbortedError: in the thread of that request, which nobody waits for.
        """
        self.adapter.connection = self
        super().connect()
        if self.adapter.is_cut_off:
            raise ConnectionAbortedError("the request took too long")


#: Errors after which a connection had been established and the other side closed it.
_BROKEN_OFF = (
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    http.client.HTTPException,
)
_PROXY_HINT = "HTTPS_PROXY, HTTP_PROXY and NO_PROXY name it; everything is kept"
_PASSWORD_HINT = "the proxy requires a password: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT; everything is kept"  # noqa: S105
_SLOW_HINT = "check the dashboard, or give it more time with `timeout`; everything is kept"
_REACH_HINT = "check the network, the proxy (HTTPS_PROXY, NO_PROXY) and api_url; everything is kept"
_TLS_HINT = "check api_url, or name the site's CA file as ca_bundle; everything is kept"


def _read(response: requests.Response) -> bytes:
    """The beginning of an answer's body, not decompressed.

    :raises ConnectionResetError: if it ends too early; old versions of urllib3 do not check that.
    """
    content = b""
    while len(content) < LONGEST_ANSWER:
        chunk = response.raw.read(min(1 << 16, LONGEST_ANSWER - len(content)), decode_content=False)
        if not chunk:
            promised = response.headers.get("Content-Length", "")
            if promised.isascii() and promised.isdigit() and len(content) < float(promised):
                raise ConnectionResetError(f"the answer ended after {len(content)} bytes of {promised}")
            break
        content += chunk
    return content


def _checked_ca_bundle(file: Path | None) -> str | None:
    """Checks the file early: at the first request the message of OpenSSL would be misleading.

    :raises ConfigError: if it is not a file of certificates.
    """
    if file is None:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(*((None, file) if file.is_dir() else (file,)))
    except (OSError, ValueError) as error:
        words = f"ca_bundle: {file} can't be used: {_plain(error)}"
        raise ConfigError(words, hint="it must be a PEM file of certificates that this user can read") from error
    return str(file)


def _checked_client_cert(cert: Path | None, key: Path | None) -> tuple[str, str] | None:
    """Likewise for the client's certificate.

    :raises ConfigError: if certificate and key can't be used, or don't belong together.
    """
    if cert is None:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, _no_password)
    except (OSError, ValueError) as error:
        words = f"client_cert: {cert} can't be used: {_plain(error)}"
        hint = "a PEM file with its key in it or in client_key, without a password, that this user can read"
        raise ConfigError(words, hint=hint) from error
    return str(cert), str(key or cert)


def _plain(error: Exception) -> str:
    return clean(str((error.strerror if isinstance(error, OSError) else "") or error))


def _proxy_for(url: str) -> str:
    """The proxy that the environment names for a URL, without user and password; empty if there is none.

    :raises ConfigError: if it can't be used.
    """
    proxy = select_proxy(url, get_environ_proxies(url, "*" if is_exempt(url) else None))
    return check_proxy(proxy) if proxy else ""


def _root(error: BaseException) -> BaseException:
    """The root cause: requests wraps an error such as "Connection refused" in three layers of its own."""
    inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return _root(inner) if inner else error


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from sending the host's credentials from a ~/.netrc."""
    return request


def _no_password() -> str:
    """Fails instead of letting OpenSSL prompt on the terminal, which a service lacks."""
    raise ValueError("its key has a password")


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """Returns or raises what ``call`` does, or raises TimeoutError after ``seconds``.

    requests limits each wait for bytes, not their sum: a hanging name server or a dripping server would block a run
    forever. The thread of an abandoned call ends with its connection, or with the process.
    """
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=work, name="request", daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not outcome:
        raise TimeoutError(f"the request took longer than {seconds:g} s")
    return outcome[0]
