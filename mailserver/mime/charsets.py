"""
Text from octets: by the declared charset, else by a guess, else with replacement characters.  It never raises.

In: octets and the charset's name as a mail has it.  Out: text, and what was wrong.
Names are those of the WHATWG Encoding Standard (4.2, names and labels) and of IANA as Python knows them.  As in the
former, the name of a small set means the larger one that is really sent: ISO-8859-1 is windows-1252, GB2312 GB18030.
"""

from __future__ import annotations

import re
from encodings.aliases import aliases
from functools import lru_cache

#: A charset that is not known, or none.
UNKNOWN_CHARSET = "unknown-charset"
#: Octets that are not text of the charset.
BAD_TEXT = "bad-text"

#: Codecs of Python that are no character sets; some cost more than linear time (punycode), some unpack (zip).
_NO_CHARSETS = re.compile(
    r"(base64|bz2|hex|quopri|uu|zlib)_codec|rot_13|mbcs|oem|idna|punycode|undefined|charmap|tactis|.*unicode_.*"
)

#: Codecs, tried in this order -> names.  "windows-1252" is ours, see `_decode_windows_1252`.
_NAMES: dict[tuple[str, ...], str] = {
    ("windows-1252",): "ascii us-ascii ansi_x3.4-1968 ansi_x3.4-1986 iso-ir-6 iso646-us us cp367 ibm367 csascii 646 "
    "iso-8859-1 iso_8859-1 iso_8859-1:1987 iso-ir-100 latin1 latin-1 l1 cp819 ibm819 csisolatin1 8859 8859-1 "
    "windows-1252 cp1252 x-cp1252 x-ansi ansi win-1252 iso-8859-1-windows-3.1-latin-1 windows-latin1",
    ("utf_8",): "utf-8 utf8 unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8 utf-8-sig utf-8n cp65001 "
    "utf8mb4 utf-8mb4",
    (
        "gb18030",
    ): "gb2312 gb_2312 gb_2312-80 chinese csgb2312 csiso58gb231280 iso-ir-58 gbk x-gbk gb18030 cp936 ms936 "
    "windows-936 euc-cn x-euc-cn",
    ("cp950", "big5hkscs"): "big5 cn-big5 csbig5 x-x-big5 big5-tw windows-950 cp950 ms950",
    ("big5hkscs", "cp950"): "big5-hkscs hkscs",
    ("cp932", "shift_jisx0213"): "shift_jis sjis csshiftjis ms932 ms_kanji windows-31j x-sjis cp932 windows-932",
    ("euc_jp", "euc_jisx0213"): "euc-jp x-euc-jp cseucpkdfmtjapanese ujis",
    ("iso2022_jp", "iso2022_jp_ext", "iso2022_jp_2"): "iso-2022-jp csiso2022jp",
    ("cp949",): "euc-kr cseuckr csksc56011987 iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 "
    "windows-949 cp949 uhc",
    ("cp874",): "tis-620 iso-8859-11 dos-874 windows-874 cp874",
    ("cp1254",): "iso-8859-9 csisolatin5 iso-ir-148 latin5 l5 windows-1254 cp1254 iso_8859-9:1989",
    ("iso8859_8",): "iso-8859-8 iso-8859-8-i iso-8859-8-e logical visual csiso88598e csiso88598i hebrew",
    ("iso8859_6",): "iso-8859-6 iso-8859-6-i iso-8859-6-e arabic asmo-708 ecma-114",
    ("koi8_u",): "koi8-u koi8-ru koi8u",
    ("koi8_r",): "koi8-r koi koi8 cskoi8r",
    ("cp1251",): "windows-1251 cp1251 x-cp1251 win-1251 win1251",
    ("cp1250",): "windows-1250 cp1250 x-cp1250 win-1250 win1250",
    ("mac_roman",): "macintosh mac x-mac-roman csmacintosh",
    ("mac_cyrillic",): "x-mac-cyrillic x-mac-ukrainian",
    ("utf_16",): "utf-16 utf-16le unicode csunicode iso-10646-ucs-2 ucs-2 unicodefeff",
    ("utf_16_be",): "utf-16be unicodefffe",
    ("utf_7",): "utf-7 unicode-1-1-utf-7 x-unicode-2-0-utf-7",
}

#: Codecs whose text may look like ASCII and is not.
_STATEFUL = re.compile(r"utf_7|utf_16|utf_32|iso2022|hz|cp037|cp1026|cp1140|cp273|cp424|cp500|cp875")


