"""Train the networks that are timed: label maps of random weights would prove no equality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, Spacingd
from torch import Tensor
from tqdm import trange

from common.engines import save_whole
from common.errors import InputError
from common.inferers.windows import computes_bfloat16

from .volumes import ensure_ct

CONFIGS = Path(__file__).parent / "configs"
BUNDLE = Path(__file__).parents[1] / "bundles" / "nasopharynx_mri_mmfnet"

SCANS = 3  # number of training CTs, with other seeds than the timed CT
WINDOW = 48  # voxels along each axis; several windows take the time of one of 96 voxels, as in inference
BATCH = 4


def mmfnet_weights() -> Path:
    """Return the file of the weights that the demo trained.

    Raises:
        InputError: the demo was not run.
    """
    path = BUNDLE / "demo" / "models" / "model.pt"
    if not path.exists():
        raise InputError(f"{path}: no such file; run `make demo BUNDLE={BUNDLE.name}` first, which trains the network")
    return path


def ensure_ct_weights(work: Path, classes: int, device: torch.device, updates: int = 700, threads: int = 2) -> Path:
    """Train the network of ``zoo_ct.json`` on synthetic CTs, unless it is trained already, and return its file.

    Args:
        work: folder for ``ct_<classes>.pt``.
        classes: number of classes with the background; 2 for the first organ alone, 14 for all organs.
        device: device of the training.
        updates: number of updates of the weights.
        threads: number of CPU threads.
    """
    path = work / f"ct_{classes}.pt"
    if path.exists():
        return path
    config = ConfigParser()
    config.read_config(CONFIGS / "zoo_ct.json")
    config["classes"] = classes
    cases = [_case(config, *ensure_ct(work / f"ct_training_{seed}", seed), classes) for seed in range(1, SCANS + 1)]

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = config.get_parsed_content("network_def").to(device, memory_format=torch.channels_last_3d)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=updates)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    progress = trange(updates, desc=f"training on CTs, {classes} classes", ncols=100)
    for update in progress:
        network.train(update < updates * 3 // 4)  # the last quarter uses the statistics of inference
        windows = [_window(rng, *cases[rng.integers(len(cases))]) for _ in range(BATCH)]
        image, label = (torch.stack(part).to(device) for part in zip(*windows))
        with torch.autocast(device.type, torch.bfloat16, enabled=computes_bfloat16(device)):
            output = network(image.to(memory_format=torch.channels_last_3d))
        loss = F.cross_entropy(output.float(), label[:, 0].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}")
    torch.set_num_threads(before)
    save_whole({name: value.cpu().contiguous() for name, value in network.state_dict().items()}, path)
    return path


def _case(config: ConfigParser, scan: Path, truth: Path, classes: int) -> tuple[Tensor, Tensor, list[np.ndarray]]:
    """Return image and label ``(1, x, y, z)`` on the network's grid, and the voxels of each class."""
    image = config.get_parsed_content("preprocessing")({"image": str(scan)})["image"].as_tensor()
    load_label = Compose(
        [
            LoadImaged("label"),
            EnsureChannelFirstd("label"),
            Orientationd("label", axcodes="RAS", labels=None),
            Spacingd("label", pixdim=config["spacing"], mode="nearest"),
        ]
    )
    label = load_label({"label": str(truth)})["label"].as_tensor()
    if classes == 2:
        label = (label == 1).float()
    return image, label, [np.argwhere(label[0].numpy() == c) for c in range(classes)]


def _window(rng: np.random.Generator, image: Tensor, label: Tensor, voxels: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Return a window around a voxel of a class that is drawn uniformly."""
    candidates = voxels[rng.integers(len(voxels))]
    centre = candidates[rng.integers(len(candidates))] + rng.integers(-WINDOW // 4, WINDOW // 4 + 1, 3)
    start = np.clip(centre - WINDOW // 2, 0, np.array(image.shape[1:]) - WINDOW)
    window = (slice(None), *(slice(s, s + WINDOW) for s in start))
    return image[window], label[window]
