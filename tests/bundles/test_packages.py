"""Packed bundles, used as their receivers use them: from any folder, without this repository."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc import locate
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import (
    ConfigParser,
    ckpt_export,
    create_workflow,
    load,
    onnx_export,
    verify_metadata,
    verify_net_in_out,
)
from monai.bundle import scripts as monai_bundle
from monai.data import MetaTensor

from common.__main__ import main
from common.errors import InputError
from common.files import sha256
from common.logs import LOG_FILE
from common.methods.mpunet import MPUNet
from common.packaging import pack_bundle, verify_package, write
from common.packaging.checksums import check_checksums

from ..conftest import BUNDLES
from ..methods.mamtln.tiny import MAMTLN_CT
from ..methods.mmfnet.tiny import MMFNET
from ..methods.mpunet.tiny import MPUNET
from ..methods.multirnet.tiny import MULTIRNET
from ..packaging.grammar import violations
from ..workflows import BUSY, TINY, assert_label_maps
from .test_metadata import SCHEMA

REPOSITORY = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:parsing config_file")]  # MONAI's, of any config


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack all bundles with narrow networks; return their folder."""
    folder = tmp_path_factory.mktemp("packed")
    for bundle in BUNDLES:  # one by one: Python 3.11.7 may fail if two threads parse code at once
        pack_tiny(bundle, folder / "dist", {})
    return folder / "dist"


def pack_tiny(bundle: Path, out: Path, changes: dict[str, Any], **options: Any) -> Path:
    source = out.parent / f"from_{bundle.name}"
    source.mkdir(exist_ok=True)
    if not (source / "model.pt").exists():
        torch.save(BUSY[bundle.name]().state_dict(), source / "model.pt")
    overlay = source / "overlay.json"
    overlay.write_text(json.dumps({**TINY[bundle.name], **changes}))
    return pack_bundle(bundle, source / "model.pt", out, overlay, **options)


@pytest.fixture
def stranger(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Path]]:
    """Copy a bundle's package, and hide this repository from the process and its working directory."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "common", None)
    yield lambda bundle: Path(shutil.copytree(made / bundle.name, tmp_path / "unpacked" / bundle.name))
    for handler in [h for h in logging.getLogger().handlers if h.get_name() == LOG_FILE]:
        logging.getLogger().removeHandler(handler)
        handler.close()
    for name in [name for name in sys.modules if re.match(r"\w+_v\d+_\d+_\d+\b", name)]:
        del sys.modules[name]


@pytest.fixture(params=BUNDLES, ids=lambda bundle: bundle.name)
def package(request: pytest.FixtureRequest, stranger: Callable[[Path], Path]) -> Path:
    return stranger(request.param)


def parser_of(folder: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    parser["bundle_root"] = str(folder)
    return parser


def files(folder: Path) -> dict[str, str]:
    return {
        "meta_file": str(folder / "configs" / "metadata.json"),
        "config_file": str(folder / "configs" / "inference.json"),
    }


# What pack writes


def test_zip_holds_the_folder(made: Path) -> None:
    for bundle in BUNDLES:
        with zipfile.ZipFile(made / f"{bundle.name}_v0.1.0.zip") as archive:
            inside = {name: archive.read(name) for name in archive.namelist()}
        folder = made / bundle.name
        assert inside == {f.relative_to(made).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
        assert {p.name for p in folder.iterdir()} == {
            *("LICENSE", "SHA256SUMS", "configs", "docs", "models", f"{bundle.name}_v0_1_0")
        }


def test_package_holds_its_own_method_alone(made: Path) -> None:
    networks = {bundle.name: bundle.name.rpartition("_")[2] for bundle in BUNDLES}
    for name, network in networks.items():
        code = made / name / f"{name}_v0_1_0"
        assert (code / "methods" / network / "network.py").exists()
        assert {path.name for path in (code / "methods").iterdir()} == {"__init__.py", network}
        assert not {"packaging", "doctor", "__main__.py"} & {path.name for path in code.iterdir()}


def test_files_of_the_code_equal_the_repository(made: Path) -> None:
    for bundle in BUNDLES:
        code = made / bundle.name / f"{bundle.name}_v0_1_0"
        for path in code.rglob("*.py"):
            assert path.read_bytes() == (REPOSITORY / "common" / path.relative_to(code)).read_bytes()


def test_expressions_stay_within_the_grammar(made: Path) -> None:
    """Rewriting adds nothing outside the grammar to what the bundle's own configs have."""
    for bundle in BUNDLES:
        for name in ("inference", "evaluate", "train"):
            own, packed = (
                {kind for _, kind in violations(json.loads((folder / "configs" / f"{name}.json").read_text()))}
                for folder in (bundle, made / bundle.name)
            )
            assert packed <= own, (bundle.name, name)
        extra = {"inference.json": ""}
        torch.jit.load(made / bundle.name / "models" / "model.ts", _extra_files=extra)
        own = violations(json.loads((bundle / "configs" / "inference.json").read_text()))
        assert {kind for _, kind in violations(json.loads(extra["inference.json"]))} <= {kind for _, kind in own}


