"""Writes a release's SBOM (CycloneDX): a component for each wheel, with its version, licence and hash.

Called by bundle.py. Needs cyclonedx-python-lib, of the extra `release`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import uuid
import zipfile
from datetime import datetime, timezone
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, Iterable


def is_possible() -> bool:
    """Whether the library is installed."""
    return importlib.util.find_spec("cyclonedx") is not None


def write_sbom(folder: Path, own: Path, wheels: Iterable[Path], date: int) -> Path:
    """Writes the SBOM beside the release; the same release gives the same bytes.

    :param own: the exporter's own wheel, of which the others are the dependencies.
    :param date: epoch seconds.
    """
    from cyclonedx.model.bom import Bom  # noqa: PLC0415
    from cyclonedx.output import make_outputter  # noqa: PLC0415
    from cyclonedx.schema import OutputFormat, SchemaVersion  # noqa: PLC0415

    bom = Bom()
    ours = make_component(own)
    parts = [
        make_component(wheel) for _, wheel in sorted({wheel.name: wheel for wheel in wheels}.items()) if wheel != own
    ]
    bom.metadata.component = ours
    bom.metadata.timestamp = datetime.fromtimestamp(date, timezone.utc)
    bom.components.update(parts)
    bom.register_dependency(ours, parts)
    contents = "".join(sorted(f"{part.name} {part.version}\n" for part in [ours, *parts]))
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, f"{date}\n{contents}")
    path = folder / f"{ours.name}-{ours.version}.cdx.json"
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_5).output_as_string(indent=2)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def make_component(wheel: Path) -> Any:
    """A component for one wheel, from the wheel's metadata."""
    from cyclonedx.model import HashAlgorithm, HashType  # noqa: PLC0415
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415
    from cyclonedx.model.license import DisjunctiveLicense  # noqa: PLC0415
    from packageurl import PackageURL  # noqa: PLC0415

    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode("utf-8"))
    licence = str(metadata["License-Expression"] or metadata["License"] or "").partition("\n")[0]
    package = PackageURL("pypi", name=metadata["Name"].lower().replace("_", "-"), version=metadata["Version"])
    return Component(
        name=metadata["Name"],
        version=metadata["Version"],
        type=ComponentType.LIBRARY,
        bom_ref=str(package),
        purl=package,
        licenses=[DisjunctiveLicense(name=licence)] if licence else [],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(wheel.read_bytes()).hexdigest())],
    )
