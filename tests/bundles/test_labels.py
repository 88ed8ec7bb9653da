"""Each bundle's labels have one source, from which network, scores, segments and metadata follow."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fire
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.bundle import run as bundle_run

from common.errors import InputError, root_cause
from common.labels import channel_def, class_regions
from common.methods.mpunet import LiverPhantom
from common.metrics import SegmentationScores
from common.packaging.configs import merged
from common.packaging.labels import check_package_labels, check_scored_regions, labels_table, relabel
from common.results import read_scores

from ..conftest import BUNDLES
from ..workflows import MAMTLN_CT, MMFNET, MPUNET, MULTIRNET, OMNET, parser_of

LIVER_AND_TUMOUR = [(MPUNET, "tasks/tumour"), (MAMTLN_CT, "tasks/lits")]
KIDNEY = {"labels": {"kidney": 1, "cyst": 2}, "regions": {}, "segments": {}}


def configs_of(bundle: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """``inference.json`` and ``metadata.json``."""
    names = ("inference", "metadata")
    config, metadata = (json.loads((bundle / "configs" / f"{name}.json").read_text()) for name in names)
    return config, metadata


def scored(parser: ConfigParser, found: Any) -> list[tuple[str, dict[str, list[int]]]]:
    """What every ``SegmentationScores`` of a config scores, by its place."""
    result = []
    for key, value in found.items() if isinstance(found, dict) else enumerate(found):
        if isinstance(value, dict) and str(value.get("_target_", "")).endswith("SegmentationScores"):
            assert (value["labels"], value["regions"]) == ("@labels", "@regions"), key
            built = SegmentationScores(value["scores"], parser["regions"], labels=parser["labels"])
            result.append((str(key), built.regions))
        elif isinstance(value, (dict, list)):
            result += scored(parser, value)
    return result


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_everything_follows_from_labels(bundle: Path) -> None:
    config, metadata = configs_of(bundle)
    check_package_labels(config, metadata)
    assert [*config["segments"]] == [*config["labels"]]  # each has codes of its own
    parser = parser_of(bundle, "train", "evaluate")
    regions = class_regions(config["labels"], config["regions"])
    assert {key: parser[key] for key in ("labels", "regions", "label_map")} == {
        key: config[key] for key in ("labels", "regions", "label_map")
    }
    found = scored(parser, parser.get())
    assert found and all(scores == regions for _, scores in found)
    checks = [step for step in parser["load"] if "label_map" in step]
    assert checks and {step["label_map"] for step in checks} == {"@label_map"}
    outside = ("class ", "AP", "Dice loss")  # of the case, or of probabilities
    columns = [name for name in metadata["eval_metrics"] if not name.startswith(outside)]
    assert {name: any(name.endswith(f" {region}") for region in regions) for name in columns} == dict.fromkeys(
        columns, True
    )
    assert len(columns) % len(regions) == 0
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values()
    dense = [name.partition(": ")[2] or name for name in channels if not name.startswith("class: ")]
    assert set(config["labels"]) <= {*dense} and "background" not in config["labels"]


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
@pytest.mark.parametrize(
    "change", ["a name", "a value", "one more", "regions", "segments", "channel_def", "labels=tuple"]
)
def test_one_of_them_changed_alone_is_refused(bundle: Path, change: str) -> None:
    config, metadata = configs_of(bundle)
    labels = config["labels"]
    first = next(iter(labels))
    written = metadata["network_data_format"]["post_processed_outputs"]["pred"]
    if change == "a name":
        config["labels"] = {"kidney" if name == first else name: value for name, value in labels.items()}
    elif change == "a value":
        config["labels"] = {**labels, first: 9}
    elif change == "one more":
        config["labels"] = {**labels, "kidney": 9}
    elif change == "regions":
        config["regions"] = {"whole": [*labels, "kidney"]}
    elif change == "segments":
        config["segments"] = {**config["segments"], "kidney": config["segments"][first]}
    elif change == "channel_def":
        written["channel_def"] = {**written["channel_def"], "1": "kidney"}
    else:
        config["labels"] = [*labels]
    with pytest.raises(InputError, match=r"kidney|9|expected names and values"):
        check_package_labels(config, metadata)


@pytest.mark.parametrize("bundle", [MPUNET, MAMTLN_CT], ids=lambda bundle: bundle.name)
def test_a_network_of_another_width_is_refused(bundle: Path) -> None:
    config, metadata = configs_of(bundle)
    assert parser_of(bundle, "inference").get_parsed_content("network_def::out_channels") == 1 + len(config["labels"])
    config["network_def"]["out_channels"] = 3
    with pytest.raises(InputError, match=r"network_def::out_channels is 3, but labels are .* 1: expected 2"):
        check_package_labels(config, metadata)


def test_a_package_in_another_code_is_refused() -> None:
    config, metadata = configs_of(OMNET)
    config["label_code"] = "brats2023"
    with pytest.raises(InputError, match=r"label_code brats2023 writes the values 1, 2, 3, but labels are .* 4; give"):
        check_package_labels(config, metadata)
    config["labels"] = {name: number for number, name in enumerate(config["labels"], start=1)}
    before = configs_of(OMNET)[0]
    relabel(metadata, before, config)
    check_package_labels(config, metadata)


@pytest.mark.parametrize(
    ("bundle", "count"), [(MMFNET, 1), (MULTIRNET, 1), (OMNET, 3)], ids=lambda value: getattr(value, "name", value)
)
def test_a_method_of_fixed_labels_says_so(bundle: Path, count: int) -> None:
    """In a package and before the first case of a training and of an inference."""
    config, metadata = configs_of(bundle)
    changed = merged(config, KIDNEY)
    relabel(metadata, config, changed)
    message = "labels: 2 of them .kidney 1, cyst 2.; this " + ("network segments one" if count == 1 else "method nests")
    with pytest.raises(InputError, match=message):
        check_package_labels(changed, metadata)
    for name, step in (("train", "load"), ("inference", "postprocessing")):
        parser = parser_of(bundle, name)
        for key in ("labels", "regions"):
            parser[key] = KIDNEY[key]
        with pytest.raises(Exception, match=r"labels|load|postprocessing") as error:
            parser.get_parsed_content(step)
        assert re.search(message, str(root_cause(error.value)))


@pytest.mark.parametrize("bundle", [MPUNET, MAMTLN_CT], ids=lambda bundle: bundle.name)
def test_a_package_of_other_labels_says_so(bundle: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    config, metadata = configs_of(bundle)
    before = copy.deepcopy(metadata)
    changed = merged(config, KIDNEY)
    with pytest.raises(InputError, match=r"channel_def of the label map in metadata\.json is 0 background, 1 .*, but"):
        check_package_labels(changed, metadata)
    relabel(metadata, config, changed)
    check_package_labels(changed, metadata)
    formats, formerly = metadata["network_data_format"], before["network_data_format"]
    assert formats["post_processed_outputs"]["pred"]["channel_def"] == channel_def(KIDNEY["labels"])
    assert formats["post_processed_outputs"]["pred"]["value_range"] == [0, 2]
    assert formats["outputs"]["pred"]["num_channels"] == formerly["outputs"]["pred"]["num_channels"] + 1
    assert {name for name in metadata["eval_metrics"] if "class" not in name} == {
        f"{score.rpartition(' ')[0]} {name}"
        for score in before["eval_metrics"]
        if "class" not in score
        for name in KIDNEY["labels"]
    }
    assert "kidney 1, cyst 2" in metadata["label_classes"] and "kidney, cyst" in metadata["pred_classes"]
    assert "labels are kidney 1, cyst 2, the bundle's are" in caplog.text and '"_meta_::name"' in caplog.text
    assert "| 2 | cyst |" in labels_table(changed)
    with pytest.raises(
        InputError, match=r"s\.csv: scores Dice liver, none of which is of kidney; the package's regions"
    ):
        check_scored_regions(tmp_path / "s.csv", ["Dice liver"], changed)
    check_scored_regions(tmp_path / "s.csv", ["Dice kidney", "Dice cyst"], changed)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_the_bundles_own_labels_change_nothing(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    config, metadata = configs_of(bundle)
    relabel(metadata, config, copy.deepcopy(config))
    assert metadata == configs_of(bundle)[1] and not caplog.records


@pytest.mark.parametrize(("bundle", "overlay"), LIVER_AND_TUMOUR, ids=["MPU-Net", "MA-MTLN"])
def test_the_overlays_of_two_labels_agree(bundle: Path, overlay: str) -> None:
    config, metadata = configs_of(bundle)
    changed = merged(config, json.loads((bundle / "configs" / f"{overlay}.json").read_text()))
    relabel(metadata, config, changed)
    check_package_labels(changed, metadata)
    assert class_regions(changed["labels"], changed["regions"]) == {"liver": [1, 2], "tumour": [2]}
    assert parser_of(bundle, "inference", overlay).get_parsed_content("network_def::out_channels") == 3


@pytest.fixture
def three(cohort: Callable, tmp_path: Path) -> Path:
    """Livers with tumours and, as a third structure, the upper part of each liver."""
    shutil.copytree(cohort(MPUNET), tmp_path / "three")
    for path in (tmp_path / "three" / "labels").iterdir():
        label = nib.load(path)
        values = np.asarray(label.dataobj).copy()
        cut = np.argwhere(values == 1)[:, 2].max() - 1
        values[:, :, cut:][values[:, :, cut:] == 1] = 3
        nib.save(nib.Nifti1Image(values, label.affine), path)
    return tmp_path / "three"


def test_three_labels_from_training_to_the_mask(workflow: Callable, three: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "labels": {"liver": 1, "tumour": 2, "cyst": 5},
        "label_map": {3: 5},
        "dataset_dir": str(three),
    }
    workflow(MPUNET, "train", **settings).run()
    state = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert state["head.conv.weight"].shape[0] == 4
    torch.manual_seed(1)
    busy = {
        k: torch.randn_like(v) * 9 if k.endswith("head.conv.weight") or "heads" in k else v for k, v in state.items()
    }
    torch.save(busy, tmp_path / "models" / "model.pt")
    workflow(MPUNET, "train", "evaluate", **settings).run()
    row = read_scores(tmp_path / "out" / "scores.csv")[0]
    assert [name for name in row if name.startswith("Dice")] == ["Dice liver", "Dice tumour", "Dice cyst"]
    flow = workflow(MPUNET, "inference", segments={}, **settings)
    flow.run()
    found = set()
    for path in (tmp_path / "out").glob("*_seg.nii.gz"):
        mask = np.asarray(nib.load(path).dataobj)
        found |= {*np.unique(mask).tolist()}
        truth = np.asarray(nib.load(three / "labels" / path.name.replace("_seg", "")).dataobj)
        (scores,) = (r for r in read_scores(tmp_path / "out" / "scores.csv") if f"{r['case']}_seg.nii.gz" == path.name)
        p, t = mask == 5, truth == 3
        assert scores["Dice cyst"] == pytest.approx(2 * (p & t).sum() / max(p.sum() + t.sum(), 1), abs=1e-5)
    assert found <= {0, 1, 2, 5} and 5 in found


def test_a_default_map_does_not_merge_new_labels(workflow: Callable, three: Path) -> None:
    with pytest.raises(Exception, match=r"labels|load|dataset") as error:
        workflow(MPUNET, "train", labels={"liver": 1, "tumour": 2, "cyst": 3}, dataset_dir=str(three)).run()
    message = str(root_cause(error.value))
    assert message.startswith("label_map: 2 to 1, so that nothing is left for tumour 2 of `labels`")
    assert '--label_map "{}"' in message


@pytest.mark.filterwarnings("ignore:parsing config_file")  # MONAI's, of any config
@pytest.mark.parametrize("typed", ["{1: 1, 2: 1, 3: 1}", '{"1": 1, "2": 1, "3": 1}', "[[1,1],[2,1],[3,1]]"])
def test_a_label_map_as_a_shell_hands_it_over(
    config_files: Callable, three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    """The message of a run without it gives the option, in the first of these forms."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["common"])
    command = ["--config_file", str(config_files(MPUNET, "train", "evaluate")), "--bundle_root", str(MPUNET)]
    command += ["--dataset_dir", str(three), "--output_dir", str(tmp_path / "out"), "--weights", "untrained"]
    command += ["--logging_file", "False"]
    with pytest.raises(RuntimeError) as error:
        fire.Fire(bundle_run, command=command)
    assert 'values 0, 1, 2, 3, expected 0 and 1, 2; map them with --label_map "{1: 1, 2: 1, 3: 1}"' in str(
        root_cause(error.value)
    )
    fire.Fire(bundle_run, command=[*command, "--label_map", typed])
    assert [*read_scores(tmp_path / "out" / "scores.csv")[0]][1] == "Dice liver"


def test_a_list_of_another_organ_is_warned_of(
    workflow: Callable, cohort: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert LiverPhantom.labels == {1: "liver", 2: "tumour"}
    workflow(MPUNET, "train").parser.get_parsed_content("load")
    assert "its labels" not in caplog.text
    listing = json.loads((cohort(MPUNET) / "dataset.json").read_text())
    listing["labels"] = {"background": 0, "kidney": 1, "cyst": 2}
    (tmp_path / "dataset.json").write_text(json.dumps(listing))
    workflow(MPUNET, "train", dataset_dir=str(tmp_path)).parser.get_parsed_content("load")
    assert "1 kidney, 2 cyst where `labels` has liver" in caplog.text
