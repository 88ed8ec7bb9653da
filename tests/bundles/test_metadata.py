"""Test metadata, properties and export of a bundle as MONAI's tools, Label, Deploy and the Model Zoo read them."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, verify_metadata, verify_net_in_out

from common.reporting import read_class_scores, read_scores

from ..conftest import BUNDLES
from ..warm_python import WarmPython
from .packed import files

# The keys that MONAI's bundle specification calls mandatory. Its own schema is a download; this follows its text.
TEXT = {"type": "string", "minLength": 1}
VERSION = {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"}
VERSIONS = {"type": "object", "additionalProperties": VERSION}
SIZE = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^[\w*+-]+$"}]}
TENSOR = {
    "type": "object",
    # "modality" is "n/a" where it is not given
    "required": [
        "type",
        "format",
        "num_channels",
        "spatial_shape",
        "dtype",
        "value_range",
        "is_patch_data",
        "channel_def",
    ],
    "properties": {
        "type": {"enum": ["image", "series", "tuples", "probabilities"]},
        "format": TEXT,
        "modality": TEXT,
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": SIZE},
        "dtype": {"enum": ["float32", "float16", "uint8", "int32", "int64"]},
        "value_range": {"type": "array", "items": {"type": "number"}, "maxItems": 2},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "propertyNames": {"pattern": r"^\d+$"}, "additionalProperties": TEXT},
    },
}
SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": [
        *("version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
        *("task", "description", "authors", "copyright", "network_data_format"),
        *("schema", "changelog", "name", "intended_use", "supported_apps"),  # the Model Zoo's, and ours
        *("data_source", "data_type", "image_classes", "label_classes", "pred_classes", "eval_metrics", "references"),
    ],
    "properties": {
        **dict.fromkeys(("version", "monai_version", "pytorch_version", "numpy_version"), VERSION),
        **dict.fromkeys(("task", "description", "authors", "copyright", "intended_use", "name", "schema"), TEXT),
        "required_packages_version": VERSIONS,
        "optional_packages_version": False,  # MONAI would put them in the place of the required ones
        **dict.fromkeys(("data_source", "data_type", "image_classes", "label_classes", "pred_classes"), TEXT),
        "supported_apps": {"type": "object"},
        # null: no weights are shipped whose scores these could be
        "eval_metrics": {"type": "object", "minProperties": 1, "additionalProperties": {"type": ["number", "null"]}},
        "changelog": {"type": "object", "additionalProperties": TEXT, "propertyNames": VERSION},
        "references": {"type": "array", "items": TEXT},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {
                "inputs": {"required": ["image"], "additionalProperties": TENSOR},
                "outputs": {"required": ["pred"], "additionalProperties": TENSOR},
                "post_processed_outputs": {"additionalProperties": TENSOR},
            },
        },
    },
}


@pytest.fixture(params=BUNDLES, ids=lambda bundle: bundle.name)
def bundle(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a bundle, and change to another working directory."""
    monkeypatch.chdir(tmp_path)
    return request.param


@pytest.fixture
def metadata(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "configs" / "metadata.json").read_text())


@pytest.fixture
def verify(tmp_path: Path) -> Callable[[Path], None]:
    """Return ``verify_metadata`` with our schema in place of its download."""
    pytest.importorskip("jsonschema")
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    options = {"filepath": str(schema), "hash_val": hashlib.md5(schema.read_bytes()).hexdigest()}
    return lambda file: verify_metadata(meta_file=str(file), **options)


def test_metadata_follow_the_specification(bundle: Path, verify: Callable) -> None:
    verify(bundle / "configs" / "metadata.json")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda metadata: metadata.pop("version"),
        lambda metadata: metadata["network_data_format"]["inputs"].pop("image"),
        lambda metadata: metadata["network_data_format"]["outputs"]["pred"].pop("channel_def"),
        lambda metadata: metadata["required_packages_version"].update(torch=">=2"),
        lambda metadata: metadata["eval_metrics"].update(Dice="good"),
    ],
    ids=["no version", "no image", "no channels", "no exact version", "no number"],
)
def test_schema_refuses_wrong_metadata(
    metadata: dict[str, Any], verify: Callable, tmp_path: Path, spoil: Callable
) -> None:
    spoil(metadata)
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="Failed validating"):
        verify(tmp_path / "metadata.json")


def test_changelog_has_the_version(metadata: dict[str, Any]) -> None:
    assert next(iter(metadata["changelog"])) == metadata["version"]


def test_versions_are_those_of_the_constraints(metadata: dict[str, Any]) -> None:
    constraints = (Path(__file__).parents[2] / "constraints.txt").read_text()
    tested = dict(re.findall(r"^([\w.-]+)==([\w.]+)$", constraints, re.MULTILINE))
    stated = {
        **metadata["required_packages_version"],
        **{{"pytorch": "torch"}.get(key, key): metadata[f"{key}_version"] for key in ("monai", "pytorch", "numpy")},
    }
    assert stated == {name: tested[name] for name in stated}


