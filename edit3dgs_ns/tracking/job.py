"""Tracks a video: frames -> landmarks -> head parameters -> a capture that `nersemble-data` reads.

OUT/images/00000_00.png ...     the square around the head
OUT/fg_masks/00000_00.png ...   the person
OUT/flame_param/00000.npz ...   shape, expression and pose of each frame
OUT/canonical_flame_param.npz   the head with its mouth a little open
OUT/transforms_{train,val,test}.json   one camera; the last fifth is held out for test, val is empty
OUT/tracking.json               what was asked for, and how well it went
OUT/tracking.mp4                the frames with the fitted mesh and the landmarks drawn over them
OUT/landmarks.npz               what the detector found, so that a broken-off job goes on
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.capture.images import read_image, read_mask
from edit3dgs_ns.capture.layout import (
    SPLITS,
    first_held_out,
    frame_entry,
    split_of,
)
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.tracking.capture_files import (
    View,
    ViewFiles,
    write_head_parameters,
    write_transforms,
    write_views,
)
from edit3dgs_ns.tracking.detections import (
    Detections,
    Progress,
    check_detections,
    detect_video,
    keep_detections,
    left_out_notes,
    person_notes,
    read_detections,
    whole_faces,
)
from edit3dgs_ns.tracking.detector import require_mediapipe
from edit3dgs_ns.tracking.fit import HeadFit, Observations, TrackingState
from edit3dgs_ns.tracking.foreground import mask_files
from edit3dgs_ns.tracking.framing import Crop, crop_around
from edit3dgs_ns.tracking.hair_offsets import chosen_timesteps, hair_offsets, names_hair
from edit3dgs_ns.tracking.landmark_transfer import landmark_table_of
from edit3dgs_ns.tracking.outline import OutlineTerm
from edit3dgs_ns.tracking.output import (
    LANDMARKS_FILE,
    PREVIEW_FILE,
    TrackingOptions,
    begin_folder,
    check_folder,
    settings_of,
    write_report,
)
from edit3dgs_ns.tracking.parallel import read_ahead
from edit3dgs_ns.tracking.photometric import FaceImages
from edit3dgs_ns.tracking.preview import draw_preview
from edit3dgs_ns.tracking.priors import priors_of
from edit3dgs_ns.tracking.surface_points import EYES, JAW, NECK, NUM_POSE, ROTATION, TRANSLATION
from edit3dgs_ns.tracking.video import VideoInfo, describe_video, read_frames

POOR_FIT = 3.0
"""Percent of the distance between the eyes that landmarks are missed by, on average, beyond which the user is warned."""


@dataclass(frozen=True)
class TrackingResult:
    """A tracked video."""

    motion: FlameMotion
    """Of the frames that show a face, in the world of `camera`."""
    camera: Camera
    frames: tuple[int, ...]
    """Their numbers in the video."""
    fps: float
    report: dict
    """What tracking.json holds."""


def fit_video(
    head: FlameAssets,
    detections: Detections,
    crop: Crop,
    video: VideoInfo,
    focal: float | None,
    images: Iterable[UInt8[np.ndarray, "size size 3"]] | None = None,
    masks: Path | None = None,
) -> tuple[HeadFit, Observations, TrackingState]:
    """Fit the head to the frames with a face, on the cropped images.

    Args:
        head: the head model.
        detections: landmarks of the whole video.
        crop: its square that is fitted.
        video: its size and frame rate.
        focal: in pixels of the video's frames, if known.
        images: the cropped frames with a face; None fits the landmarks alone.
        masks: folder of these frames' masks, in their size: with images, the outline is fitted as well.
    """
    table = landmark_table_of(head).thinned()
    longer = max(video.width, video.height) * crop.scale
    priors = priors_of(head, longer, video.fps, focal * crop.scale if focal else None)
    fit = HeadFit.of(head, table, priors)
    shown = detections.landmarks[detections.found][:, table.landmarks]
    center = crop.points(np.array([video.width / 2, video.height / 2]))
    observed = Observations(
        torch.from_numpy(crop.points(shown)),
        torch.ones(len(shown), dtype=torch.bool),
        torch.from_numpy(center),
        torch.from_numpy(np.diff(np.flatnonzero(detections.found)).astype(np.float64)),
    )
    faces = None
    if images is not None:
        every = crop.points(detections.landmarks[detections.found])
        faces = FaceImages.of(images, every, detections.eye_distance * crop.scale)

    def outline(state: TrackingState) -> OutlineTerm:
        assert masks is not None
        motion, position = motion_of(state)
        camera = _camera(position, state.focal, center, crop.size)
        every = _read_masks(masks, range(len(shown)), camera)
        return OutlineTerm.of(head, _with_hair(masks, head, motion, camera), camera, every)

    outlined = masks is not None and names_hair(head)
    return fit, observed, fit.fit(observed, faces, outline if outlined else None)


def motion_of(state: TrackingState) -> tuple[FlameMotion, Float[np.ndarray, " 3"]]:
    """The fitted motion, moved so that the head is about the origin; and what it was moved by (metres)."""
    frames = state.frames.float()
    shift = frames[:, TRANSLATION].median(dim=0).values
    motion = FlameMotion(
        shape=state.shape.float(),
        static_offset=None,
        expr=frames[:, NUM_POSE:].contiguous(),
        rotation=frames[:, ROTATION].contiguous(),
        neck_pose=frames[:, NECK].contiguous(),
        jaw_pose=frames[:, JAW].contiguous(),
        eyes_pose=frames[:, EYES].contiguous(),
        translation=frames[:, TRANSLATION] - shift,
    )
    return motion, -shift.double().numpy()


def track_video(
    path: Path,
    out: Path,
    head: FlameAssets,
    options: TrackingOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> TrackingResult:
    """Track a video and write a capture.

    Args:
        path: a video, or a folder of its frames.
        out: folder of the capture; a broken-off job with the same options goes on.
        overwrite: replace a capture of other options that is there.
        progress: is told of every frame.

    Raises:
        UserError: an option, the video or its content; before anything is written if that can be known.
        ExistingFileError: `out` holds something else.
    """
    options = options or TrackingOptions()
    options.validate()
    require_mediapipe()
    video = describe_video(path, options.part)
    settings = settings_of(path, head.source, options)
    folder = check_folder(out, settings, overwrite)
    detections = read_detections(out) if folder == "goes on" else None
    if detections is None:
        detections = detect_video(video, progress)
    detections = whole_faces(detections, video.width, video.height)
    check_detections(detections, video)
    _check_masks(options, detections)
    # Only now: a video that cannot be tracked replaces nothing.
    begin_folder(out, settings, folder)
    keep_detections(out, detections)
    crop = crop_around(detections.landmarks[detections.found], video.width, video.height, options.size)
    _write_images(out, video, options, detections, crop, progress)
    progress("Fitting the head", 0, 1)
    shown = int(detections.found.sum())
    images = (read_image(ViewFiles.at(out, t).image)[0] for t in range(shown))
    masks = out / "fg_masks"
    fit, observed, state = fit_video(head, detections, crop, video, options.focal, images, masks)
    progress("Fitting the head", 1, 1)
    motion, position = motion_of(state)
    camera = _camera(position, state.focal, observed.center.numpy(), options.size)
    report = {"settings": settings, **_report(fit, observed, state, detections, crop, video)}
    motion = _with_hair(masks, head, motion, camera)
    _write_preview(out, head, motion, camera, detections, crop, video, progress)
    _write_parameters(out, head, motion, camera, np.flatnonzero(detections.found), video.fps)
    write_report(out, report)  # last: with its mark the folder is whole
    frames = tuple(int(n) for n in np.flatnonzero(detections.found))
    return TrackingResult(motion, camera, frames, video.fps, report)


def _check_masks(options: TrackingOptions, detections: Detections) -> None:
    if options.masks is None:
        return
    masks, frames = len(mask_files(options.masks)), len(detections.found)
    if not frames <= masks <= frames + 1:  # rates that are rounded may end a frame earlier
        raise UserError(
            f"--masks {options.masks}: masks: {masks}, frames of the video: {frames}. Expected one for each."
        )


def _camera(position: np.ndarray, focal: float, center: np.ndarray, size: int) -> Camera:
    c2w = np.eye(4)
    c2w[:3, 3] = position
    K = np.array([[focal, 0.0, center[0]], [0.0, focal, center[1]], [0.0, 0.0, 1.0]])
    return Camera(c2w, K, size, size)


def _report(
    fit: HeadFit,
    observed: Observations,
    state: TrackingState,
    detections: Detections,
    crop: Crop,
    video: VideoInfo,
) -> dict:
    percent = 100 * fit.reprojection(observed, state).mean(1).numpy() / (detections.eye_distance * crop.scale)
    cut_off = np.flatnonzero(detections.cut_off)
    lost = np.flatnonzero(~detections.found & ~detections.cut_off)
    notes = list(video.notes)
    notes += left_out_notes(detections)
    notes += person_notes(detections, video)
    if detections.most_faces > 1:
        notes.append(
            f"Up to {detections.most_faces} faces are in the frames: the one that was the largest when a face was first found "
            "was followed."
        )
    notes += poor_fit_notes(float(percent.mean()), "is the face upright, sharp and not hidden?")
    return {
        "frames": int(detections.found.sum()),
        "frames_without_face": [int(n) for n in lost],
        "frames_cut_off": [int(n) for n in cut_off],
        "fps": video.fps,
        "focal_length_pixels": state.focal / crop.scale,
        "crop": asdict(crop),
        "reprojection_percent": float(percent.mean()),
        "worst_frame": int(np.flatnonzero(detections.found)[percent.argmax()]),
        "worst_percent": float(percent.max()),
        "notes": notes,
    }


def poor_fit_notes(percent: float, question: str) -> list[str]:
    """What is said of a fit that misses the landmarks by so many percent of the distance between the eyes, on average.

    Args:
        question: names what is usually the cause.
    """
    if percent <= POOR_FIT:
        return []
    return [
        f"The head does not fit: landmarks are missed by {percent:.1f} % of the distance between the eyes. Look at "
        f"{PREVIEW_FILE}; {question}"
    ]


# -- files ----------------------------------------------------------------------------------------------------------------


def _write_images(
    out: Path,
    video: VideoInfo,
    options: TrackingOptions,
    detections: Detections,
    crop: Crop,
    progress: Progress,
) -> None:
    numbers = np.flatnonzero(detections.found)
    files = [ViewFiles.at(out, t) for t in range(len(numbers))]
    faces = crop.points(detections.landmarks[numbers].mean(1))
    views = _views(video, options, detections, crop)
    write_views(files, views, faces, lambda done: progress("Writing images", done, len(numbers)))
    if not files[-1].mask.is_file():
        raise UserError(
            f"{video.path}: has fewer frames than {out / LANDMARKS_FILE} is of. Delete that file and track again."
        )


def _views(video: VideoInfo, options: TrackingOptions, detections: Detections, crop: Crop) -> Iterator[View]:
    """The frames with a face, cropped, with the user's masks."""
    own = None if options.masks is None else mask_files(options.masks)
    for number, frame in enumerate(read_ahead(read_frames(video))):
        if number >= len(detections.found) or not detections.found[number]:
            continue
        mask = None
        if own is not None:
            # The crop fills with white what lies outside of a frame: nobody is there.
            outside = 255 - read_mask(own[number], (video.width, video.height))
            mask = 1 - crop.image(outside) / np.float32(255)
        yield View(crop.image(frame), mask)


