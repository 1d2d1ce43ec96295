"""
The picture: for each workload how many times as fast as Postfix each server delivers; the goals as marks.

In: workloads with their figures.  Out: SVG, written by hand, so that nothing has to be installed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from bench.figures import Figures, ratio
from bench.workloads import Workload

_LEFT, _WIDTH, _RIGHT = 300, 460, 130
_BAR, _GAP, _TOP = 16, 22, 44
_FONT = 'font-family="sans-serif" font-size="12"'
COLOURS = ("#2b6cb0", "#a0aec0", "#dd6b20", "#38a169", "#805ad5")


def svg(measured: Sequence[tuple[Workload, Sequence[Figures]]]) -> str:
    """The whole picture.  Without Postfix the bars are messages per second, each workload on a scale of its own."""
    names = list(dict.fromkeys(each.server for _, figures in measured for each in figures))
    most = scale(measured)
    parts, y = [], _TOP
    for workload, figures in measured:
        parts.append(_text(_LEFT - 10, y + _BAR * len(figures) / 2 + 4, f"({workload.key}) {short(workload)}", "end"))
        for each in figures:
            parts += _bar(each, figures, names, y, most)
            y += _BAR
        if any(ratio(each, figures) is not None for each in figures):
            parts += [_goal(goal, y - _BAR * len(figures), y, most) for goal in (workload.floor, workload.reach)]
        y += _GAP
    height, width = y + 20, _LEFT + _WIDTH + _RIGHT
    size = f'width="{width}" height="{height}"'
    legend = [_legend(_LEFT + 150 * position, position, name) for position, name in enumerate(names)]
    note = _text(_LEFT, height - 8, "times Postfix, delivered; dashed: the goals; at the bars: messages per second")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {size} {_FONT}>',
            f'<rect {size} fill="#ffffff"/>',
            *legend,
            *parts,
            note,
            "</svg>",
            "",
        ]
    )


def scale(measured: Sequence[tuple[Workload, Sequence[Figures]]]) -> float:
    """The ratio at the right end: what is drawn fits, goals too."""
    ratios = [each for _, figures in measured for one in figures if (each := ratio(one, figures)) is not None]
    goals = [workload.reach for workload, _ in measured]
    return math.ceil(max([1.0, *ratios, *goals]))


def short(workload: Workload) -> str:
    """Its title without the commas' rest."""
    load = workload.load
    size = f"{load.size // 2**20} MiB" if load.size >= 2**20 else f"{load.size // 2**10} KiB"
    words = [size, "kept" if load.kept else "new", *["TLS"] * load.tls]
    words += [f"{load.recipients} recipients"] * (load.recipients > 1)
    return f"{', '.join(words)}, {load.parallel} parallel"


def _bar(each: Figures, figures: Sequence[Figures], names: Sequence[str], y: float, most: float) -> list[str]:
    to_postfix = ratio(each, figures)
    share = each.delivered / max(one.delivered for one in figures) if to_postfix is None else to_postfix / most
    width = max(1.0, _WIDTH * share)
    colour = COLOURS[names.index(each.server) % len(COLOURS)]
    label = f"{each.delivered:,.0f}" + ("" if to_postfix is None else f" ({to_postfix:.1f}x)")
    return [
        f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR - 3}" fill="{colour}"/>',
        _text(_LEFT + width + 6, y + _BAR - 5, label),
    ]


def _legend(x: float, position: int, name: str) -> str:
    colour = COLOURS[position % len(COLOURS)]
    return f'<rect x="{x}" y="14" width="12" height="12" fill="{colour}"/>' + _text(x + 18, 24, name)


def _goal(goal: float, top: float, bottom: float, most: float) -> str:
    x = _LEFT + _WIDTH * goal / most
    return (
        f'<line x1="{x:.1f}" y1="{top - 3}" x2="{x:.1f}" y2="{bottom}" stroke="#4a5568" stroke-width="1" '
        'stroke-dasharray="3 3"/>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#1a202c">{escape(text)}</text>'
