"""Real proxies, each a private process on a loopback address as long as its ``with`` lasts."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Sequence
from urllib.parse import urlsplit

from tests.support.tools import need
from tests.support.waiting import wait_for

USER, PASSWORD = "exporter", "s3c:ret"


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as attempt:
        attempt.bind((address, 0))
        return int(attempt.getsockname()[1])


class _Daemon:
    """A process that listens on a port, with its own folder, which every user can read."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="proxy."))
        self.folder.chmod(0o755)
        self.address = address
        self.port = free_port(address)
        self._process: subprocess.Popen[bytes] | None = None
        self._argv: Sequence[str] = ()

    def start(self, argv: Sequence[str]) -> None:
        self._argv = argv
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_for(self._listens, f"{argv[0]}, which said {(self.folder / 'log').read_text()!r}", limit_seconds=20)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def start_again(self) -> None:
        """Restarts it on the same port, unless it is running."""
        if self._process is None or self._process.poll() is not None:
            self.start(self._argv)

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _listens(self) -> bool:
        try:
            socket.create_connection((self.address, self.port), timeout=1).close()
        except OSError:
            return False
        return True


class Nginx(_Daemon):
    """A reverse proxy.

    :param backend: the dashboard's URL.
    :param server: more directives for the server, such as ``client_max_body_size 64k;``.
    :param location: directives that replace forwarding everything.
    :param zone: directives before the server, such as ``limit_req_zone``.
    :param tls: a PEM file with certificate and key.
    """

    def __init__(
        self,
        backend: str,
        server: str = "",
        *,
        location: str = "",
        zone: str = "",
        tls: Path | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        super().__init__(address)
        self._backend = backend
        self._server = server
        self._zone = zone
        self._location = location or f"location / {{ proxy_pass {backend}; }}"
        self._tls = tls

    def __enter__(self) -> Nginx:
        temporary = "".join(
            f"{kind}_temp_path {self.folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        host = f"[{self.address}]" if ":" in self.address else self.address
        tls = f"ssl_certificate {self._tls}; ssl_certificate_key {self._tls};" if self._tls else ""
        conf = self.folder / "nginx.conf"
        conf.write_text(
            f"""daemon off; master_process off; pid {self.folder}/pid; error_log stderr;
            events {{ }}
            http {{
                access_log off; {temporary} {self._zone}
                server {{ listen {host}:{self.port} {"ssl" * bool(self._tls)}; {tls} {self._server} {self._location} }}
            }}"""
        )
        self.start([need("nginx"), "-p", str(self.folder), "-c", str(conf), "-e", "stderr"])
        return self

    @property
    def url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"


class _Forward(_Daemon):
    """A forward proxy that requires a password."""

    def url(self, user: str = USER, password: str = PASSWORD) -> str:
        """Its URL for HTTPS_PROXY, with user and password if there is a user."""
        secret = f"{user}:{password.replace(':', '%3A')}@" if user else ""
        return f"http://{secret}127.0.0.1:{self.port}"

    def passed(self) -> str:
        """Its log."""
        return (self.folder / "access").read_text(errors="replace") if (self.folder / "access").exists() else ""


class Squid(_Forward):
    """Squid, with a file of passwords; ``rules`` precede the one that lets users through."""

    def __init__(self, rules: str = "") -> None:
        super().__init__()
        self._rules = rules

    def __enter__(self) -> Squid:
        argv = ["openssl", "passwd", "-6", "-stdin"]
        hashed = subprocess.run(argv, input=f"{PASSWORD}\n", check=True, capture_output=True, text=True).stdout
        (self.folder / "passwords").write_text(f"{USER}:{hashed}")
        access = self.folder / "access"
        access.touch()
        access.chmod(0o666)
        conf = self.folder / "squid.conf"
        conf.write_text(
            f"""http_port 127.0.0.1:{self.port}
            visible_hostname proxy.example.com
            auth_param basic program /usr/lib/squid/basic_ncsa_auth {self.folder}/passwords
            acl users proxy_auth REQUIRED
            {self._rules}
            http_access allow users
            http_access deny all
            cache deny all
            cache_log /dev/null
            access_log stdio:{access}
            buffered_logs off
            pid_filename none
            netdb_filename none
            pinger_enable off
            coredump_dir /
            shutdown_lifetime 0 seconds
            """.replace("            ", "")
        )
        self.start([need("squid"), "-N", "-f", str(conf)])
        return self


class Tinyproxy(_Forward):
    """tinyproxy.

    :param connect_port: the only port that CONNECT may use.
    """

    def __init__(self, connect_port: int = 443) -> None:
        super().__init__()
        self._connect_port = connect_port

    def __enter__(self) -> Tinyproxy:
        conf = self.folder / "tinyproxy.conf"
        conf.write_text(
            f'Port {self.port}\nListen 127.0.0.1\nTimeout 60\nLogFile "{self.folder}/access"\nLogLevel Connect\n'
            f"BasicAuth {USER} {PASSWORD.replace(':', '')}\nConnectPort {self._connect_port}\n"
        )
        self.start([need("tinyproxy"), "-d", "-c", str(conf)])
        return self

    def url(self, user: str = USER, password: str = PASSWORD.replace(":", "")) -> str:
        """Its passwords contain no colon."""
        return super().url(user, password)


def port_of(url: str) -> int:
    return int(urlsplit(url).port or 0)
