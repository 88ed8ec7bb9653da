"""Test the signature of a package."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import InputError
from common.packaging.checksums import LIST, SIGNATURE, check_checksums, write_checksums
from common.packaging.signature import check_signature, read_private_key, sign_package

from .keys import key_pair


@pytest.fixture
def maker(tmp_path: Path) -> Path:
    """Make the maker's pair of keys, maker.key and maker.pub."""
    pytest.importorskip("model_signing")
    return key_pair(tmp_path / "maker.key")


def test_missing_extra_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "model_signing" else find(name))
    with pytest.raises(InputError, match=r'install the extra "sign", or leave --sign out'):
        read_private_key(folder / "maker.key")
    with pytest.raises(InputError, match=r'install the extra "sign", or leave --key out'):
        check_signature(folder, folder / "maker.pub")


@pytest.mark.parametrize("kind", ["P-256", "P-521"])
def test_signature_fits_its_files_and_key(folder: Path, maker: Path, kind: str) -> None:
    key_pair(maker, kind)
    sign_package(folder, read_private_key(maker))
    check_checksums(folder)
    check_signature(folder, maker.with_suffix(".pub"))


def test_tool_of_openssf_accepts_the_signature(folder: Path, maker: Path) -> None:
    from model_signing import verifying

    sign_package(folder, read_private_key(maker))
    config = verifying.Config().use_elliptic_key_verifier(public_key=maker.with_suffix(".pub"))
    config.verify(folder, folder / SIGNATURE)
    (folder / "LICENSE").write_text("fre")
    with pytest.raises(ValueError, match="Signature mismatch"):
        config.verify(folder, folder / SIGNATURE)


def test_files_that_use_adds_need_no_signature(folder: Path, maker: Path, tmp_path: Path) -> None:
    sign_package(folder, read_private_key(maker))
    (folder / "eval").mkdir()
    for name in ("eval/case_seg.nii.gz", "README.md", ".gitattributes", "models/.DS_Store"):
        (folder / name).write_text("")
    (tmp_path / "scans").mkdir()
    (folder / "data").symlink_to(tmp_path / "scans")
    check_checksums(folder)
    check_signature(folder, maker.with_suffix(".pub"))


def _change(folder: Path) -> None:
    (folder / "models" / "model.pt").write_bytes(b"other weights")
    write_checksums_again(folder)


def _add(folder: Path) -> None:
    (folder / "models" / "other.pt").touch()
    write_checksums_again(folder)


def _remove(folder: Path) -> None:
    (folder / "LICENSE").unlink()
    write_checksums_again(folder)


def _reorder(folder: Path) -> None:
    """Change the list alone, which is signed too."""
    (folder / LIST).write_text("".join(reversed((folder / LIST).read_text().splitlines(keepends=True))))


def write_checksums_again(folder: Path) -> None:
    """List the files anew, as an attacker does."""
    signature = (folder / SIGNATURE).read_bytes()
    (folder / SIGNATURE).unlink()
    (folder / LIST).unlink()
    write_checksums(folder)
    (folder / SIGNATURE).write_bytes(signature)


@pytest.mark.parametrize("spoil", [_change, _add, _remove, _reorder])
def test_package_listed_anew_is_refused(folder: Path, maker: Path, spoil: Callable[[Path], None]) -> None:
    sign_package(folder, read_private_key(maker))
    spoil(folder)
    check_checksums(folder)
    with pytest.raises(InputError, match=r"model\.sig: not a signature of these files .*Signature mismatch") as error:
        check_signature(folder, maker.with_suffix(".pub"))
    assert "\n" not in str(error.value)


def test_other_key_is_refused(folder: Path, maker: Path, tmp_path: Path) -> None:
    sign_package(folder, read_private_key(maker))
    key_pair(tmp_path / "other.key")
    with pytest.raises(InputError, match=r"model\.sig: not a signature .*other\.pub \(Key mismatch"):
        check_signature(folder, tmp_path / "other.pub")


def test_signature_of_another_package_is_refused(folder: Path, maker: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    (other / "LICENSE").write_text("other")
    write_checksums(other)
    sign_package(other, read_private_key(maker))
    shutil.copy(other / SIGNATURE, folder)
    with pytest.raises(InputError, match=r"model\.sig: not a signature of these files"):
        check_signature(folder, maker.with_suffix(".pub"))


@pytest.mark.parametrize("content", ["", "{}", "[]", "no JSON", None])
def test_damaged_signature_is_refused(folder: Path, maker: Path, content: str | None) -> None:
    """Refuse a signature with another content, and one whose signed bytes changed (None)."""
    sign_package(folder, read_private_key(maker))
    if content is None:
        envelope = json.loads((folder / SIGNATURE).read_text())
        signed = base64.b64decode(envelope["dsseEnvelope"]["payload"])
        envelope["dsseEnvelope"]["payload"] = base64.b64encode(signed + b" ").decode()
        content = json.dumps(envelope)
    (folder / SIGNATURE).write_text(content)
    with pytest.raises(InputError, match=r"model\.sig: not a signature of these files"):
        check_signature(folder, maker.with_suffix(".pub"))


def test_missing_signature_is_refused(folder: Path, maker: Path) -> None:
    with pytest.raises(InputError, match=r"model\.sig: no such file; the package is not signed"):
        check_signature(folder, maker.with_suffix(".pub"))


@pytest.mark.parametrize("kind", ["RSA", "Ed25519", "secp256k1", "password", "text", "missing", "swapped"])
def test_unusable_key_is_refused(folder: Path, maker: Path, kind: str) -> None:
    sign_package(folder, read_private_key(maker))
    private, public = maker, maker.with_suffix(".pub")
    if kind == "password":
        key_pair(maker, password=b"secret")
        public = maker
    elif kind == "swapped":
        private, public = public, private
    elif kind == "text":
        private.write_text("no key")
        public.write_text("no key")
    elif kind == "missing":
        private.unlink()
        public.unlink()
    else:
        key_pair(maker, kind)
    for path, use, expected in (
        (private, read_private_key, "a private key without a password"),
        (public, lambda key: check_signature(folder, key), "a public key"),
    ):
        message = rf"{path.name}: cannot be used \(.+\); expected a PEM file of {expected}, P-256, P-384 or P-521"
        with pytest.raises(InputError, match=message) as error:
            use(path)
        assert "\n" not in str(error.value)
