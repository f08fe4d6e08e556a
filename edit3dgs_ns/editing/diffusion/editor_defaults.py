"""Default guidance scales, steps and resolution of an editing model, and the instructions that it was trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.noise_levels import SHARED_UNTIL
from edit3dgs_ns.errors import UserError


@dataclass(frozen=True)
class EditorDefaults:
    """Values used where a request gives none. A folder's `edit3dgs.json` may set its own."""

    guidance_scale: float | None = 7.5
    """Weight of the prompt; None for a model that has none."""
    image_guidance_scale: float | None = 1.5
    """Weight of the original image; None for a model that has none."""
    steps: int = 20
    resolution: int | None = None
    """Longer side, in pixels, that the images are scaled to for the model; None leaves their size alone."""
    share_prediction_until: float = SHARED_UNTIL
    """Noise level down to which views that agree share their predictions."""
    text_options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the model's pipeline that concern its text encoder: `max_sequence_length`, `text_encoder_out_layers`."""
    instructions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Wordings of the instructions that the model was taught, by edit; empty when it takes any prompt."""
    examples: dict[str, str] = field(default_factory=dict)
    """One instruction for each kind of edit, where there are too many edits to list."""

    def settings_for(self, request: EditRequest) -> dict[str, Any]:
        """The scales and steps of a request, with what it leaves open filled in, as JSON values."""

        def pick(name: str) -> Any:
            value = getattr(request, name)
            return value if value is not None else getattr(self, name)

        names = ("guidance_scale", "image_guidance_scale", "steps")
        return {name: pick(name) for name in names} | {"noise": request.noise, "seed": request.seed}

    def check_scales(self, values: Any, name: str, title: str) -> None:
        """Refuse a weight that the model does not have.

        Args:
            values: has `guidance_scale` and `image_guidance_scale`, None where the model's own is meant.
            name: the model's.
            title: of its family.

        Raises:
            ValueError: the message names the option and the family.
        """
        for scale in ("guidance_scale", "image_guidance_scale"):
            value = getattr(values, scale)
            if value is not None and getattr(self, scale) is None:
                raise UserError(
                    f"--pipeline.editor.{scale.replace('_', '-')} {value:g}: {name} is {title}, which has no such weight. Leave it "
                    "out."
                )

    def unknown_instruction(self, prompt: str, name: str) -> str | None:
        """A warning that lists the known instructions when `prompt` is none of them; None when all is well.

        Args:
            prompt: an instruction.
            name: the model's, for the message.
        """
        known = self.instructions
        spoken = _normalised(prompt)
        if not known or any(spoken == _normalised(w) for wordings in known.values() for w in wordings):
            return None
        examples = self.examples or {edit: wordings[0] for edit, wordings in known.items() if wordings}
        listing = "\n".join(f'  {edit}: "{example}"' for edit, example in examples.items())
        return (
            f'The editor {name!r} was never taught "{prompt}"; its result may be anything or nothing. It knows:\n{listing}\n'
            "For any other instruction use a real model: --pipeline.editor.model timbrooks/instruct-pix2pix."
        )


def _normalised(prompt: str) -> str:
    return " ".join(prompt.lower().strip().strip(".!?").split())
