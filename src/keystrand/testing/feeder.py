"""A module pair without physics: hands the same random blocks to two KMEs over the real device interface.

For benchmarks and tests that need full pools at once; it says so in its source name, and in every audit record.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from keystrand.config.module import ModuleConfig
from keystrand.core.errors import KeystrandError
from keystrand.core.limits import Limits
from keystrand.net.frames import FrameStream, connect_frames
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.testing.patience import until
from keystrand.wire import device as wire
from keystrand.wire.device import BlockAck, BlockReady, ModuleHello, ModuleWelcome

SOURCE = "simulated-feeder"


class Feeder:
    """Both modules of one link."""

    def __init__(self, configs: Sequence[ModuleConfig]) -> None:
        self._configs = configs
        self._streams: list[FrameStream] = []
        self.sequence = 0

    async def connect(self) -> None:
        for config in self._configs:
            files = TlsFiles(config.tls.certificate, config.tls.private_key, config.tls.trust, config.tls.revoked)
            stream = await connect_frames(
                config.kme.address.host,
                config.kme.address.port,
                TlsContexts(files, TlsPolicy()),
                expect=("kme", config.kme.kme_id),
                limits=Limits(),
            )
            hello = ModuleHello(
                version=wire.VERSION,
                link=config.module.link,
                module_id=config.module.module_id,
                role=config.module.role,
                source=SOURCE,
            )
            stream.write(wire.encode(hello))
            welcome = wire.decode(await stream.read())
            assert isinstance(welcome, ModuleWelcome)
            self.sequence = max(self.sequence, welcome.next_sequence)
            self._streams.append(stream)

    async def connect_soon(self) -> None:
        """As soon as both KMEs take the modules: one whose store is busy ends the stream, and a module comes again."""

        async def joins() -> bool:
            try:
                await self.connect()
            except (KeystrandError, OSError):
                await self.close()
                return False
            return True

        await until(joins, pause_s=0.3)

    async def feed(self, block_bits: int, blocks: int = 1) -> None:
        """Deliver `blocks` blocks to both ends and wait until both have them durably."""
        for _ in range(blocks):
            material = secrets.token_bytes(block_bits // 8)
            ready = BlockReady(
                sequence=self.sequence,
                material=material,
                sifted_bits=4 * block_bits,
                secret_bits=block_bits,
                bound_bits=block_bits,
                leak_ec_bits=0,
                auth_bits=0,
                qber=0.0,
                qber_test=0.0,
                eps_sec=1e-10,
                eps_cor=1e-10,
                duration_s=0.0,
            )
            for stream in self._streams:
                stream.write(wire.encode(ready))
            for stream in self._streams:
                ack = wire.decode(await stream.read())
                assert isinstance(ack, BlockAck)
                assert not ack.problem, ack.problem
            self.sequence += 1

    async def close(self) -> None:
        while self._streams:
            await self._streams.pop().close()
