"""A TCP proxy that can be told to misbehave, in front of an S3 server."""

import asyncio
import threading
from contextlib import suppress

PASS, RESET, SLOW_DOWN = "pass", "reset", "slow down"

_SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>slow down</Message></Error>"
_ANSWER = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_SLOW_DOWN), _SLOW_DOWN)
)


class FaultProxy:
    """`mode` is PASS, RESET (connections break) or SLOW_DOWN (every request is answered 503).

    `delay_s`: how long each piece of a request takes to the server.
    """

    def __init__(self, upstream_port: int) -> None:
        self.mode = PASS
        self.delay_s = 0.0
        self._upstream_port = upstream_port
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        serving = asyncio.start_server(self._serve, "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        self.port: int = server.sockets[0].getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def set(self, mode: str) -> None:
        """From now on; open connections are broken unless all is well."""
        self.mode = mode
        if mode != PASS:
            self._loop.call_soon_threadsafe(self._break_all)

    def _break_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            if self.mode == RESET:
                writer.transport.abort()
            elif self.mode == SLOW_DOWN:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(_ANSWER)
                await writer.drain()
            else:
                await self._pass(reader, writer)
        self._writers.discard(writer)
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        self._writers.add(up_writer)
        copies = [self._delayed(reader, up_writer), _copy(up_reader, writer)]
        await asyncio.wait(
            [asyncio.ensure_future(each) for each in copies], return_when=asyncio.FIRST_COMPLETED
        )
        self._writers.discard(up_writer)
        up_writer.close()

    async def _delayed(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
