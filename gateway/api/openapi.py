"""The OpenAPI 3.0.3 document, made from aiohttp-apispec's decorators; and how a query is checked.

aiohttp-apispec 3.0.0b2 writes Swagger 2.0 only: `_register_route` is replaced, the decorators stay.
"""

import copy
import warnings
from collections.abc import Mapping
from typing import Any, NoReturn

from aiohttp import web
from aiohttp_apispec import AiohttpApiSpec
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema, ValidationError
from webargs.aiohttpparser import AIOHTTPParser

from gateway.api.errors import ApiError
from gateway.api.keys import DOCUMENT
from gateway.api.routing import declared
from gateway.api.tokens import Role


class _Parser(AIOHTTPParser):
    """Checks queries; its failures have our shape. An own instance: the package's one is process-global."""

    def handle_error(self, error: ValidationError, req: web.Request, schema: Schema, **_: object) -> NoReturn:
        messages = error.normalized_messages()
        raise ApiError(422, "A parameter is wrong; see details.", details=_details(messages))


def _details(messages: Mapping[str, Any]) -> list[dict[str, str]]:
    fields = next(iter(messages.values())) if len(messages) == 1 else messages
    found = []
    for field, texts in fields.items() if isinstance(fields, dict) else [("", fields)]:
        said = texts if isinstance(texts, list) else [texts]
        found += [{"field": str(field), "message": str(text)} for text in said]
    return found


class _Spec(AiohttpApiSpec):
    """Collects the routes of an application into an OpenAPI 3.0.3 document."""

    def __init__(self) -> None:
        super().__init__(url=None, title="edge-gateway", version="v1")  # type: ignore[no-untyped-call]
        self.plugin = MarshmallowPlugin(schema_name_resolver=_name)
        self.spec = APISpec(
            title="edge-gateway",
            version="v1",
            openapi_version="3.0.3",
            plugins=(self.plugin,),
            info={
                "description": "Devices, samples, runs, gaps and uploads of one edge gateway. While nothing "
                "has set its clock, every answer has the header `Clock: unsynchronised`: "
                "its Date may be wrong."
            },
        )
        schemes = self.spec.components
        schemes.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
        schemes.security_scheme("session", {"type": "apiKey", "in": "cookie", "name": "edge_gateway_session"})

    def document(self, app: web.Application) -> dict[str, Any]:
        self._register(app)
        document: dict[str, Any] = self.spec.to_dict()
        return document

    def _register(self, app: web.Application) -> None:
        for route in app.router.routes():
            if route.resource is not None:
                self._register_route(route, route.method.lower(), route.handler)

    def _register_route(self, route: web.AbstractRoute, method: str, view: Any) -> None:
        endpoint = declared(view)
        said = getattr(view, "__apispec__", None)
        if endpoint is None or said is None:
            return
        data = copy.deepcopy({key: value for key, value in said.items() if key != "schemas"})
        data.pop("produces", None)
        converter = self.plugin.converter
        assert converter is not None  # made when the plugin joined the spec
        for schema in said["schemas"]:
            location = "query" if schema["location"] == "querystring" else schema["location"]
            data["parameters"] += converter.schema2parameters(schema["schema"], location=location)
        data["parameters"] += [
            {"in": "path", "name": name, "required": True, "schema": {"type": "string"}}
            for name in _path_names(endpoint.path)
        ]
        data["responses"] = {code: _response(answer) for code, answer in sorted(data["responses"].items())}
        if endpoint.role is Role.OPEN:
            data["security"] = []
        else:
            data["security"] = [{"bearer": []}, {"session": []}]
            data["description"] = f"{data['description']}\n\nRole: {endpoint.role.word}.".strip()
        self.spec.path(path=endpoint.path, operations={method: data})


def _response(answer: Mapping[str, Any]) -> dict[str, Any]:
    answer = {key: value for key, value in answer.items() if key != "required"}
    schema = answer.pop("schema", None)
    if schema is not None:
        answer["content"] = {"application/json": {"schema": schema}}
    return dict(answer)


def _path_names(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def _name(schema: Any) -> str:
    return schema.__name__ if isinstance(schema, type) else type(schema).__name__


def set_up(app: web.Application) -> None:
    """Build the document and give `validation_middleware` what it looks for on the application."""
    app[DOCUMENT] = _Spec().document(app)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", web.NotAppKeyWarning)
        app["_apispec_parser"] = _Parser()
        app["_apispec_request_data_name"] = "data"
