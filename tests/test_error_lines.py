"""Test that an error's line reaches the terminal, below progress bars and through MONAI's exceptions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage
from tqdm import tqdm

from common.data import AtomicNibabelWriter
from common.errors import InputError, is_input_error, root_cause, show_input_errors_in_one_line


def test_an_error_after_a_progress_bar_starts_a_new_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    show_input_errors_in_one_line()
    bar = tqdm(total=2)
    bar.update()
    with pytest.raises(SystemExit):
        sys.excepthook(InputError, InputError("a file"), None)
    assert capsys.readouterr().err.endswith("\nerror: a file\n")


def test_a_writers_error_survives_monais_save_image(tmp_path: Path) -> None:
    """MONAI catches the error and raises another one that has only its text."""
    (tmp_path / "P1_seg.nii.gz").mkdir()
    save = SaveImage(tmp_path, "seg", ".nii.gz", writer=AtomicNibabelWriter, separate_folder=False)
    image = MetaTensor(torch.ones(1, 2, 2, 2), meta={"filename_or_obj": "P1.nii.gz", "spatial_shape": (2, 2, 2)})
    with pytest.raises(RuntimeError) as raised:
        save(image)
    cause = root_cause(raised.value)
    assert is_input_error(cause)
    assert str(cause).startswith(f"{tmp_path / 'P1_seg.nii.gz'}: cannot be written (")
    assert "choose another place" in str(cause)
