"""Interface of an editor: a batch of views and a prompt in, the edited views out.

A request and its result hold numpy arrays and plain values only, so that they can be pickled, stored and sent
to another machine. A request is the *whole* batch: an editor may use all views of it together.

Conventions: images are float32 RGB in [0, 1] on white; `c2w` is camera-to-world with OpenGL axes (x right, y
    up, looking along -z), metres; `K` is in pixels of the images.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.errors import UserError

MOST_CHARACTERS = 4000
"""Of a prompt."""
Progress = Callable[[int, int], None]
"""`progress(done, total)`: what is done and to do of the batch: encodings, denoising steps and decodings of all its views."""


Finished = Callable[[int, np.ndarray], None]
"""`finished(view, image)`: the view at this position of the request is final, so that it can be kept before
the others are done."""


@dataclass
class KeepOptions:
    """How much of the original is put back where a request's `keep_mask` says, and during which denoising steps."""

    keep_strength: float = 1.0
    """How much of the original is put back where it is kept, from 0 to 1."""
    keep_from: float = 0.5
    """Share of a round's denoising steps after which the original begins to be put back."""
    keep_until: float = 1.0
    """Share of a round's denoising steps after which it is put back no more."""

    def keep_options(self) -> KeepOptions:
        """Returns a copy without the fields that a subclass adds."""
        return KeepOptions(**{option.name: getattr(self, option.name) for option in fields(KeepOptions)})

    def in_range(self) -> bool:
        """Whether all are from 0 to 1, and from is not after until."""
        return 0 <= self.keep_strength <= 1 and 0 <= self.keep_from <= self.keep_until <= 1


