"""Tracks a capture of several synchronised cameras whose places are known: a capture without head parameters gets them.

What is written is a capture like the one that was read: the same images, cameras and splits (where it has none, the usual ones),
with masks and head parameters. Timesteps at which no camera sees a face are left out; so are single images that show no face where
one is to be seen. Beside it, as with one camera (`job`): tracking.json, tracking.mp4, and what the detector found in each camera
(landmarks_08.npz ...), so that a broken-off job goes on.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from edit3dgs_ns.capture.cameras import FRONT_CAMERA
from edit3dgs_ns.capture.layout import SPLITS, first_held_out, frame_entry, split_of
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
    detect_frames,
    keep_detections,
    read_detections,
    whole_faces,
)
from edit3dgs_ns.tracking.detector import NUM_LANDMARKS, require_mediapipe
from edit3dgs_ns.tracking.fit import TrackingState
from edit3dgs_ns.tracking.job import motion_of, poor_fit_notes
from edit3dgs_ns.tracking.landmark_transfer import landmark_table_of
from edit3dgs_ns.tracking.multi_capture import MultiCapture
from edit3dgs_ns.tracking.multi_fit import FEWEST_TIMESTEPS, CameraView, MultiFit
from edit3dgs_ns.tracking.orientation import LOOKED_AT, check_upright
from edit3dgs_ns.tracking.output import PREVIEW_FILE, begin_folder, check_folder, write_report
from edit3dgs_ns.tracking.preview import draw_preview
from edit3dgs_ns.tracking.priors import priors_of
from edit3dgs_ns.tracking.surface_points import TRANSLATION

TOWARDS_CAMERA = 50.0
"""Degrees between the face and the line to a camera within which the detector finds every face that is not hidden."""


@dataclass(frozen=True)
class Faces:
    """What was found in the images of all cameras."""

    of_cameras: dict[int, Detections]
    """By the camera's number, one row for each of its images."""
    landmarks: Float[np.ndarray, "C T 478 2"]
    """By camera and timestep; zeros where there is no face, or no image."""
    found: Bool[np.ndarray, "C T"]
    """Where a face, as a whole, is in an image."""


