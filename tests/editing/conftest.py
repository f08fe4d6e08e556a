"""A tiny editor for every test of the editing package."""

from pathlib import Path

import numpy as np
import pytest

from tests.tiny_editor import save_tiny_editor


@pytest.fixture(autouse=True)
def exact_processor(request, monkeypatch):
    """A processor without bfloat16, whatever this machine's can do: comparisons with diffusers are exact then."""
    from edit3dgs_ns.editing.diffusion import loading

    if request.module.__name__.endswith("test_workers"):
        return  # other processes cannot be told
    monkeypatch.setattr(loading, "multiplies_bfloat16", lambda: False)


@pytest.fixture(scope="session")
def tiny_editor_folder(tmp_path_factory) -> Path:
    """A folder with a random model that predicts noise, on DDIM."""
    return save_tiny_editor(tmp_path_factory.mktemp("epsilon"))


@pytest.fixture(scope="session")
def make_tiny_editor(tmp_path_factory):
    """Saves other random models: make_tiny_editor(prediction_type=..., scheduler=..., settings=...)."""
    return lambda **options: save_tiny_editor(tmp_path_factory.mktemp("editor"), **options)


@pytest.fixture
def make_request():
    """Requests with random images."""
    from edit3dgs_ns.editing.editor import EditRequest

    def make(views: int = 3, height: int = 32, width: int = 32, **options) -> EditRequest:
        generator = np.random.default_rng(7)
        images, originals = generator.random((2, views, height, width, 3), dtype=np.float32)
        return EditRequest(
            **(
                {"prompt": "make him look older", "images": images, "originals": originals, "steps": 5}
                | options
            )
        )

    return make


@pytest.fixture
def make_sharing_editor(tiny_editor_folder, monkeypatch):
    """Editors whose views share attention through a given correspondence."""
    from edit3dgs_ns.editing.agreement.sharing import SharingOptions
    from edit3dgs_ns.editing.diffusion import instruct_pix2pix
    from edit3dgs_ns.editing.diffusion.loading import load_editor

    def make(correspondence, views_per_forward=4, **options):
        def chosen(kind, *_):
            return None if kind == "none" else correspondence

        monkeypatch.setattr(instruct_pix2pix, "make_correspondence", chosen)
        options = {"views_per_key": 2, "self_attention_below": 0, "share_prediction_until": 1.0} | options
        sharing = SharingOptions("rig", **options)
        return load_editor(tiny_editor_folder, sharing=sharing, views_per_forward=views_per_forward)

    return make
