"""Does what a capture says agree with what its images show? Names what is wrong, and how to mend it.

    diagnosis = diagnose(folder, frames, assets)
    for fault in diagnosis.faults: print(fault.kind, fault.what)
    write_repaired(folder, out, diagnosis.repairs)

The head is posed and projected into a few images (`head_views`), cameras that do not see it are explained (`camera_faults`), then
images and masks are looked at (`image_faults`). What is found first is mended before the next is looked for, so that several faults
are told apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from edit3dgs_ns.capture.camera_faults import CameraFault, find_camera_fault, sized, turned
from edit3dgs_ns.capture.head_views import HeadView, camera_of, sample_views
from edit3dgs_ns.capture.image_faults import ImageFault, frame_faults, view_faults
from edit3dgs_ns.capture.repair import Repair, camera_repair, repaired
from edit3dgs_ns.capture.transforms import FrameEntry
from edit3dgs_ns.flame.assets import FlameAssets

_ROUNDS = 3
"""Faults of the cameras that are looked for one after the other."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault of a capture."""

    kind: str
    what: str
    """Begins with "cameras", "images" or "masks"."""
    advice: str
    repair: Repair | None
    serious: bool = True


@dataclass
class Diagnosis:
    """What was found."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Fine, but to be known."""

    @property
    def repairs(self) -> list[Repair]:
        """In the order in which they have to be done."""
        return [fault.repair for fault in self.faults if fault.repair is not None]


def diagnose(frames: Sequence[FrameEntry], assets: FlameAssets, all_frames: bool = True) -> Diagnosis:
    """Looks at the images of a capture.

    Args:
        frames: of all splits.
        assets: the head that it was tracked with.
        all_frames: look at many images too, for doubled and blurred ones; otherwise at a few.
    """
    diagnosis = Diagnosis()
    if all_frames:
        for fault in frame_faults(frames):
            _add(diagnosis, fault)
    frames = repaired(frames, diagnosis.repairs)
    views = sample_views(frames, assets)
    if len({frame.camera_index for frame in frames}) == 1:
        diagnosis.notes.append("one camera: the avatar is good where it shows the head")
    if not views:
        return diagnosis
    mended = _mend_masks_and_size(diagnosis, frames, views, assets)
    if sum(view.has_foreground for view in mended) < len(mended) / 2:
        diagnosis.notes.append(
            "neither masks nor a plain background: whether the cameras see the head is not checked"
        )
        return diagnosis
    for _ in range(_ROUNDS):
        found, _fit = find_camera_fault(mended)
        if found is None:
            break
        known = found.kind != "unknown"
        repair = _camera_repair(found) if known else None
        advice = (
            ""
            if known
            else "Look at the cameras' matrices, unit and focal length, and at the head's translation."
        )
        diagnosis.faults.append(Fault(found.kind, f"cameras {found.what}", advice, repair))
        if repair is None:
            break
        frames = repaired(frames, [repair])
        mended = sample_views(frames, assets)
    else:
        return diagnosis
    if not any(fault.kind == "unknown" for fault in diagnosis.faults):
        for fault in view_faults(mended):
            if fault.kind not in ("masks", "background"):
                _add(diagnosis, fault)
    return diagnosis


def _camera_repair(fault: CameraFault) -> Repair:
    what = f"cameras that {fault.what}"
    return (
        camera_repair(what, fault.change) if fault.frame_change is None else Repair(what, fault.frame_change)
    )


def _mend_masks_and_size(
    diagnosis: Diagnosis, frames: list[FrameEntry], views: list[HeadView], assets: FlameAssets
) -> list[HeadView]:
    """What has to be right before cameras can be judged by silhouettes; changes `frames`."""
    repairs = []
    for fault in view_faults(views):
        if fault.kind in ("masks", "background"):
            _add(diagnosis, fault)
            repairs += [fault.repair] if fault.repair is not None else []
    ratio, share = Counter(_ratio(view) for view in views).most_common(1)[0]
    if share > len(views) / 2 and ratio != (1.0, 1.0):
        wide, high = ratio
        seen = views[0]
        found = f"{seen.size[0]} x {seen.size[1]} pixels; the transforms say {seen.frame.width} x {seen.frame.height}"
        if seen.size == (seen.frame.height, seen.frame.width):
            repair = camera_repair("cameras of images that were turned by a quarter", turned(1))
            diagnosis.faults.append(Fault("turned", f"images are turned: {found}", "", repair))
        else:
            repair = camera_repair("focal lengths for the size of the images", sized(wide, high))
            diagnosis.faults.append(Fault("image size", f"images have {found}", "", repair))
        repairs.append(repair)
    if not repairs:
        return views
    frames[:] = repaired(frames, repairs)
    return sample_views(frames, assets)


def _ratio(view: HeadView) -> tuple[float, float]:
    camera = camera_of(view.frame)
    return round(view.size[0] / camera.width, 4), round(view.size[1] / camera.height, 4)


def _add(diagnosis: Diagnosis, fault: ImageFault) -> None:
    subject = "masks" if fault.kind == "masks" else "images"
    diagnosis.faults.append(
        Fault(fault.kind, f"{subject} {fault.what}", fault.advice, fault.repair, fault.serious)
    )
