"""What is to be seen of certificates and clocks while a session lives."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

from asyncua import ua
from cryptography import x509

from gateway.controls.devices import Channel
from gateway.model import Device, Link
from gateway.protocols.opcua import Settings
from gateway.protocols.opcua.pki import Pki
from gateway.protocols.opcua.server_clock import ahead_us, clock_words, is_wrong
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.trust import thumbprint
from gateway.protocols.opcua.trusting import Warned, expiring, vet

_LOOK_S: Final = 15.0
"""A trust that was withdrawn ends the session within this time."""
_LOOKS_AN_HOUR: Final = 240
_CURRENT_TIME: Final = ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime)

_log = logging.getLogger(__name__)


class TrustWatch:
    """Looks at the folders of trust, and each hour at what expires and at the server's clock."""

    def __init__(self, session: Session, device: Device, settings: Settings, link: Link) -> None:
        self._session, self._device, self._settings, self._link = session, device, settings, link
        self._pki = Pki(link.state / "pki")
        self._told: set[tuple[str, int]] = set()
        vetted = session.vetted
        self.channel = Channel(
            str(session.choice),
            session.insecure,
            thumbprint(vetted.certificate) if vetted is not None else "",
            session.clock_offset_us,
        )

    async def run(self) -> None:
        """Watch for ever; raise WaitingForTrust when the trust in the server was withdrawn."""
        while True:
            await self._look()
            for _ in range(_LOOKS_AN_HOUR):
                await self._link.clock.sleep(_LOOK_S)
                await self._vet_again()

    async def _vet_again(self) -> None:
        vetted = self._session.vetted
        if vetted is not None and await asyncio.to_thread(self._pki.version) != vetted.version:
            self._session.vetted = await asyncio.to_thread(
                vet, self._device, self._settings, self._link, self._pki, self._session.choice
            )
            await self._look()

    async def _look(self) -> None:
        await self._ask_for_the_time()
        warnings = await asyncio.to_thread(self._expiring)
        offset_us = self.channel.clock_offset_us
        if offset_us is not None and is_wrong(offset_us) and self._link.clock.synchronised():
            warnings.append(Warned("the server's clock", 0, clock_words(offset_us)))
        if self._session.vetted is not None:
            warnings += [Warned(sentence, 0, sentence) for sentence in self._session.vetted.passed_over]
        for subject, days, sentence in warnings:
            if (subject, days) not in self._told:
                self._told.add((subject, days))
                _log.warning("device %s: %s", self._device.id, sentence)
        self.channel.warnings = tuple(warned.sentence for warned in warnings)

    def _expiring(self) -> list[Warned]:
        certificates: dict[str, x509.Certificate] = {}
        if self._session.vetted is not None:
            certificates["the server's"] = self._session.vetted.certificate
            if own := self._pki.own():
                certificates["the gateway's own"] = x509.load_der_x509_certificate(own)
        return expiring(certificates, datetime.fromtimestamp(self._link.clock.wall_us() / 1e6, UTC))

    async def _ask_for_the_time(self) -> None:
        asked_us = self._link.clock.wall_us()
        (data,) = await self._session.read([ua.ReadValueId(NodeId=_CURRENT_TIME)])
        theirs = data.Value.Value if data.Value is not None else None
        if isinstance(theirs, datetime):
            self.channel.clock_offset_us = ahead_us(theirs, asked_us, self._link.clock.wall_us())
