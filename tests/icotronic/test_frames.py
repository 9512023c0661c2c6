"""From frames to counters, counts and losses, without a bus."""

import random
import struct
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.controls.sensor_nodes import StreamFrames
from gateway.protocols.icotronic.frames import Decoder

PERIOD_US = 210
NO_TIME = 10**9


def frame(n: int, form: int = 0xB1, values: int = 2) -> bytes:
    return struct.pack(f"<BB{values}H", form, n & 0xFF, *((n * 7 + k) & 0xFFFF for k in range(values)))


def decoded(
    decoder: Decoder, numbers: Sequence[int], *, shift_us: int = 0, passed_us: int = NO_TIME
) -> StreamFrames:
    ts = [1_000_000_000 + round(n * PERIOD_US) + shift_us for n in numbers]
    return decoder.decode(ts, [frame(n) for n in numbers], passed_us)


@given(
    st.lists(st.booleans(), min_size=1, max_size=3000).filter(any),
    st.lists(st.integers(0, 3000), max_size=5),
    st.integers(0, 255),
)
def test_whatever_is_lost_and_however_it_is_cut_the_loss_is_exact(
    arrives: list[bool], cuts: list[int], start: int
) -> None:
    """As long as fewer than 256 in a row are lost."""
    numbers = [start + n for n, yes in enumerate(arrives) if yes]
    kept = [numbers[0]]
    for n in numbers[1:]:
        if n - kept[-1] <= 256:
            kept.append(n)
    decoder, places = Decoder(0xB1, 2, PERIOD_US), sorted({0, *cuts, len(kept)})
    parts = [decoded(decoder, kept[a:b]) for a, b in pairwise(places)]
    assert sum(part.lost for part in parts) == kept[-1] - kept[0] + 1 - len(kept)
    assert b"".join(part.counters for part in parts) == bytes(n & 0xFF for n in kept)
    assert [count for part in parts for count in part.counts] == [
        (n * 7 + k) & 0xFFFF for n in kept for k in range(2)
    ]


def test_a_silence_is_counted_by_its_time() -> None:
    decoder = Decoder(0xB1, 2, PERIOD_US)
    decoded(decoder, range(100))
    lost = 256 * 40 + 13
    assert decoded(decoder, range(100 + lost, 200 + lost)).lost == lost
    exact = 256 * 25
    begin = 200 + lost + exact
    assert decoded(decoder, range(begin, begin + 50)).lost == exact


def test_a_burst_after_a_pause_of_the_radio_is_no_loss() -> None:
    """It hands over late what it held back: the pause is shorter than a second."""
    decoder = Decoder(0xB1, 2, PERIOD_US)
    decoded(decoder, range(100))
    ts = [1_000_000_000 + 100 * PERIOD_US + 900_000 + n for n in range(400)]
    assert decoder.decode(ts, [frame(n) for n in range(100, 500)], NO_TIME).lost == 0


def test_a_step_of_the_clock_is_no_silence() -> None:
    decoder = Decoder(0xB1, 2, PERIOD_US)
    decoded(decoder, range(100))
    assert decoded(decoder, range(100, 200), shift_us=3_600_000_000, passed_us=50_000).lost == 0
    assert decoded(decoder, range(200, 300), passed_us=50_000).lost == 0
    assert decoded(decoder, range(305, 400), shift_us=10**12, passed_us=50_000).lost == 5


def test_a_frame_that_comes_twice_is_one_frame() -> None:
    decoder = Decoder(0xB1, 2, PERIOD_US)
    numbers = [0, 1, 1, 2, 3, 3, 3, 4]
    frames = decoded(decoder, numbers)
    assert frames.counters == bytes(range(5)) and frames.lost == 0 and len(frames.ts) == 5
    again = decoded(decoder, [4, 5, 6])
    assert again.counters == b"\5\6" and again.lost == 0


def test_what_is_no_frame_of_this_stream_is_left_out() -> None:
    decoder = Decoder(0xB1, 2, PERIOD_US)
    data = [frame(0), b"\x80", frame(1, 0xA2, 3), frame(1), b"", frame(2)[:5], frame(2), b"\xb1\x03"]
    frames = decoder.decode([1000 + n for n in range(8)], data, NO_TIME)
    assert frames.counters == b"\0\1\2" and frames.ts == [1000, 1003, 1006] and frames.lost == 0
    assert not decoder.decode([2000], [b"\x80"], NO_TIME)
    assert decoded(decoder, [3, 4], passed_us=50_000).lost == 0


def test_batches_of_every_size_are_decoded_alike() -> None:
    numbers = range(70_000, 70_000 + 40_000)
    whole = decoded(Decoder(0xB1, 2, PERIOD_US), numbers)
    assert whole.lost == 0 and len(whole) == 40_000
    decoder, at, rng = Decoder(0xB1, 2, PERIOD_US), 0, random.Random(3)
    counts, lost = [], 0
    while at < len(numbers):
        step = rng.randrange(1, 500)
        part = decoded(decoder, numbers[at : at + step])
        counts += part.counts
        lost += part.lost
        at += step
    assert counts == list(whole.counts) and lost == 0
