"""Test files of weights and training states."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from common.engines import load_weights, save_whole
from common.engines.checkpoints import UNTRAINED, load_file
from common.errors import InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models" / "model.pt"


def saved(path: Path, content: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save(content, path)
    return path


def test_what_is_saved_is_loaded(path: Path) -> None:
    content = {"epoch": 3, "stages": ["T1", "warm-up"], "network": {"w": torch.arange(3.0)}, "best": None}
    save_whole(content, path)

    loaded = load_file(path)
    assert loaded.keys() == content.keys()
    assert (loaded["epoch"], loaded["stages"], loaded["best"]) == (3, ["T1", "warm-up"], None)
    assert torch.equal(loaded["network"]["w"], torch.arange(3.0))
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"]


def test_a_save_that_fails_leaves_the_file_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_whole({"w": torch.ones(2)}, path)

    def fill_the_disc(file: Path, content: bytes) -> None:
        file.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fill_the_disc)
    with pytest.raises(InputError, match=r"model\.pt: cannot be written \(No space left on device\)"):
        save_whole({"w": torch.zeros(2)}, path)
    assert torch.equal(load_file(path)["w"], torch.ones(2))
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"]


def test_the_same_content_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    for file in (path, tmp_path / "other.pt"):
        save_whole({"w": torch.ones(2)}, file)
    assert path.read_bytes() == (tmp_path / "other.pt").read_bytes()


class Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_code_in_a_file_is_not_run(path: Path, tmp_path: Path, write: object) -> None:
    path.parent.mkdir()
    write({"w": Payload(tmp_path / "trace")}, path)  # type: ignore[operator]
    with pytest.raises(InputError, match=r"model\.pt: not a complete file of tensors"):
        load_file(path)
    assert not (tmp_path / "trace").exists()


def test_objects_are_refused_in_one_line(path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_file(saved(path, {"w": np.zeros(3)}))
    assert "still be loaded" not in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"hello world\n",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"<!DOCTYPE html>",
        b"U=\x88",
    ],
    ids=["nothing", "zeros", "text", "a pointer of git-lfs", "a web page", "noise"],
)
def test_another_file_is_refused(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.pt: not a complete file of tensors"):
        load_file(path)


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_a_cut_file_is_refused(path: Path, kept: float) -> None:
    whole = saved(path, {"w": torch.ones(1000)}).read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(InputError, match=r"model\.pt: not a complete file of tensors"):
        load_file(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "model.pt", tmp_path):
        with pytest.raises(InputError, match=f"^{path}: no such file; train the bundle, or give"):
            load_file(path)


def test_missing_weights_of_a_package_name_the_download(tmp_path: Path) -> None:
    (tmp_path / "large_files.yml").touch()
    with pytest.raises(InputError, match=f"no such file; get it by .*download_large_files --bundle_path '{tmp_path}'"):
        load_file(tmp_path / "models" / "model.pt")


# Weights.


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_the_network_gets_the_weights_of_the_file(path: Path) -> None:
    source, target = network(), network()
    load_weights(target, saved(path, source.state_dict()))
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value)


def test_untrained_keeps_the_network_and_warns(caplog: pytest.LogCaptureFixture) -> None:
    target = network()
    before = target[0].weight.clone()
    load_weights(target, UNTRAINED)
    assert torch.equal(target[0].weight, before)
    assert "untrained" in caplog.text


@pytest.mark.parametrize("nest", [lambda state: {"model": state}, lambda state: list(state.values()), lambda state: 3])
def test_other_than_a_flat_state_dict_is_refused(path: Path, nest: object) -> None:
    content = nest(network().state_dict())  # type: ignore[operator]
    with pytest.raises(InputError, match=r"model\.pt: expected a flat dictionary of tensors"):
        load_weights(network(), saved(path, content))


def test_weights_of_another_network_are_named(path: Path) -> None:
    target = network()
    before = target[1].bias.clone()
    state = network().state_dict()
    state["0.weight"] = torch.zeros(4, 2)
    state["new"] = torch.zeros(1)
    state["1.bias"] += 1
    with pytest.raises(InputError) as error:
        load_weights(target, saved(path, state))
    assert "weights of another network, 2 of 7 entries differ" in str(error.value)
    assert "0.weight: file (4, 2), network (3, 2)" in str(error.value)
    assert "new: file (1,), network nothing" in str(error.value)
    assert torch.equal(target[1].bias, before)  # nothing is loaded


def test_weights_of_a_wider_network_are_refused(path: Path) -> None:
    wider = nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6))
    with pytest.raises(InputError, match=r"weights of another network, 6 of 7 entries differ"):
        load_weights(network(), saved(path, wider.state_dict()))


def test_missing_weights_are_named(path: Path) -> None:
    state = network().state_dict()
    del state["1.running_mean"]
    with pytest.raises(InputError, match=r"1 of 7 entries differ \(1\.running_mean: file nothing, network \(3,\)\)"):
        load_weights(network(), saved(path, state))
