"""Run the documented commands in an empty working directory, as users type them."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from common.__main__ import main
from common.engines.training_folder import STATE_FILE
from common.reporting import read_scores, write_scores
from common.verbs import VERBS, function_of

from ..methods.mamtln.tiny import MAMTLN_CT
from ..methods.mmfnet.tiny import MMFNET
from ..methods.mpunet.tiny import MPUNET
from ..methods.multirnet.tiny import MULTIRNET
from ..methods.omnet.tiny import OMNET, sure_of_parts
from ..workflows import BUSY, results_in

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs ``python -m`` with arguments in an empty folder."""
    (tmp_path / "elsewhere").mkdir()

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path / "elsewhere",
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def bundle_run(tmp_path: Path, config_files: Callable) -> Callable[..., list[str]]:
    """Return a function that gives the arguments of ``monai.bundle run`` for configs of a bundle and a tiny overlay."""

    def arguments(*names: str, bundle: Path = MMFNET, **options: Any) -> list[str]:
        options = {
            "bundle_root": bundle,
            "ckpt_dir": tmp_path / "models",
            "output_dir": tmp_path / "out",
            **options,
        }
        files = config_files(bundle, *names)
        return ["monai.bundle", "run", f"--config_file={files}", *(f"--{k}={v}" for k, v in options.items())]

    return arguments


@pytest.fixture
def weights(busy_weights: Callable) -> Path:
    return busy_weights(MMFNET) / "model.pt"


def assert_ends_in_one_line(done: subprocess.CompletedProcess, *words: str) -> None:
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("error: ")
    assert all(word in last for word in words), last
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_inference(command: Callable, bundle_run: Callable, weights: Path, cohort: Callable, tmp_path: Path) -> None:
    done = command(*bundle_run("inference", dataset_dir=cohort(MMFNET)))
    assert done.returncode == 0, done.stderr
    names = {f"case_00{i}_seg.nii.gz" for i in (4, 5)}
    assert results_in(tmp_path / "out") == {*names, "inference.log"}
    for name in names:
        assert nib.load(tmp_path / "out" / name).shape[:2] == (28, 32)
    assert not list((tmp_path / "elsewhere").iterdir())
    assert "2 of 2 cases done" in done.stdout


@pytest.mark.slow
def test_ensemble_inference(command: Callable, bundle_run: Callable, cohort: Callable, tmp_path: Path) -> None:
    """Give lists and words as text, as a shell does."""
    for seed in (0, 5):
        torch.save(sure_of_parts(seed=seed).state_dict(), tmp_path / f"{seed}.pt")
    options = {
        "weights": [str(tmp_path / "0.pt"), str(tmp_path / "5.pt")],
        "roi_size": "[32,32,16]",
        "keep": "[20,20,5]",
        "levels": 2,
        "clean": "false",
        "label_code": "brats2023",
    }
    done = command(*bundle_run("inference", "ensemble", bundle=OMNET, dataset_dir=cohort(OMNET), **options))
    assert done.returncode == 0, done.stderr
    maps = [np.asarray(nib.load(path).dataobj) for path in (tmp_path / "out").glob("*_seg.nii.gz")]
    assert len(maps) == 2
    assert set(np.unique(maps)) <= {0, 1, 2, 3} and np.any(maps)
    assert not list((tmp_path / "elsewhere").iterdir())
    assert "2 of 2 cases done" in done.stdout


@pytest.mark.slow
def test_case_names_keep_their_text(
    command: Callable, bundle_run: Callable, busy_weights: Callable, cohort: Callable, tmp_path: Path
) -> None:
    busy_weights(MPUNET)
    scan = (cohort(MPUNET) / "images" / "case_004.nii.gz").read_bytes()
    (tmp_path / "scans").mkdir()
    for name in ("007", "12", "1e3"):
        (tmp_path / "scans" / f"{name}.nii.gz").write_bytes(scan)
    options = {"bundle": MPUNET, "dataset_dir": tmp_path / "scans", "probabilities": "true"}
    done = command(*bundle_run("inference", cases="007,1e3", **options))
    assert done.returncode == 0, done.stderr
    names = {f"{name}_{kind}.nii.gz" for name in ("007", "1e3") for kind in ("seg", "prob")}
    assert results_in(tmp_path / "out") == {*names, "inference.log"}
    done = command(*bundle_run("inference", cases="12", resume="true", **options))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "12_prob.nii.gz").exists()
    done = command(*bundle_run("inference", cases="7,12", **options))
    assert_ends_in_one_line(done, "--cases 7: no such case in dataset_dir=", "which has 3: 007, 12, 1e3")


