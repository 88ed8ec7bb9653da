"""Pack a bundle as one folder and one zip that run without this repository."""

from .pack import pack_bundle
from .verify import verify_package

__all__ = [
    "pack_bundle",
    "verify_package",
]
