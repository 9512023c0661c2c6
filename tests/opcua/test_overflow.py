"""Values that could not be decoded, told as few gaps that cover them all. No server needed."""

from pathlib import Path

from gateway.protocols.opcua.overflow import Undecoded
from tests.opcua.recording import RecordingLink


class Clock:
    """Stands where it is put."""

    us = 1_000_000_000

    def wall_us(self) -> int:
        return self.us


def test_a_tag_that_is_never_decoded_is_a_gap_a_minute(tmp_path: Path) -> None:
    link, clock = RecordingLink("d", tmp_path), Clock()
    link.clock = clock  # type: ignore[assignment]
    undecoded = Undecoded(link)  # type: ignore[arg-type]
    lost = []
    for _ in range(600):
        lost.append((clock.us, clock.us + 400_000))
        clock.us += 500_000
        undecoded.add("text", "a value of text cannot be decoded (why)", 1, lost[-1][0])
        undecoded.tell()
    assert len(link.gaps) == 5
    undecoded.tell(now=True)
    assert {reason for _, _, reason, _ in link.gaps} == {"a value of text cannot be decoded (why)"}
    assert sum(count or 0 for *_, count in link.gaps) == 600
    assert all(any(a <= begin and end <= b for a, b, *_ in link.gaps) for begin, end in lost)
    undecoded.tell(now=True)
    assert len(link.gaps) == 6


def test_all_tags_are_named_that_fit_in_a_sentence(tmp_path: Path) -> None:
    link = RecordingLink("d", tmp_path)
    undecoded = Undecoded(link)  # type: ignore[arg-type]
    for number in range(6):
        undecoded.add(f"t{number}", f"a value of t{number} cannot be decoded (why)", 1 + 7 * (number == 5), 5)
    undecoded.tell()
    ((begin, _, reason, count),) = link.gaps
    assert (begin, count) == (5, 13)
    assert reason == (
        "a value of t0 cannot be decoded (why), nor of t1, t2, t3 and 2 more; "
        "what came after it in a message is lost too"
    )