def test_package_names_neither_machine_nor_repository(made: Path) -> None:
    unwanted = [str(made).encode(), str(REPOSITORY).encode(), b"common.", b"from common", b"/tmp/"]
    for path in [f for f in made.rglob("*") if f.is_file() and f.suffix != ".zip"]:
        content = path.read_bytes()
        words = unwanted[:2] + ([*unwanted[2:]] if path.suffix == ".json" else [])
        assert not [word for word in words if word in content], path
    for bundle in BUNDLES:
        assert "](../" not in (made / bundle.name / "docs" / "README.md").read_text()


def test_configs_have_the_settings_of_the_training(made: Path) -> None:
    for bundle in BUNDLES:
        configs = {
            name: json.loads((made / bundle.name / "configs" / f"{name}.json").read_text())
            for name in ("train", "inference")
        }
        for key, value in TINY[bundle.name].items():
            top, _, inner = key.partition("::")
            for config in (c for c in configs.values() if top in c):
                assert (config[top][inner] if inner else config[top]) == value
        metadata = json.loads((made / bundle.name / "configs" / "metadata.json").read_text())
        formats = metadata["network_data_format"]
        assert formats["inputs"]["image"]["spatial_shape"] == TINY[bundle.name]["roi_size"]
        assert formats["outputs"]["pred"]["channel_def"] == formats["post_processed_outputs"]["pred"]["channel_def"]


def test_same_input_gives_the_same_zip(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "try_package", lambda *_: None)
    again = pack_tiny(MULTIRNET, tmp_path / "again", {})
    assert again.read_bytes() == (made / again.name).read_bytes()


def test_packing_again_replaces_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "try_package", lambda *_: None)
    monkeypatch.setattr(write, "script_network", lambda *_: None)
    folder = tmp_path / "dist" / MPUNET.name
    pack_tiny(MPUNET, tmp_path / "dist", {})
    before = (folder / "SHA256SUMS").read_bytes()
    (folder / "configs" / "__pycache__").mkdir()
    (folder / "configs" / "__pycache__" / "a.pyc").touch()
    pack_tiny(MPUNET, tmp_path / "dist", {"precision": "float32"})
    assert (folder / "SHA256SUMS").read_bytes() != before and not list(folder.rglob("*.pyc"))
    assert {p.name for p in (tmp_path / "dist").iterdir()} == {MPUNET.name, f"{MPUNET.name}_v0.1.0.zip"}


