"""Makes the viewers of this process refuse foreign pages, malformed messages and values that no element allows.

viser 0.2.7 checks none of these and has no place to hook in, so that three names in its modules are replaced: how it opens its
socket, its class of panels, and its tunnel.

    a connection  -> origins.py     refused with 403, and said once on the terminal
    a message     -> messages.py    one that viser's page cannot have sent ends its connection
    a value       -> values.py      not taken; the page is told
"""

from __future__ import annotations

import contextlib
import http
import weakref
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import websockets.exceptions
import websockets.server
from viser import _gui_api, _messages, _tunnel, _viser
from viser.infra import _infra

from edit3dgs_ns.console import warn
from edit3dgs_ns.viewer.messages import MalformedMessage, usable
from edit3dgs_ns.viewer.origins import AllowedOrigins
from edit3dgs_ns.viewer.values import refusal, refused_upload

_POLICY_VIOLATION = 1008
"""Code of RFC 6455 for a connection that is closed because of what it has sent."""
_MOST_WARNINGS = 20
"""Refused origins that are named on the terminal."""
_MOST_UPLOADS = 4
"""Files that are being sent at the same time; of more, the oldest is given up."""

Response = tuple[http.HTTPStatus, dict[str, str], bytes]


def guard_viewers() -> None:
    """From now on, servers of viser that this process opens are guarded. Again is harmless."""
    guarded = SimpleNamespace(exceptions=websockets.exceptions, server=SimpleNamespace(serve=_guarded_serve))
    replaced: tuple[tuple[Any, str, Any], ...] = (
        (_infra, "websockets", guarded),
        (_viser, "GuiApi", CheckedGui),
        (_viser, "ViserTunnel", KnownTunnel),
    )
    for module, name, value in replaced:
        assert hasattr(module, name), f"viser has changed: {module.__name__} has no {name}"
        setattr(module, name, value)


# -- connections ---------------------------------------------------------------------------------------------------------


class KnownTunnel(_tunnel.ViserTunnel):  # type: ignore[misc]
    """viser's public address of a viewer, which a visitor can ask for: pages from there are let in while it is open."""

    opened: ClassVar[weakref.WeakSet[KnownTunnel]] = weakref.WeakSet()

    def __init__(self, share_domain: str, local_port: int):
        super().__init__(share_domain, local_port)
        self.opened.add(self)

    @classmethod
    def urls(cls) -> list[str]:
        """Addresses of the tunnels that are open."""
        found = []
        for tunnel in tuple(cls.opened):
            with contextlib.suppress(OSError, EOFError):  # its process has ended
                found.append(tunnel.get_url())
        return [url for url in found if url is not None]


def _guarded_serve(
    handler: Callable[[Any], Awaitable[None]], host: str, port: int, process_request: Any
) -> Any:
    """`websockets.server.serve` with checks around the handler of connections and that of requests."""
    allowed, warned = AllowedOrigins.of(host), set[str]()

    async def answer(path: str, headers: Any) -> Response | None:
        reason = allowed.refusal(headers.get_all("Host"), headers.get_all("Origin"), KnownTunnel.urls())
        if reason is not None:
            if reason not in warned and len(warned) < _MOST_WARNINGS:
                warned.add(reason)
                warn(reason)
            return http.HTTPStatus.FORBIDDEN, {"Content-Type": "text/plain; charset=utf-8"}, reason.encode()
        if not path.startswith("/") or any(part == ".." for part in path.replace("\\", "/").split("/")):
            return http.HTTPStatus.NOT_FOUND, {}, b"404"  # viser would send any file of this machine
        try:
            response = await process_request(path, headers)
        except (OSError, ValueError):  # names of folders, or no names at all
            return http.HTTPStatus.NOT_FOUND, {}, b"404"
        if response is not None:
            # Within a frame of a foreign page, a visitor's clicks could be led to these buttons.
            framed = " ".join(["frame-ancestors 'self'", *sorted(allowed.others)])
            response[1]["Content-Security-Policy"] = framed
        return response

    async def handle(connection: Any) -> None:
        await handler(_CheckedConnection(connection))

    serve: Any = websockets.server.serve  # type: ignore[attr-defined]  # the one that viser is written for
    return serve(handle, host, port, process_request=answer)


class _CheckedConnection:
    """A WebSocket whose `recv` returns messages of viser's page only; one that sends anything else is closed."""

    def __init__(self, connection: Any):
        self._connection = connection
        self.send = connection.send

    async def recv(self) -> str | bytes:
        """Returns the next message.

        Raises:
            ConnectionClosed: there will be none.
        """
        while True:
            raw = await self._connection.recv()
            try:
                if usable(raw):
                    return raw
            except MalformedMessage as error:
                await self._connection.close(_POLICY_VIOLATION, f"malformed message: {error}"[:100])


# -- values --------------------------------------------------------------------------------------------------------------


class CheckedGui(_gui_api.GuiApi):  # type: ignore[misc]
    """viser's panel, which takes from pages only values that its elements allow."""

    def _create_gui_input(self, value: Any, message: Any, is_button: bool = False) -> Any:
        handle = super()._create_gui_input(value, message, is_button)
        state: Any = handle._impl  # shared by the handles of other classes that viser makes of this one
        state.limits = message
        return handle

    def _handle_gui_updates(self, client_id: Any, message: _messages.GuiUpdateMessage) -> None:
        handle = self._gui_input_handle_from_id.get(message.id)
        if handle is None or not self._is_connected(client_id):
            return
        limits = getattr(handle._impl, "limits", None)
        reason = refusal(handle, limits, message.updates)
        if reason is None:
            super()._handle_gui_updates(client_id, message)
        elif isinstance(message.updates.get("value"), str):  # numbers are out of range while they are typed
            self._tell(client_id, f"{handle._impl.label} was not taken: {reason}.")

    def _handle_file_transfer_start(self, client_id: Any, message: _messages.FileTransferStart) -> None:
        handle = self._gui_input_handle_from_id.get(message.source_component_id or "")
        limits = None if handle is None else getattr(handle._impl, "limits", None)
        if handle is None or not isinstance(limits, _messages.GuiAddUploadButtonMessage):
            return
        reason = refused_upload(message.filename, message.part_count, message.size_bytes)
        if handle._impl.disabled or not handle._impl.visible:
            reason = "it cannot be used now"
        if reason is None:
            begun = self._current_file_upload_states
            while len(begun) >= _MOST_UPLOADS:  # of pages that were closed meanwhile
                begun.pop(next(iter(begun)))
            super()._handle_file_transfer_start(client_id, message)
        else:
            self._tell(client_id, f"The file was not taken: {reason}.")

    def _handle_file_transfer_part(self, client_id: Any, message: _messages.FileTransferPart) -> None:
        state = self._current_file_upload_states.get(message.transfer_uuid)
        if state is None or message.source_component_id not in self._gui_input_handle_from_id:
            return
        is_new = 0 <= message.part < state["part_count"] and message.part not in state["parts"]
        if not is_new or state["transferred_bytes"] + len(message.content) > state["total_bytes"]:
            self._current_file_upload_states.pop(message.transfer_uuid, None)
            return
        super()._handle_file_transfer_part(client_id, message)

    def _is_connected(self, client_id: Any) -> bool:
        owner = self._owner
        return not isinstance(owner, _viser.ViserServer) or client_id in owner.get_clients()

    def _tell(self, client_id: Any, text: str) -> None:
        owner = self._owner
        client = owner.get_clients().get(client_id) if isinstance(owner, _viser.ViserServer) else owner
        if client is not None:
            client.add_notification("Not taken", text, auto_close=8000, color="yellow")
