import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_smska.segments import (
    GSM7,
    GSM_BASIC,
    GSM_EXTENSION,
    MOST_FEWER,
    UCS2,
    count,
    odd_characters,
    parts,
    savings,
)


@pytest.mark.parametrize(
    ("text", "encoding", "units", "segments"),
    [
        ("", GSM7, 0, 0),
        ("a" * 160, GSM7, 160, 1),
        ("a" * 161, GSM7, 161, 2),
        ("a" * 306, GSM7, 306, 2),
        ("a" * 307, GSM7, 307, 3),
        ("€" * 80, GSM7, 160, 1),
        ("я" * 70, UCS2, 70, 1),
        ("я" * 71, UCS2, 71, 2),
        ("я" * 134, UCS2, 134, 2),
        ("я" * 135, UCS2, 135, 3),
        ("😀" * 35, UCS2, 70, 1),
        ("Order №5", UCS2, 8, 1),
        ("«ok»", UCS2, 4, 1),
        ("a—b", UCS2, 3, 1),
        ("{}[]^~|\\\f€", GSM7, 20, 1),
        ("Ç", GSM7, 1, 1),
        ("ç", UCS2, 1, 1),
        ("`", UCS2, 1, 1),
        ("\t", UCS2, 1, 1),
    ],
)
def test_segments_are_counted_as_3gpp_says(text, encoding, units, segments):
    assert count(text)[:3] == (encoding, units, segments)


@pytest.mark.parametrize(
    ("text", "left", "foreign"),
    [
        ("", 160, -1),
        ("a" * 160, 0, -1),
        ("a" * 161, 145, -1),
        ("€" * 2, 156, -1),
        ("a" * 152 + "€" * 10, 133, -1),  # 152 in the first part, for "€" needs two
        ("Order №5", 62, 6),
        ("я" * 71, 63, 0),
        ("я" * 66 + "😀" + "я" * 4, 61, 0),
    ],
)
def test_the_room_that_is_left_and_who_forced_ucs_2(text, left, foreign):
    assert count(text)[3:] == (left, foreign)


def test_an_extension_character_is_not_split_over_two_parts():
    # 153 septets a part: the 153rd is left free, for "€" needs two.
    assert count("a" * 152 + "€" + "a" * 152).segments == 3
    assert count("a" * 151 + "€" + "a" * 153).segments == 2


def test_a_surrogate_pair_is_not_split_over_two_parts():
    assert count("я" * 66 + "😀" + "я" * 66).segments == 3
    assert count("я" * 65 + "😀" + "я" * 67).segments == 2


def test_the_alphabet_has_its_128_codes():
    # 127 characters and the escape code; the extension table of TS 23.038 has ten.
    assert len(GSM_BASIC) == 127
    assert len(GSM_EXTENSION) == 10
    assert not GSM_BASIC & GSM_EXTENSION


@given(st.text(st.characters(codec="utf-8"), max_size=400), st.text(max_size=3))
def test_more_text_never_takes_fewer_segments(text, more):
    assert count(text + more).segments >= count(text).segments


@given(st.text(st.characters(codec="utf-8"), max_size=600))
def test_the_units_are_those_of_utf_16_or_septets(text):
    size = count(text)
    if size.encoding == UCS2:
        assert size.units == len(text.encode("utf-16-le")) // 2
    else:
        assert size.units == len(text) + sum(c in GSM_EXTENSION for c in text)


# --- where it is cut

ANY_TEXT = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from("aя€😀\n")), max_size=400
)


@pytest.mark.parametrize(
    "text, sizes",
    [
        ("", []),
        ("\n", [1]),
        ("x" * 160, [160]),
        ("x" * 161, [153, 8]),
        ("x" * 307, [153, 153, 1]),
        ("x" * 152 + "~" + "x" * 8, [152, 9]),  # "~" needs two, and one is free
        ("x" * 151 + "~" + "x" * 8, [152, 8]),
        ("ж" * 70, [70]),
        ("ж" * 71, [67, 4]),
        ("ж" * 66 + "🚀" + "ж" * 3, [66, 4]),
        ("ж" * 65 + "🚀" + "ж" * 4, [66, 4]),
    ],
)
def test_a_text_is_cut_where_its_segments_end(text, sizes):
    assert [len(part) for part in parts(text)] == sizes


@given(ANY_TEXT)
def test_the_parts_are_the_text_and_as_many_as_are_counted(text):
    size, cut = count(text), parts(text)
    assert "".join(cut) == text and len(cut) == size.segments
    room = {GSM7: 153, UCS2: 67}[size.encoding]
    for part in cut if len(cut) > 1 else []:
        assert _units(part, size.encoding) <= room
    for part, following in zip(cut, cut[1:], strict=False):  # it is cut no earlier than it must be
        assert _units(part + following[0], size.encoding) > room


def _units(text, encoding):
    if encoding == UCS2:
        return len(text.encode("utf-16-le")) // 2
    return len(text) + sum(text.count(one) for one in GSM_EXTENSION)


# --- what would make it cost less


@pytest.mark.parametrize(
    "text, odd",
    [
        ("Order 5", ""),
        ("Parcel №7 — “blue”", "№—“”"),
        ("Café au lait, garçon", "ç"),
        ("Sale 🎉🎉🎉", "🎉"),
        ("Your pаrcel", "а"),  # a Cyrillic letter that looks Latin
        ("Parcel для Ann", ""),
        ("Посылка №7", ""),
        ("Заказ IPHONE-15-PRO-MAX-256GB", ""),
        ("Ок", ""),
        ("你好, Ann", ""),
        ("🎉", ""),
        ("“ — ”", ""),
        ("Σ = 5 €", ""),  # all of it is in the alphabet
        ("a №—“”«", "№—“”«"),
        ("a №—“”«»", ""),  # these are not a few
    ],
)
def test_the_characters_to_replace_are_those_of_a_latin_text(text, odd):
    assert odd_characters(text) == tuple(odd)


@pytest.mark.parametrize(
    "text, without_odd, fewer, without_fewer",
    [
        ("", 0, 0, 0),
        ("я" * 70, 1, 0, 1),
        ("я" * 73, 2, 3, 1),
        ("я" * 80, 2, 10, 1),
        ("я" * 81, 2, 0, 2),
        ("я" * 136, 3, 2, 2),
        ("x" * 162, 2, 2, 1),
        ("x" * 308, 3, 2, 2),
        ("я" * 69 + "😀", 2, 1, 1),
        ("Order №5 " + "x" * 151, 1, 0, 3),
        ("Order №5 " + "x" * 152, 1, 0, 3),
        ("Order №5 " + "x" * 153, 2, 0, 3),
        ("x" * 69 + "№№", 1, 1, 1),
        ("яx", 1, 0, 1),
    ],
)
def test_what_would_save_segments(text, without_odd, fewer, without_fewer):
    assert savings(text)[1:] == (without_odd, fewer, without_fewer)


@given(ANY_TEXT)
def test_what_would_save_is_true_when_it_is_done(text):
    found = savings(text)
    without = "".join(one for one in text if one not in found.odd)
    assert count(without).segments == found.without_odd <= count(text).segments
    if found.fewer:
        assert count(text[: -found.fewer]).segments == found.without_fewer
        assert 0 < found.without_fewer < count(text).segments
        assert count(text[: 1 - found.fewer or None]).segments == count(text).segments
    elif len(text) > MOST_FEWER:
        assert count(text[:-MOST_FEWER]).segments == count(text).segments
