"""`/v1/certificates`: what is listed, who may trust, and what is said of names that are none."""

import asyncio
from typing import Any

import aiohttp

from gateway.protocols.opcua.trust import thumbprint
from tests.api.plant import Plant
from tests.opcua.certificates import Pair, made


async def listed(client: aiohttp.ClientSession) -> dict[str, Any]:
    async with client.get("/v1/certificates") as answer:
        assert answer.status == 200
        return {row["thumbprint"]: row for row in (await answer.json())["certificates"]}


async def showed(gateway: Plant) -> Pair:
    """A server showed its certificate and was rejected."""
    pair = await asyncio.to_thread(made, "plc")
    await asyncio.to_thread(gateway.certificates.identity, "plant")
    await asyncio.to_thread(gateway.certificates.reject, pair.certificate, "press/07")
    return pair


async def test_a_rejected_certificate_is_trusted_and_removed(
    gateway: Plant, admin: aiohttp.ClientSession
) -> None:
    assert await listed(admin) == {}
    pair = await showed(gateway)
    name = thumbprint(pair.certificate)
    row = (await listed(admin))[name]
    assert (row["place"], row["device"], row["subject"]) == ("rejected", "press/07", "CN=plc")
    assert row["valid_until_us"] == int(pair.certificate.not_valid_after_utc.timestamp()) * 1_000_000
    async with admin.post(f"/v1/certificates/{name.lower()}/trust") as answer:
        assert answer.status == 200
    assert (await listed(admin))[name]["place"] == "trusted"
    async with admin.post(f"/v1/certificates/{name}/trust", params={"expired": "true"}) as answer:
        places = [row["place"] for row in (await answer.json())["certificates"]]
        assert places == ["own", "trusted", "trusted_expired"]
    async with admin.delete(f"/v1/certificates/{name}") as answer:
        assert [row["place"] for row in (await answer.json())["certificates"]] == ["own"]
    async with admin.delete(f"/v1/certificates/{name}") as answer:
        assert answer.status == 404
    async with admin.post(f"/v1/certificates/{name}/trust") as answer:
        assert answer.status == 404 and name in (await answer.json())["error"]["message"]


async def test_a_certificate_is_trusted_by_its_thumbprint_alone(
    gateway: Plant, admin: aiohttp.ClientSession
) -> None:
    await showed(gateway)
    pairs = [await asyncio.to_thread(made, "mill") for _ in range(2)]
    for shown in ([pairs[0]], pairs):
        for pair in shown:
            await asyncio.to_thread(gateway.certificates.reject, pair.certificate, "MILL")
        async with admin.post("/v1/certificates/mill/trust") as answer:
            assert answer.status == 404
            assert "MILL" in (await answer.json())["error"]["message"]
    assert {row["place"] for row in (await listed(admin)).values()} == {"own", "rejected"}


async def test_the_own_certificate_can_be_fetched(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    async with admin.get("/v1/certificates/own") as answer:
        assert answer.status == 404
    await showed(gateway)
    async with admin.get("/v1/certificates/own") as answer:
        assert answer.content_type == "application/pkix-cert"
        assert await answer.read() == await asyncio.to_thread(gateway.certificates.own)


async def test_the_own_certificate_cannot_be_removed(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    await showed(gateway)
    own = next(row for row in (await listed(admin)).values() if row["place"] == "own")
    async with admin.delete(f"/v1/certificates/{own['thumbprint']}") as answer:
        assert answer.status == 404
    assert len(await listed(admin)) == 2
