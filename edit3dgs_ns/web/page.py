"""The web page: one HTML file with the avatar, the splat viewer and the player; it makes no network requests.

The viewer is Spark on three.js (both MIT), bundled by `tools/data/web_viewer`; their licences are beside it and in each page.
"""

from __future__ import annotations

import base64
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
    "start.js",
)
_LIBRARY, _LICENCES = "splat_viewer.min.js", "splat_viewer.licenses.txt"


def render_page(packed: bytes, title: str, caption: str, poster: bytes = b"") -> str:
    """The HTML of the page.

    Args:
        packed: of `WebScene.packed`.
        title: of the page; plain text, as the caption: neither is read as HTML.
        caption: of the avatar, such as the edit's prompt.
        poster: a JPEG file that is shown while the page loads.
    """
    library = f"/*\n{_asset(_LICENCES)}*/\n{_asset(_LIBRARY)}"
    scripts = {"viewer": library, "player": "\n".join(_asset(name) for name in _PLAYER)}
    for name, text in scripts.items():
        _check_script(name, text)
    style = _asset("player.css")
    return Template(_asset("page.html")).substitute(
        # What the page may do: run these very scripts, and start the viewer's worker, which they hold. No address at all.
        policy=f"default-src 'none'; script-src {_hashes(*scripts.values())} 'wasm-unsafe-eval' blob:; worker-src blob:; "
        f"style-src {_hashes(style)}; img-src data:",
        title=html.escape(title),
        caption=html.escape(caption),
        style=f"\n{style}\n",
        poster=f"data:image/jpeg;base64,{base64.b64encode(poster).decode()}" if poster else "data:,",
        avatar=base64.b64encode(packed).decode(),
        **{name: f"\n{text}\n" for name, text in scripts.items()},
    )


def packed_avatar(page: str) -> bytes:
    """The packed avatar in a page."""
    found = re.search(r'<script type="text/plain" id="avatar">([A-Za-z0-9+/=]*)</script>', page)
    if found is None:
        raise UserError("This is no page that `edit3dgs export --format html` has written.")
    return base64.b64decode(found[1])


def _asset(name: str) -> str:
    return (files("edit3dgs_ns.web") / "assets" / name).read_text(encoding="utf-8")


def _hashes(*texts: str) -> str:
    digests = (hashlib.sha256(f"\n{text}\n".encode()).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def _check_script(name: str, text: str) -> None:
    """Nothing in a script may end it or change how a browser reads the rest (HTML standard, "restrictions for contents of
    script elements"), nor be changed by its reading, which the hash in the policy would notice."""
    found = re.search(r"<!--|</?script|[\r\0]", text, re.IGNORECASE)
    assert found is None, f"{name} holds {found and found[0]!r}"
