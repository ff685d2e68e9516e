"""A certificate that only a test trusts."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .tools import need


def make_certificate(folder: Path) -> Path:
    """Writes a self-signed certificate for 127.0.0.1 and its key into one PEM file: server's identity and CA bundle."""
    need("openssl")
    pem = folder / "dashboard.pem"
    subject = ("-subj", "/CN=dashboard", "-addext", "subjectAltName=IP:127.0.0.1")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem"))
    subprocess.run(["openssl", "req", "-x509", "-days", "1", *curve, *subject, *files], check=True, capture_output=True)
    pem.write_text((folder / "key.pem").read_text() + (folder / "certificate.pem").read_text())
    return pem
