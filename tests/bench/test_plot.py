"""bench/plot.py: the picture is well-formed and true to scale."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from twisted.trial.unittest import SynchronousTestCase

from bench.figures import Figures
from bench.plot import scale, short, svg
from bench.workloads import BY_KEY
from tests.bench.figures import figures

_SVG = "{http://www.w3.org/2000/svg}"


def bars(picture: str, servers: int) -> list[float]:
    """The widths of the bars; before them come the ground and the legend."""
    return [float(each.attrib["width"]) for each in ET.fromstring(picture).iter(f"{_SVG}rect")][1 + servers :]


class PlotTests(SynchronousTestCase):
    def measured(self) -> list[tuple[object, list[Figures]]]:
        """Twice and half as fast as Postfix."""
        return [(BY_KEY["c"], [figures("mailserver", 1.0), figures("postfix", 2.0), figures("a<b&c", 4.0)])]

    def test_bars_are_as_long_as_the_ratios(self) -> None:
        ours, postfix, other = bars(svg(self.measured()), 3)  # type: ignore[arg-type]
        self.assertEqual(round(ours / postfix, 2), 2)
        self.assertEqual(round(other / postfix, 2), 0.5)

    def test_names_are_text_and_never_markup(self) -> None:
        texts = [each.text for each in ET.fromstring(svg(self.measured())).iter(f"{_SVG}text")]  # type: ignore[arg-type]
        self.assertIn("a<b&c", texts)
        self.assertIn("1,000 (2.0x)", texts)

    def test_goals_are_drawn_where_there_is_postfix(self) -> None:
        lines = len(list(ET.fromstring(svg(self.measured())).iter(f"{_SVG}line")))  # type: ignore[arg-type]
        self.assertEqual(lines, 2)
        alone = svg([(BY_KEY["c"], [figures("mailserver", 1.0)])])
        self.assertEqual(list(ET.fromstring(alone).iter(f"{_SVG}line")), [])

    def test_without_postfix_the_fastest_fills_the_width(self) -> None:
        first, second = bars(svg([(BY_KEY["a"], [figures("mailserver", 1.0), figures("aiosmtpd", 4.0)])]), 2)
        self.assertEqual(round(first / second, 2), 4)

    def test_the_scale_holds_all_ratios_and_goals(self) -> None:
        self.assertEqual(scale([(BY_KEY["c"], [figures("mailserver", 1.0), figures("postfix", 9.5)])]), 10)
        self.assertEqual(scale([(BY_KEY["a"], [figures("postfix", 1.0)])]), 7)

    def test_labels_are_short(self) -> None:
        self.assertEqual(short(BY_KEY["d"]), "50 KiB, kept, 10 recipients, 20 parallel")
        self.assertEqual(short(BY_KEY["e"]), "4 KiB, new, TLS, 20 parallel")
        self.assertEqual(short(BY_KEY["c"]), "1 MiB, kept, 20 parallel")