def _read_masks(folder: Path, timesteps: Iterable[int], camera: Camera) -> Iterator[np.ndarray]:
    """Share of each pixel that shows the person, in [0, 1]."""
    size = (camera.width, camera.height)
    return (read_mask(folder / f"{t:05d}_00.png", size) / np.float32(255) for t in timesteps)


def _with_hair(masks: Path, head: FlameAssets, motion: FlameMotion, camera: Camera) -> FlameMotion:
    """The motion of the head with its hair, whose outline the masks show."""
    timesteps = chosen_timesteps(motion)
    offset = hair_offsets(head, motion, camera, list(_read_masks(masks, timesteps, camera)), timesteps)
    return replace(motion, static_offset=torch.from_numpy(offset))


def _write_preview(
    out: Path,
    head: FlameAssets,
    motion: FlameMotion,
    camera: Camera,
    detections: Detections,
    crop: Crop,
    video: VideoInfo,
    progress: Progress,
) -> None:
    landmarks = crop.points(detections.landmarks[detections.found])
    images = [ViewFiles.at(out, t).image for t in range(len(motion))]
    draw_preview(out / PREVIEW_FILE, head, motion, camera, images, landmarks, video.fps, progress)


def _write_parameters(
    out: Path,
    head: FlameAssets,
    motion: FlameMotion,
    camera: Camera,
    numbers: np.ndarray,
    fps: float,
) -> None:
    write_head_parameters(out, motion)
    held_out_from = first_held_out(len(motion))
    entries: dict[str, list] = {split: [] for split in SPLITS}
    for t in range(len(motion)):
        entry = frame_entry("", out.name, t, t, 0, camera, single=True)
        entry["timestep_index_original"] = int(numbers[t])
        entries[split_of(0, t >= held_out_from, 1)].append(entry)
    write_transforms(out, entries, {0: camera}, head.name, fps)
