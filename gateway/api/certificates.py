"""`/v1/certificates`: whom the gateway trusts, whom it has yet to, and who it is itself."""

import asyncio
import logging
from typing import Any, Final

from aiohttp import web

from gateway.api.answers import json_answer
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY
from gateway.api.queries import NoQuery, TrustQuery
from gateway.api.routing import endpoint
from gateway.api.schemas import CertificateList
from gateway.api.tokens import Role
from gateway.controls.certificates import Certificates

_log = logging.getLogger(__name__)
_DER: Final[dict[str, Any]] = {
    "description": "The certificate, DER.",
    "content": {"application/pkix-cert": {"schema": {"type": "string", "format": "binary"}}},
}


@endpoint(
    "GET",
    "/v1/certificates",
    role=Role.READ,
    tag="certificates",
    summary="All certificates: the gateway's own, those trusted and those rejected",
    query=NoQuery,
    answers={200: CertificateList},
)
async def list_certificates(request: web.Request) -> web.Response:
    return await _listed(request.app[GATEWAY].certificates)


@endpoint(
    "GET",
    "/v1/certificates/own",
    role=Role.READ,
    tag="certificates",
    summary="The gateway's application certificate, for a server that has to trust it",
    query=NoQuery,
    answers={200: _DER},
    fails=(404,),
)
async def own_certificate(request: web.Request) -> web.Response:
    der = await asyncio.to_thread(request.app[GATEWAY].certificates.own)
    if der is None:
        raise ApiError(404, "There is none yet: it is made for the first OPC UA device.")
    headers = {"Content-Disposition": 'attachment; filename="edge-gateway.der"'}
    return web.Response(body=der, content_type="application/pkix-cert", headers=headers)


@endpoint(
    "POST",
    "/v1/certificates/{thumbprint}/trust",
    role=Role.ADMIN,
    tag="certificates",
    summary="Trust a rejected certificate; its device connects within seconds",
    query=TrustQuery,
    answers={200: CertificateList},
)
async def trust_certificate(request: web.Request) -> web.Response:
    certificates, name = request.app[GATEWAY].certificates, request.match_info["thumbprint"].upper()
    expired = request["querystring"]["expired"]
    try:
        await asyncio.to_thread(certificates.trust, name, expired=expired)
    except KeyError:
        raise ApiError(404, f'No rejected certificate has the thumbprint "{name}".') from None
    _log.info('"%s" trusted the certificate %s', request["principal"].name, name)
    return await _listed(certificates)


@endpoint(
    "DELETE",
    "/v1/certificates/{thumbprint}",
    role=Role.ADMIN,
    tag="certificates",
    summary="Trust a certificate no more, or forget a rejected one; sessions that rest on it end",
    query=NoQuery,
    answers={200: CertificateList},
)
async def distrust_certificate(request: web.Request) -> web.Response:
    certificates, name = request.app[GATEWAY].certificates, request.match_info["thumbprint"].upper()
    if not await asyncio.to_thread(certificates.distrust, name):
        raise ApiError(404, f'No trusted or rejected certificate has the thumbprint "{name}".')
    _log.info('"%s" removed the certificate %s', request["principal"].name, name)
    return await _listed(certificates)


async def _listed(certificates: Certificates) -> web.Response:
    entries = await asyncio.to_thread(certificates.entries)
    return json_answer({"certificates": entries})


HANDLERS = (list_certificates, own_certificate, trust_certificate, distrust_certificate)
