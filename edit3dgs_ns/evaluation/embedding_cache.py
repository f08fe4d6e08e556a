"""On-disk cache of image embeddings."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from edit3dgs_ns.files import written_beside

Images = Sequence[UInt8[np.ndarray, "height width 3"]]


class EmbeddingCache:
    """Embeddings keyed by a hash of the image's pixels, so that a cache can never be out of date.

    Args:
        path: an npz; written with the first embeddings.
        embed: embeds images that are not cached.
        size: length of an embedding; a file with others is started anew.
    """

    def __init__(self, path: Path, embed: Callable[[Images], Float[np.ndarray, "images size"]], size: int):
        self.path, self._embed, self._size = Path(path), embed, size
        self._rows: dict[str, Float[np.ndarray, " size"]] = {}
        if self.path.is_file():
            self._read()

    def __call__(self, images: Images) -> Float[np.ndarray, "images size"]:
        """Embeddings of images; new ones are saved at once, so that an interrupted evaluation can resume."""
        keys = [_key(image) for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._rows}
        if new:
            self._rows.update(zip(new, self._embed(list(new.values())), strict=True))
            self._save()
        return np.stack([self._rows[key] for key in keys]) if keys else np.zeros((0, self._size), np.float32)

    def _read(self) -> None:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                keys, rows = file["keys"], file["rows"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return  # an unreadable cache is rebuilt
        if rows.shape == (len(keys), self._size):
            self._rows = dict(zip(keys.tolist(), rows.astype(np.float32), strict=True))

    def _save(self) -> None:
        with written_beside(self.path) as partial, partial.open("wb") as file:
            np.savez(file, keys=np.array(list(self._rows)), rows=np.stack(list(self._rows.values())))


def _key(image: UInt8[np.ndarray, "height width 3"]) -> str:
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
