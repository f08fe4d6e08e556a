"""Networks that tell people apart are exchangeable; what is no such network is refused."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from edit3dgs_ns.evaluation.identity import identity_similarity, load_identity_embedding


class Colours:
    """An embedding by mean colour."""

    name = "mean colour"

    def embed_images(self, images) -> np.ndarray:  # type: ignore[no-untyped-def]
        return np.stack([image.mean(axis=(0, 1)) for image in images])


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("my_faces")
    module.colours = Colours  # type: ignore[attr-defined]
    module.nothing = lambda: 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_faces", module)
    return module


def test_choices(module: types.ModuleType) -> None:
    clip = Colours()
    assert load_identity_embedding("clip", clip) is clip  # type: ignore[arg-type]
    assert load_identity_embedding("none", clip) is None  # type: ignore[arg-type]
    own = load_identity_embedding("my_faces:colours", clip)  # type: ignore[arg-type]
    assert own is not None and own.name == "mean colour"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("arcface", "expected clip, none"),
        ("my faces:f", "expected clip, none"),
        ("no_such_module_here:f", "cannot be imported"),
        ("my_faces:gone", "has no 'gone'"),
        ("my_faces:nothing", "returned a int"),
    ],
)
def test_what_is_no_embedding_is_refused(module: types.ModuleType, choice: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_identity_embedding(choice, Colours())  # type: ignore[arg-type]


def test_similarity_by_hand() -> None:
    before = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    after = np.array([[5.0, 0.0], [0.0, 1.0], [-1.0, -1.0], [1.0, 0.0]])
    np.testing.assert_allclose(identity_similarity(before, after), [1, 0, -np.sqrt(0.5), 0], atol=1e-12)
