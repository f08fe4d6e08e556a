"""Identity similarity of renders before and after an edit, with the embedding of any network.

`clip` takes CLIP's image embedding, which is there anyway but knows clothes and colours as well as faces. For figures on
identity give a network that was trained to recognise faces, as `package.module:function`: a function without arguments that
returns an `IdentityEmbedding`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.evaluation.clip import Clip

OPTION = "--identity"


@runtime_checkable
class IdentityEmbedding(Protocol):
    """A face recognition network."""

    name: str
    """Shown with its scores."""

    def embed_images(
        self, images: Sequence[UInt8[np.ndarray, "height width 3"]]
    ) -> Float[np.ndarray, "images size"]:
        """One vector for each RGB image, of any length but zero."""
        ...


def load_identity_embedding(choice: str, clip: Clip) -> IdentityEmbedding | None:
    """The network that `--identity` names.

    Args:
        choice: `clip`, `none`, or `package.module:function`.
        clip: the network for `clip`.

    Raises:
        ValueError: it is none of these, or the function is not there or returns something else.
    """
    if choice == "none":
        return None
    if choice == "clip":
        return clip
    module_name, colon, function_name = choice.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module_name.split("."), function_name)):
        raise UserError(
            f"{OPTION} {choice}: expected clip, none, or package.module:function, a function that returns an embedding "
            "with a `name` and a method `embed_images`."
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"{OPTION} {choice}: {module_name} cannot be imported ({error}). Install it, or put its folder on PYTHONPATH."
        ) from error
    if not hasattr(module, function_name):
        raise UserError(f"{OPTION} {choice}: {module_name} has no {function_name!r}.")
    embedding = getattr(module, function_name)()
    if not isinstance(embedding, IdentityEmbedding):
        raise UserError(
            f"{OPTION} {choice} returned a {type(embedding).__name__}; expected an object with `name` and `embed_images`."
        )
    return embedding


def identity_similarity(
    before: Float[np.ndarray, "frames size"], after: Float[np.ndarray, "frames size"]
) -> Float[np.ndarray, " frames"]:
    """Identity similarity: cos(F(before), F(after)) of each frame, 1 for the same; higher is better.

    As the identity loss and figure of ArcFace embeddings (Deng et al., CVPR 2019) in face editing, with any embedding F. An edit is
    meant to change the image, so it cannot be 1; it compares methods at the same edit.
    """
    a, b = (np.asarray(rows, np.float64) for rows in (before, after))
    return (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-12)
