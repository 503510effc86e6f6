"""Whatever is put into envelopes comes out again; whatever else arrives, nothing is raised."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from lakehouse_pipeline.tradingview.frames import FrameDecoder, encode

# Text of the protocol's own marks, foreign scripts, astral characters and lone surrogates.
MARKS = st.sampled_from(["~m~", "~h~", "~j~", "~m~12~m~", "~m~2~m~{}", "~", "{", "}", "0", "7"])
LETTERS = st.characters() | st.characters(min_codepoint=0x10000)
PAYLOADS = st.lists(MARKS | LETTERS, max_size=12).map("".join)
ANY_TEXT = st.text(st.characters(exclude_categories=())) | PAYLOADS


@given(st.lists(st.lists(PAYLOADS, max_size=4), max_size=4))
@example([["a~m~12~m~b", "🥢"], [""], ["~m~2~m~{}"]])
def test_payloads_survive_however_they_are_put_into_messages(messages):
    decoder = FrameDecoder()

    decoded = [decoder.decode("".join(map(encode, payloads))) for payloads in messages]

    assert decoded == messages
    assert decoder.errors == 0


@given(ANY_TEXT)
@example("~m~3~m~🥢🥢")
@example("~m~9999999999~m~\ud800")
def test_every_character_is_either_delivered_or_kept_as_skipped(text):
    decoder = FrameDecoder()

    payloads = decoder.decode(text)

    assert len("".join(payloads)) + len("".join(decoder.skipped)) <= len(text)
    assert decoder.skipped_characters == len("".join(decoder.skipped))
    assert (decoder.errors > 0) == bool(decoder.skipped)
    if not decoder.skipped:
        assert all(payload in text for payload in payloads)


@given(ANY_TEXT.filter(lambda text: "~m~" not in text), st.lists(PAYLOADS, max_size=3))
def test_a_known_envelope_after_garbage_is_found(garbage, payloads):
    decoder = FrameDecoder()
    text = garbage + encode("~h~1") + "".join(map(encode, payloads))

    assert decoder.decode(text) == ["~h~1", *payloads]
    assert decoder.skipped == ([garbage] if garbage else [])


@given(PAYLOADS)
def test_a_length_in_bytes_is_understood_where_no_other_unit_fits(payload):
    length = len(payload.encode("utf-8", "surrogatepass"))

    assert FrameDecoder().decode(f"~m~{length}~m~{payload}") == [payload]