@dataclass(frozen=True, eq=False)
class EditRequest:
    """A batch of views to edit as one.

    Raises:
        ValueError: a field has the wrong shape, type or range; the message names it.
    """

    prompt: str
    """The instruction, for example "Make him look older"."""
    images: Float[np.ndarray, "views height width 3"]
    """The views as the avatar renders them now; the diffusion starts from these."""
    originals: Float[np.ndarray, "views height width 3"]
    """The same views before any edit; the diffusion is conditioned on these."""
    c2w: Float[np.ndarray, "views 4 4"] | None = None
    """Camera-to-world of every view."""
    K: Float[np.ndarray, "views 3 3"] | None = None
    """Intrinsics of every view."""
    timesteps: tuple[int, ...] = ()
    """Timestep of every view; all 0 when not given. One batch may span several."""
    canonical: Float[np.ndarray, "views height width 3"] | None = None
    """Rest position on the canonical head of what every pixel shows, in metres; NaN where a pixel shows nothing of the
    avatar. Pixels of any two views and timesteps show the same surface point where these agree."""
    view_ids: tuple[int, ...] = ()
    """A number for every view that stays the same from request to request; 0, 1, ... when not given."""
    anchors: tuple[int, ...] = ()
    """Positions of views that are key views at every step: an appearance carried along from earlier requests, which the
    other views are to follow. They are edited like the others, or returned as they are where that is all the editor needs."""
    seed: int = 0
    """Seed of the noise."""
    shared_noise: bool = True
    """All views start from the same noise, so that what the noise decides (a hue, a style) agrees between
    them."""
    noise: float = 1.0
    """How far the current images are noised before denoising, as a fraction of the schedule in (0, 1]; 1 is
    pure noise."""
    guidance_scale: float | None = None
    """Weight of the prompt (s_T); None for the editor's own."""
    image_guidance_scale: float | None = None
    """Weight of the original image (s_I); None for the editor's own."""
    keep_mask: Float[np.ndarray, "views height width"] | None = None
    """1 where a view keeps what its original shows (the expression: eyes and mouth), 0 where it is edited."""
    keep_options: KeepOptions = field(default_factory=KeepOptions)
    """How much of the original is put back under the mask, and when."""
    steps: int | None = None
    """Denoising steps for the whole schedule, of which a noise below 1 takes its share; None for the editor's
    own."""

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise UserError(
                'The prompt is empty. Give an instruction, for example --prompt "Make him look older".'
            )
        check_prompt(self.prompt)
        _check_images("images", self.images)
        _check_images("originals", self.originals)
        if self.images.shape != self.originals.shape:
            raise UserError(
                f"images {self.images.shape} and originals {self.originals.shape} differ in shape."
            )
        views = self.num_views
        for name, matrix, size in (("c2w", self.c2w, 4), ("K", self.K, 3)):
            if matrix is not None and matrix.shape != (views, size, size):
                raise UserError(f"{name} has shape {matrix.shape}; expected {(views, size, size)}.")
        self._check_geometry()
        self._check_retention()
        if not self.view_ids:
            object.__setattr__(self, "view_ids", tuple(range(views)))
        if len(set(self.view_ids)) != views:
            raise UserError(f"view_ids {self.view_ids}: expected {views} different numbers.")
        if not 0.0 < self.noise <= 1.0:
            raise UserError(f"noise {self.noise}: expected a fraction of the schedule in (0, 1].")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"steps {self.steps}: expected at least 1.")
        for name, scale in (
            ("guidance_scale", self.guidance_scale),
            ("image_guidance_scale", self.image_guidance_scale),
        ):
            if scale is not None and not (np.isfinite(scale) and scale >= 0):
                raise UserError(f"{name} {scale}: expected a number of at least 0.")

    def _check_geometry(self) -> None:
        views = self.num_views
        if not self.timesteps:
            object.__setattr__(self, "timesteps", (0,) * views)
        if len(self.timesteps) != views:
            raise UserError(f"timesteps {self.timesteps}: expected one for each of {views} views.")
        if len({*self.anchors} & {*range(views)}) != len(self.anchors) or len(self.anchors) >= views:
            raise UserError(
                f"anchors {self.anchors}: expected different positions among the {views} views, and not all of them."
            )
        if self.canonical is not None and self.canonical.shape != self.images.shape:
            raise UserError(f"canonical has shape {self.canonical.shape}; expected {self.images.shape}.")

    def _check_retention(self) -> None:
        mask, expected = self.keep_mask, self.images.shape[:3]
        if mask is not None:
            if mask.shape != expected:
                raise UserError(f"keep_mask has shape {mask.shape}; expected {expected}.")
            low, high = float(mask.min()), float(mask.max())
            if not (low >= 0.0 and high <= 1.0):
                raise UserError(f"keep_mask: expected values in [0, 1], found {low:.3g} to {high:.3g}.")
        if not self.keep_options.in_range():
            given = self.keep_options
            raise UserError(
                f"keep_strength {given.keep_strength}, keep_from {given.keep_from} and keep_until {given.keep_until}: "
                "expected numbers from 0 to 1, and from <= until."
            )

    @property
    def num_views(self) -> int:
        """Views in the batch."""
        return self.images.shape[0]

    def part(self, views: Sequence[int]) -> EditRequest:
        """The request for some of its views.

        Args:
            views: their positions.
        """

        def pick(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[list(views)]

        anchors = tuple(place for place, view in enumerate(views) if view in self.anchors)
        return replace(
            self,
            images=self.images[list(views)],
            originals=self.originals[list(views)],
            c2w=pick(self.c2w),
            K=pick(self.K),
            canonical=pick(self.canonical),
            keep_mask=pick(self.keep_mask),
            timesteps=tuple(self.timesteps[view] for view in views),
            view_ids=tuple(self.view_ids[view] for view in views),
            anchors=anchors if len(anchors) < len(views) else (),
        )

    def view_seed(self, view: int) -> int:
        """Seed of the noise of the view at position `view`; it depends on the view's id, not on its
        neighbours."""
        return self.seed if self.shared_noise else self.seed + self.view_ids[view]


@dataclass(frozen=True, eq=False)
class EditResult:
    """The edited views, in the order of the request."""

    images: Float[np.ndarray, "views height width 3"]
    """Edited views in [0, 1], of the size that was asked for."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What the editor used: its name, scales, steps, timesteps. JSON values only."""
    unet_evaluations: int = 0
    """Evaluations of the UNet, counted per view and guidance branch."""
    seconds: float = 0.0
    """Wall time."""

    def __post_init__(self) -> None:
        # Values that are not finite are a matter of the judge, which lets the view be edited again.
        _check_images("images", self.images, np.isfinite(self.images))


class Editor(Protocol):
    """Edits images as a prompt says."""

    @property
    def settings(self) -> dict[str, Any]:
        """Name and options of the editor as JSON values: two editors with equal settings give equal
        results."""
        ...

    @property
    def views_depend(self) -> bool:
        """Whether the edit of a view depends on the other views of its request; a batch is then always requested as a whole."""
        ...

    def unknown_instruction(self, prompt: str) -> str | None:
        """A warning when the editor was never taught this instruction and says so; None when all is well."""
        ...

    def edit(
        self, request: EditRequest, progress: Progress | None = None, finished: Finished | None = None
    ) -> EditResult:
        """Edit a batch. An editor whose views depend on each other need not call `finished`."""
        ...


@runtime_checkable
class KnowsCost(Protocol):
    """An `Editor` that says beforehand what a view will cost; None where it asks another one, which cannot say."""

    @property
    def weight_bytes(self) -> int | None:
        """Memory that its weights take."""
        ...

    def evaluations_per_view(
        self,
        noise: float,
        steps: int | None,
        guidance_scale: float | None,
        image_guidance_scale: float | None,
    ) -> int | None:
        """About how many evaluations of the network a view takes, for a request with these values."""
        ...


def cost_of(editor: Any) -> KnowsCost | None:
    """Who says what an editor costs: itself, or the one that it wraps (`inner`); None for nobody."""
    while not isinstance(editor, KnowsCost):
        editor = getattr(editor, "inner", None)
        if editor is None:
            return None
    return editor


def requests_at_once(editor: Any) -> int:
    """How many requests an editor works on at the same time, when as many threads ask: its `requests_at_once`, else one."""
    return int(getattr(editor, "requests_at_once", 1))


def check_finite(image: Float[np.ndarray, "height width 3"], view_id: int) -> None:
    """Refuse an edited view that holds NaN or infinity: as a stored or trained image it would be black.

    Raises:
        ValueError: it does; the message names the view and what to do.
    """
    bad = image.size - int(np.isfinite(image).sum())
    if bad:
        raise UserError(
            f"The edit of view {view_id} came out with {bad} of {image.size} values that are not finite, and is not stored. "
            "Half precision can overflow: try --pipeline.editor.dtype float32 (or bfloat16). If that gives the same, the "
            "model's weights are damaged."
        )


def check_prompt(prompt: str) -> None:
    """Raises a ValueError for a prompt that cannot be stored, or that would control a terminal."""
    if len(prompt) > MOST_CHARACTERS:
        raise UserError(f"The prompt has {len(prompt)} characters; expected at most {MOST_CHARACTERS}.")
    wrong = [
        letter for letter in prompt if unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t"
    ]
    if wrong:
        raise UserError(
            f"The prompt has the character {wrong[0]!a} in it, which is no text. Write it without."
        )


def _check_images(name: str, images: np.ndarray, where: Any = True) -> None:
    if not isinstance(images, np.ndarray) or images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        shape = getattr(images, "shape", type(images).__name__)
        raise UserError(
            f"{name}: expected an array (views, height, width, 3) with at least one view, found {shape}."
        )
    if images.dtype != np.float32:
        raise UserError(f"{name}: expected float32 in [0, 1], found {images.dtype}.")
    low, high = float(images.min(initial=0, where=where)), float(images.max(initial=0, where=where))
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise UserError(f"{name}: expected values in [0, 1], found {low:.3g} to {high:.3g}.")
