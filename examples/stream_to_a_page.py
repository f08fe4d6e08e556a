"""Streams a recording of ARKit's coefficients to a web page, as a tracking program would: the avatar in the page makes the faces.

    edit3dgs export --load-config RUN/config.yml --format html --stream ws://127.0.0.1:8765
    python examples/stream_to_a_page.py RECORDING      # CSV of Live Link Face, or JSON; then open the page

Plays the recording over and over, to every page that is open.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from pathlib import Path

from websockets import ConnectionClosed
from websockets.asyncio.server import ServerConnection, serve

from edit3dgs_ns.flame.arkit import ArkitRecording, read_arkit

USUAL_FPS = 30.0


async def play(page: ServerConnection, recording: ArkitRecording) -> None:
    """Send one message a frame until the page is closed."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            for amounts in recording.amounts.tolist():
                coefficients = dict(zip(recording.names, amounts, strict=True))
                await page.send(json.dumps({"coefficients": coefficients}))
                await asyncio.sleep(1 / (recording.fps or USUAL_FPS))


async def run(recording: ArkitRecording, port: int) -> None:
    """Serve until interrupted. Only this machine can connect."""
    async with serve(lambda page: play(page, recording), "127.0.0.1", port) as server:
        print(f"Streaming to ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recording", type=Path)
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    asyncio.run(run(read_arkit(options.recording), options.port))