def track_capture(
    path: Path,
    out: Path,
    head: FlameAssets,
    *,
    overwrite: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Track a capture of several cameras and write one with head parameters; returns the report.

    Args:
        path: the capture.
        out: folder to write; a broken-off job of the same capture goes on.
        head: the head model.
        overwrite: replace another capture that was tracked into `out`.
        progress: is told of every image.

    Raises:
        UserError: the capture is damaged, its images are turned, or they show too few faces.
        ExistingFileError: `out` holds something else.
    """
    require_mediapipe()
    capture = MultiCapture.read(path)
    settings = capture.settings(head.source)
    goes_on = check_folder(out, settings, overwrite) == "goes on"
    if not goes_on:
        _check_upright(capture, progress)
    faces = _find_faces(capture, out, settings, overwrite, progress)
    count = int(faces.found.any(0).sum())
    if count < FEWEST_TIMESTEPS:
        raise UserError(
            f"{capture.folder}: a face was found in {count} of {faces.found.shape[1]} timesteps; at least {FEWEST_TIMESTEPS} "
            "are needed."
        )
    table = landmark_table_of(head).thinned()
    first = next(iter(capture.cameras.values()))
    priors = priors_of(head, max(first.width, first.height), capture.fps, float(first.K[0, 0]))
    fit = MultiFit.of(head, table, priors)
    shown = np.flatnonzero(faces.found.any(0))
    views = [
        CameraView(
            camera,
            torch.from_numpy(faces.landmarks[n][shown][:, table.landmarks]),
            torch.from_numpy(faces.found[n][shown]),
        )
        for n, camera in enumerate(capture.cameras.values())
    ]
    progress("Fitting the head", 0, 1)
    state = fit.fit(views, torch.from_numpy(np.diff(np.array(capture.timesteps)[shown]).astype(np.float64)))
    progress("Fitting the head", 1, 1)
    kept_timesteps = [capture.timesteps[t] for t in shown]
    hidden = _hidden(capture, faces, fit, views, state, kept_timesteps)
    kept = {
        key: kept_timesteps.index(key[1])
        for key in sorted(capture.frames)
        if key[1] in set(kept_timesteps) and key not in hidden
    }
    motion = _motion(state, head)
    report = {"settings": settings, **_report(capture, faces, fit, views, state, hidden)}
    _write_images(out, capture, kept, fit, views, state, progress)
    _write_preview(out, head, motion, capture, kept, faces.landmarks[:, shown], progress)
    _write_parameters(out, capture, head, motion, kept)
    write_report(out, report)  # last: with its mark the folder is whole
    return report


def _check_upright(capture: MultiCapture, progress: Progress) -> None:
    for done, camera in enumerate(capture.cameras):
        timesteps = capture.timesteps_of(camera)
        some = timesteps[:: max(1, len(timesteps) // LOOKED_AT)][:LOOKED_AT]
        check_upright(capture.folder, [capture.image(camera, t) for t in some], camera)
        progress("Looking at the cameras", done + 1, len(capture.cameras))


def _find_faces(
    capture: MultiCapture, out: Path, settings: dict[str, Any], overwrite: bool, progress: Progress
) -> Faces:
    """Landmarks in all images; each camera's are kept as soon as they are found."""
    timesteps = capture.timesteps
    landmarks = np.zeros((len(capture.cameras), len(timesteps), NUM_LANDMARKS, 2))
    found = np.zeros(landmarks.shape[:2], bool)
    folder = check_folder(out, settings, overwrite)
    of_cameras: dict[int, Detections] = {}
    kept: set[int] = set()
    done = 0

    def images(camera: int) -> Iterator[np.ndarray]:
        return (capture.image(camera, t) for t in capture.timesteps_of(camera))

    def tell(before: int, count: int) -> None:
        progress("Finding the face", before + count, len(capture.frames))

    for row, (number, camera) in enumerate(capture.cameras.items()):
        columns = [timesteps.index(t) for t in capture.timesteps_of(number)]
        known = read_detections(out, _landmarks_file(number)) if folder == "goes on" else None
        if known is None or len(known.found) != len(columns):
            known = detect_frames(images(number), functools.partial(tell, done))
        of_cameras[number] = whole_faces(known, camera.width, camera.height)
        done += len(columns)
        tell(done, 0)
        landmarks[row, columns] = of_cameras[number].landmarks
        found[row, columns] = of_cameras[number].found
        # Only now: a capture that cannot be tracked replaces nothing.
        if found.any(0).sum() >= FEWEST_TIMESTEPS:
            begin_folder(out, settings, folder)
            folder = "goes on"
            for each in sorted(of_cameras.keys() - kept):
                keep_detections(out, of_cameras[each], _landmarks_file(each))
                kept.add(each)
    return Faces(of_cameras, landmarks, found)


def _landmarks_file(camera: int) -> str:
    return f"landmarks_{camera:02d}.npz"


def _hidden(
    capture: MultiCapture,
    faces: Faces,
    fit: MultiFit,
    views: Sequence[CameraView],
    state: TrackingState,
    timesteps: Sequence[int],
) -> set[tuple[int, int]]:
    """Images (camera, timestep) without a face where the head, as the other cameras see it, shows one to the camera.

    Cameras that never find a face are behind the head, or far away: their images are good to train on.
    """
    hidden = set()
    for (number, detections), view in zip(faces.of_cameras.items(), views, strict=True):
        if not detections.found.any():
            continue
        to_be_seen = fit.shows_face(view, state, TOWARDS_CAMERA)
        without = ~detections.found & ~detections.cut_off
        for timestep in np.array(capture.timesteps_of(number))[without]:
            if timestep in timesteps and to_be_seen[timesteps.index(timestep)]:
                hidden.add((number, int(timestep)))
    return hidden


def _motion(state: TrackingState, head: FlameAssets) -> FlameMotion:
    """In the world of the cameras."""
    motion, _ = motion_of(state)
    translation = state.frames[:, TRANSLATION].float()
    return FlameMotion(
        **{**vars(motion), "translation": translation, "static_offset": torch.zeros(head.num_vertices, 3)}
    )


def _report(
    capture: MultiCapture,
    faces: Faces,
    fit: MultiFit,
    views: Sequence[CameraView],
    state: TrackingState,
    hidden: set[tuple[int, int]],
) -> dict[str, Any]:
    lost = np.flatnonzero(~faces.found.any(0))
    total, count = np.zeros(len(state.frames)), np.zeros(len(state.frames))
    by_camera, left_out, not_fitted = {}, [], []
    for (number, detections), view in zip(faces.of_cameras.items(), views, strict=True):
        timesteps, seen = np.array(capture.timesteps_of(number)), view.found.numpy()
        missed = sorted(t for camera, t in hidden if camera == number)
        by_camera[str(number)] = {
            "frames": int(detections.found.sum()),
            "frames_without_face": timesteps[~detections.found & ~detections.cut_off].tolist(),
            "frames_cut_off": timesteps[detections.cut_off].tolist(),
            "frames_left_out": missed,
        }
        of = f"of {len(timesteps)} of camera {number}"
        left_out += [f"{len(missed)} {of}"] * bool(missed)
        others = int((~detections.found).sum()) - len(missed)
        not_fitted += [f"{others} {of}"] * bool(others)
        if seen.any():
            error = 100 * fit.reprojection(view, state).mean(1).numpy() / detections.eye_distance
            total += np.where(seen, error, 0)
            count += seen
    percent = total / count
    notes = [f"{len(lost)} of {faces.found.shape[1]} timesteps show no face and are left out."] * bool(
        len(lost)
    )
    if left_out:
        notes.append(f"Images that show no face where one is to be seen are left out: {', '.join(left_out)}.")
    if not_fitted:
        notes.append(
            f"Images whose face is turned away, or cut off by the image's edge, tell nothing of the pose: {', '.join(not_fitted)}."
        )
    question = "are the cameras' places in metres, and their images of the same moments?"
    notes += poor_fit_notes(float(percent.mean()), question)
    return {
        "frames": len(state.frames),
        "cameras": len(views),
        "frames_without_face": [capture.timesteps[t] for t in lost],
        "by_camera": by_camera,
        "fps": capture.fps,
        "reprojection_percent": float(percent.mean()),
        "worst_frame": capture.timesteps[int(np.flatnonzero(faces.found.any(0))[percent.argmax()])],
        "worst_percent": float(percent.max()),
        "notes": notes,
    }


# -- files ----------------------------------------------------------------------------------------------------------------


def _write_images(
    out: Path,
    capture: MultiCapture,
    kept: dict[tuple[int, int], int],
    fit: MultiFit,
    views: Sequence[CameraView],
    state: TrackingState,
    progress: Progress,
) -> None:
    """The images and masks of all cameras; the capture's own masks are taken as they are.

    Args:
        kept: timestep that is written, by camera and timestep of the capture.
    """
    done = 0

    def tell(before: int, count: int) -> None:
        progress("Writing images", before + count, len(kept))

    for number, view in zip(capture.cameras, views, strict=True):
        timesteps = {old: new for (camera, old), new in kept.items() if camera == number}
        if not timesteps:
            continue
        files = [ViewFiles.at(out, new, number) for new in timesteps.values()]
        images = (View(capture.image(number, t), capture.mask(number, t)) for t in timesteps)
        middles = fit.face_pixels(view, state).mean(1).numpy()[list(timesteps.values())]
        own = any(capture.mask(number, t) is not None for t in timesteps)
        write_views(files, images, middles, functools.partial(tell, done), clean=not own)
        done += len(files)
        tell(done, 0)


def _write_parameters(
    out: Path,
    capture: MultiCapture,
    head: FlameAssets,
    motion: FlameMotion,
    kept: dict[tuple[int, int], int],
) -> None:
    write_head_parameters(out, motion)
    given = set(capture.splits.values()) != {"train"}
    held_out_from = first_held_out(len(motion))
    entries: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for (camera, timestep), t in kept.items():
        entry = frame_entry("", out.name, t, t, camera, capture.cameras[camera], single=True)
        entry["timestep_index_original"] = timestep
        usual = split_of(
            FRONT_CAMERA if camera == capture.front else FRONT_CAMERA + 1,
            t >= held_out_from,
            len(capture.cameras),
        )
        entries[capture.splits[camera, timestep] if given else usual].append(entry)
    write_transforms(out, entries, capture.cameras, head.name, capture.fps)


def _write_preview(
    out: Path,
    head: FlameAssets,
    motion: FlameMotion,
    capture: MultiCapture,
    kept: dict[tuple[int, int], int],
    landmarks: Float[np.ndarray, "C T 478 2"],
    progress: Progress,
) -> None:
    """What the front camera, or else the one with the most images, sees."""
    of_cameras = [number for number, _ in kept]
    front = capture.front if capture.front in of_cameras else max(capture.cameras, key=of_cameras.count)
    rows = [t for (number, _), t in kept.items() if number == front]
    shown = motion.with_pose(motion.pose(rows))
    images = [ViewFiles.at(out, t, front).image for t in rows]
    points = landmarks[list(capture.cameras).index(front)][rows]
    draw_preview(
        out / PREVIEW_FILE, head, shown, capture.cameras[front], images, points, capture.fps, progress
    )
