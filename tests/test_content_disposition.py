"""The header that names a download (RFC 6266, RFC 8187; scenarios CD1 to CD6)."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamkit.core.disposition import content_disposition
from streamkit.errors import HeaderError


def test_cd1_a_latin_name_is_plain_in_both_forms():
    assert (
        content_disposition("inline", "racecar.jpg")
        == "inline; filename=\"racecar.jpg\"; filename*=UTF-8''racecar.jpg"
    )


def test_cd2_accents_are_taken_off_for_ascii_and_percent_encoded_for_utf8():
    assert content_disposition("inline", "råcëçâr.jpg") == (
        "inline; filename=\"racecar.jpg\"; filename*=UTF-8''r%C3%A5c%C3%AB%C3%A7%C3%A2r.jpg"
    )


def test_cd3_each_character_that_is_not_latin_is_a_question_mark_in_ascii():
    said = content_disposition("inline", "автомобиль.jpg")
    assert f'filename="{"%3F" * 10}.jpg"' in said
    assert said.endswith("filename*=UTF-8''%D0%B0%D0%B2%D1%82%D0%BE%D0%BC%D0%BE%D0%B1%D0%B8%D0%BB%D1%8C.jpg")


@pytest.mark.parametrize(
    ("name", "marks"), [("й", 1), ("\u0438\u0306", 1), ("한글", 2), ("हिन्दी", 6), ("😀", 1), ("日本語", 3)]
)
def test_what_has_no_ascii_form_is_one_question_mark_a_character(name: str, marks: int):
    assert f'filename="{"%3F" * marks}.txt"' in content_disposition("attachment", f"{name}.txt")


def test_cd4_permitted_characters_stand_and_an_ampersand_is_escaped_in_ascii_only():
    assert content_disposition("inline", "argh+!#$-123_|&^`~.jpg") == (
        "inline; filename=\"argh+!#$-123_|%26^`~.jpg\"; filename*=UTF-8''argh+!#$-123_|&^`~.jpg"
    )


@pytest.mark.parametrize("name", [None, ""])
def test_cd5_without_a_name_there_is_only_the_disposition(name: Any):
    assert content_disposition("attachment", name) == "attachment"


def test_cd6_quotes_line_ends_and_semicolons_are_never_raw():
    said = content_disposition("attachment", 'a"b\\c;d\re\nf\0.txt')
    name = "a%22b%5Cc%3Bd%0De%0Af%00.txt"
    assert said == f"attachment; filename=\"{name}\"; filename*=UTF-8''{name}"


def test_a_space_stays_in_ascii_and_is_escaped_in_utf8():
    assert content_disposition("attachment", "a b.txt").endswith(
        "filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt"
    )


@pytest.mark.parametrize(
    ("name", "plain"),
    [("Straße", "Strasse"), ("Łódź", "Lodz"), ("smørrebrød", "smorrebrod"), ("Æon–œuvre", "AEon-oeuvre")],
)
def test_latin_letters_without_an_accent_to_take_off_are_spelled_out(name: str, plain: str):
    assert f'filename="{plain}"' in content_disposition("attachment", name)


def test_a_name_as_macos_writes_it_is_the_same_in_ascii():
    assert 'filename="racecar"' in content_disposition("attachment", "ra\u030acec\u0327ar")


def test_a_wide_quote_does_not_become_a_raw_one():
    assert 'filename="%22.txt"' in content_disposition("attachment", "＂.txt")


def test_a_file_name_that_is_no_utf8_is_sent_with_question_marks():
    assert (
        content_disposition("attachment", "a\udcff") == "attachment; filename=\"a%3F\"; filename*=UTF-8''a%3F"
    )


@pytest.mark.parametrize(
    "disposition",
    [
        "",
        "a b",
        "inline;x=y",
        "inline\r\nSet-Cookie: a",
        "ünline",
        None,
        1,
        "download",
        "form-data",
        " inline",
    ],
)
def test_a_disposition_that_is_neither_attachment_nor_inline_is_refused(disposition: Any):
    for filename in ("a.txt", None):
        with pytest.raises(HeaderError, match="'attachment' or 'inline'") as caught:
            content_disposition(disposition, filename)
        assert repr(disposition) in str(caught.value)


def test_the_case_of_a_disposition_is_the_callers():
    assert content_disposition("Attachment", None) == "Attachment"


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(HeaderError, match="filename"):
        content_disposition("attachment", b"a.txt")  # type: ignore[arg-type]


@given(st.text(min_size=1))
@example('"a"')
def test_any_name_is_safe_ascii_and_comes_back_whole(name: str):
    said = content_disposition("attachment", name)
    assert re.fullmatch(
        r"attachment; filename=\"[ !#$%+.^_`|~0-9A-Za-z-]*\"; filename\*=UTF-8''[!#$%&+.^_`|~0-9A-Za-z-]+",
        said,
    )
    # Werkzeug's own parser before 3.1.9 takes the quotes off a name that stands in them.
    assert unquote(said.partition("''")[2], errors="strict") == name.encode("utf-8", "replace").decode()