def test_tensors_match_the_configs(bundle: Path, metadata: dict[str, Any]) -> None:
    parser = ConfigParser()
    parser.read_config(files(bundle)["config_file"])
    formats = metadata["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    assert image["channel_def"] == {str(i): name for i, name in enumerate(parser["modalities"])}
    assert image["num_channels"] == len(image["channel_def"])
    assert image["spatial_shape"] == pred["spatial_shape"]
    for size, roi in zip(image["spatial_shape"], parser["roi_size"], strict=True):  # "8*n" is any multiple of 8
        assert size == roi or roi % int(re.fullmatch(r"(\d+)\*n", size)[1]) == 0  # type: ignore[index]
    (save,) = (
        t for t in parser["postprocessing"]["transforms"] if t["_target_"] == "common.transforms.AtomicSaveImaged"
    )
    written = formats["post_processed_outputs"]["pred"]
    assert written["dtype"] == save.get("output_dtype", "uint8")
    assert [int(key) for key in written["channel_def"]] == list(range(written["value_range"][1] + 1))


def assert_within(values: Any, limits: list[float]) -> None:
    assert np.isfinite(values).all() and limits[0] <= np.min(values) <= np.max(values) <= limits[1]


def test_inference_matches_the_metadata(
    workflow: Callable, busy_weights: Callable, bundle: Path, metadata: dict[str, Any], tmp_path: Path
) -> None:
    """Compare input, output and written files of a narrow network on phantoms with the metadata."""
    busy_weights(bundle)
    formats = metadata["network_data_format"]
    image, pred, written = formats["inputs"]["image"], formats["outputs"]["pred"], formats["post_processed_outputs"]
    flow = workflow(bundle, "inference")
    outputs = []
    flow.network_def.register_forward_hook(lambda _, inputs, output: outputs.append((inputs[0], output)))
    flow.run()

    assert len(outputs) > 1
    for tensors, about in zip(zip(*outputs), (image, pred)):
        assert list(map(int, about["channel_def"])) == list(range(about["num_channels"]))
        values = torch.cat([tensor.flatten(2).transpose(1, 2).flatten(0, 1) for tensor in tensors])
        assert values.shape[1] == about["num_channels"]
        if about["value_range"]:
            assert_within(values.float().numpy(), about["value_range"])
    probable = [int(i) for i, name in pred["channel_def"].items() if "class:" not in name]
    if pred["format"].startswith("probabilit"):
        assert_within(torch.cat([y[:, probable].float().flatten() for _, y in outputs]).numpy(), [0, 1])

    maps = [np.asarray(nib.load(path).dataobj) for path in (tmp_path / "out").glob("*_seg.nii.gz")]
    names = {int(value): name for value, name in written["pred"]["channel_def"].items()}
    found = set(np.unique(np.concatenate([labels.flatten() for labels in maps])))
    assert found == {value for value, name in names.items() if name != "unused"}
    assert all(labels.dtype == written["pred"]["dtype"] and labels.ndim == 3 for labels in maps)

    results = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*_class.json")]
    assert len(results) == (len(maps) if "result" in written else 0)
    for result in results:
        probabilities = result["probabilities"]
        assert list(probabilities) == list(written["result"]["channel_def"].values())
        assert len(probabilities) == written["result"]["num_channels"]
        assert_within(list(probabilities.values()), written["result"]["value_range"])


def test_evaluation_gives_the_metrics_of_the_metadata(
    workflow: Callable, busy_weights: Callable, bundle: Path, metadata: dict[str, Any], tmp_path: Path
) -> None:
    busy_weights(bundle)
    flow = workflow(bundle, "train", "evaluate")
    flow.run()
    assert list(metadata["eval_metrics"]) == list(flow.evaluator.state.metrics)
    assert set(metadata["eval_metrics"].values()) == {None}  # no weights are shipped
    rows = read_scores(tmp_path / "out" / "scores.csv")
    names = list(rows[0])[1:]
    if (tmp_path / "out" / "class_scores.csv").exists():
        names += [f"class {name}" for name in read_class_scores(tmp_path / "out" / "class_scores.csv")]
    assert names == list(metadata["eval_metrics"])


@pytest.mark.slow
def test_network_matches_the_metadata(bundle: Path) -> None:
    verify_net_in_out("network_def", **files(bundle))


@pytest.mark.slow
def test_exported_network_equals_the_eager_one(
    bundle: Path, metadata: dict[str, Any], tmp_path: Path, warm_python: WarmPython
) -> None:
    parser = ConfigParser()
    parser.read_config(files(bundle)["config_file"])
    network = parser.get_parsed_content("network_def").eval()
    torch.save(network.state_dict(), "weights.pt")
    options = [f"--{key}={value}" for key, value in files(bundle).items()]
    command = [sys.executable, "-m", "monai.bundle", "ckpt_export", "network_def", *options]
    command += ["--ckpt_file=weights.pt", "--filepath=exported.ts"]
    done = warm_python.run(command, tmp_path)
    assert done.returncode == 0, done.stderr

    extra = {"metadata.json": "", "inference.json": ""}
    exported = torch.jit.load("exported.ts", _extra_files=extra)
    for name, content in extra.items():
        assert json.loads(content).items() >= json.loads((bundle / "configs" / name).read_text()).items()
    x = torch.randn(1, metadata["network_data_format"]["inputs"]["image"]["num_channels"], 32, 32, 16)
    with torch.no_grad():
        torch.testing.assert_close(exported(x), network(x))


@pytest.mark.parametrize("names", [("train",), ("train", "evaluate"), ("inference",)], ids="+".join)
def test_workflow_has_the_properties(workflow: Callable, bundle: Path, names: tuple[str, ...]) -> None:
    flow = workflow(bundle, *names, **({} if names == ("train",) else {"weights": "untrained"}))
    assert not flow.check_properties()
    for name in ("version", "description", "spatial_shape", "channel_def"):
        assert getattr(flow, name)
