"""Which web pages may talk to the viewer: those that it served itself.

Listening on loopback keeps other machines out, but not other web sites: a page of any site that is open in a browser on this
machine can open a WebSocket to 127.0.0.1. Browsers name the page in `Origin`, and the address that it asked for in `Host`:

- `Origin` must be the address in `Host`: then the page came from this server.
- `Host` must be an IP address, `localhost`, or a name of this machine: otherwise a site could let its own name point here
  (DNS rebinding) and be both.

Who reaches the viewer under another name (a tunnel, a reverse proxy) lists it in the environment variable `VARIABLE`.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

VARIABLE = "EDIT3DGS_VIEWER_ALLOWED_ORIGINS"
"""Addresses of pages that may use the viewer besides its own, separated by commas: https://viewer.example.org"""


@dataclass(frozen=True)
class AllowedOrigins:
    """Decides about requests by their headers."""

    own: frozenset[str] = frozenset()
    """Names of this machine, without ports; `localhost` and IP addresses need not be listed."""
    others: frozenset[str] = frozenset()
    """Names with ports, as they stand in an address."""

    @classmethod
    def of(cls, host: str, environment: Mapping[str, str] | None = None) -> AllowedOrigins:
        """For a server that listens on `host`, with what the environment allows besides."""
        environment = os.environ if environment is None else environment
        entries = environment.get(VARIABLE, "").split(",")
        own = {host.lower()}
        if host not in ("127.0.0.1", "localhost", "::1"):
            name = socket.gethostname().lower()
            own |= {name, name.split(".")[0], f"{name.split('.')[0]}.local"}
        return cls(frozenset(own), frozenset(filter(None, map(address_of, entries))))

    def refusal(self, hosts: Sequence[str], origins: Sequence[str], shared: Iterable[str] = ()) -> str | None:
        """Why a request is refused; None if it may pass.

        Args:
            hosts: values of its header `Host`.
            origins: values of its header `Origin`; programs that are no browser send none.
            shared: addresses under which the viewer was shared on request.
        """
        others = self.others | {address_of(url) for url in shared}
        if len(hosts) != 1:
            return "The request names no host."
        host = hosts[0].strip().lower()
        if not (self._is_own(host) or host in others):
            return _explained(f"it was asked for as {host!r}", host)
        if not origins:
            return None
        origin = address_of(origins[0])
        if len(origins) == 1 and origin and (origin == host or origin in others):
            return None
        return _explained(f"a page of {origins[0]!r} asked for it", origins[0])

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
            if name is None or "@" in host:
                return False
            if name == "localhost" or name in self.own:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def address_of(url: str) -> str:
    """The name and port of an address, in lower case; "" where there is none ("null", as browsers say of files)."""
    url = url.strip().lower()
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
    except ValueError:
        return ""
    return "" if url == "null" else parts.netloc


def _explained(what: str, allow: str) -> str:
    return (
        f"This viewer answers only the page that it serves itself, and {what}. If that is your own tunnel or proxy, "
        f"start the viewer with {VARIABLE}={ascii(allow)[1:-1]}"
    )
