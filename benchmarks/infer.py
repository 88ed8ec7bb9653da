"""Compare inference by a Model Zoo-style configuration with ours, from file to file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Activationsd, Compose, SaveImaged
from tqdm import tqdm, trange

from common.engines import load_weights
from common.inferers.windows import computes_bfloat16

from .measure import (
    Figures,
    ForwardClock,
    Row,
    command_seconds,
    exponent,
    in_fresh_process,
    interleaved,
    measure,
    peak_above_idle,
    row,
    slope,
)
from .volumes import ensure_ct, ensure_head
from .weights import BUNDLE, CONFIGS, ensure_ct_weights, mmfnet_weights

COPIES = (
    (1, 1, 1),
    (1, 1, 2),
    (1, 2, 2),
    (2, 2, 2),
)  # repetitions of the CT along its axes: 1, 2, 4 and 8 times the voxels
HEAD_SIZE, HEAD_SPACING = (336, 384, 20), (0.5, 0.5, 4.5)  # voxel size of the bundle: a window contains the head


@dataclass(frozen=True)
class Workload:
    """Hold a scan and the configurations that segment it.

    Args:
        title: name in the table.
        zoo, ours: configuration files.
        weights: file of the weights, the same for both.
        scan: folder of the input.
        truth: file of the ground truth.
        classes: number of classes with the background; further classes of the ground truth count as background.
        overlap: overlap of the zoo's windows, which ours then equals; None if both have the overlap of the method.
        settings: settings of both configurations, by id.
    """

    title: str
    zoo: Path
    ours: Path
    weights: Path
    scan: Path
    truth: Path
    classes: int = 2
    overlap: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)


class Pipeline:
    """Segment the scan of a workload by a configuration, at every call.

    Args:
        config: configuration file with an ``evaluator``.
        workload: scan, weights and settings.
        output_dir: folder for the label map.
        device: device of the network.
        settings: further settings of the configuration, by id.
    """

    def __init__(
        self, config: Path, workload: Workload, output_dir: Path, device: torch.device, **settings: Any
    ) -> None:
        self.output_dir = output_dir
        self.parser = ConfigParser()
        self.parser.read_config(config)
        places = {"dataset_dir": str(workload.scan), "output_dir": str(output_dir), "device": device}
        self.parser.update({**places, "handlers": [], **workload.settings, **settings})
        network = self.parser.get_parsed_content("network_def")
        load_weights(network, workload.weights)
        self.clock = ForwardClock(network, device)
        self.evaluator = self.parser.get_parsed_content("evaluator")

    def __call__(self) -> None:
        self.evaluator.run()

    def labels(self) -> np.ndarray:
        """Return the label map of the last call, on the scan's grid."""
        (file,) = self.output_dir.glob("*.nii.gz")
        return np.asarray(nib.load(file).dataobj).astype(np.uint8)

    def inverse_resampling(self) -> tuple[dict[str, Any], Compose]:
        """Return the preprocessed case, and the steps between the network's activation and the file."""
        steps = self.parser.get_parsed_content("postprocessing").transforms
        case = self.parser.get_parsed_content("dataset")[0]
        return case, Compose([step for step in steps if not isinstance(step, (Activationsd, SaveImaged))])


def infer_rows(work: Path, device: torch.device, repeats: int, only: Sequence[str] = ()) -> list[Row]:
    """Return the rows of the table.

    Args:
        work: folder that keeps volumes and weights.
        device: device of the networks.
        repeats: number of measurements of each time.
        only: parts to run, out of ``PARTS``; empty for all.
    """
    rows = []
    for name in only or PARTS:
        rows += PARTS[name](work, device, repeats)
    return rows


def mmfnet_workload(work: Path) -> Workload:
    scan, truth = ensure_head(work / "head", HEAD_SIZE, HEAD_SPACING)
    ours = BUNDLE / "configs" / "inference.json"
    return Workload("MMFNet", CONFIGS / "zoo_mmfnet.json", ours, mmfnet_weights(), scan, truth)


def ct_workload(work: Path, classes: int, device: torch.device) -> Workload:
    weights = ensure_ct_weights(work, classes, device)
    scan, truth = ensure_ct(work / "ct")
    title, settings = f"CT, {classes} classes", {"classes": classes}
    zoo, ours = CONFIGS / "zoo_ct.json", CONFIGS / "ours_ct.json"
    return Workload(title, zoo, ours, weights, scan.parent, truth, classes, 0.5, settings)


