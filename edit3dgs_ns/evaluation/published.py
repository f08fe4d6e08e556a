"""Published scores, shown beside ours."""

from __future__ import annotations

PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "Edit3DGS, Table 1": {
        "novel_view": (0.269, 0.969),
        "self_reenactment": (0.071, 0.957),
        "cross_reenactment": (0.074, 0.945),
    },
    "GaussianAvatar-Editor, as given there": {
        "novel_view": (0.258, 0.978),
        "self_reenactment": (0.076, 0.954),
        "cross_reenactment": (0.072, 0.965),
    },
}
"""(CLIP-S, CLIP-C) of each setting, by source."""
PUBLISHED_SETUP = (
    "Published figures: their authors' subjects of NeRSemble (real people, FLAME), prompts, captions and frames, "
    "with CLIP ViT-L/14."
)
_REFERENCE_CLIP = "clip-vit-large-patch14"


def setup_difference(clip: str, synthetic: bool) -> str:
    """A sentence on the differences between the set-up of a report and that of the published scores.

    Args:
        clip: name of the CLIP.
        synthetic: whether the capture was made by `edit3dgs capture`.
    """
    different = ["captions and frames"]
    if synthetic:
        different.insert(0, "a synthetic head instead of real people")
    if _REFERENCE_CLIP not in clip:
        different.insert(0, f"another CLIP ({clip})")
    return (
        f"{PUBLISHED_SETUP} Here differ: {', '.join(different)}; so they are a reference, not a comparison."
    )
