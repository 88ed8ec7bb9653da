"""Compute the size of a case after preprocessing from its header alone: each transform says how it changes a size."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pydoc import locate
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser, ReferenceResolver
from monai.bundle.config_item import ConfigComponent
from monai.data import MetaTensor
from monai.data.utils import zoom_affine
from monai.transforms import (
    CastToTyped,
    CenterSpatialCropd,
    CopyItemsd,
    Cropd,
    DeleteItemsd,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    Padd,
    RandomizableTrait,
    Resized,
    ScaleIntensityRanged,
    SelectItemsd,
    Spacingd,
    SpatialCropd,
    ToDeviced,
    Zoomd,
)

from ..transforms.grids import check_grid_memory
from .headers import Header

# MONAI's transforms that leave the size of a case as it is.
KEEPING = (
    *(CastToTyped, CopyItemsd, DeleteItemsd, EnsureChannelFirstd, EnsureTyped, LoadImaged, NormalizeIntensityd),
    *(ScaleIntensityRanged, SelectItemsd, ToDeviced),
)
# The result of these transforms of MONAI follows from the grid alone. They are called with a volume without channels.
ON_GRID = (CenterSpatialCropd, Padd, SpatialCropd, Spacingd)
CHANGING = (Cropd, Orientationd, Padd, Resized, Spacingd, Zoomd)
PACKAGE = re.compile(r"\w+_v\d+_\d+_\d+")  # name of the code that a packed bundle carries
MEMBERS = ("shape_after", "channels_after", "bytes_per_voxel")  # see common.transforms


class Prepared(NamedTuple):
    """Hold the size of a case after preprocessing.

    Args:
        shape: voxels along x, y, z.
        channels: number of channels.
        crops: crops to a part that the voxels decide; because of these, ``shape`` is an upper bound.
    """

    shape: tuple[int, ...]
    channels: int
    crops: tuple[str, ...] = ()

    @property
    def voxels(self) -> int:
        """Return the number of voxels of a channel."""
        return math.prod(self.shape)


class Preprocessing:
    """Compute the size of a case after the transforms of a config, without its voxels.

    Our transforms say how they change a size, see :mod:`common.transforms`. MONAI's transforms are known by their
    classes. A transform that is neither is left out, and named in ``unknown``. Transforms from the first random one on
    are left out, because a dataset does not cache their results.

    Args:
        parser: the config.
        key: id of the preprocessing in it, such as ``"train::preprocessing"``.
    """

    def __init__(self, parser: ConfigParser, key: str) -> None:
        self.steps: list[Any] = []
        self.unknown: list[str] = []
        for step_id, kind in transform_classes(parser, key):
            if kind is not None and issubclass(kind, RandomizableTrait):
                break
            if kind is not None and (any(hasattr(kind, name) for name in MEMBERS) or issubclass(kind, ON_GRID)):
                step = parser.get_parsed_content(step_id)
                self.steps += [] if step is None else [step]  # None: disabled
            elif not _keeps_size(kind):
                self.unknown.append(str(parser[step_id]["_target_"]).rpartition(".")[2])
        self.bytes_per_voxel = sum(getattr(step, "bytes_per_voxel", 0) for step in self.steps)

    def __call__(self, header: Header, channels: int) -> Prepared:
        """Return the size of a case after all transforms.

        Args:
            header: header of the scan.
            channels: number of channels that are read.

        Raises:
            InputError: a new grid does not fit the memory.
        """
        shape, spacing = straight_grid(header)
        crops = []
        for step in self.steps:
            before, old_spacing = shape, spacing
            if hasattr(step, "shape_after"):
                shape, spacing = step.shape_after(shape, spacing)
                if tuple(spacing) == tuple(old_spacing):  # a crop keeps the voxel size
                    crops.append(type(step).__name__)
            elif isinstance(step, ON_GRID):
                shape, spacing = _called_on_grid(step, shape, spacing)
            if hasattr(step, "channels_after"):
                channels = step.channels_after(channels)
            if tuple(spacing) != tuple(old_spacing):
                check_grid_memory(str(header.path), before, shape, old_spacing, spacing)
        return Prepared(tuple(shape), channels, tuple(crops))


def transform_classes(parser: ConfigParser, key: str) -> Iterator[tuple[str, type | None]]:
    """Yield id and class of the transforms in a part of a config, in order; the class is None if it does not exist.

    Nothing is built, because some transforms read files. In an expression, the references count, in their order.
    """
    content = parser[key]
    if isinstance(content, dict) and "transforms" in content:
        yield from transform_classes(parser, f"{key}::transforms")
    elif isinstance(content, dict) and "_target_" in content:
        yield key, _class_of(parser, content)
    elif isinstance(content, list):
        for index in range(len(content)):
            yield from transform_classes(parser, f"{key}::{index}")
    elif isinstance(content, str) and content.startswith(("$", "@")):
        for reference in ReferenceResolver.match_refs_pattern(content):
            yield from transform_classes(parser, reference)


def is_copy_of(kind: type | None, *classes: type) -> bool:
    """Return whether a class is one of these classes, a subclass, or the copy of one that a package carries."""
    names = {one.__name__ for one in classes}
    return kind is not None and any(base.__name__ in names for base in kind.__mro__)


def straight_grid(header: Header) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return shape in voxels and spacing in mm along left-right, front-back and foot-head.

    A scan with sheared axes (a tilted gantry) gets the perpendicular grid that encloses it.
    """
    order = np.argsort(nib.orientations.io_orientation(header.affine)[:, 0])
    shape, affine = np.array(header.shape)[order], header.affine[:, [*order, 3]]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    straight = zoom_affine(affine, spacing, diagonal=False)
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in shape), indexing="ij")).reshape(3, -1)
    extent = np.ptp(np.linalg.solve(straight[:3, :3], affine[:3, :3]) @ corners, axis=1)
    return tuple(np.ceil(extent + 1 - 1e-3).astype(int).tolist()), tuple(spacing.tolist())


def _class_of(parser: ConfigParser, config: dict[str, Any]) -> type | None:
    if isinstance(requirement := config.get("_requires_"), str):  # makes the code of a package importable
        parser.get_parsed_content(requirement.lstrip("@"))
    name = ConfigComponent(config, locator=parser.locator).resolve_module_name()
    found = locate(name) if isinstance(name, str) else name
    return found if isinstance(found, type) else None


def _keeps_size(kind: type | None) -> bool:
    """Return whether a transform without our members leaves the size of a case as it is."""
    if kind is None or issubclass(kind, KEEPING):
        return kind is not None
    root = kind.__module__.partition(".")[0]
    is_own = root == __name__.partition(".")[0] or PACKAGE.fullmatch(root) is not None
    return is_own and not issubclass(kind, CHANGING)


def _called_on_grid(
    step: Any, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    volume = MetaTensor(torch.zeros(1).expand(0, *shape), affine=torch.diag(torch.tensor([*spacing, 1.0])))
    result = step(dict.fromkeys(step.keys, volume))[step.keys[0]]
    return tuple(result.shape[1:]), tuple(result.pixdim.tolist())
