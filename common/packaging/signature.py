"""Write and check the signature of a package, in the format of OpenSSF Model Signing."""

from __future__ import annotations

import importlib.util
import textwrap
from pathlib import Path
from typing import Any

from ..errors import InputError
from .checksums import SIGNATURE, read_checksums, unlisted_files


def read_private_key(key: Path) -> Any:
    """Read the key that signs a package.

    Args:
        key: PEM file with the private key, without a password.

    Returns:
        ``model_signing.signing.Config`` that signs with this key.

    Raises:
        InputError: the extra ``sign`` is not installed, or the file does not hold such a key.
    """
    _check_installed("--sign")
    from model_signing import hashing, signing

    files = hashing.Config().set_ignored_paths(paths=[SIGNATURE])  # so that OpenSSF's own tool needs no option
    try:
        return signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(files)
    except Exception as error:  # of the operating system, or of cryptography for another kind of file or key
        raise _unusable_key(key, "a private key without a password", error) from error


def sign_package(folder: Path, signer: Any) -> None:
    """Write ``model.sig``, a signature of all files of a package and of their list.

    Args:
        folder: folder of the package, complete except for the signature.
        signer: return value of :func:`read_private_key`.
    """
    signer.sign(folder, folder / SIGNATURE)


def check_signature(folder: Path, key: Path) -> None:
    """Check that the owner of a key signed exactly the files that a package lists.

    Args:
        folder: folder of the package. Its files agree with its list.
        key: PEM file with the public key of the package's maker.

    Raises:
        InputError: the extra ``sign`` is not installed; the file does not hold such a key; or the signature is missing,
            comes from another key, or belongs to other files.
    """
    _check_installed("--key")
    from model_signing import hashing, verifying

    signature = folder / SIGNATURE
    if not signature.is_file():
        raise InputError(f"{signature}: no such file; the package is not signed; leave --key out, or ask its maker")
    unsigned = [path.relative_to(folder) for path in unlisted_files(folder, read_checksums(folder))]
    files = hashing.Config().set_ignored_paths(paths=unsigned).set_allow_symlinks(True)  # data beside it may be links
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key).set_hashing_config(files)
    except Exception as error:
        raise _unusable_key(key, "a public key", error) from error
    try:
        verifier.verify(folder, signature)
    except Exception as error:  # various errors for a damaged or forged signature
        raise InputError(
            f"{signature}: not a signature of these files with the key {key} ({_reason(error)}); do not use the "
            "package; get it and the key from its maker"
        ) from error


def _check_installed(option: str) -> None:
    if any(importlib.util.find_spec(name) is None for name in ("model_signing", "OpenSSL")):
        raise InputError(f'model-signing is not installed; install the extra "sign", or leave {option} out')


def _unusable_key(key: Path, expected: str, error: Exception) -> InputError:
    return InputError(
        f"{key}: cannot be used ({_reason(error)}); expected a PEM file of {expected}, P-256, P-384 or P-521; "
        "docs/how-to/share.md shows how to make one"
    )


def _reason(error: Exception) -> str:
    return textwrap.shorten(getattr(error, "strerror", None) or str(error) or type(error).__name__, 100)