def test_packing_overwrites_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "try_package", lambda *_: None)
    monkeypatch.setattr(write, "script_network", lambda *_: None)
    (tmp_path / "dist" / MPUNET.name).mkdir(parents=True)
    with pytest.raises(InputError, match="is not a packed bundle; choose another --out"):
        pack_tiny(MPUNET, tmp_path / "dist", {})
    pack_tiny(MPUNET, tmp_path / "mine", {})
    mask = tmp_path / "mine" / MPUNET.name / "eval" / "P1_seg.nii.gz"
    mask.parent.mkdir()
    mask.touch()
    with pytest.raises(InputError, match=r"P1_seg\.nii\.gz: not a file of the package .*; move it"):
        pack_tiny(MPUNET, tmp_path / "mine", {})
    shutil.rmtree(mask.parent)
    card = tmp_path / "mine" / MPUNET.name / "docs" / "README.md"
    card.write_text("My own card.")
    with pytest.raises(InputError, match=r"README\.md: changed since it was packed; move it elsewhere"):
        pack_tiny(MPUNET, tmp_path / "mine", {})
    assert card.read_text() == "My own card."
    shutil.rmtree(tmp_path / "mine" / MPUNET.name)
    archive = next((tmp_path / "mine").glob("*.zip"))
    with zipfile.ZipFile(archive, "a") as added:
        added.writestr(f"{MPUNET.name}/notes.txt", "mine")
    before = archive.read_bytes()
    with pytest.raises(InputError, match=r"\.zip: another file of this name, or one that was changed since"):
        pack_tiny(MPUNET, tmp_path / "mine", {})
    assert archive.read_bytes() == before


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ('{"spacng": 1}', r"unknown setting 'spacng' of liver_ct_mpunet, in .*overlay\.json"),
        ('{"target": [0, 1, 2]}', "unknown setting 'target' of liver_ct_mpunet, .*; use labels and label_map"),
        ('{"version": "0.2.0"}', "unknown setting 'version' of liver_ct_mpunet"),  # the right name is "_meta_::version"
        ("[1]", r"overlay\.json: expected a JSON object of settings"),
        ("{", r"overlay\.json: not valid JSON"),
    ],
)
def test_wrong_overlay_is_refused(tmp_path: Path, overlay: str, message: str) -> None:
    (tmp_path / "overlay.json").write_text(overlay)
    with pytest.raises(InputError, match=message):
        pack_bundle(MPUNET, "model.pt", tmp_path / "dist", tmp_path / "overlay.json")
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"_meta_::version": "0.2.0"},
            'version 0.2.0 is not in the changelog .* overlay by "_meta_::changelog::0.2.0"',
        ),
        ({"_meta_::version": "../0.2.0"}, "version '../0.2.0' in the metadata; expected text such as"),
        (
            {"network_def::out_channels": 3},
            "network_def::out_channels is 3, but labels are liver 1: expected 2, the background included",
        ),
        (
            {"labels": {"kidney": 1, "tumour": 2}, "label_map": {}},
            "segments: codes for liver, but labels are kidney 1, tumour 2; give the codes of these labels",
        ),
        (
            {"_meta_::network_data_format::post_processed_outputs::pred::channel_def": {"0": "background", "1": "cat"}},
            r"channel_def of the label map in metadata\.json is 0 background, 1 cat, but labels are liver 1",
        ),
        (
            {"labels": {"kidney": 1, "tumour": 2}, "label_map": {}, "segments": {}},
            r"from_liver_ct_mpunet/model\.pt: the bundle's network could not be scripted .*: weights of another",
        ),
        ({"_meta_::verzion": "0.2.0"}, r"unknown setting 'verzion' of metadata\.json, .*; did you mean 'version'\?"),
        (
            {"network_def::channels": [2, 2, 4, 4, 16]},
            r"from_liver_ct_mpunet/model\.pt: the bundle's network could not be scripted .*: weights of another",
        ),
    ],
)
def test_refused_package_leaves_no_file(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pack_tiny(MPUNET, tmp_path / "dist", changes)
    assert not (tmp_path / "dist").exists() or not list((tmp_path / "dist").iterdir())


def test_network_must_match_the_metadata(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"returns \(1, 2, 32, 32, 8\), but metadata.json has 5 channels"):
        pack_tiny(MPUNET, tmp_path / "dist", {"_meta_::network_data_format::outputs::pred::num_channels": 5})


def test_missing_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["common", "pack", MPUNET.name, "--weights", "no.pt", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: no\.pt: no such file; train the bundle, or give --weights FILE"):
        main()


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt: b holds values that are not finite"):
        pack_bundle(MPUNET, tmp_path / "model.pt", tmp_path / "dist")
    with pytest.raises(InputError, match="a folder; train the bundle, or give --weights FILE"):
        pack_bundle(MPUNET, tmp_path, tmp_path / "dist")


def test_metadata_and_card_have_the_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "try_package", lambda *_: None)
    monkeypatch.setattr(write, "script_network", lambda *_: None)
    (tmp_path / "scores.csv").write_text("case,Dice tumour,HD95 tumour,AP\na,0.5,nan,nan\nb,1.0,3.0,nan\n")
    (tmp_path / "class_scores.csv").write_text("name,value\naccuracy,0.75\n")
    pack_tiny(MAMTLN_CT, tmp_path / "dist", {}, scores=tmp_path)
    folder = tmp_path / "dist" / MAMTLN_CT.name
    metrics = {"Dice tumour": 0.75, "HD95 tumour": 3.0, "AP": None, "class accuracy": 0.75}
    assert json.loads((folder / "configs" / "metadata.json").read_text())["eval_metrics"] == metrics
    card = (folder / "docs" / "README.md").read_text()
    assert "| class accuracy | 0.75 |" in card and "| 1 | tumour |" in card
    (tmp_path / "scores.csv").write_text("case,Dice liver\na,0.5\n")
    with pytest.raises(InputError, match=r"scores\.csv: no score for region tumour; found Dice liver"):
        pack_tiny(MAMTLN_CT, tmp_path / "dist", {}, scores=tmp_path)


def test_metadata_and_card_have_other_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pack weights that segment kidneys and their tumours with the liver's bundle."""
    monkeypatch.setattr(write, "try_package", lambda *_: None)
    (tmp_path / "from_liver_ct_mpunet").mkdir()
    network = MPUNet(out_channels=3, channels=(2, 2, 4, 4, 8))
    torch.save(network.state_dict(), tmp_path / "from_liver_ct_mpunet" / "model.pt")
    changes = {"labels": {"kidney": 1, "tumour": 2}, "label_map": {}, "segments": {}}
    pack_tiny(MPUNET, tmp_path / "dist", changes)
    folder = tmp_path / "dist" / MPUNET.name
    parser = parser_of(folder)
    about = json.loads((folder / "configs" / "metadata.json").read_text())
    for tensor in (about["network_data_format"][key]["pred"] for key in ("outputs", "post_processed_outputs")):
        assert tensor["channel_def"] == {"0": "background", "1": "kidney", "2": "tumour"}
    assert about["network_data_format"]["outputs"]["pred"]["num_channels"] == 3
    assert "Dice kidney" in about["eval_metrics"] and not [name for name in about["eval_metrics"] if "liver" in name]
    assert (parser["labels"], parser["segments"]) == (changes["labels"], {})
    assert "| 1 | kidney |\n| 2 | tumour |" in (folder / "docs" / "README.md").read_text()


# What verify refuses


def test_unchanged_package_passes(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["common", "verify", str(made / f"{MMFNET.name}_v0.1.0.zip")])
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


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_truncated, r"model\.ts: changed since it was packed"),
        (_unknown_key, r"model\.pt: weights of another network.*backdoor\.weight"),
        (_pickle, r"model\.pt: not a complete file of tensors"),
        (_other_weights, r"model\.ts: its weights differ from those in model\.pt"),
    ],
)
def test_changed_package_is_refused(made: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    folder = tmp_path / MPUNET.name
    shutil.copytree(made / MPUNET.name, folder)
    spoil(folder)
    with pytest.raises(InputError, match=message) as error:
        verify_package(folder)
    assert "\n" not in str(error.value)
    assert not Path("stolen").exists()


def test_path_without_a_package_is_refused(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "no", "no such folder or zip"), (tmp_path, "no SHA256SUMS")):
        with pytest.raises(InputError, match=message):
            verify_package(path)


