"""Write the code of a package as a wheel, for platforms that take no Python in a bundle."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import sha256
from .archive import check_expansion, zip_bytes
from .contents import Contents

ENTRY = "code_wheel"  # in metadata.json: name and SHA-256 of the wheel that a package without code needs


def wheel_file(name: str, version: str) -> str:
    """Return the file name of the wheel with the code of a package."""
    return f"{name}-{version}-py3-none-any.whl"


def wheel_bytes(contents: Contents, code: Mapping[str, bytes]) -> bytes:
    """Return a wheel that installs the code of a package under the code's own name. The same code gives the same bytes.

    Args:
        contents: what goes into the package.
        code: path in the wheel to source.
    """
    info = f"{contents.name}-{contents.version}.dist-info"
    requires = "".join(f"Requires-Dist: {name}>={version}\n" for name, version in contents.requirements.items())
    metadata = (
        f"Metadata-Version: 2.4\nName: {contents.name}\nVersion: {contents.version}\n"
        f"Summary: Code of the MONAI bundle {contents.name} {contents.version}. Not for clinical use.\n"
        f"License-File: LICENSE\nRequires-Python: >=3.10\n{requires}"
    )
    wheel = "Wheel-Version: 1.0\nGenerator: common.packaging\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {
        **code,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": wheel.encode(),
        f"{info}/licenses/LICENSE": contents.files["LICENSE"],
    }
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    rows.writerows([path, _recorded_hash(files[path]), len(files[path])] for path in sorted(files))
    rows.writerow([f"{info}/RECORD", "", ""])
    return zip_bytes({**files, f"{info}/RECORD": record.getvalue().encode()})


def is_unchanged_wheel(path: Path) -> bool:
    """Return whether a file is a wheel with exactly the files of its ``RECORD``."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_expansion(path, archive)
            content = {name: archive.read(name) for name in archive.namelist()}
        (record,) = (name for name in content if name.endswith(".dist-info/RECORD"))
        listed = {row[0]: row[1] for row in csv.reader(io.StringIO(content[record].decode()))}
    except Exception:  # zipfile raises various errors for a damaged zip, or another file
        return False
    return listed == {name: "" if name == record else _recorded_hash(data) for name, data in content.items()}


@contextmanager
def installed_wheel(metadata: Mapping[str, Any], place: Path) -> Iterator[Path | None]:
    """Install the wheel that a package needs into a temporary folder.

    Args:
        metadata: content of the package's ``metadata.json``.
        place: folder that may have the wheel.

    Yields:
        the temporary folder; None if the package has its own code, or if ``place`` has no wheel. pip may have installed
        it.

    Raises:
        InputError: the wheel is not the one that the package was made with.
    """
    match metadata.get(ENTRY):
        case {"file": str(file), "sha256": str(expected)} if (wheel := place / Path(file).name).is_file():
            if (found := sha256(wheel)) != expected:
                raise InputError(
                    f"{wheel}: not the wheel of this package; its SHA-256 is {found}, expected {expected}; get it "
                    "again from its source"
                )
        case _:
            yield None
            return
    with tempfile.TemporaryDirectory() as temporary:
        with zipfile.ZipFile(wheel) as archive:  # a wheel of Python alone is installed by unpacking
            check_expansion(wheel, archive)
            archive.extractall(temporary)
        yield Path(temporary)


def _recorded_hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f"sha256={digest}"