@pytest.mark.slow
def test_inference_without_data(command: Callable, bundle_run: Callable, weights: Path, tmp_path: Path) -> None:
    done = command(*bundle_run("inference", dataset_dir=tmp_path / "nowhere"))
    assert_ends_in_one_line(done, str(tmp_path / "nowhere"))


@pytest.mark.slow
def test_training_without_a_data_list(command: Callable, bundle_run: Callable, tmp_path: Path) -> None:
    done = command(*bundle_run("train", dataset_dir=tmp_path / "elsewhere"))
    assert_ends_in_one_line(done, str(tmp_path / "elsewhere" / "dataset.json"), "python -m common datalist")


@pytest.mark.slow
def test_a_verb_fails_in_one_line(command: Callable) -> None:
    done = command("common", "phantoms", MMFNET.name, "--out=data", "--cases=1")
    assert_ends_in_one_line(done, "--cases 1: expected at least 3")


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Return a function that runs ``python -m common`` in this process and returns the printed text."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["common", *arguments])
        main()
        return capsys.readouterr().out

    return run


def test_phantoms(verb: Callable, tmp_path: Path) -> None:
    assert "3 cases in data" in verb("phantoms", MMFNET.name, "--out", "data", "--cases", "3")
    listing = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert [len(listing[section]) for section in ("training", "validation", "test")] == [1, 1, 1]


