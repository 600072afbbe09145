import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_smska.segments import GSM7, GSM_BASIC, GSM_EXTENSION, UCS2, count


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
