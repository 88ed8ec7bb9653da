"""Test the page of results: it is one file without requests, escapes text, sorts cases and switches slices."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.errors import InputError
from common.report import write_report
from common.reporting import write_scores

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
NAME = "<script>window.bad = 1</script>"


@pytest.fixture
def results(write_nifti: Callable, tmp_path: Path) -> tuple[Path, Path]:
    """Write an inference with scores of two cases and its data list; return both folders."""
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    run.mkdir()
    mask = np.zeros((12, 16, 6), np.uint8)
    mask[3:7, 4:9, 1:4] = 1
    image = np.random.default_rng(0).normal(size=mask.shape).astype(np.float32)
    for name, array in (("a", image), ("a_label", mask)):
        shutil.move(write_nifti(f"{name}.nii.gz", array), data / f"{name}.nii.gz")
    shutil.move(write_nifti("a_seg.nii.gz", mask), run / "a_seg.nii.gz")
    listing = {"test": [{"case": "a", "image": "a.nii.gz", "label": "a_label.nii.gz"}], "labels": {"0": "b", "1": NAME}}
    (data / "dataset.json").write_text(json.dumps(listing))
    write_scores([{"case": "a", "Dice": 0.9}, {"case": NAME, "Dice": 0.1}], run / "scores.csv")
    return run, data


def test_page_makes_no_request_and_escapes_names(results: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = results
    page = write_report({"run": run}, tmp_path / "report.html", data).read_text()
    assert NAME not in page
    assert "&lt;script&gt;window.bad" in page
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:)\w""", page)
    assert page.index("&lt;script&gt;") < page.index('data-v="a"')  # the worst first
    assert "1.000" in page  # Dice of equal masks


def test_page_replaces_only_a_page(results: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    write_report({"run": results[0]}, out, results[1])
    write_report({"run": results[0]}, out, results[1])
    out.write_text("mine")
    with pytest.raises(InputError, match="another file"):
        write_report({"run": results[0]}, out, results[1])


def test_masks_without_their_scans_are_refused(results: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="add --dataset_dir"):
        write_report({"run": results[0]}, tmp_path / "report.html")


def test_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no scores\.csv, classes\.csv or"):
        write_report({"run": tmp_path}, tmp_path / "report.html")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_page_sorts_scrolls_and_switches_in_a_browser(results: tuple[Path, Path], tmp_path: Path) -> None:
    page = write_report({"run": results[0]}, tmp_path / "report.html", results[1])
    script = """<script>
    const th = document.querySelector("table.sortable th:nth-child(2) button"); th.click();
    const range = document.querySelector("input[type=range]"); range.value = 0; range.dispatchEvent(new Event("input"));
    document.getElementById("pred").click();
    const pred = document.querySelector("svg path.pred");
    document.title = [document.querySelector("table.sortable tbody td").textContent,
      document.querySelector("output").textContent, getComputedStyle(pred).display, window.bad === undefined].join("|");
    </script></body>"""
    tried = tmp_path / "tried.html"
    tried.write_text(page.read_text().replace("</body>", script))
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--enable-logging=stderr", "--dump-dom", tried.as_uri()], capture_output=True, text=True, timeout=60
    )
    assert "<title>a|slice 0|none|true</title>" in done.stdout
    assert "CONSOLE" not in done.stderr


@pytest.mark.parametrize("modality", [["<i>"], "<i>", {"0": "<i>"}, {"<i>": 0}])
def test_modalities_in_each_form_of_a_list_are_shown(
    results: tuple[Path, Path], tmp_path: Path, modality: object
) -> None:
    path = results[1] / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "modality": modality}))
    page = write_report({"run": results[0]}, tmp_path / "report.html", results[1]).read_text()
    assert "&lt;i&gt;" in page or r"\u003ci\u003e" in page


def test_a_scan_in_the_place_of_a_mask_is_refused(results: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copy(results[1] / "a.nii.gz", results[0] / "a_seg.nii.gz")
    with pytest.raises(InputError, match=r"a_seg\.nii\.gz: values from .*, expected a label map"):
        write_report({"run": results[0]}, tmp_path / "report.html", results[1])