def side_by_side(workload: Workload, work: Path, device: torch.device, repeats: int) -> list[Row]:
    """Compare whole runs of both configurations; a time meets its goal only if the label maps agree."""
    equal = {} if workload.overlap is None else {"inferer#overlap": workload.overlap, "inferer#mode": "constant"}
    variants = {"ours, float32, equal overlap": {"inferer#precision": "float32", **equal}}
    if computes_bfloat16(device):
        variants["ours, bfloat16, equal overlap"] = {"inferer#precision": "bfloat16", **equal}
        if equal:
            variants["ours, bfloat16, overlap 0.25"] = {"inferer#precision": "bfloat16"}
    out = work / "out" / workload.title.replace(", ", "_").replace(" ", "_")
    pipelines = {"zoo": Pipeline(workload.zoo, workload, out / "zoo", device)}
    for number, (name, settings) in enumerate(variants.items()):
        pipelines[name] = Pipeline(workload.ours, workload, out / f"ours_{number}", device, **settings)
    clocks = {name: pipeline.clock for name, pipeline in pipelines.items()}
    costs = interleaved(pipelines, repeats, device, clocks, workload.title)
    figures = Figures(costs, device)
    figures.print(workload.title)

    labels = {name: pipeline.labels() for name, pipeline in pipelines.items()}
    truth = np.asarray(nib.load(workload.truth).dataobj)
    truth = np.where(truth < workload.classes, truth, 0)
    quality = {name: mean_dice(label, truth, workload.classes) for name, label in labels.items()}
    rows = [row(f"{workload.title}: zoo's Dice with the ground truth", quality["zoo"])]
    goals = {
        "ours, float32, equal overlap": (">= 1.3", "<= 1.04"),
        "ours, bfloat16, equal overlap": (">= 4", "<= 1.15"),
        "ours, bfloat16, overlap 0.25": (">= 8", None),
    }
    for name in variants:
        time_goal, overhead_goal = goals[name]
        figure = f"{workload.title}: {name.removeprefix('ours, ')}"
        if "float32" in name:
            different = int((labels["zoo"] != labels[name]).sum())
            gate = row(f"{figure}: voxels with another label", different, "<= 0")
        elif "equal" in name:
            agreement = mean_dice(labels[name], labels["zoo"], workload.classes)
            gate = row(f"{figure}: Dice with zoo's labels", agreement, ">= 0.999")
        else:
            gate = row(f"{figure}: loss of Dice with the ground truth", quality["zoo"] - quality[name], "<= 0.001")
        rows.append(gate)
        valid = bool(gate.met)
        rows += figures.ratio(f"{figure}: time, zoo / ours", ("zoo", "all"), (name, "all"), time_goal, valid)
        if overhead_goal is not None:
            title = f"{figure}: whole run / its forwards"
            rows += figures.ratio(title, (name, "all"), (name, "forward"), overhead_goal, valid)
        if "float32" in name:
            title = f"{figure}: time without the network, zoo / ours"
            rows += figures.ratio(title, ("zoo", "rest"), (name, "rest"), ">= 8", valid)
    return rows


def inverse_resampling(workload: Workload, work: Path, device: torch.device, repeats: int) -> list[Row]:
    """Compare the steps from probabilities on the network's grid to labels on the scan's grid."""
    zoo = Pipeline(workload.zoo, workload, work / "out" / "inverse_resampling", device)
    ours = Pipeline(workload.ours, workload, work / "out" / "inverse_resampling", device)
    case, invert = zoo.inverse_resampling()
    our_case, return_to_scan = ours.inverse_resampling()
    with torch.no_grad():
        image = case["image"].as_tensor()[None].to(device)
        scores = zoo.evaluator.inferer(image, zoo.evaluator.network.eval())[0].softmax(0)
    results: dict[str, torch.Tensor] = {}

    def run(name: str, case: dict[str, Any], steps: Compose) -> Callable[[], None]:
        def call() -> None:
            results[name] = steps({**case, "pred": MetaTensor(scores)})["pred"]

        return call

    calls = {"zoo": run("zoo", case, invert), "ours": run("ours", our_case, return_to_scan)}
    figures = Figures(interleaved(calls, repeats, device, title=f"{workload.title}, inverse resampling"), device)
    figures.print(f"{workload.title}, inverse resampling")
    zoo_labels, our_labels = (np.asarray(results[name].cpu()).astype(np.uint8) for name in ("zoo", "ours"))
    figure = f"{workload.title}: inverse resampling and decision"
    gate = row(f"{figure}: voxels with another label", int((zoo_labels != our_labels).sum()), "<= 0")
    goal = ">= 10" if workload.classes == 2 else ">= 5"
    return [gate, *figures.ratio(f"{figure}: zoo / ours", ("zoo", "all"), ("ours", "all"), goal, bool(gate.met))]


