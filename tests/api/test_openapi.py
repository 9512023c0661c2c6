"""The OpenAPI document: valid, equal to the committed one, and true for every operation."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openapi_spec_validator import validate

from gateway.api.app import build_app
from gateway.api.keys import DOCUMENT
from gateway.api.routing import declared
from gateway.api.settings import HttpSettings
from gateway.api.tokens import Role
from tests.api.plant import Plant

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"


def document(gateway: Plant) -> dict[str, Any]:
    return build_app(gateway, HttpSettings())[DOCUMENT]


@pytest.mark.seed_row("L4")
async def test_it_is_valid_and_has_every_route(gateway: Plant) -> None:
    app = build_app(gateway, HttpSettings())
    made = app[DOCUMENT]
    assert made["openapi"] == "3.0.3"
    await asyncio.to_thread(validate, made)
    routes = {
        (route.method, endpoint.path)
        for route in app.router.routes()
        if (endpoint := declared(route.handler))
    }
    described = {
        (method.upper(), path)
        for path, item in made["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert described == routes
    names = [operation["operationId"] for item in made["paths"].values() for operation in item.values()]
    assert len(set(names)) == len(names)


async def test_it_is_built_the_same_each_time(gateway: Plant) -> None:
    """aiohttp-apispec changes what the decorators left on a handler; a second build must not notice."""
    assert document(gateway) == document(gateway)


@pytest.mark.seed_row("L4")
async def test_it_equals_the_committed_one(gateway: Plant) -> None:
    """A change of the contract is a change of docs/openapi.json, seen in review.

    `UPDATE_OPENAPI=1 pytest tests/api/test_openapi.py` writes it.
    """
    text = json.dumps(document(gateway), indent=1, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_OPENAPI"):
        await asyncio.to_thread(COMMITTED.write_text, text)
    assert await asyncio.to_thread(COMMITTED.read_text) == text


async def test_it_is_served_and_needs_a_token(
    gateway: Plant, anybody: aiohttp.ClientSession, admin: aiohttp.ClientSession
) -> None:
    async with anybody.get("/v1/openapi.json") as answer:
        assert answer.status == 401
    async with admin.get("/v1/openapi.json") as answer:
        assert await answer.json() == document(gateway)


@pytest.mark.seed_row(44)
@pytest.mark.timeout(120)
async def test_schemathesis_finds_nothing(
    gateway: Plant, url: str, admin: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Over every operation: no 5xx, no undocumented status or content type, no answer off its schema."""
    async with admin.post(
        "/v1/devices/box/samples", json=[{"tag": "speed", "ts": n, "value": n / 2} for n in range(100)]
    ) as answer:
        assert answer.status == 200
    spec = tmp_path / "openapi.json"
    made = document(gateway)
    # Real ids, so that more than the 404 is reached.
    for path, item in made["paths"].items():
        for operation in item.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path" and "/devices/" in path:
                    parameter["schema"] = {"type": "string", "enum": ["box", "counter", "nope"]}
    await asyncio.to_thread(spec.write_text, json.dumps(made))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", str(spec), "--url", url,
        "--header", f"Authorization: Bearer {gateway.texts[Role.ADMIN]}",
        "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,"
        "response_schema_conformance,response_headers_conformance",
        "--max-examples", "12", "--seed", "1", "--phases", "examples,coverage,fuzzing", "--no-color",
        "--generation-database", "none",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=tmp_path,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-8000:]
    count = sum(len(item) for item in made["paths"].values())
    assert f"Tested: {count}".encode() in output, output.decode()[-2000:]
