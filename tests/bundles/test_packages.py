"""Test the packages of all bundles: their content, MONAI's functions, several in one process, and other hosts."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc import locate
from typing import Any

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
from common.methods.mpunet import MPUNet
from common.packaging import pack_bundle, write

from ..conftest import BUNDLES
from ..methods.mamtln.tiny import MAMTLN_CT
from ..methods.mpunet.tiny import MPUNET
from ..methods.multirnet.tiny import MULTIRNET
from ..packaging.grammar import violations
from ..packaging.keys import key_pair
from ..workflows import TINY, assert_label_maps
from .packed import files, pack_tiny, parser_of
from .test_metadata import SCHEMA

REPOSITORY = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:parsing config_file")]  # MONAI's, of any config


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
        written = formats["post_processed_outputs"]["pred"]["channel_def"]
        used = {value: name for value, name in written.items() if name != "unused"}
        assert formats["outputs"]["pred"]["channel_def"] == used  # MONAI Label lists these names


def test_same_input_gives_the_same_zip(made: Path, tmp_path: Path) -> None:
    """Pack again in processes of their own, which import PyTorch and get their hash seed anew."""
    again = pack_tiny(MULTIRNET, tmp_path / "again", {})
    assert again.read_bytes() == (made / again.name).read_bytes()


@pytest.mark.usefixtures("warm_packing")
def test_signed_package_passes_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("model_signing")
    monkeypatch.setattr(write, "try_package", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    key_pair(tmp_path / "maker.key")
    for _ in range(2):  # the second replaces the first
        archive = pack_tiny(MULTIRNET, tmp_path / "dist", {}, sign="maker.key")
    for package in (archive, archive.parent / MULTIRNET.name):
        monkeypatch.setattr(sys, "argv", f"common verify {package} --load false --key maker.pub".split())
        main()
        assert "every file is as it was packed, maker.pub fits its signature, nothing of it" in capsys.readouterr().out


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


def test_package_shows_its_results(
    stranger: Callable, write_nifti: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    folder = stranger(MAMTLN_CT)
    mask = np.zeros((12, 16, 6), np.uint8)
    mask[3:7, 4:9, 1:4] = 1
    write_nifti("scans/P1.nii.gz", np.random.default_rng(0).normal(0, 100, mask.shape).astype(np.float32))
    write_nifti("out/P1_seg.nii.gz", mask)
    options = {"dataset_dir": str(tmp_path / "scans"), "output_dir": str(tmp_path / "out")}
    for name, result in (("report", "report.html"), ("picture", "P1_seg.png")):
        monai_bundle.run(config_file=str(folder / "configs" / f"{name}.json"), logging_file=False, **options)
        assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out" / result)
        assert (tmp_path / "out" / result).stat().st_size > 10_000
    assert not list((tmp_path / "elsewhere").iterdir())


# Several packages in one process, and hosts that read one file


@pytest.fixture
def next_version(made: Path, warm_packing: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
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
