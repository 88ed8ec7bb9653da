"""Draw the diagram of each network, with numbers from the network itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from common.methods.mamtln import MAMTLN
from common.methods.mmfnet import MMFNet
from common.methods.mpunet import MPUNet
from common.methods.multirnet import MultiRNet
from common.methods.omnet import OMNet

from .drawing import Box, Diagram
from .recording import Recording, record, sized


def _begin(title: str, recording: Recording, columns: int, rows: int, above: int = 0) -> Diagram:
    facts = f"{recording.parameters:,} parameters, sizes for a window of {sized(recording.window)} voxels (x, y, z)"
    return Diagram(title, facts, columns, rows, above)


def _column(d: Diagram, shapes: Recording, column: int, title: str, modules: Sequence[str], kind: str) -> list[Box]:
    """Draw a box for each module from the first row down; ``{}`` in the title is the number of the row from 1."""
    return [
        d.box(column, row, title.format(row + 1), f"{shapes.channels(name)} channels", kind)
        for row, name in enumerate(modules)
    ]


def mpunet() -> Diagram:
    """Draw MPU-Net."""
    shapes = record(MPUNet, 1, (256, 256, 48))
    d = _begin("MPU-Net", shapes, 6, 5)
    stages = [f"encoder.{level}" for level in range(5)]
    d.bands([shapes.size(name) for name in stages], 5 * [5])
    image = d.box(0, 0, "CT", "1 channel", "input")
    encoder = _column(d, shapes, 1, "stage {}", stages, "encoder")
    attention = d.box(2, 4, "position attention", f"{shapes.channels('bottom.3')} channels", "attention")
    decoder = _column(d, shapes, 3, "stage and gate", ["finest", "decoder.2", "decoder.1", "decoder.0"], "decoder")
    heads = [
        d.box(4, row, "softmax map", f"enlarged {2**row} times" if row else "full size", "head") for row in range(4)
    ]
    classes = shapes.channels("head")
    result = d.box(5, 1.5, "mean of 4 maps", f"{classes} probabilities", "output")
    d.arrow(image, encoder[0])
    d.chain(encoder)
    d.arrow(encoder[4], attention)
    d.arrow(attention, decoder[3], enter="bottom")
    for row in range(4):
        d.arrow(encoder[row], decoder[row], "skip")
        d.arrow(decoder[row], heads[row])
        _join(d, heads[row].side("right"), result.side("left"))
    d.chain(decoder[::-1], leave="top", enter="bottom")
    return d


def omnet() -> Diagram:
    """Draw OM-Net with cross-task guided attention."""
    shapes = record(OMNet, 4, (32, 32, 16))
    d = _begin("OM-Net with cross-task guided attention (CGA)", shapes, 5, 4)
    stages = [f"backbone.encoder.{level}" for level in range(4)]
    d.bands([shapes.size(name) for name in stages], 4 * [3])
    image = d.box(0, 0, "4 modalities", "FLAIR, T1, CET1, T2", "input")
    encoder = _column(d, shapes, 1, "stage {}", stages, "encoder")
    decoder = _column(d, shapes, 2, "stage {}", [f"backbone.decoder.{level}" for level in (2, 1, 0)], "decoder")
    tasks = {
        "coarse": ("head", "coarse tumour"),
        "tumour": ("CGA", "tumour, its parts"),
        "enhancing": ("CGA", "enhancing tumour"),
    }
    heads, results = [], []
    for row, (task, (kind, name)) in enumerate(tasks.items()):
        classes = shapes.channels(f"heads.{task}")
        detail = "two convolutions" if kind == "head" else "guided by task " + str(row)
        heads.append(d.box(3, row, kind, detail, "head" if kind == "head" else "attention"))
        results.append(d.box(4, row, name, f"task {row + 1}: {classes} classes", "output"))
    d.arrow(image, encoder[0])
    d.chain(encoder)
    d.arrow(encoder[3], decoder[2], enter="bottom")
    for row in range(3):
        d.arrow(encoder[row], decoder[row], "skip")
        d.arrow(heads[row], results[row])
        _join(d, decoder[0].side("right"), heads[row].side("left"))
    d.chain(decoder[::-1], leave="top", enter="bottom")
    for row in range(2):
        start, end = results[row].side("bottom"), heads[row + 1].side("top")
        between = (start[1] + end[1]) / 2
        d.line(start, (start[0], between), (end[0], between), end, style="guide")
    return d


def mmfnet() -> Diagram:
    """Draw MMFNet."""
    shapes = record(MMFNet, 3, (256, 256, 16))
    d = _begin("MMFNet", shapes, 5, 5)
    bottom, fusions = "encoders.0.bottom", [f"fusions.{level}" for level in range(4)]
    d.bands([shapes.size(name) for name in (*fusions, bottom)], 5 * [4])
    image = d.box(0, 0, "T1, T2, CET1", "1 channel each", "input", cards=3)
    encoder = [
        d.box(
            1, level, "3 encoders", f"{shapes.channels(f'encoders.0.blocks.{level}')} channels each", "encoder", cards=3
        )
        for level in range(4)
    ]
    encoder.append(d.box(1, 4, "3 bottom layers", f"{shapes.channels(bottom)} channels each", "encoder", cards=3))
    fusion = _column(d, shapes, 2, "fusion block", fusions, "attention")
    decoder = _column(d, shapes, 3, "block {}", [f"decoder.{level}" for level in (3, 2, 1, 0)], "decoder")
    result = d.box(4, 0, "tumour", "probability", "output")
    d.arrow(image, encoder[0])
    d.chain(encoder)
    for row in range(4):
        d.arrow(encoder[row], fusion[row], "skip")
        d.arrow(fusion[row], decoder[row], "skip")
    d.arrow(encoder[4], decoder[3], enter="bottom")
    d.chain(decoder[::-1], leave="top", enter="bottom")
    d.arrow(decoder[0], result)
    return d


def mamtln() -> Diagram:
    """Draw MA-MTLN."""
    shapes = record(MAMTLN, 1, (256, 256, 24))
    width = shapes.channels("project.0")
    d = _begin("MA-MTLN", shapes, 6, 5)
    stages = ["backbone.stem", *(f"backbone.layers.{scale}" for scale in range(4))]
    d.bands([shapes.size(name) for name in stages], [2, 4, 4, 4, 4])
    image = d.box(0, 0, "CT", "full size", "input")
    backbone = [d.box(1, 0, "first convolution", f"{shapes.channels(stages[0])} channels", "encoder")]
    backbone += [
        d.box(1, scale, f"backbone F{scale}", f"{shapes.channels(stages[scale])} channels", "encoder")
        for scale in range(1, 5)
    ]
    va = [d.box(2, scale, "VA block", f"{width} channels", "attention") for scale in range(1, 5)]
    asa = [d.box(3, scale, "ASA module", f"{width} channels", "attention") for scale in range(1, 5)]
    multi = d.box(2, 0, "fusion: M", f"{width} channels", "attention")
    aux_va = d.box(3, 0, "map after VA", f"{shapes.channels('aux_va')} channels", "head", dashed=True)
    aux_asa = d.box(4, 0, "map after ASA", f"{shapes.channels('aux_asa')} channels", "head", dashed=True)
    seg = d.box(4, 1.5, "TA, segmentation", "coarse to fine", "decoder")
    cls = d.box(4, 3.5, "TA, class", "fine to coarse", "decoder")
    tumour = d.box(5, 1.5, "tumour", f"{shapes.channels('seg')} logits per voxel", "output")
    classes = d.box(5, 3.5, "class of the scan", f"{shapes.channels('cls')} logits", "output")
    d.arrow(image, backbone[0])
    d.chain(backbone)
    up, down = va[0].side("right")[0] + 12, va[0].side("right")[0] + 24
    for scale in range(4):
        d.arrow(backbone[scale + 1], va[scale])
        d.arrow(va[scale], asa[scale], shift=-7)
        d.line(
            (down, multi.side("right")[1] + 10),
            (down, asa[scale].side("left")[1] + 9),
            asa[scale].side("left", 9),
            style="guide",
        )
        d.line(va[scale].side("right", -7), (up, va[scale].side("right")[1] - 7), head=False)
        for branch in (seg, cls):
            _join(d, asa[scale].side("right"), branch.side("left"))
    shared = seg.side("left")[0] - 14
    d.line((shared, asa[0].side("right")[1]), (shared, aux_asa.side("left")[1]), aux_asa.side("left"), style="training")
    for above, below in pairwise(va):
        d.line(above.side("bottom"), below.side("top"))
        d.line(below.side("top", 14), above.side("bottom", 14))
    d.line((up, va[3].side("right")[1] - 7), (up, multi.side("right")[1] + 3), multi.side("right", 3))
    d.line(multi.side("right", 10), (down, multi.side("right")[1] + 10), style="guide", head=False)
    d.line(multi.side("right", -9), aux_va.side("left", -9), style="training")
    d.arrow(seg, tumour)
    d.arrow(cls, classes)
    return d


def multirnet() -> Diagram:
    """Draw MultiR-Net."""
    shapes = record(MultiRNet, 1, (96, 96, 32))
    d = _begin("MultiR-Net", shapes, 6, 5, above=26)
    names = [f"segmentation.encoder.{level}" for level in range(5)]
    d.bands([shapes.size(name) for name in names], 5 * [5])
    image = d.box(0, 0, "CT", "plus the map before", "input")
    encoder = _column(d, shapes, 1, "V-Net level {}", names, "encoder")
    reverse = _column(d, shapes, 2, "reverse attention", names[:4], "attention")
    decoder = _column(d, shapes, 3, "level {}", [f"segmentation.decoder.{level}" for level in (3, 2, 1, 0)], "decoder")
    maps = [
        d.box(4, level, "map", f"enlarged {2**level} times" if level else "full size", "head") for level in range(5)
    ]
    lesion = d.box(5, 0, "lesion", "sigmoid of the sum", "output")
    product = d.box(5, 1, "CT \N{MULTIPLICATION SIGN} lesion", "1 channel", "head")
    modules = [name for name in shapes.shapes if name.startswith("classifier.") and name.count(".") == 1]
    classifier = d.box(5, 2, "classifier", f"{len(modules)} modules, {shapes.channels(modules[-1])} ch.", "encoder")
    last = d.box(5, 3, "linear layer", "of two means", "head")
    classes = d.box(5, 4, "class of the scan", f"{shapes.channels('head')} logits", "output")
    d.arrow(image, encoder[0])
    d.chain(encoder)
    for row in range(4):
        d.arrow(encoder[row], reverse[row], "skip")
        d.arrow(reverse[row], decoder[row], "skip")
        d.arrow(decoder[row], maps[row])
    d.arrow(encoder[4], maps[4])
    d.arrow(encoder[4], decoder[3], enter="bottom")
    d.chain(decoder[::-1], leave="top", enter="bottom")
    over = image.side("top")[1] - 28
    d.line(
        lesion.side("top"),
        (lesion.side("top")[0], over),
        (image.side("top")[0], over),
        image.side("top"),
        style="guide",
    )
    d.label(image.side("top")[0] + 12, over - 6, "the lesion map of a pass goes into the next one", anchor="start")
    start, end = decoder[0].side("top", 30), last.side("right")
    d.line(start, (start[0], over + 12), (end[0] + 16, over + 12), (end[0] + 16, end[1]), end)
    for each in maps:
        _join(d, each.side("right"), lesion.side("left"))
    d.chain([lesion, product, classifier, last, classes])
    return d


def _join(d: Diagram, start: tuple[float, float], end: tuple[float, float], style: str = "flow") -> None:
    """Draw an arrow with a vertical part just before its end, which all arrows to this column share."""
    middle = end[0] - 14
    d.line(start, (middle, start[1]), (middle, end[1]), end, style=style)


NETWORKS: dict[str, Callable[[], Diagram]] = {
    "mamtln": mamtln,
    "mmfnet": mmfnet,
    "mpunet": mpunet,
    "multirnet": multirnet,
    "omnet": omnet,
}