def growth(work: Path, device: torch.device) -> list[Row]:
    """Measure memory and time of our default configuration for volumes of 1 to 8 times the voxels."""
    ensure_ct_weights(work, 2, device)  # before the processes that measure
    voxels, peaks, seconds = [], [], []
    for copies in tqdm(COPIES, desc="growth with the volume", ncols=100):
        scan, _ = ensure_ct(work / f"ct_{np.prod(copies)}_copies", copies=copies)
        peak, cost = in_fresh_process(_memory_and_time, work, scan.parent, str(device))
        voxels.append(float(np.prod(nib.load(scan).shape)))
        peaks.append(float(peak))
        seconds.append(cost.wall if device.type == "cuda" else cost.cpu)
    print("\n     voxels  peak above idle, MiB  time, s")
    for count, peak, time in zip(voxels, peaks, seconds):
        print(f"{count:11.0f}  {peak / 2**20:20.0f}  {time:7.2f}")
    return [
        row("CT, 2 classes: peak memory above idle per input voxel, bytes (slope)", slope(voxels, peaks), "<= 25"),
        # the allocator reuses memory in the small volumes, which flattens the slope; this figure has all of it
        row("CT, 2 classes: peak memory above idle per input voxel, bytes (largest volume)", peaks[-1] / voxels[-1]),
        row("CT, 2 classes: growth exponent of memory", exponent(voxels, peaks), "<= 1.02"),
        row("CT, 2 classes: growth exponent of time", exponent(voxels, seconds), "<= 1.02"),
    ]


def start_up(work: Path, repeats: int) -> list[Row]:
    """Measure the CPU time until the bundle's evaluator is built."""
    workload = mmfnet_workload(work)
    arguments = {
        "config_file": workload.ours,
        "dataset_dir": workload.scan,
        "weights": workload.weights,
        "output_dir": work / "out" / "start_up",
        "run_id": "evaluator",  # builds the evaluator without running it
    }
    options = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    seconds: dict[str, list[float]] = {"import": [], "run": []}
    for _ in trange(repeats, desc="start-up", ncols=100):
        seconds["import"].append(command_seconds(["-c", "import monai.bundle"]))
        seconds["run"].append(command_seconds(["-m", "monai.bundle", "run", *options]))
    imported, ran = median(seconds["import"]), median(seconds["run"])
    print(f"\nstart-up, CPU s: import monai.bundle {imported:.3f}, monai.bundle run {ran:.3f}")
    return [row("MMFNet: start-up of the bundle / import monai.bundle (CPU time)", ran / imported, "<= 1.02")]


def mean_dice(prediction: np.ndarray, truth: np.ndarray, classes: int) -> float:
    """Return the mean Dice over the foreground classes of the ground truth."""
    scores = []
    for c in range(1, classes):
        p, t = prediction == c, truth == c
        if t.any():
            scores.append(2 * (p & t).sum() / (p.sum() + t.sum()))
    return float(np.mean(scores))


def _memory_and_time(work: Path, scan: Path, device_name: str) -> tuple[int, Any]:
    """Return the peak bytes above idle of a first run, and the time of a second one."""
    torch.set_num_threads(1)
    device = torch.device(device_name)
    # the ground truth is not read
    workload = Workload("", Path(), CONFIGS / "ours_ct.json", work / "ct_2.pt", scan, Path(), settings={"classes": 2})
    pipeline = Pipeline(workload.ours, workload, work / "out" / f"growth_{scan.parent.name}", device)
    return peak_above_idle(pipeline), measure(pipeline, device)


PARTS: dict[str, Callable[[Path, torch.device, int], list[Row]]] = {
    "ct2": lambda work, device, repeats: side_by_side(ct_workload(work, 2, device), work, device, repeats),
    "ct14": lambda work, device, repeats: side_by_side(ct_workload(work, 14, device), work, device, repeats),
    "mmfnet": lambda work, device, repeats: side_by_side(mmfnet_workload(work), work, device, repeats),
    "back2": lambda work, device, repeats: inverse_resampling(ct_workload(work, 2, device), work, device, repeats),
    "back14": lambda work, device, repeats: inverse_resampling(ct_workload(work, 14, device), work, device, repeats),
    "growth": lambda work, device, repeats: growth(work, device),
    "start-up": lambda work, device, repeats: start_up(work, repeats),
}
