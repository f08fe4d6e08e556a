"""Stage `export`: the folder in transformers' format, half precision, with a note that stands beside every figure made with it."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from edit3dgs_ns.files import folder_written_beside
from tools.data.demo_clip.captions import caption_words
from tools.data.demo_clip.model import make_processor
from tools.data.demo_clip.settings import Settings, Workspace
from tools.data.demo_clip.train import load_trained
from tools.data.demo_editor.embedding import checked

MAX_MEGABYTES = 15.0
NOTE = (
    "The embedded demo CLIP: small, trained by tools/data/demo_clip on ray-traced pictures of the open head and captions of "
    "its edits alone. Its figures compare edits of our synthetic captures with each other, and nothing else."
)


def export(work: Workspace, settings: Settings, out: Path) -> float:
    """Write the folder (replacing an older one at once) and return its size in megabytes.

    Raises:
        ValueError: the folder would be larger than MAX_MEGABYTES.
    """
    tokenizer, model = load_trained(work, settings)
    with folder_written_beside(out) as partial:
        model.to(torch.float16).save_pretrained(partial, safe_serialization=True)
        tokenizer.save_pretrained(partial)
        make_processor(settings).save_pretrained(partial)
        write_note(partial, NOTE)
        return checked(partial, MAX_MEGABYTES, "CLIP")


def write_note(folder: Path, note: str, accuracy: float | None = None) -> None:
    """edit3dgs.json: what stands beside the figures, the words of the captions, and how good the model was found to be."""
    content: dict[str, object] = {"note": note, "words": caption_words()}
    if accuracy is not None:
        content["accuracy_of_twelve_captions"] = round(accuracy, 4)
    (folder / "edit3dgs.json").write_text(
        json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