def test_a_verb_refuses_an_unknown_option_first(verb: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        verb("phantoms", MMFNET.name, "--out", str(tmp_path / "data"), "--caes=4")
    message = capsys.readouterr().err
    assert message.startswith("error: unknown option --caes ") and message.endswith("did you mean --cases?\n")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["doctr"], "unknown verb doctr; did you mean doctor?"),
        (["xyz"], "unknown verb xyz; expected one of list, doctor, phantoms"),
        (["stack", "a", "b"], "stack: Missing required flags: {'out'}; see python -m common stack --help"),
        (["verify", "a", "true", "c"], "verify: Could not consume arg: c; see python -m common verify --help"),
        (["verify", "a", "--load", "maybe"], "--load maybe: expected true or false"),
        (["phantoms", "x", "--out", "y", "--cases", "1.5"], "--cases 1.5: expected a whole number of at least 1"),
        (["phantoms", "x", "--out", "y", "--seed", "-1"], "--seed -1: expected a whole number from 0 to 4294967295"),
        (["datalist", "folders", "a", "b", "--folds", "abc"], "--folds abc: expected a whole number of at least 2"),
    ],
)
def test_a_wrong_call_ends_in_one_line_with_status_2(
    verb: Callable, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        verb(*arguments)
    shown = capsys.readouterr()
    assert shown.err.startswith(f"error: {message}") and shown.err.count("\n") == 1 and not shown.out


@pytest.mark.parametrize("name", VERBS)
def test_help_shows_every_argument_in_full(verb: Callable, name: str) -> None:
    """Fire cuts the text of an argument at a continuation line with a colon."""
    shown = " ".join(verb(name, "--help").split())
    arguments = (inspect.getdoc(function_of(name)) or "").partition("Args:\n")[2]
    for text in re.split(r"^    \w+: ", arguments, flags=re.MULTILINE)[1:]:
        assert " ".join(text.split()) in shown


@pytest.mark.parametrize("name", VERBS)
def test_help_does_not_run_the_verb(verb: Callable, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for option in ("-h", "--help"):
        assert f"python -m common {name}" in verb(name, option)
        assert f"python -m common {name}" in verb(name, "x", option)


def test_a_call_without_a_verb_lists_all_verbs(verb: Callable) -> None:
    for arguments in ([], ["-h"], ["--help"]):
        lines = verb(*arguments).splitlines()
        assert [line.split()[0] for line in lines[2:]] == list(VERBS)


OTHER_NAMES = ["2024", "01", "a,b", "[x]", "None", "True", "0x10", "{a}", "(b)", "'q'"]


@pytest.mark.parametrize("name", ["1e3", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHER_NAMES)])
def test_a_path_given_to_a_verb_keeps_its_text(verb: Callable, name: str) -> None:
    verb("phantoms", MPUNET.name, "--cases", "3", f"--out={name}")
    assert Path(name, "dataset.json").exists()
    with pytest.raises(SystemExit, match=rf"^error: \S+/{re.escape(name)}/images: "):
        verb("verify", f"{name}/images")


def test_an_output_below_a_file_is_refused(verb: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=rf"^error: {tmp_path / 'file'}: a file, expected a folder; choose another"):
        verb("phantoms", MMFNET.name, "--out", str(tmp_path / "file" / "data"), "--cases=3")


def test_phantoms_of_an_unknown_bundle(verb: Callable) -> None:
    with pytest.raises(SystemExit, match=rf"^error: unknown bundle kidney; .* {MMFNET.name}"):
        verb("phantoms", "kidney", "--out", "data")


def test_datalist(verb: Callable, tmp_path: Path, write_nifti: Callable) -> None:
    volume = np.zeros((2, 2, 2), np.float32)
    for case in "ABCDE":
        for name in ("T1", "T2", "seg"):
            write_nifti(f"scans/{case}/{case}_{name}.nii.gz", volume)
    options = {"out": "lists/dataset.json", "modalities": "T2,T1", "folds": "5", "fold": "1"}
    out = verb("datalist", "folders", "scans", *(f"--{key}={value}" for key, value in options.items()))
    assert "3 training, 1 validation, 1 test" in out
    listing = json.loads((tmp_path / "lists" / "dataset.json").read_text())
    assert listing["modality"] == {"0": "T2", "1": "T1"}
    assert re.fullmatch(r"\.\./scans/(.)/\1_T2\.nii\.gz", listing["test"][0]["image"][0])


def test_datalist_of_an_unknown_layout(verb: Callable) -> None:
    with pytest.raises(SystemExit, match=r"^error: layout brats: expected one of nnunet, folders"):
        verb(*["datalist", "brats", ".", "--out", "dataset.json"])


def test_scores(verb: Callable, tmp_path: Path) -> None:
    write_scores([{"case": "a", "Dice": 0.25}, {"case": "b", "Dice": 0.75}], tmp_path / "one" / "scores.csv")
    write_scores([{"case": "b", "Dice": 1.0}, {"case": "a", "Dice": 1.0}], tmp_path / "two" / "scores.csv")
    lines = [line.split() for line in verb("scores", "before=one", "two").splitlines()]
    assert lines[0] == ["run", "cases", "Dice"]
    assert lines[2:] == [["before", "2", "0.5000"], ["two", "2", "1.0000"]]


def test_scores_of_a_missing_folder(verb: Callable) -> None:
    with pytest.raises(SystemExit, match=r"^error: nowhere/scores\.csv: "):
        verb("scores", "nowhere")


def test_picture(verb: Callable, write_nifti: Callable) -> None:
    pytest.importorskip("matplotlib")
    image = write_nifti("T1.nii.gz", np.random.default_rng(0).random((12, 10, 4), np.float32))
    mask = np.zeros((12, 10, 4), np.uint8)
    mask[3:6, 3:6, 1:3] = 1
    label = write_nifti("mask.nii.gz", mask)
    arguments = ["picture", str(image), "--prediction", str(label), "--truth", str(label), "--out"]
    assert verb(*arguments, "new/picture.png").strip() == "new/picture.png"
    assert Path("new/picture.png").read_bytes().startswith(b"\x89PNG")


def test_picture_without_an_image(verb: Callable) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(SystemExit, match=r"^error: mask\.nii\.gz: no such file"):
        verb(*["picture", "T1.nii.gz", "--prediction", "mask.nii.gz", "--out", "picture.png"])


# Tests with two processes. They share three cases, so that one process gets two.


@pytest.fixture
def bundle() -> Path:
    """Return the bundle of the tests with two processes, unless a test sets another one."""
    return MMFNET


@pytest.fixture
def three_cases(cohort: Callable, tmp_path: Path, bundle: Path) -> Path:
    """Return the folder of the tiny cohort with three cases in every list."""
    source = cohort(bundle)
    listing = json.loads((source / "dataset.json").read_text())
    items = [item for section in ("training", "validation", "test") for item in listing[section]]
    for item in items:
        images = item["image"]
        item["image"] = str(source / images) if isinstance(images, str) else [str(source / image) for image in images]
        item["label"] = str(source / item["label"])
    (tmp_path / "data").mkdir()
    lists = {"training": items[:3], "validation": items[:3], "test": items[3:]}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({**listing, **lists}))
    return tmp_path / "data"


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle", "files", "epochs"),
    [
        (MMFNET, {"model.pt", "single_T1.pt", "single_T2.pt", "single_CET1.pt"}, 8),
        (OMNET, {"model.pt"}, 4),
        (MAMTLN_CT, {"model.pt"}, 2),
        (MPUNET, {"model.pt"}, 2),
        (MULTIRNET, {"model.pt"}, 2),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_two_processes_train(
    command: Callable,
    bundle_run: Callable,
    three_cases: Path,
    tmp_path: Path,
    bundle: Path,
    files: set[str],
    epochs: int,
) -> None:
    options = {"bundle": bundle, "dataset_dir": three_cases, "updates_per_epoch": 1}
    done = command(*TORCHRUN, *bundle_run("train", "multi_gpu_train", **options))
    assert done.returncode == 0, done.stderr
    models = tmp_path / "models"
    assert {p.name for p in models.glob("*.pt")} == {*files, STATE_FILE}
    BUSY[bundle.name]().load_state_dict(torch.load(models / "model.pt", weights_only=True))
    log = (models / "train.log").read_text()
    assert log.count(f"training is complete after {epochs} epochs") == 1
    losses = re.findall(r"training loss (\S+), .*?(\S+) \(best", log)
    assert len(losses) == epochs and np.isfinite(np.array(losses, float)).all()


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("bundle", [MULTIRNET], ids=lambda bundle: bundle.name)
def test_two_processes_infer_as_one_does(
    command: Callable,
    bundle_run: Callable,
    workflow: Callable,
    busy_weights: Callable,
    three_cases: Path,
    tmp_path: Path,
    bundle: Path,
) -> None:
    """Report a failed case once; the masks and classes of the others are equal, bit for bit."""
    listing = json.loads((three_cases / "dataset.json").read_text())
    listing["test"] += listing["training"]
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(Path(listing["test"][1]["image"]).read_bytes()[:3000])
    listing["test"][1].update(case="broken", image=str(broken))
    (three_cases / "dataset.json").write_text(json.dumps(listing))
    busy_weights(bundle)
    done = command(*TORCHRUN, *bundle_run("inference", "multi_gpu_train", bundle=bundle, dataset_dir=three_cases))
    assert done.returncode == 1
    assert done.stderr.count("1 of 6 cases failed: broken (") == 1
    assert done.stderr.count("1 of 6 cases failed; the first process names them") == 1
    assert (done.stdout + done.stderr).count("case broken: ") == 1
    assert "5 of 6 cases done" in (tmp_path / "out" / "inference.log").read_text()

    with pytest.raises(RuntimeError) as error:
        workflow(bundle, "inference", dataset_dir=str(three_cases), output_dir=str(tmp_path / "one")).run()
    assert str(error.value.__cause__).startswith("1 of 6 cases failed: broken (")
    one, two = (
        {name: tmp_path / folder / name for name in results_in(tmp_path / folder) if not name.endswith(".log")}
        for folder in ("one", "out")
    )
    assert one.keys() == two.keys() and len(one) == 10
    records = [
        {path.name: _without_times(json.loads(path.read_text())) for path in (tmp_path / folder).glob("*_seg.json")}
        for folder in ("one", "out")
    ]
    assert len(records[0]) == 6 and records[0] == records[1]
    for name, path in one.items():
        if name.endswith(".json"):
            assert path.read_bytes() == two[name].read_bytes()
        else:
            image, other = nib.load(path), nib.load(two[name])
            np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(other.dataobj))
            assert image.get_data_dtype() == other.get_data_dtype()
            np.testing.assert_array_equal(image.affine, other.affine)
    assert any(np.any(nib.load(path).dataobj) for name, path in one.items() if name.endswith("_seg.nii.gz"))


@pytest.mark.ddp
@pytest.mark.slow
def test_two_processes_give_the_same_scores_as_one(
    command: Callable, bundle_run: Callable, workflow: Callable, weights: Path, three_cases: Path, tmp_path: Path
) -> None:
    done = command(*TORCHRUN, *bundle_run("train", "evaluate", "multi_gpu_train", dataset_dir=three_cases))
    assert done.returncode == 0, done.stderr
    workflow(MMFNET, "train", "evaluate", dataset_dir=str(three_cases), output_dir=str(tmp_path / "one")).run()
    one, two = (read_scores(tmp_path / folder / "scores.csv") for folder in ("one", "out"))
    assert len(one) == 3
    assert two == one


def _without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if not key.endswith("seconds")}
