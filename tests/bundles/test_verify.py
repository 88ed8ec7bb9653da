"""Test what verify refuses, and what goes to the Hub."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from monai.bundle import scripts as monai_bundle

from common.__main__ import main
from common.errors import InputError
from common.files import sha256
from common.packaging import verify_package
from common.packaging.checksums import check_checksums

from ..methods.mmfnet.tiny import MMFNET
from ..methods.mpunet.tiny import MPUNET
from ..methods.multirnet.tiny import MULTIRNET

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:parsing config_file")]  # MONAI's, of any config


@pytest.mark.usefixtures("warm_packing")
def test_unchanged_package_passes(
    packed: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = packed(MMFNET)
    monkeypatch.setattr(sys, "argv", ["common", "verify", str(folder.with_name(f"{folder.name}_v0.1.0.zip"))])
    main()
    assert capsys.readouterr().out == f"{MMFNET.name} 0.1.0: every file is as it was packed, the weights load\n"


def _list_anew(folder: Path) -> None:
    """List the files anew, as an attacker does."""
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    names = [line.partition("  ")[2] for line in lines]
    (folder / "SHA256SUMS").write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names))


class _Payload:
    def __reduce__(self) -> tuple:
        return os.system, ("touch stolen",)


def _unknown_key(folder: Path) -> None:
    path = folder / "models" / "model.pt"
    torch.save({**torch.load(path, weights_only=True), "backdoor.weight": torch.ones(1)}, path)
    _list_anew(folder)


def _pickle(folder: Path) -> None:
    torch.save(_Payload(), folder / "models" / "model.pt")
    _list_anew(folder)


def _other_weights(folder: Path) -> None:
    path = folder / "models" / "model.pt"
    torch.save({key: value + 1 for key, value in torch.load(path, weights_only=True).items()}, path)
    _list_anew(folder)


def _truncated(folder: Path) -> None:
    path = folder / "models" / "model.ts"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.usefixtures("warm_packing")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_truncated, r"model\.ts: changed since it was packed"),
        (_unknown_key, r"model\.pt: weights of another network.*backdoor\.weight"),
        (_pickle, r"model\.pt: not a complete file of tensors"),
        (_other_weights, r"model\.ts: its weights differ from those in model\.pt"),
    ],
)
def test_changed_package_is_refused(
    packed: Callable, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / MPUNET.name
    shutil.copytree(packed(MPUNET), folder)
    spoil(folder)
    with pytest.raises(InputError, match=message) as error:
        verify_package(folder)
    assert "\n" not in str(error.value)
    assert not Path("stolen").exists()


def test_path_without_a_package_is_refused(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "no", "no such folder or zip"), (tmp_path, "no SHA256SUMS")):
        with pytest.raises(InputError, match=message):
            verify_package(path)


def test_verify_without_loading_runs_no_code(packed: Callable, tmp_path: Path) -> None:
    folder = tmp_path / MPUNET.name
    shutil.copytree(packed(MPUNET), folder)
    _unknown_key(folder)
    assert verify_package(folder, load=False) == f"{MPUNET.name} 0.1.0"


class _Hub:
    """Record the calls to the Hub in place of sending."""

    calls: ClassVar[list[tuple[str, Any]]] = []

    def __init__(self, token: str | None) -> None: ...

    def create_repo(self, repo_id: str, **_: Any) -> None:
        self.calls.append(("create_repo", repo_id))

    def upload_folder(self, repo_id: str, folder_path: str, **_: Any) -> str:
        names = {f.relative_to(folder_path).as_posix() for f in Path(folder_path).rglob("*") if f.is_file()}
        self.calls.append(("upload_folder", names))
        return f"hub/{repo_id}"

    def create_tag(self, repo_id: str, tag: str, **_: Any) -> None:
        self.calls.append(("create_tag", tag))


def test_hub_gets_the_listed_files_and_the_card(
    packed: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(packed(MULTIRNET), tmp_path / MULTIRNET.name))
    listed = {line.partition("  ")[2] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    monkeypatch.setattr(_Hub, "calls", [])
    monkeypatch.setattr(monai_bundle, "huggingface_hub", type("hub", (), {"HfApi": _Hub}))
    monai_bundle.push_to_hf_hub("someone/lung", folder.name, str(folder.parent), version="0.1.0")
    assert _Hub.calls == [
        ("create_repo", "someone/lung"),
        ("upload_folder", listed | {"SHA256SUMS", "README.md"}),
        ("create_tag", "0.1.0"),
    ]
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n") and "library_name: monai" in card
    check_checksums(folder)  # MONAI's own card beside the listed files is allowed
