"""Test the page of results: it is one file without requests, escapes text, sorts cases and switches slices."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.data.label_table import label_table
from common.errors import InputError
from common.report import draw_cases, write_report
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


def test_page_has_the_names_in_the_mask(results: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = results
    mask = nib.load(run / "a_seg.nii.gz")
    mask.header.extensions.append(label_table({"spleen & more": 1}))
    nib.save(nib.Nifti1Image(np.asarray(mask.dataobj), mask.affine, mask.header), run / "a_seg.nii.gz")
    (data / "dataset.json").write_text((data / "dataset.json").read_text().replace('"labels"', '"names"'))
    assert "spleen &amp; more" in write_report({"run": run}, tmp_path / "report.html", data).read_text()


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


def test_missing_jinja2_is_named(results: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "jinja2" else name)
    with pytest.raises(InputError, match=r"^report: jinja2 is not installed; pip install jinja2 matplotlib"):
        write_report({"run": results[0]}, tmp_path / "report.html", results[1])


def test_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no scores\.csv or classes\.csv or \*_seg\.nii\.gz; found an empty folder;"):
        write_report({"run": tmp_path}, tmp_path / "report.html")
    with pytest.raises(InputError, match=r"none: no such folder; give"):
        write_report({"run": tmp_path / "none"}, tmp_path / "report.html")


def test_scans_without_a_list_are_found(results: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = results
    for name in ("a_label.nii.gz", "dataset.json"):
        (data / name).unlink()
    page = write_report({"run": run}, tmp_path / "report.html", data).read_text()
    assert 'data-case="a"' in page and "ground truth</th>" not in page and 'id="truth"' not in page
    (data / "a.nii.gz").rename(data / "b.nii.gz")
    with pytest.raises(InputError, match=r"data: no case a, which has the mask .*a_seg\.nii\.gz; give the folder of"):
        write_report({"run": run}, tmp_path / "report.html", data)


@pytest.mark.parametrize("named", ["MR", ["MR"], {"0": "MR"}])
def test_a_data_list_may_name_its_modality_in_any_form(
    results: tuple[Path, Path], tmp_path: Path, named: str | list[str] | dict[str, str]
) -> None:
    run, data = results
    listing = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(listing | {"modality": named}))
    assert 'data-case="a"' in write_report({"run": run}, tmp_path / "report.html", data).read_text()


def test_modalities_in_the_record_join_the_scans(write_nifti: Callable, tmp_path: Path) -> None:
    mask = np.zeros((8, 8, 4), np.uint8)
    mask[2:5, 2:5, 1:3] = 1
    for name in ("T1", "T2"):
        write_nifti(f"data/P1_{name}.nii.gz", np.random.default_rng(0).normal(size=mask.shape).astype(np.float32))
    write_nifti("run/P1_seg.nii.gz", mask)
    (tmp_path / "run" / "P1_seg.json").write_text(json.dumps({"modality": "T2, T1", "classes": {"1": "tumour"}}))
    page = write_report({"run": tmp_path / "run"}, tmp_path / "report.html", tmp_path / "data").read_text()
    assert page.index(">T2</option>") < page.index(">T1</option>") and ">tumour<" in page


def test_each_mask_gets_a_picture(results: tuple[Path, Path]) -> None:
    run, data = results
    assert draw_cases(run, data) == draw_cases(run, data, names="a", limit=1) == [run / "a_seg.png"]
    with pytest.raises(InputError, match=r"--cases b: no such case in output_dir="):
        draw_cases(run, data, names="b")
    with pytest.raises(InputError, match=r"data: no \*_seg\.nii\.gz; found a\.nii\.gz, "):
        draw_cases(data, data)


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
