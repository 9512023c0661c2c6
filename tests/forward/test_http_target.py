"""The uploader http against a real server that misbehaves: what is kept, what is refused, what is bounded."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.clock import SystemClock
from gateway.model import Batch, Encoding, Outlet, Sample, SeriesInfo, Unit, UnitRefused, UploadProblem
from gateway.redaction import secrets_in
from gateway.settings import Secret
from gateway.store import Store
from gateway.uploaders import http
from gateway.uploaders.answers import LONGEST_ANSWER_BYTES, retry_after_s
from tests.forward.plant import Plant, check_ledger, delivered, forwarding, http_settings, until
from tests.peers.receiver import Receiver


def unit(size: int = 4) -> Unit:
    samples = Batch.of(Sample(n % 2, n, float(n)) for n in range(size))
    series = {n: SeriesInfo("press", f"t{n}", "") for n in range(2)}
    return Unit("gw/e/übung/1-2", "gw", "übung", "live", 1, 2, Encoding("columns", 1), samples, series)


@asynccontextmanager
async def opened(peer: Receiver, **settings: Any) -> AsyncIterator[Outlet]:
    async with http.open("cloud", http_settings(peer, **settings), SystemClock()) as outlet:
        yield outlet


KEEPING = (301, 307, 401, 403, 404, 405, 408, 409, 410, 425, 429, 500, 502, 503, 507)


async def test_answers_that_do_not_speak_of_the_body_keep_everything(peer: Receiver) -> None:
    async with opened(peer) as outlet:
        for status in KEEPING:
            headers = {"Location": f"{peer.url}/elsewhere"} if status < 400 else {}
            await peer.faults(answers=[{"status": status, "headers": headers, "body": "not\nnow"}])
            with pytest.raises(UploadProblem) as caught:
                await outlet.send(unit())
            assert not isinstance(caught.value, UnitRefused), status
            assert str(status) in str(caught.value) or "redirects to" in str(caught.value)
            assert await outlet.send(unit()) == []
    assert {r["path"] for r in await peer.requests()} == {"/ingest"}


@pytest.mark.parametrize(("status", "too_large"), [(400, False), (413, True), (422, False)])
async def test_answers_that_speak_of_the_body_refuse_it(peer: Receiver, status: int, too_large: bool) -> None:
    await peer.faults(answers=[{"status": status, "body": "never"}])
    async with opened(peer) as outlet:
        with pytest.raises(UnitRefused, match=f"^{status}: never$") as caught:
            await outlet.send(unit())
    assert caught.value.too_large == too_large


async def test_samples_that_the_answer_names_are_refused_by_their_place(peer: Receiver) -> None:
    await peer.faults(refuse=2.0)
    async with opened(peer) as outlet:
        refused = await outlet.send(unit())
    assert [(r.place, r.reason) for r in refused] == [(2, "not to my taste")]


@pytest.mark.parametrize("fault", ["drip", "flood", "hang", "forget", "truncate"])
async def test_answers_without_end_or_without_anything_are_bounded(peer: Receiver, fault: str) -> None:
    await peer.faults(**{fault: 1})
    began = time.monotonic()
    async with opened(peer, timeout_s=1.0) as outlet:
        with pytest.raises(UploadProblem):
            await outlet.send(unit())
        assert time.monotonic() - began < 2.0
        assert await outlet.send(unit()) == []


@asynccontextmanager
async def serving(take: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """Yield the address of a real server that answers each POST so."""
    app = web.Application()
    app.router.add_post("/in", take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield "http://{}:{}/in".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


async def test_an_answer_may_refuse_every_sample_of_a_large_unit() -> None:
    reason = "no sensor of this name is known in hall 3"
    answer = {"refused": [{"index": n, "reason": f"{reason}: {n}"} for n in range(20_000)]}
    assert len(json.dumps(answer)) > LONGEST_ANSWER_BYTES

    async def take(_: web.Request) -> web.Response:
        return web.json_response(answer)

    async with serving(take) as url, http.open("cloud", http.Settings(url=url), SystemClock()) as outlet:
        refused = await outlet.send(unit(20_000))
        assert len({refusal.place for refusal in refused}) == 20_000
        assert {refusal.reason for refusal in refused} == {item["reason"] for item in answer["refused"]}
        with pytest.raises(UploadProblem, match="more than 1 MiB"):
            await outlet.send(unit(1))


async def test_the_token_and_the_headers_are_sent_and_never_shown() -> None:
    seen: list[CIMultiDict[str]] = []

    async def take(request: web.Request) -> web.Response:
        seen.append(CIMultiDict(request.headers))
        return web.Response(status=503, text="no")

    async with serving(take) as url:
        headers = {"X-Site": "hall 3", "X-Api-Key": Secret("credential cloud", "als0s3cret")}
        settings = http.Settings(url=url, token=Secret("env T", "t0ps3cret"), headers=headers)
        async with http.open("cloud", settings, SystemClock()) as outlet:
            with pytest.raises(UploadProblem) as caught:
                await outlet.send(unit())
    assert seen[0]["Authorization"] == "Bearer t0ps3cret"
    assert seen[0]["X-Site"] == "hall 3"
    assert seen[0]["X-Api-Key"] == "als0s3cret"
    assert seen[0]["Content-Encoding"] == "gzip"
    assert seen[0]["Idempotency-Key"] == "gw/e/%C3%BCbung/1-2"
    assert "t0ps3cret" not in f"{caught.value}{settings}"
    assert "als0s3cret" not in f"{caught.value}{settings}"
    assert set(secrets_in(settings)) == {"t0ps3cret", "als0s3cret"}


@pytest.mark.parametrize("before", ["", "x" * 100, "CANARY-s3cr3t " * 40])
@pytest.mark.parametrize("status", [200, 302, 401, 422, 500])
async def test_a_target_that_says_our_secret_again_is_quoted_without_it(status: int, before: str) -> None:
    async def take(request: web.Request) -> web.Response:
        said = before + request.headers["Authorization"].removeprefix("Bearer ")
        if status == 200:
            return web.json_response({"refused": [{"index": 0, "reason": f"{said} may not"}]})
        headers = {"Location": f"https://elsewhere/{said.strip()}"} if status == 302 else {}
        return web.json_response({"detail": f"{said} may not"}, status=status, headers=headers)

    async with serving(take) as url:
        settings = http.Settings(url=url, token=Secret("env T", "CANARY-s3cr3t"))
        async with http.open("cloud", settings, SystemClock()) as outlet:
            try:
                ((_, told),) = await outlet.send(unit())
            except UploadProblem as problem:
                told = str(problem)
    assert "<secret>" in told
    assert "CANARY" not in told and "s3cr" not in told
    assert status == 302 or before.startswith("CANARY") or "may not" in told


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "99999999999999"}, 3600),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, 3600),
        ({"Retry-After": "soon"}, None),
        ({}, None),
        ({"Retry-After": "Fri, 21 Nov 2025 10:00:30 GMT"}, 30),
        ({"Retry-After": "Fri, 21 Nov 2025 09:00:00 GMT"}, None),
        ({"Retry-After": "Fri, 21 Nov 9999 09:00:00 GMT"}, 3600),
        ({"Retry-After": "Fri, 21 Nov 2025 10:00:30 GMT", "Date": "Fri, 21 Nov 2025 10:00:25 GMT"}, 5),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    now = datetime(2025, 11, 21, 10, 0, 0, tzinfo=UTC)
    assert retry_after_s(CIMultiDictProxy(CIMultiDict(headers)), now) == seconds


@pytest.mark.parametrize("status", [429, 503])
async def test_both_lanes_leave_a_target_alone_for_as_long_as_it_asks(
    store: Store, peer: Receiver, status: int
) -> None:
    plant = Plant(store)
    for _ in range(20):
        await plant.write(10)  # something for the backlog too
    await peer.faults(answers=[{"status": status, "headers": {"Retry-After": "2"}}])
    async with forwarding(store, http_settings(peer, gather_bytes=1024)):
        await until(lambda: delivered(peer, plant), "everything delivered")
    first, second = (await peer.requests())[:2]
    assert first["status"] == status
    assert second["at"] - first["at"] >= 2.0
    check_ledger(plant, await peer.samples())


async def test_one_poison_sample_goes_to_quarantine_and_back(store: Store, peer: Receiver) -> None:
    plant = Plant(store, tags=10)
    await peer.faults(poison=517_004)
    async with forwarding(store, http_settings(peer)) as forwarder:
        await plant.write(1000)
        await until(lambda: forwarder.counters.units >= 1, "the unit settled")
        assert (await peer.counts())["samples"] == 9_999
        assert (await peer.counts())["requests"]["POST /ingest"] - 1 <= 15
        await until_quarantined(forwarder, 1)
        letter = (await forwarder.quarantine())[0]
        assert (letter.device, letter.tag, letter.sample.value) == ("press", "t4", 517_004)
        assert letter.reason.startswith("422: ") and "not to my taste" in letter.reason
        assert forwarder.status().counters.refused == 1

        assert await forwarder.replay(None) == 0, "refused again: it stays"
        await peer.faults(reset=True, forget=1)
        with pytest.raises(UploadProblem):
            await forwarder.replay([letter.id])
        assert await forwarder.replay([letter.id]) == 1
        assert list(await forwarder.quarantine()) == []
    check_ledger(plant, await peer.samples())


async def until_quarantined(forwarder: Any, size: int) -> None:
    async def there() -> bool:
        return len(await forwarder.quarantine()) == size

    await until(there, f"{size} samples in quarantine")


async def test_refused_samples_can_be_discarded(store: Store, peer: Receiver) -> None:
    plant = Plant(store)
    await peer.faults(refuse=2001)
    async with forwarding(store, http_settings(peer)) as forwarder:
        await plant.write(5)
        await until_quarantined(forwarder, 1)
        assert await forwarder.discard([999]) == 0
        assert await forwarder.discard(None) == 1
        assert list(await forwarder.quarantine()) == []


async def test_a_unit_that_is_too_large_goes_in_pieces(store: Store, peer: Receiver) -> None:
    plant = Plant(store)
    await peer.faults(most_bytes=6000)
    async with forwarding(store, http_settings(peer)):
        await plant.write(1000)
        await until(lambda: delivered(peer, plant), "everything delivered")
    check_ledger(plant, await peer.samples())
    assert (await peer.counts())["requests"]["POST /ingest"] < 30


async def test_a_single_sample_that_is_too_large_is_refused(store: Store, peer: Receiver) -> None:
    plant = Plant(store, tags=1)
    await peer.faults(most_bytes=6000)
    async with forwarding(store, http_settings(peer)) as forwarder:
        await plant.write(1, value="x" * 10_000)
        await plant.write(5)
        await until_quarantined(forwarder, 1)
        await until(lambda: delivered(peer, plant, but=1), "the others delivered")
        assert (await forwarder.quarantine())[0].reason.startswith("413: ")


async def test_the_parts_of_a_poisoned_unit_go_on_after_a_restart(store: Store, peer: Receiver) -> None:
    """The target dies in the middle of the halving; another forwarder goes on; nothing arrives twice."""
    plant = Plant(store)
    await peer.faults(poison=77_001, die_after_stores=2)
    async with forwarding(store, http_settings(peer)):
        await plant.write(300)
        await until(lambda: not peer.alive, "the target is dead")
    await peer.start()
    await peer.faults(poison=77_001)
    async with forwarding(store, http_settings(peer)) as forwarder:
        await until_quarantined(forwarder, 1)
        await until(lambda: delivered(peer, plant, but=1), "the others delivered")
    del plant.written["t1", 1_763_690_000_000_000 + 77_000]
    check_ledger(plant, await peer.samples())
    assert (await peer.counts())["bodies_per_key"] == 1


def test_plain_http_and_unchecked_certificates_are_shown_as_insecure() -> None:
    assert "unencrypted" in http.insecure(http.Settings(url="http://h/"))
    assert "certificate" in http.insecure(http.Settings(url="https://h/", verify=False))
    assert http.insecure(http.Settings(url="https://h/")) == ""
    assert "unencrypted" in http.insecure(http.Settings(url="HTTP://h/"))
    assert http.insecure(http.Settings(url="HTTPS://h/")) == ""
    both = http.insecure(http.Settings(url="http://h/", headers={"X-Api-Key": "0f0f", "X": "y"}))
    assert "unencrypted" in both and "the header X-Api-Key" in both and "the header X " not in both
    assert "0f0f" not in both
    by_reference = http.Settings(url="https://h/", headers={"X-Api-Key": Secret("env K", "0f0f"), "X": "y"})
    assert http.insecure(by_reference) == ""


@pytest.mark.parametrize("mark", ["?sig=", "?code=", "#"])
async def test_the_query_of_an_address_is_sent_and_never_shown(store: Store, mark: str) -> None:
    queries: list[str] = []

    async def take(request: web.Request) -> web.Response:
        queries.append(request.query_string)
        if len(queries) % 2:
            return web.Response(status=307, headers={"Location": f"https://elsewhere/{mark}CANARY"})
        return web.Response(status=503)

    async with serving(take) as url:
        settings = http.Settings(url=f"{url}{mark}CANARY", gather_s=0.1)
        async with forwarding(store, settings) as forwarder:
            await Plant(store).write(1)
            for failures in (1, 2):
                await until(lambda n=failures: forwarder.counters.failures >= n, "a failure")  # type: ignore[misc]
                assert url in forwarder.status().last_error
                assert "CANARY" not in f"{forwarder.status()}{forwarder.health}{forwarder.url}"
    assert queries[0] == (f"{mark}CANARY" if mark != "#" else "").removeprefix("?")
    with pytest.raises(ValueError, match="web address") as caught:
        http.web_address(f"ftp://h/{mark}CANARY")
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://h/", "cloud.example", "https://", "https://me:pw@h/"),
        *("https://h:99999", "https://h:abc/x", "https://h:0", "https://h:-1"),
        *("https://ho st", " http://x", "http://x ", "https://h/a b", "https://h/\tx", "https://h/\0"),
    ],
)
def test_addresses_that_will_not_do(url: str) -> None:
    with pytest.raises(ValueError, match="web address"):
        http.web_address(url)


@pytest.mark.parametrize(
    "url", ["https://h:65535/x", "http://[::1]:80", "https://h:", "https://münchen.example/ü?a=b"]
)
def test_addresses_that_will_do(url: str) -> None:
    http.web_address(url)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "x"},
        {"Idempotency-Key": "x"},
        {"a b": "x"},
        {"X": "a\r\nb"},
        {"X": Secret("env X", "CANARY\r\nb")},
    ],
)
def test_headers_that_will_not_do(headers: dict[str, str | Secret]) -> None:
    with pytest.raises(ValueError, match="header") as caught:
        http.header_names(headers)
    assert "CANARY" not in str(caught.value)


async def test_a_certificate_file_that_is_none_is_a_problem_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    settings = http.Settings(url="https://h/", ca=tmp_path / "ca.pem")
    with pytest.raises(UploadProblem, match=r"ca\.pem"):
        async with http.open("cloud", settings, SystemClock()):
            pass