def _key(name: str) -> str:
    return "".join(character for character in name.lower() if character.isascii() and character.isalnum())


def _all_names() -> dict[str, tuple[str, ...]]:
    # Never asked of `codecs.lookup` with a name from a mail: it remembers each name it does not know, for ever.
    found: dict[str, tuple[str, ...]] = {}
    for alias, codec in aliases.items():
        if not _NO_CHARSETS.fullmatch(codec):
            found[_key(alias)] = found[_key(codec)] = (codec,)
    for codecs, names in _NAMES.items():
        for name in names.split():
            found[_key(name)] = codecs
    return found


_CODECS = _all_names()

#: windows-1252 has five holes; the Encoding Standard leaves their octets as they are.
_WINDOWS_1252 = {
    octet: bytes([octet]).decode("cp1252")
    for octet in range(0x80, 0xA0)
    if octet not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}

_MARKS = ((b"\xef\xbb\xbf", "utf_8"), (b"\xff\xfe", "utf_16_le"), (b"\xfe\xff", "utf_16_be"))
_ISO_2022_JP = re.compile(rb"\x1b\$[@B]|\x1b\([BJ]")
#: A character of two or more octets in UTF-8.
_UTF_8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


def _decode_windows_1252(octets: bytes) -> str:
    try:
        return octets.decode("cp1252")  # twenty times as fast, and nearly always right
    except UnicodeDecodeError:
        pass
    return octets.decode("latin-1").translate(_WINDOWS_1252)


def is_known(charset: str) -> bool:
    """Is it the name of a charset that we can read?"""
    return bool(_find(charset))


@lru_cache(maxsize=1024)
def _find(charset: str) -> tuple[str, ...]:
    if len(charset) > 100:
        return ()
    key = _key(charset)
    codecs = _CODECS.get(key)
    if codecs is None and key.startswith("x"):
        codecs = _CODECS.get(key[1:])
    if codecs is None and key.startswith("charset"):
        codecs = _CODECS.get(key[7:])
    return codecs or ()


def guess_text(octets: bytes) -> str:
    """
    Text of which no charset is known: a byte order mark decides, else UTF-8 if it is, else ISO-2022-JP if it has its
    escapes, else windows-1252, which takes everything.
    """
    for mark, codec in _MARKS:
        if octets.startswith(mark):
            return octets[len(mark) :].decode(codec, "replace")
    if octets.isascii():
        if b"\x1b" in octets and _ISO_2022_JP.search(octets):
            return octets.decode("iso2022_jp_ext", "replace")
        return octets.decode("ascii")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_windows_1252(octets)


def decode_text(octets: bytes, charset: str = "") -> tuple[str, str]:
    """
    The text, and what was wrong: "" (nothing), UNKNOWN_CHARSET or BAD_TEXT.

    No charset at all is no fault; then it is a guess.  A declared one that does not fit: UTF-8 if that does; a
    charset of several octets to a character with replacement characters; else windows-1252.
    """
    codecs = _find(charset)
    if not codecs:
        return guess_text(octets), UNKNOWN_CHARSET if charset else ""
    first = codecs[0]
    if octets.isascii() and not _STATEFUL.match(first):
        return octets.decode("ascii"), ""
    if first == "windows-1252":
        return _decode_single(octets, charset)
    if first == "utf_16" and octets[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        codecs = ("utf_16_le",)
    for codec in codecs:
        try:
            return octets.decode(codec).removeprefix("\ufeff"), ""
        except ValueError:
            continue
    return _rescue(octets, codecs[0]), BAD_TEXT


def _decode_single(octets: bytes, charset: str) -> tuple[str, str]:
    # ASCII has no octets above 127: whoever sends them meant another charset.  Latin-1 takes all octets, so that a
    # wrong declaration shows only by being good UTF-8.
    if "ascii" in charset.lower() or charset.lower() in ("us", "646", "cp367", "ibm367"):
        return guess_text(octets), BAD_TEXT
    return _decode_windows_1252(octets), ""


def _rescue(octets: bytes, codec: str) -> str:
    if codec != "utf_8":
        try:
            return octets.decode("utf-8")
        except UnicodeDecodeError:
            return octets.decode(codec, "replace")
    # Declared UTF-8, and it is not.  With a single good character it is UTF-8 that was cut; with none it never was.
    if _UTF_8.search(octets):
        return octets.decode("utf-8", "replace")
    return _decode_windows_1252(octets)
