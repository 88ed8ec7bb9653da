"""Make pairs of keys that sign."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def key_pair(path: Path, kind: str = "P-256", password: bytes | None = None) -> Path:
    """Write a private key to ``path``, and its public key beside it as ``.pub``; return ``path``."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    makers: dict[str, Callable[[], Any]] = {
        "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
        "Ed25519": ed25519.Ed25519PrivateKey.generate,
        "RSA": lambda: rsa.generate_private_key(65537, 2048),
    }
    key = makers[kind]()
    secret = form.NoEncryption() if password is None else form.BestAvailableEncryption(password)
    path.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, secret))
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return path
