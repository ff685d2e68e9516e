"""The one place that speaks HTTP, with requests.

A request is bounded as a whole, name look-up and slow drips included. Redirects are never followed, so that the API
key stays with the host it was given for.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple, Sequence

from agent import __version__
from agent.errors import DashboardUnreachable

if TYPE_CHECKING:
    import requests

#: No answer of the dashboard is longer; of a longer one only this much is read.
LONGEST_ANSWER = 1 << 24


class Answer(NamedTuple):
    """What came back from a request."""

    status: int
    headers: Mapping[str, str]
    text: str


#: Where distributions keep the authorities that the host trusts, a site's own and the newest ones among them.
CA_STORES = ("/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/ca-bundle.pem")

#: Sends (method, URL, headers, body or form) and returns the answer; raises DashboardUnreachable where there is none.
Transport = Callable[[str, str, Mapping[str, str], Any], Answer]


class RequestsTransport:
    """Sends with requests, over one kept connection.

    :param timeout: seconds for a whole request; nothing it does can take longer.
    :param ca_bundle: trusted instead of the host's authorities, or of those that REQUESTS_CA_BUNDLE names.
    :param secret: cut out of every answer and every error message.
    """

    def __init__(
        self,
        *,
        timeout: float,
        ca_bundle: Path | None = None,
        secret: str = "",
        ca_stores: Sequence[str] = CA_STORES,
    ) -> None:
        self._timeout = timeout
        self._ca_bundle = str(ca_bundle) if ca_bundle else None
        self._ca_store = next((store for store in ca_stores if Path(store).is_file()), True)  # True: certifi's
        self._secret = secret
        self._session: requests.Session | None = None

    def __call__(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> Answer:
        """Sends one request.

        :raises DashboardUnreachable: where no answer came.
        """
        import requests  # noqa: PLC0415  # takes longer to import than an idle flush takes to run

        if self._session is None:
            self._session = requests.Session()
            self._session.headers["User-Agent"] = f"slurm-usage-history-exporter/{__version__}"
            self._session.auth = _no_auth
            self._session.verify = self._ca_store
        session = self._session
        try:
            answer: Answer = _within(self._timeout, lambda: self._exchange(session, method, url, headers, body))
        except (requests.exceptions.SSLError, requests.exceptions.InvalidURL) as error:
            raise DashboardUnreachable(
                f"no safe connection to {url}: {self._clean(error)}",
                hint="check api_url, or name the site's CA file as ca_bundle; everything is kept",
                permanent=True,
            ) from error
        except (requests.exceptions.ReadTimeout, TimeoutError) as error:
            # The dashboard may be at work on it, and takes no harm-free second request meanwhile.
            self._session = None
            words = f"no answer from {url} within {self._timeout:g} s"
            raise DashboardUnreachable(words, hint=_SLOW_HINT, permanent=True, timed_out=True) from error
        except (OSError, ValueError) as error:  # all of requests' are OSErrors
            self._session = None
            raise DashboardUnreachable(f"no answer from {url}: {self._clean(error)}", hint=_REACH_HINT) from error
        return answer

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
            verify=self._ca_bundle,
        ) as response:
            content = b""
            for chunk in response.iter_content(1 << 16):
                content += chunk
                if len(content) >= LONGEST_ANSWER:
                    break
            return Answer(response.status_code, response.headers, self._hide_secret(content.decode("utf-8", "replace")))

    def _hide_secret(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text

    def _clean(self, error: BaseException) -> str:
        """What lies at the bottom of an error, without the key and without a proxy's password."""
        words = self._hide_secret(" ".join(_root_words(error).split()))[:500]
        return re.sub(r"//[^/@\s]+@", "//***@", words)


_SLOW_HINT = "see how the dashboard is, or give it more time with `timeout`; everything is kept"
_REACH_HINT = "check the network, the proxy (HTTPS_PROXY, NO_PROXY) and api_url; everything is kept"


def _root_words(error: BaseException) -> str:
    """requests wraps the system's plain words, such as "Connection refused", into three layers of its own."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    words = error.strerror if isinstance(error, OSError) else ""
    return words or str(error) or type(error).__name__


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from sending what a ~/.netrc holds for the host."""
    return request


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What ``call`` returns or raises, or TimeoutError after some seconds.

    requests bounds each wait for bytes, not the whole: a name server that hangs or a server that drips would hold a
    run for ever. The thread of a call that was given up ends with its connection, or with the process.
    """
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not outcome:
        raise TimeoutError(f"the request took longer than {seconds:g} s")
    return outcome[0]
