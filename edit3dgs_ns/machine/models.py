"""Checks of head models and of the weights of diffusion models, CLIP and mask networks: nothing is downloaded or loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edit3dgs_ns.evaluation.clip_files import missing_parts
from edit3dgs_ns.machine.finding import Finding

if TYPE_CHECKING:
    from huggingface_hub import CachedRevisionInfo

PIPELINE = ("unet", "vae", "text_encoder")
_OTHER_PARTS = ("model_index.json", "vae", "text_encoder", "tokenizer", "scheduler")
INSTRUCT_PIX2PIX = "timbrooks/instruct-pix2pix"
CLIP = "openai/clip-vit-large-patch14"
FLAME_SITE = "https://flame.is.tue.mpg.de"


def check_heads() -> list[Finding]:
    """The embedded open head, and FLAME where `FLAME_MODEL_PATH` points."""
    return [_open_head(), _flame(os.environ.get("FLAME_MODEL_PATH"))]


def _open_head() -> Finding:
    path = Path(__file__).parents[1] / "flame" / "data" / "open_head.npz"
    if path.is_file():
        return Finding("Heads", "open head", "ok", f"embedded ({_size(path)})", required=True)
    advice = "It comes with this package: install it again, or bake it: python -m tools.data.open_head"
    return Finding("Heads", "open head", "missing", f"no file {path}", advice, required=True)


def _flame(path: str | None) -> Finding:
    get_it = (
        f"For captures tracked with FLAME: get it at {FLAME_SITE} (FLAME 2023 Open is CC BY) and set FLAME_MODEL_PATH to its .pkl "
        "or its ZIP."
    )
    if not path:
        found = "FLAME_MODEL_PATH is not set: the embedded open head serves"
        return Finding("Heads", "FLAME", "missing", found, get_it)
    try:
        from edit3dgs_ns.flame.loading import load_assets

        assets = load_assets(Path(path))
    except Exception as error:
        # Any error in the user's file (or in the install) is the finding.
        found = f"FLAME_MODEL_PATH={path}: {error}"
        advice = f"Point it at a FLAME model file ({FLAME_SITE}), or unset it to use the open head."
        return Finding("Heads", "FLAME", "missing", found, advice, required=True)
    found = f"{path} ({len(assets.v_template)} vertices, {len(assets.faces)} faces)"
    return Finding("Heads", "FLAME", "ok", found)


def check_weights() -> list[Finding]:
    """The demo's editor and CLIP, and what is in Hugging Face's cache: nothing is downloaded or loaded."""
    cache = HubCache()
    return [
        _embedded(
            "demo editor", "editing/demo_editor", partial(_missing_of_editor, network="unet"), required=True
        ),
        _embedded(
            "demo flow editor",
            "editing/demo_flow_editor",
            partial(_missing_of_editor, network="transformer"),
            tool="tools.data.demo_editor all --editor demo-flow",
        ),
        _embedded("demo CLIP", "evaluation/demo_clip", missing_parts),
        cache.check(
            INSTRUCT_PIX2PIX, tuple(f"{part}/*.safetensors" for part in PIPELINE), "editing real captures"
        ),
        cache.check(CLIP, ("*.safetensors",), "the figures CLIP-S and CLIP-C of real captures"),
        *_mask_models(cache),
    ]


def _missing_of_editor(folder: Path, network: str) -> list[str]:
    return [part for part in (*_OTHER_PARTS, network) if not (folder / part).exists()]


def _embedded(
    name: str,
    where: str,
    missing: Callable[[Path], list[str]],
    required: bool = False,
    tool: str | None = None,
) -> Finding:
    """A model that comes with this package, in its folder `where`; `missing` names what the folder lacks, `tool` makes it."""
    folder = Path(__file__).parents[1] / where
    absent = missing(folder)
    if not absent:
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        return Finding("Weights", name, "ok", f"embedded ({size / 1e6:.1f} MB)", required=required)
    found = f"{folder} lacks {', '.join(absent)}"
    command = tool or f"tools.data.{name.lower().replace(' ', '_')} all"
    advice = f"It comes with this package: install it again, or train it: python -m {command}"
    return Finding("Weights", name, "missing", found, advice, required=required)


def _mask_models(cache: HubCache) -> list[Finding]:
    from edit3dgs_ns.editing.masks.grounded_sam_options import DETECTOR, SEGMENTER

    purpose = "masks from words (--pipeline.masks grounded-sam)"
    return [
        cache.check(SEGMENTER, ("*.pt",), purpose),
        cache.check(DETECTOR, ("config.json", "tokenizer.json", "*.safetensors"), purpose),
    ]


class HubCache:
    """Hugging Face's cache folder, as huggingface_hub reads it.

    Args:
        folder: None for the one that the environment names.
    """

    def __init__(self, folder: Path | None = None):
        from huggingface_hub import CacheNotFound, constants, scan_cache_dir

        self.folder = Path(constants.HF_HUB_CACHE) if folder is None else folder
        try:
            cache = scan_cache_dir(self.folder)
        except (CacheNotFound, ValueError):  # no such folder, or a file
            self._repos = {}
            return
        self._repos = {repo.repo_id: repo for repo in cache.repos if repo.repo_type == "model"}

    def check(self, repo: str, parts: tuple[str, ...], purpose: str) -> Finding:
        """Looks for a model: one of its snapshots must have a file for each glob of `parts`.

        Args:
            repo: its id on the hub.
            parts: globs of files, relative to a snapshot.
            purpose: what it is good for, for the advice.
        """
        advice = f"For {purpose}: it downloads itself at first use, or now with: hf download {repo}"
        place = self.folder / f"models--{repo.replace('/', '--')}"
        if (
            place.is_dir() and repo not in self._repos
        ):  # damaged: the download of a file was not finished, for example
            return Finding(
                "Weights", repo, "warn", f"incomplete in {place}: `hf cache scan -v` says why", advice
            )
        revisions = self._repos[repo].revisions if repo in self._repos else ()
        if not revisions:
            return Finding("Weights", repo, "missing", f"not in {self.folder}", advice)
        lacking = [self._lacking(revision, parts) for revision in revisions]
        if [] in lacking:
            return Finding("Weights", repo, "ok", str(place))
        absent = min(lacking, key=len)
        return Finding("Weights", repo, "warn", f"incomplete in {place}: no {', '.join(absent)}", advice)

    @staticmethod
    def _lacking(revision: CachedRevisionInfo, parts: tuple[str, ...]) -> list[str]:
        files = [file.file_path.relative_to(revision.snapshot_path) for file in revision.files]
        return [part for part in parts if not any(file.match(part) for file in files)]


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
