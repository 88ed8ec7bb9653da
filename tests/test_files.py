"""Files are read with a clear message."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import InputError
from common.files import read_json


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json: cannot be read"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_json_in_each_encoding_of_unicode(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.json").write_bytes('{"name": "Fall \u00fc"}'.encode(encoding))
    assert read_json(tmp_path / "a.json") == {"name": "Fall \u00fc"}


@pytest.mark.parametrize("content", ['{"name": "Fall \u00fc"}'.encode("latin-1"), b"[" * 100_000, b""])
def test_what_is_not_json_in_unicode(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json: not valid JSON in UTF-8"):
        read_json(tmp_path / "a.json")
