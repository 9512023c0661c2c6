"""A unit that is refused as a whole goes out in parts: what it costs, and that nothing is lost or doubled."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.forward.parts import GAPS, Delivery, Verdicts
from gateway.model import Batch, Encoding, Gap, Refusal, Sample, Unit, UnitRefused, UploadProblem


class Target:
    """Refuses bodies with a bad value, or with too many; forgets no key; may fail at given requests."""

    def __init__(
        self,
        bad: set[int],
        most: int = 10**9,
        failing: Sequence[int] = (),
        lost: Sequence[int] = (),
        *,
        size_last: bool = False,
    ):
        self.bad, self.most, self.failing, self.lost = bad, most, set(failing), set(lost)
        self.size_last = size_last
        self.requests = 0
        self.keys: set[str] = set()
        self.kept: list[int] = []

    async def send(self, unit: Unit) -> Sequence[Refusal]:
        self.requests += 1
        if self.requests in self.failing:
            raise UploadProblem("503")
        if unit.key in self.keys:
            return ()
        values = [int(v) for v in unit.samples.values]  # type: ignore[call-overload]
        checks = [self._size, self._values]
        for check in reversed(checks) if self.size_last else checks:
            check(values)
        self.keys.add(unit.key)
        self.kept += values
        if self.requests in self.lost:
            raise UploadProblem("the answer was lost")
        return ()

    def _size(self, values: list[int]) -> None:
        if len(values) > self.most:
            raise UnitRefused("413: too large", too_large=True)

    def _values(self, values: list[int]) -> None:
        if self.bad & set(values):
            raise UnitRefused("422: bad")


def unit(size: int, gaps: tuple[Gap, ...] = ()) -> Unit:
    samples = Batch.of(Sample(1, n, n) for n in range(size))
    return Unit("K", "gw", "u", "live", 1, 2, Encoding("columns", 1), samples, {}, gaps)


def run(made: Unit, target: Target, *, restart: bool = False) -> tuple[list[Refusal], int]:
    """Deliver until it is through, maybe restarted after each failure; return refusals and attempts."""
    saved: list[object] = []
    verdicts = Verdicts()

    async def note(*, first: bool) -> None:
        saved[:] = verdicts.dump()

    for attempt in range(1, 1000):
        try:
            return asyncio.run(Delivery(made, verdicts, target.send, note).run()), attempt
        except UploadProblem:
            if restart:
                verdicts = Verdicts.load(saved)  # type: ignore[arg-type]
    raise AssertionError("never through")


@pytest.mark.parametrize("place", [0, 1, 4999, 5000, 6180, 9998, 9999])
def test_one_refused_sample_among_ten_thousand_costs_fifteen_more_requests(place: int) -> None:
    target = Target({place})
    refused, _ = run(unit(10_000), target)
    assert [r.place for r in refused] == [place]
    assert refused[0].reason == "422: bad"
    assert target.requests - 1 <= 15
    assert sorted(target.kept) == [n for n in range(10_000) if n != place]


def test_no_place_of_a_refused_sample_costs_more_than_fifteen() -> None:
    worst = 0
    for place in range(0, 10_000, 13):
        target = Target({place})
        run(unit(10_000), target)
        worst = max(worst, target.requests - 1)
    assert worst <= 15


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 60),
    st.sets(st.integers(0, 59), max_size=12),
    st.integers(1, 60),
    st.sets(st.integers(1, 60), max_size=8),
    st.sets(st.integers(1, 60), max_size=8),
    st.booleans(),
    st.booleans(),
)
def test_whatever_fails_all_but_the_refused_arrive_once(
    size: int, bad: set[int], most: int, failing: set[int], lost: set[int], restart: bool, size_last: bool
) -> None:
    target = Target(bad, most, sorted(failing), sorted(lost), size_last=size_last)
    refused, _ = run(unit(size), target, restart=restart)
    assert sorted(r.place for r in refused) == sorted(n for n in bad if n < size)
    assert sorted(target.kept) == [n for n in range(size) if n not in bad]


@pytest.mark.parametrize("bad", [{9}, {5, 9}, {1, 9}])
def test_a_refused_unit_whose_first_half_is_too_large_goes_on_in_smaller_parts(bad: set[int]) -> None:
    """The size is judged after the values: the whole is refused for a value, its first half for its size."""
    target = Target(bad, most=3, size_last=True)
    refused, _ = run(unit(10), target)
    assert {r.place for r in refused} == bad
    assert sorted(target.kept) == [n for n in range(10) if n not in bad]
    assert target.requests <= 20


def test_samples_that_are_too_large_do_not_make_the_others_go_one_by_one() -> None:
    class Narrow(Target):
        def _size(self, values: list[int]) -> None:
            super()._size([0] * (len(values) + 1000 * len(self.bad & set(values))))

    target = Narrow({0, 700, 999}, most=600)
    refused, _ = run(unit(1000), target)
    assert [(r.place, r.reason) for r in refused] == [(n, "413: too large") for n in (0, 700, 999)]
    assert sorted(target.kept) == [n for n in range(1000) if n not in target.bad]
    assert target.requests <= 3 * 2 * 10 + 4


def test_a_target_that_changes_its_mind_gets_nothing_under_two_keys() -> None:
    for restart in (False, True):
        for at in range(2, 20):
            target = Target({7}, failing=[at])

            async def send(part: Unit, target: Target = target, at: int = at) -> Sequence[Refusal]:
                if target.requests >= at:
                    target.bad = set()  # whoever runs it has repaired it
                return await target.send(part)

            patched = Target({7})
            patched.send = send  # type: ignore[method-assign]
            run(unit(40), patched, restart=restart)
            assert len(target.kept) == len(set(target.kept)), f"doubled after request {at}"


def test_a_target_that_refuses_everything_is_not_asked_without_end() -> None:
    target = Target(set(range(200)))
    refused, attempts = run(unit(200), target)
    assert len(refused) == 200
    assert attempts >= 200 // 16, "it was not given a rest after sixteen refusals in a row"


def test_gap_records_go_out_beside_the_parts() -> None:
    target = Target({3})
    refused, _ = run(unit(10, (Gap(1, 2, "cut"),)), target)
    assert [r.place for r in refused] == [3]
    assert "K/gaps" in target.keys


def test_refused_gap_records_are_told() -> None:
    class NoGaps(Target):
        async def send(self, unit: Unit) -> Sequence[Refusal]:
            if unit.gaps:
                raise UnitRefused("422: no gaps here")
            return await super().send(unit)

    target = NoGaps(set())
    refused, _ = run(unit(5, (Gap(1, 2, "cut"),)), target)
    assert [r.place for r in refused] == [GAPS]
    assert sorted(target.kept) == [0, 1, 2, 3, 4]
