"""The envelope: lengths in three units, several a message, and garbage survived."""

from __future__ import annotations

import json

import pytest

from lakehouse_pipeline.tradingview.frames import FrameDecoder, encode, utf16_length


def decode(text):
    return FrameDecoder().decode(text)


@pytest.mark.parametrize(
    ("payload", "envelope"),
    [
        ("", "~m~0~m~"),
        ("~h~1", "~m~4~m~~h~1"),
        ("~h~10", "~m~5~m~~h~10"),
        ("é", "~m~1~m~é"),
        ("🥢", "~m~2~m~🥢"),  # outside the basic plane: two UTF-16 units
    ],
)
def test_a_length_counts_utf16_units(payload, envelope):
    assert encode(payload) == envelope
    assert decode(envelope) == [payload]


def test_several_envelopes_share_a_message():
    assert decode('~m~7~m~{"a":1}~m~4~m~~h~1~m~2~m~{}') == ['{"a":1}', "~h~1", "{}"]


def test_an_envelope_inside_a_payload_is_payload():
    payload = '{"description":"KIKKOMAN ~m~12~m~ CORP ~m~2~m~{}"}'

    assert decode(encode(payload) + encode("~h~3")) == [payload, "~h~3"]


def test_a_length_in_code_points_is_understood():
    payload = '{"d":"🥢🥢"}'

    assert decode(f"~m~{len(payload)}~m~{payload}{encode('~h~1')}") == [payload, "~h~1"]


def test_a_length_in_utf8_bytes_is_understood():
    payload = '{"d":"キッコーマン 🥢"}'

    assert decode(f"~m~{len(payload.encode())}~m~{payload}{encode('~h~1')}") == [payload, "~h~1"]


def test_units_may_differ_within_a_message():
    first, second = '{"d":"é🥢"}', '{"d":"マ"}'
    text = f"~m~{len(first.encode())}~m~{first}~m~{utf16_length(second)}~m~{second}"

    assert decode(text) == [first, second]


@pytest.mark.parametrize(
    ("text", "payloads", "skipped"),
    [
        ("2", [], ["2"]),
        ("junk~m~4~m~~h~1", ["~h~1"], ["junk"]),
        ("~m~4~m~~h~1junk", [], ["~m~4~m~~h~1junk"]),  # the length cannot be believed
        ("~m~4~m~~h~1junk~m~4~m~~h~2", ["~h~2"], ["~m~4~m~~h~1junk"]),
        ("~m~99~m~{}~m~4~m~~h~2", ["~h~2"], ["~m~99~m~{}"]),  # too long
        ("~m~99~m~{}", [], ["~m~99~m~{}"]),
        ("~m~1~m~{}~m~4~m~~h~2", ["~h~2"], ["~m~1~m~{}"]),  # too short
        ("~m~x~m~{}~m~2~m~{}", ["{}"], ["~m~x~m~{}"]),
        ("~m~٢~m~{}", [], ["~m~٢~m~{}"]),  # digits of other scripts are none
        ("x~m~5~m~hello~m~2~m~{}", ["{}"], ["x~m~5~m~hello"]),  # hello is nothing we know
    ],
)
def test_after_garbage_reading_resumes_at_the_next_believable_envelope(text, payloads, skipped):
    decoder = FrameDecoder()

    assert decoder.decode(text) == payloads
    assert decoder.skipped == skipped
    assert decoder.errors == len(skipped)
    assert decoder.skipped_characters == sum(map(len, skipped))


def test_counters_last_and_skipped_text_does_not():
    decoder = FrameDecoder()

    decoder.decode("one")
    decoder.decode("three")
    decoder.decode("~m~4~m~~h~1")

    assert (decoder.errors, decoder.skipped_characters, decoder.skipped) == (2, 8, [])


def test_a_length_that_ends_inside_a_character_does_not_fit():
    decoder = FrameDecoder()

    assert decoder.decode("~m~3~m~🥢🥢~m~4~m~~h~1") == ["~h~1"]
    assert decoder.errors == 1


def test_lone_surrogates_are_counted_and_survive():
    assert decode(encode("\ud83e") + encode("\udd62é")) == ["\ud83e", "\udd62é"]


def test_every_captured_frame_is_taken_apart(shared_reference):
    decoder = FrameDecoder()
    for line in (shared_reference / "sample_frames.jsonl").read_text().splitlines():
        frame = json.loads(line)["frame"]

        payloads = decoder.decode(frame)

        assert "".join(map(encode, payloads)) == frame
    assert decoder.errors == 0
