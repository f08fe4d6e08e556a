"""The web page: one HTML file with the avatar, the splat viewer and the player; it makes no network requests.

The viewer is Spark on three.js (both MIT), bundled by `tools/data/web_viewer` and gzipped in the page; their licences are beside it
and, as text, in each page.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import re
from importlib.resources import files
from string import Template

from edit3dgs_ns.errors import UserError

_PLAYER = (
    "reader.js",
    "rig.js",
    "motion.js",
    "gaussians.js",
    "view.js",
    "panel.js",
    "player.js",
    "stream.js",
    "face_actions.js",
    "webcam.js",
    "start.js",
)
FACE_MESH = (
    "face_mesh.js",
    "face_mesh.binarypb",
    "face_mesh_solution_packed_assets.data",
    "face_mesh_solution_packed_assets_loader.js",
    "face_mesh_solution_simd_wasm_bin.js",
    "face_mesh_solution_simd_wasm_bin.wasm",
)
"""MediaPipe's Face Mesh, as its npm package names it; gzipped beside the page's scripts (`tools/data/face_mesh`)."""
_FACE_MESH_LICENCE = "face_mesh.licence.txt"
_LIBRARY, _LICENCES = "splat_viewer.min.js", "splat_viewer.licenses.txt"


def render_page(
    packed: bytes,
    title: str,
    caption: str,
    poster: bytes = b"",
    stream: str | None = None,
    webcam: bool = False,
) -> str:
    """The HTML of the page.

    Args:
        packed: of `WebScene.packed`.
        title: of the page; plain text, as the caption: neither is read as HTML.
        caption: of the avatar, such as the edit's prompt.
        poster: a JPEG file that is shown while the page loads.
        stream: ws:// or wss:// address of live coefficients, the only address that the page may ask; None for none.
        webcam: put a face tracker into the page, so that a visitor's own face moves the avatar's.

    Raises:
        ValueError: `stream` is no such address.
    """
    if stream is not None:
        check_stream(stream)
    licences = "\n".join(
        _asset(name) for name in ((_LICENCES, _FACE_MESH_LICENCE) if webcam else (_LICENCES,))
    )
    player = "\n".join(_asset(name) for name in _PLAYER)
    for name, text in (("the player", player), (_LICENCES, licences)):
        _check_script(name, text)
    style = _asset("player.css")
    # MediaPipe fetches its files, which have addresses within the page, and builds functions out of words.
    sources = [*(["blob:"] if webcam else []), *([] if stream is None else [stream])]
    connect = f" connect-src {' '.join(sources)};" if sources else ""
    evaluates = " 'unsafe-eval'" if webcam else ""
    return Template(_asset("page.html")).substitute(
        # What the page may do: run this very script, which starts the viewer that the page holds, and the viewer's worker.
        policy=f"default-src 'none'; script-src {_hashes(player)} 'wasm-unsafe-eval'{evaluates} blob:; worker-src blob:;{connect} "
        f"style-src {_hashes(style)}; img-src data:",
        title=html.escape(title),
        caption=html.escape(caption),
        style=f"\n{style}\n",
        poster=f"data:image/jpeg;base64,{base64.b64encode(poster).decode()}" if poster else "data:,",
        stream="" if stream is None else f'<meta id="stream" content="{stream}">\n',
        avatar=base64.b64encode(packed).decode(),
        licences=f"\n{licences}",
        viewer=base64.b64encode(gzip.compress(_asset(_LIBRARY).encode(), mtime=0)).decode(),
        face_mesh="".join(_packed_file(name) for name in FACE_MESH) if webcam else "",
        player=f"\n{player}\n",
    )


def check_stream(address: str) -> None:
    """Raises a UserError for what is no address of a WebSocket: it goes into the page's policy and may hold nothing else. A policy
    cannot name addresses of IPv6 (CSP 3, host-source): browsers would pass over it and refuse the stream."""
    found = re.fullmatch(r"wss?://[A-Za-z0-9.-]+(?::([0-9]{1,5}))?(?:/[A-Za-z0-9._~/-]*)?", address)
    if found is None or int(found[1] or 1) not in range(1, 1 << 16):
        raise UserError(
            f"--stream {address}: expected the address of a WebSocket, by name or IPv4, such as ws://127.0.0.1:8765."
        )


def packed_avatar(page: str) -> bytes:
    """The packed avatar in a page."""
    found = re.search(r'<script type="text/plain" id="avatar">([A-Za-z0-9+/=]*)</script>', page)
    if found is None:
        raise UserError("This is no page that `edit3dgs export --format html` has written.")
    return base64.b64decode(found[1])


def _asset(name: str) -> str:
    return (files("edit3dgs_ns.web") / "assets" / name).read_text(encoding="utf-8")


def _packed_file(name: str) -> str:
    data = (files("edit3dgs_ns.web") / "assets" / f"{name}.gz").read_bytes()
    return f'<script type="text/plain" data-file="{name}">{base64.b64encode(data).decode()}</script>\n'


def _hashes(*texts: str) -> str:
    digests = (hashlib.sha256(f"\n{text}\n".encode()).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def _check_script(name: str, text: str) -> None:
    """Nothing in a script may end it or change how a browser reads the rest (HTML standard, "restrictions for contents of
    script elements"), nor be changed by its reading, which the hash in the policy would notice."""
    found = re.search(r"<!--|</?script|[\r\0]", text, re.IGNORECASE)
    assert found is None, f"{name} holds {found and found[0]!r}"
