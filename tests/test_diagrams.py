"""Check the diagrams of the networks: committed as drawn, small, and readable."""

from __future__ import annotations

from itertools import combinations
from xml.etree import ElementTree

import pytest

from diagrams import NETWORKS
from diagrams.__main__ import IMAGES
from diagrams.drawing import BOX, HEIGHT, text_width

pytestmark = pytest.mark.slow

of_networks = pytest.mark.parametrize("method", NETWORKS)


@of_networks
def test_the_diagram_is_that_of_the_network(method: str) -> None:
    text = (IMAGES / f"{method}.svg").read_text(encoding="utf-8")
    assert text == NETWORKS[method]().svg(), "run make diagrams"
    assert len(text) < 60_000
    ElementTree.fromstring(text)


@of_networks
def test_the_text_of_a_box_fits(method: str) -> None:
    for box in NETWORKS[method]().boxes:
        assert max(text_width(box.title, 12), text_width(box.detail, 11)) <= BOX - 4, box


@of_networks
def test_boxes_lie_apart_and_within_the_drawing(method: str) -> None:
    drawn = NETWORKS[method]()
    for box in drawn.boxes:
        assert box.x > 0 and box.x + BOX + box.behind < drawn.width
        assert box.y - box.behind > 0 and box.y + HEIGHT < drawn.height
    for one, other in combinations(drawn.boxes, 2):
        assert abs(one.x - other.x) >= BOX or abs(one.y - other.y) >= HEIGHT, (one, other)
