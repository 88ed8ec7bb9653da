"""Draw boxes in rows of one resolution, and the arrows between them, as an SVG in one style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

KINDS = {  # name in the legend, fill, outline
    "input": ("input", "#f1f5f9", "#64748b"),
    "encoder": ("encoder", "#dbeafe", "#2563eb"),
    "attention": ("attention, fusion", "#fef3c7", "#d97706"),
    "decoder": ("decoder", "#dcfce7", "#16a34a"),
    "head": ("head", "#f3e8ff", "#9333ea"),
    "output": ("result", "#fee2e2", "#dc2626"),
}
LINES = {  # name in the legend, colour, dashes
    "flow": ("features", "#475569", ""),
    "skip": ("skip connection", "#94a3b8", "5 4"),
    "guide": ("guidance", "#d97706", "5 4"),
    "training": ("in training only", "#9333ea", "2 3"),
}
BOX, HEIGHT, COLUMN, ROW = 140, 46, 174, 76  # widths, heights and distances in pixels
LEFT, TOP, LABEL = 18, 80, 98  # margin, height of the title, width of the resolutions
FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
INK, GREY = "#0f172a", "#64748b"


@dataclass(frozen=True)
class Box:
    """Hold a drawn box: its text, its upper left corner in pixels, and how far the cards behind it reach out."""

    title: str
    detail: str
    x: float
    y: float
    behind: int

    def side(self, name: str, shift: float = 0) -> tuple[float, float]:
        """Return the middle of a side, ``left``, ``right``, ``top`` or ``bottom``, moved along the side by a shift."""
        if name in ("left", "right"):
            x = self.x if name == "left" else self.x + BOX + self.behind
            return x, self.y + HEIGHT / 2 + shift
        return self.x + BOX / 2 + shift, self.y - self.behind if name == "top" else self.y + HEIGHT


class Diagram:
    """Collect the parts of a drawing.

    Args:
        title: name of the network.
        facts: line below the title.
        columns: number of columns.
        rows: number of rows.
        above: free height over the first row in pixels.
    """

    def __init__(self, title: str, facts: str, columns: int, rows: int, above: int = 0) -> None:
        self.title, self.facts = title, facts
        self.top = TOP + above
        self.width = LEFT + LABEL + columns * COLUMN
        self.height = self.top + rows * ROW + 56
        self.boxes: list[Box] = []
        self.kinds: list[str] = []
        self.lines: list[str] = []
        self.back: list[str] = []
        self.front: list[str] = []

    def bands(self, sizes: Sequence[str], columns: Sequence[int]) -> None:
        """Draw the resolution of each row at its left, over a band of so many columns."""
        for row, (size, wide) in enumerate(zip(sizes, columns)):
            y = self.top + row * ROW + 3
            self.back.append(
                f'<rect x="{LEFT}" y="{y}" width="{LABEL + wide * COLUMN - 12}" height="{ROW - 6}" rx="8" '
                'fill="#f8fafc"/>'
            )
            self.label(LEFT + 8, y + ROW / 2 + 1, size, anchor="start", size=11)

    def box(
        self,
        column: float,
        row: float,
        title: str,
        detail: str,
        kind: str,
        *,
        cards: int = 1,
        dashed: bool = False,
    ) -> Box:
        """Draw a box with two lines of text in the middle of a cell.

        Args:
            column, row: place of the cell; fractions lie between two cells.
            title, detail: first line, in bold, and second line.
            kind: key of ``KINDS``.
            cards: number of equal modules, drawn as cards behind each other.
            dashed: whether the part exists in training only.
        """
        x = LEFT + LABEL + column * COLUMN + (COLUMN - BOX) / 2 - 12
        y = self.top + row * ROW + (ROW - HEIGHT) / 2
        _, fill, outline = KINDS[kind]
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        for behind in reversed(range(cards)):
            self.front.append(
                f'<rect x="{x + 5 * behind:g}" y="{y - 5 * behind:g}" width="{BOX}" height="{HEIGHT}" rx="7" '
                f'fill="{fill}" stroke="{outline}" stroke-width="1.4"{dashes}/>'
            )
        box = Box(title, detail, x, y, 5 * (cards - 1))
        self.boxes.append(box)
        self.kinds += [] if kind in self.kinds else [kind]
        middle = x + BOX / 2
        self.label(middle, y + 20, title, size=12, weight="bold")
        self.label(middle, y + 36, detail, size=11, colour="#334155")
        return box

    def label(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "middle",
        size: int = 11,
        weight: str = "normal",
        colour: str = GREY,
    ) -> None:
        """Write a line of text."""
        bold = ' font-weight="bold"' if weight == "bold" else ""
        ink = INK if weight == "bold" else colour
        self.front.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}"{bold} fill="{ink}">'
            f"{escape(text)}</text>"
        )

    def line(self, *points: tuple[float, float], style: str = "flow", head: bool = True) -> None:
        """Draw a line through points; ``head`` ends it in an arrow."""
        _, colour, dashes = LINES[style]
        self.lines += [] if style in self.lines else [style]
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        self.back.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round"'
            + (f' stroke-dasharray="{dashes}"' if dashes else "")
            + (f' marker-end="url(#{style})"' if head else "")
            + "/>"
        )

    def arrow(
        self, start: Box, end: Box, style: str = "flow", *, leave: str = "right", enter: str = "left", shift: float = 0
    ) -> None:
        """Draw an arrow between two boxes, straight or with one corner.

        Args:
            start, end: boxes.
            style: key of ``LINES``.
            leave, enter: sides of the two boxes. Opposite sides must face each other.
            shift: pixels by which both ends are moved along their sides.
        """
        first, last = start.side(leave, shift), end.side(enter, shift)
        across, across_end = leave in ("left", "right"), enter in ("left", "right")
        corners = [] if across == across_end else [(last[0], first[1]) if across else (first[0], last[1])]
        self.line(first, *corners, last, style=style)

    def chain(self, boxes: Sequence[Box], leave: str = "bottom", enter: str = "top") -> None:
        """Draw an arrow from each box to the next one."""
        for start, end in pairwise(boxes):
            self.arrow(start, end, leave=leave, enter=enter)

    def svg(self) -> str:
        """Return the drawing as SVG."""
        legend = self._legend()
        markers = "".join(
            f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0.5 L8 4 L0 7.5 z" fill="{colour}"/></marker>'
            for name, (_, colour, _) in LINES.items()
            if name in self.lines
        )
        head = (
            f'<text x="{LEFT}" y="34" font-size="20" font-weight="bold" fill="{INK}">{escape(self.title)}</text>\n'
            f'<text x="{LEFT}" y="56" font-size="12" fill="{GREY}">{escape(self.facts)}</text>'
        )
        body = "\n".join([head, *self.back, *self.front, *legend])
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="img" font-family="{FONT}">\n<title>{escape(self.title)}</title>\n'
            f'<defs>{markers}</defs>\n<rect width="100%" height="100%" rx="12" fill="#ffffff"/>\n{body}\n</svg>\n'
        )

    def _legend(self) -> list[str]:
        x, y = float(LEFT), self.height - 26.0
        parts = []
        for kind in (kind for kind in KINDS if kind in self.kinds):
            name, fill, outline = KINDS[kind]
            parts.append(
                f'<rect x="{x:g}" y="{y - 10:g}" width="16" height="12" rx="3" fill="{fill}" stroke="{outline}"/>'
                f'<text x="{x + 22:g}" y="{y:g}" font-size="11" fill="{GREY}">{name}</text>'
            )
            x += 40 + text_width(name, 11)
        for style in (style for style in LINES if style in self.lines):
            name, colour, dashes = LINES[style]
            dash = f' stroke-dasharray="{dashes}"' if dashes else ""
            parts.append(
                f'<path d="M{x:g} {y - 4:g} h26" stroke="{colour}" stroke-width="1.6"{dash} '
                f'marker-end="url(#{style})"/>'
                f'<text x="{x + 33:g}" y="{y:g}" font-size="11" fill="{GREY}">{name}</text>'
            )
            x += 51 + text_width(name, 11)
        return parts


def text_width(text: str, size: int) -> float:
    """Return the width of a text in pixels in a wide font, such as DejaVu Sans, which replaces Helvetica on Linux."""
    return size * sum(_letter_width(letter) for letter in text)


def _letter_width(letter: str) -> float:
    for letters, width in (
        (" .,:;|'ijlI()", 0.34),
        ("frt-", 0.42),
        ("mMwW%\N{MULTIPLICATION SIGN}", 0.92),
        ("ABCDEFGHKNOPQRSUVXY", 0.72),
    ):
        if letter in letters:
            return width
    return 0.62
