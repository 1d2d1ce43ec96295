"""The DNS records that a domain needs: complete, in the right form, readable again."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.dns_records import (
    MAX_STRING,
    Record,
    Site,
    as_table,
    as_values,
    as_zone,
    records,
    reminders,
    txt_strings,
)

KEY = "MIIB" + "x" * 388
V4, V6 = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1")
SITE = Site("example.org", "mail.example.org", (V4, V6), "ms202611", KEY)
BARE = Site("example.org", "example.org", (), "ms202611", KEY)

LINE = re.compile(r"(?P<name>\S+\.)\t(?P<ttl>\d+)\tIN\t(?P<type>[A-Z]+)\t(?P<value>.+)\Z")
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


def joined(value: str) -> str:
    """The text of a TXT record as a DNS server would read it from a zone file."""
    return "".join(re.sub(r"\\(.)", r"\1", piece) for piece in STRING.findall(value))


def read_zone(text: str) -> list[tuple[str, str, str]]:
    """A zone file's records as (name, type, value); comments are left out, anything else that is odd fails."""
    found = []
    for line in text.splitlines():
        if line.startswith(";"):
            continue
        match = LINE.match(line)
        if match is None:
            raise AssertionError(f"no record: {line}")
        value = joined(match["value"]) if match["type"] == "TXT" else match["value"]
        found.append((match["name"], match["type"], value))
    return found


def triples(wanted: Iterable[Record]) -> list[tuple[str, str, str]]:
    return [(record.name, record.type, record.value) for record in wanted if not record.foreign]


class Records(SynchronousTestCase):
    def test_a_domain_gets_these_records(self) -> None:
        self.assertEqual(
            triples(records(SITE)),
            [
                ("mail.example.org.", "A", "192.0.2.1"),
                ("mail.example.org.", "AAAA", "2001:db8::1"),
                ("example.org.", "MX", "10 mail.example.org."),
                ("example.org.", "TXT", "v=spf1 mx ~all"),
                ("mail.example.org.", "TXT", "v=spf1 a -all"),
                ("ms202611._domainkey.example.org.", "TXT", f"v=DKIM1; k=rsa; p={KEY}"),
                ("_dmarc.example.org.", "TXT", "v=DMARC1; p=none; rua=mailto:postmaster@example.org"),
                ("_submissions._tcp.example.org.", "SRV", "0 1 465 mail.example.org."),
                ("_submission._tcp.example.org.", "SRV", "10 1 587 mail.example.org."),
            ],
        )

    def test_the_reverse_names_stand_in_other_zones(self) -> None:
        foreign = [(record.name, record.value) for record in records(SITE) if record.foreign]
        self.assertEqual(foreign[0], ("1.2.0.192.in-addr.arpa.", "mail.example.org."))
        self.assertTrue(foreign[1][0].endswith(".8.b.d.0.1.0.0.2.ip6.arpa."))

    def test_a_name_has_one_spf_record(self) -> None:
        for site in (SITE, BARE):
            names = [record.name for record in records(site) if record.value.startswith("v=spf1")]
            self.assertEqual(len(names), len(set(names)))

    def test_without_addresses_a_reminder_takes_their_place(self) -> None:
        self.assertEqual([record for record in records(BARE) if record.type in ("A", "AAAA", "PTR")], [])
        self.assertIn("--ip", reminders(BARE)[0])
        self.assertNotIn("--ip", " ".join(reminders(SITE)))
        self.assertIn("PTR", " ".join(reminders(SITE)))


class Forms(SynchronousTestCase):
    def test_a_zone_file_reads_back_as_the_records(self) -> None:
        for site in (SITE, BARE):
            self.assertEqual(read_zone(as_zone(records(site), notes=reminders(site))), triples(records(site)))

    def test_notes_and_foreign_records_are_comments(self) -> None:
        comments = [line for line in as_zone(records(SITE), notes=["a note"]).splitlines() if line.startswith(";")]
        self.assertEqual(len(comments), 3)
        self.assertIn("PTR", comments[1])

    def test_a_table_shows_each_value_whole_on_one_line(self) -> None:
        lines = as_table(records(SITE)).splitlines()
        self.assertEqual(len(lines), len(records(SITE)))
        for line, record in zip(lines, records(SITE), strict=True):
            self.assertTrue(line.startswith(f"  {record.name} "))
            self.assertTrue(line.endswith(f"  {record.value}"))

    def test_the_table_marks_what_is_optional(self) -> None:
        marked = {line.split()[0] for line in as_table(records(SITE)).splitlines() if " SRV *" in line}
        self.assertEqual(marked, {"_submissions._tcp.example.org.", "_submission._tcp.example.org."})

    def test_an_empty_table_is_empty(self) -> None:
        self.assertEqual(as_table(()), "")

    def test_json_holds_what_the_records_hold(self) -> None:
        values = as_values(records(SITE))
        self.assertEqual(
            values[2],
            {
                "name": "example.org.",
                "type": "MX",
                "ttl": 3600,
                "value": "10 mail.example.org.",
                "purpose": "which server takes the domain's mail",
                "optional": False,
                "other_zone": False,
            },
        )
        self.assertTrue(values[-1]["other_zone"])


class TxtStrings(SynchronousTestCase):
    def test_a_string_has_255_octets_at_most(self) -> None:
        for length, pieces in [(0, 1), (254, 1), (255, 1), (256, 2), (510, 2), (511, 3)]:
            found = STRING.findall(txt_strings("x" * length))
            self.assertEqual(len(found), pieces, length)
            self.assertTrue(all(len(piece) <= MAX_STRING for piece in found))

    def test_text_that_is_not_printable_ascii_is_refused(self) -> None:
        for bad in ("ü", "a\nb", "\x00", "\x7f"):
            self.assertRaises(ValueError, txt_strings, bad)

    @settings(deadline=None, max_examples=100)
    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=600))
    def test_any_text_reads_back(self, text: str) -> None:
        self.assertEqual(joined(txt_strings(text)), text)
