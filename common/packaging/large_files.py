"""List the large files of a package with their URLs, as the MONAI Model Zoo does, so that its zip can lack them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from ..engines.checkpoints import LARGE_LIST
from ..errors import UsageError
from ..files import sha256

LARGE = ("models/model.pt", "models/model.ts")


def check_url(url: str) -> None:
    """Check that an option is the URL of a folder.

    Raises:
        UsageError: the option is not such a URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "file") or not (parts.netloc or parts.path) or '"' in url:
        raise UsageError(f"--large_files {url}: expected the URL of a folder, such as https://HOST/PATH")


def write_large_files(folder: Path, url: str) -> None:
    """Write ``large_files.yml`` of a package: path, URL and SHA-256 of each large file.

    Args:
        folder: folder of the package, with the large files.
        url: URL of the folder that will have them.
    """
    entries = "".join(
        f'  - path: "{name}"\n    url: "{url.rstrip("/")}/{Path(name).name}"\n'
        f'    hash_val: "{sha256(folder / name)}"\n    hash_type: "sha256"\n'
        for name in LARGE
    )
    (folder / LARGE_LIST).write_bytes(f"large_files:\n{entries}".encode())


def large_files(folder: Path) -> list[str]:
    """Return the paths in a package's ``large_files.yml``; none if it has no such file."""
    if not (folder / LARGE_LIST).is_file():
        return []
    return re.findall(r'^  - path: "([^"]+)"$', (folder / LARGE_LIST).read_text("utf-8", "replace"), re.MULTILINE)