def test_verify_without_loading_runs_no_code(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / MPUNET.name
    shutil.copytree(made / MPUNET.name, folder)
    _unknown_key(folder)
    assert verify_package(folder, load=False) == f"{MPUNET.name} 0.1.0"


# MONAI's functions, in a foreign working directory


def test_every_target_can_be_imported(package: Path) -> None:
    sys.path.insert(0, str(package))
    code = f"{package.name}_v0_1_0."
    for file in (package / "configs").rglob("*.json"):
        for target in re.findall(r'"_target_": "([^"]+)"', file.read_text()):
            assert not target.startswith(code) or callable(locate(target)), f"{file}: {target}"


def test_metadata_follow_the_specification(package: Path) -> None:
    pytest.importorskip("jsonschema")
    Path("schema.json").write_text(json.dumps(SCHEMA))
    digest = hashlib.md5(Path("schema.json").read_bytes()).hexdigest()
    verify_metadata(meta_file=files(package)["meta_file"], filepath="schema.json", hash_val=digest)


def test_network_in_and_out(package: Path) -> None:
    verify_net_in_out("network_def", bundle_root=str(package), **files(package))


def test_monai_load_gives_the_network_with_its_weights(package: Path) -> None:
    network = load(package.name, bundle_dir=str(package.parent), device="cpu")
    assert type(network).__module__.startswith(f"{package.name}_v0_1_0.methods")
    weights = torch.load(package / "models" / "model.pt", weights_only=True)
    assert network.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())
    assert not list(Path().iterdir())


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python:torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:Constant folding - Only steps=1 can be:UserWarning")
def test_scripted_and_exported_networks_equal_the_eager_one(package: Path) -> None:
    """Compare the packed file, MONAI's export and ONNX with the eager network."""
    onnxruntime = pytest.importorskip("onnxruntime")
    parser = parser_of(package)
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(package / "models" / "model.pt", weights_only=True))
    tensor = json.loads((package / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    shape = (1, tensor["num_channels"], *tensor["spatial_shape"])
    x = torch.randn(shape)
    with torch.no_grad():
        eager = network(x)
        scripted = torch.jit.load(package / "models" / "model.ts")(x)
    torch.testing.assert_close(scripted, eager)

    options = {"bundle_root": str(package), "ckpt_file": str(package / "models" / "model.pt"), **files(package)}
    ckpt_export("network_def", filepath="model.ts", **options)
    extra = {"metadata.json": "", "inference.json": ""}
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load("model.ts", _extra_files=extra)(x), eager)
    assert json.loads(extra["inference.json"])["network_def"]

    onnx_export(
        "network_def",
        filepath="model.onnx",
        input_shape=list(shape),
        use_trace=True,
        converter_kwargs={"dynamo": False},
        **options,
    )
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, eager.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("names", [("train",), ("train", "evaluate"), ("inference",)], ids="+".join)
def test_workflow_has_the_properties(package: Path, cohort: Callable, names: tuple[str, ...]) -> None:
    flow = create_workflow(
        config_file=[str(package / "configs" / f"{name}.json") for name in names],
        workflow_type="infer" if names == ("inference",) else "train",
        logging_file=False,
        dataset_dir=str(cohort(next(b for b in BUNDLES if b.name == package.name))),
        device="$torch.device('cpu')",
    )
    assert not flow.check_properties()
    assert Path(flow.bundle_root) == package
    assert not list(Path().iterdir())


# Runs in this process; packing itself runs inference in a process of its own


def test_train_evaluate_infer(stranger: Callable, cohort: Callable, tmp_path: Path) -> None:
    folder, data = stranger(MAMTLN_CT), cohort(MAMTLN_CT)
    options = {"dataset_dir": str(data), "ckpt_dir": str(tmp_path / "run"), "output_dir": str(tmp_path / "out")}
    for names in (["train"], ["train", "evaluate"], ["inference"]):
        files = [str(folder / "configs" / f"{name}.json") for name in names]
        monai_bundle.run(config_file=files, logging_file=False, **options)
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {"model.pt", "training_state.pt"}
    assert (tmp_path / "out" / "scores.csv").exists() and (tmp_path / "out" / "case_004_class.json").exists()
    assert_label_maps(tmp_path / "out", data / "labels", ["case_004.nii.gz", "case_005.nii.gz"], {0, 1})
    assert not list((tmp_path / "elsewhere").iterdir())


# Several packages in one process, and hosts that read one file


@pytest.fixture
def next_version(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Pack MPU-Net once more, with a later version and other channels."""
    with monkeypatch.context() as patch:
        patch.setattr(write, "try_package", lambda *_: None)
        out = made.parent / "next"
        torch.manual_seed(1)
        changes = {
            "network_def::channels": [2, 2, 4, 4, 16],
            "_meta_::version": "0.2.0",
            "_meta_::changelog::0.2.0": "wider",
        }
        source = out.parent / "wider"
        source.mkdir(exist_ok=True)
        torch.save(MPUNet(channels=(2, 2, 4, 4, 16)).state_dict(), source / "model.pt")
        (source / "overlay.json").write_text(json.dumps({**TINY[MPUNET.name], **changes}))
        pack_bundle(MPUNET, source / "model.pt", out, source / "overlay.json")
    yield out / MPUNET.name


def test_all_packages_and_two_versions_run_in_one_process(
    next_version: Path, made: Path, stranger: Callable, tmp_path: Path
) -> None:
    stranger(MPUNET)
    folders = [*(made / bundle.name for bundle in BUNDLES), next_version, made / MPUNET.name]
    for folder in folders:
        parser = parser_of(folder)
        network = parser.get_parsed_content("network_def")
        network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
        metadata = json.loads((folder / "configs" / "metadata.json").read_text())
        version = metadata["version"].replace(".", "_")
        assert type(network).__module__.split(".")[0] == f"{folder.name}_v{version}"
        assert type(parser.get_parsed_content("inferer")).__module__.split(".")[0] == f"{folder.name}_v{version}"
        locate(parser["run"][0]["_target_"])(tmp_path / f"{folder.name} {version}.log")
        logging.warning("run of %s", version)
    logs = [path.read_text().splitlines() for path in tmp_path.glob("*.log")]
    assert len(logs) == len(BUNDLES) + 1
    assert sorted(map(len, logs)) == [1] * len(BUNDLES) + [2]


def hosted(parser: ConfigParser, network: torch.nn.Module, image: Path, keep_reader: bool) -> dict[str, Any]:
    """Run transforms and inferer as MONAI Label and MONAI Deploy do, without engine, handlers and writer."""
    before, after = (parser.get_parsed_content(key).transforms for key in ("preprocessing", "postprocessing"))
    data: Any = {"image": str(image)}
    if not keep_reader:
        before = [t for t in before if "LoadImage" not in type(t).__name__]
        volume = nib.load(image)
        array = torch.as_tensor(np.asarray(volume.dataobj, dtype=np.float32))
        meta = {
            "original_channel_dim": "no_channel" if array.ndim == 3 else -1,
            "original_affine": volume.affine,
            "spatial_shape": volume.shape[:3],
        }
        data = {"image": MetaTensor(array, affine=volume.affine, meta=meta)}
    for transform in before:
        data = transform(data)
    with torch.no_grad():
        data["pred"] = parser.get_parsed_content("inferer")(inputs=data["image"][None], network=network)[0]
    for transform in after:
        if transform is not None and "SaveImage" not in type(transform).__name__:
            data = transform(data)
    return data


def test_hosts_get_the_mask_of_a_run(package: Path, cohort: Callable, tmp_path: Path) -> None:
    """Compare three hosts: MONAI Label with the folder, MONAI Deploy with the folder and with the file alone."""
    data = cohort(next(b for b in BUNDLES if b.name == package.name))
    volumes = sorted((data / "images").glob("case_005*"))
    (tmp_path / "scans").mkdir()
    image = tmp_path / "scans" / "case_005.nii.gz"
    first = nib.load(volumes[0])
    stacked = np.stack([np.asarray(nib.load(v).dataobj) for v in volumes], axis=-1)
    nib.save(nib.Nifti1Image(stacked if len(volumes) > 1 else stacked[..., 0], first.affine), image)
    options: dict[str, Any] = {"device": "cpu", "precision": "float32", "logging_file": False}
    file = str(package / "configs" / "inference.json")
    monai_bundle.run(config_file=file, dataset_dir=str(image.parent), output_dir=str(tmp_path / "out"), **options)
    expected = np.asarray(nib.load(tmp_path / "out" / "case_005_seg.nii.gz").dataobj)

    parser = parser_of(package)
    parser["precision"] = "float32"
    network = parser.get_parsed_content("network").eval()
    network.load_state_dict(torch.load(package / "models" / "model.pt", weights_only=True))
    extra = {"inference.json": ""}
    scripted = torch.jit.load(shutil.copy(package / "models" / "model.ts", tmp_path), _extra_files=extra).eval()
    if "channels_last_3d" in parser["network"]:  # another layout sums in another order
        scripted = scripted.to(memory_format=torch.channels_last_3d)
    alone = {**json.loads(extra["inference.json"]), "precision": "float32"}
    for found in (
        hosted(parser, network, image, keep_reader=True),
        hosted(parser, scripted, image, keep_reader=False),
        hosted(ConfigParser(alone), scripted, image, keep_reader=False),
    ):
        assert found["pred"].shape == (1, *expected.shape)
        np.testing.assert_array_equal(found["pred"][0].numpy(), expected)
        if (tmp_path / "out" / "case_005_class.json").exists():
            result = json.loads((tmp_path / "out" / "case_005_class.json").read_text())
            assert found["result"]["class"] == result["class"]
            assert found["result"]["probabilities"] == pytest.approx(result["probabilities"], abs=1e-5)


# The Hub


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


def test_hub_gets_the_listed_files_and_the_card(stranger: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stranger(MULTIRNET)
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
