"""Tracks a capture of several synchronised cameras whose places are known: a capture without head parameters gets them.

What is written is a capture like the one that was read: the same images, cameras and splits (where it has none, the usual ones),
with masks and head parameters. Timesteps at which no camera sees a face are left out. The folder appears when it is whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from edit3dgs_ns.capture.cameras import FRONT_CAMERA, Camera
from edit3dgs_ns.capture.images import read_image, read_mask
from edit3dgs_ns.capture.layout import (
    SPLITS,
    first_held_out,
    frame_entry,
    png_bytes,
    split_of,
    transforms_text,
)
from edit3dgs_ns.capture.transforms import (
    FrameEntry,
    each_frame,
    find_capture,
    read_transforms,
    transforms_path,
)
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.files import folder_written_beside, write_atomically
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.tracking.detections import Progress
from edit3dgs_ns.tracking.detector import (
    NUM_LANDMARKS,
    OUTER_EYE_CORNERS,
    FaceDetector,
    PersonSegmenter,
    require_mediapipe,
)
from edit3dgs_ns.tracking.fit import TrackingState
from edit3dgs_ns.tracking.job import motion_of, poor_fit_notes, write_head_parameters
from edit3dgs_ns.tracking.landmark_transfer import landmark_table_of
from edit3dgs_ns.tracking.multi_fit import CameraView, MultiFit
from edit3dgs_ns.tracking.output import PREVIEW_FILE, REPORT_FILE, check_folder, check_own
from edit3dgs_ns.tracking.preview import draw_preview
from edit3dgs_ns.tracking.priors import priors_of
from edit3dgs_ns.tracking.surface_points import TRANSLATION

FPS = 25.0
"""Timesteps a second, where the capture does not say it."""
OPTION = "--multi"


@dataclass(frozen=True)
class MultiCapture:
    """Images of several cameras, by camera and timestep."""

    folder: Path
    frames: dict[tuple[int, int], FrameEntry]
    splits: dict[tuple[int, int], str]
    fps: float

    @classmethod
    def read(cls, path: Path) -> MultiCapture:
        """Read the transforms files of a folder.

        Raises:
            UserError: an entry is damaged, or there is one camera alone.
        """
        folder = find_capture(path, OPTION)
        frames: dict[tuple[int, int], FrameEntry] = {}
        splits: dict[tuple[int, int], str] = {}
        contents = {s: read_transforms(p) for s in SPLITS if (p := transforms_path(folder, s)).is_file()}
        for split, content in contents.items():
            for entry in each_frame(content, transforms_path(folder, split)):
                if isinstance(entry, UserError):
                    raise entry
                key = (entry.camera_index, entry.timestep_index)
                frames[key], splits[key] = entry, split
        if len({camera for camera, _ in frames}) < 2:
            raise UserError(
                f"{OPTION} {folder}: expected several cameras. A video of one camera goes without {OPTION}."
            )
        return cls(folder, frames, splits, _fps_of(contents["train"], transforms_path(folder, "train")))

    @property
    def cameras(self) -> dict[int, Camera]:
        """By their numbers; each stands still."""
        found: dict[int, Camera] = {}
        for (number, _), entry in sorted(self.frames.items()):
            cx, cy = entry.principal_point()
            K = np.array([[entry.fx, 0, cx], [0, entry.fy, cy], [0, 0, 1.0]])
            camera = Camera(entry.c2w, K, entry.width, entry.height)
            if not np.allclose(found.setdefault(number, camera).c2w, entry.c2w, atol=1e-4):
                raise UserError(
                    f"{OPTION} {self.folder}: camera {number} moves. The cameras are to stand still."
                )
        return found

    @property
    def timesteps(self) -> list[int]:
        """In order."""
        return sorted({timestep for _, timestep in self.frames})

    def image(self, camera: int, timestep: int) -> UInt8[np.ndarray, "h w 3"]:
        """The colours of an image."""
        return read_image(self.frames[camera, timestep].image)[0]


def _fps_of(content: Mapping[str, Any], path: Path) -> float:
    fps = content.get("fps")
    if fps is None:
        return FPS
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 1 <= fps <= 240:
        raise UserError(f"{path}: fps is {fps!r}. Expected frames a second from 1 to 240.")
    return float(fps)


def track_capture(
    path: Path,
    out: Path,
    head: FlameAssets,
    *,
    overwrite: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Track a capture of several cameras and write one with head parameters; returns the report.

    Raises:
        UserError: the capture is damaged, or shows too few faces.
        ExistingFileError: `out` holds something else.
    """
    require_mediapipe()
    capture = MultiCapture.read(path)
    cameras, timesteps = capture.cameras, capture.timesteps
    settings: dict[str, Any] = {
        "video": str(capture.folder),
        "content": [],
        "head": str(head.source.resolve()),
        "part": None,
        "size": 0,
    }
    if check_folder(out, settings, overwrite) != "new":
        check_own(out)  # the folder is replaced as a whole
    landmarks, found = _detect(capture, cameras, timesteps, progress)
    table = landmark_table_of(head).thinned()
    first = next(iter(cameras.values()))
    priors = priors_of(head, max(first.width, first.height), capture.fps, float(first.K[0, 0]))
    fit = MultiFit.of(head, table, priors)
    shown = np.flatnonzero(found.any(0))
    views = [
        CameraView(
            camera,
            torch.from_numpy(landmarks[n][shown][:, table.landmarks]),
            torch.from_numpy(found[n][shown]),
        )
        for n, camera in enumerate(cameras.values())
    ]
    progress("Fitting the head", 0, 1)
    state = fit.fit(views)
    progress("Fitting the head", 1, 1)
    report = {"settings": settings, **_report(fit, views, state, landmarks[:, shown], found)}
    motion = _motion(state, head)
    kept = [timesteps[t] for t in shown]
    with folder_written_beside(out) as folder:
        _write_images(folder, capture, kept, progress)
        _write_parameters(folder, out.name, capture, head, motion, kept)
        front = _front(cameras)
        _write_preview(
            folder, head, motion, capture, kept, front, landmarks[list(cameras).index(front)][shown], progress
        )
        write_atomically(folder / REPORT_FILE, (json.dumps(report, indent=2) + "\n").encode())
    return report


def _detect(
    capture: MultiCapture, cameras: dict[int, Camera], timesteps: Sequence[int], progress: Progress
) -> tuple[Float[np.ndarray, "C T 478 2"], np.ndarray]:
    """Landmarks in every image, and where there are any."""
    landmarks = np.zeros((len(cameras), len(timesteps), NUM_LANDMARKS, 2))
    found = np.zeros((len(cameras), len(timesteps)), bool)
    for row, camera in enumerate(cameras):
        with FaceDetector() as detector:
            for t, timestep in enumerate(timesteps):
                face = (
                    detector.detect(capture.image(camera, timestep))
                    if (camera, timestep) in capture.frames
                    else None
                )
                if face is not None:
                    landmarks[row, t], found[row, t] = face, True
                progress("Finding the face", row * len(timesteps) + t + 1, found.size)
    return landmarks, found


def _motion(state: TrackingState, head: FlameAssets) -> FlameMotion:
    """In the world of the cameras."""
    motion, _ = motion_of(state)
    translation = state.frames[:, TRANSLATION].float()
    return FlameMotion(
        **{**vars(motion), "translation": translation, "static_offset": torch.zeros(head.num_vertices, 3)}
    )


def _report(
    fit: MultiFit, views: Sequence[CameraView], state: TrackingState, landmarks: np.ndarray, found: np.ndarray
) -> dict[str, Any]:
    lost = np.flatnonzero(~found.any(0))
    total, count = np.zeros(len(state.frames)), np.zeros(len(state.frames))
    for view, points in zip(views, landmarks, strict=True):
        seen = view.found.numpy()
        if seen.any():
            corners = points[seen][:, OUTER_EYE_CORNERS]
            size = np.median(np.linalg.norm(corners[:, 0] - corners[:, 1], axis=1))
            total += np.where(seen, 100 * fit.reprojection(view, state).mean(1).numpy() / size, 0)
            count += seen
    percent = total / count
    notes = [f"{len(lost)} of {found.shape[1]} timesteps show no face and are left out."] if len(lost) else []
    question = "are the cameras' places in metres, and their images of the same moments?"
    notes += poor_fit_notes(float(percent.mean()), question)
    return {
        "frames": len(state.frames),
        "cameras": len(views),
        "frames_without_face": [int(t) for t in lost],
        "reprojection_percent": float(percent.mean()),
        "worst_frame": int(np.flatnonzero(found.any(0))[percent.argmax()]),
        "worst_percent": float(percent.max()),
        "notes": notes,
    }


def _front(cameras: dict[int, Camera]) -> int:
    """The usual front camera, or the one whose direction is nearest to the mean of all."""
    if FRONT_CAMERA in cameras:
        return FRONT_CAMERA
    back = np.stack([camera.c2w[:3, 2] for camera in cameras.values()])
    return list(cameras)[int((back @ back.mean(0)).argmax())]


def _write_images(folder: Path, capture: MultiCapture, kept: Sequence[int], progress: Progress) -> None:
    keys = [key for key in sorted(capture.frames) if key[1] in set(kept)]
    with PersonSegmenter() as segmenter:
        for number, (camera, timestep) in enumerate(keys):
            entry, name = capture.frames[camera, timestep], f"{kept.index(timestep):05d}_{camera:02d}.png"
            image = capture.image(camera, timestep)
            own = entry.mask is not None and entry.mask.is_file()
            mask = (
                read_mask(entry.mask, (entry.width, entry.height))
                if own and entry.mask
                else segmenter.segment(image)
            )
            write_atomically(folder / "images" / name, png_bytes(image))
            write_atomically(folder / "fg_masks" / name, png_bytes(mask))
            progress("Writing images", number + 1, len(keys))


def _write_parameters(
    folder: Path,
    name: str,
    capture: MultiCapture,
    head: FlameAssets,
    motion: FlameMotion,
    kept: Sequence[int],
) -> None:
    write_head_parameters(folder, motion)
    cameras = capture.cameras
    given = set(capture.splits.values()) != {"train"}
    front, held_out_from = _front(cameras), first_held_out(len(motion))
    entries: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for (camera, timestep), split in sorted(capture.splits.items()):
        if timestep not in kept:
            continue
        t = kept.index(timestep)
        entry = frame_entry("", name, t, t, camera, cameras[camera], single=True)
        entry["timestep_index_original"] = timestep
        usual = split_of(
            FRONT_CAMERA if camera == front else FRONT_CAMERA + 1, t >= held_out_from, len(cameras)
        )
        entries[split if given else usual].append(entry)
    for split in SPLITS:
        text = transforms_text(entries[split], cameras, head.name, principal_point=True, fps=capture.fps)
        write_atomically(folder / f"transforms_{split}.json", text.encode())


def _write_preview(
    folder: Path,
    head: FlameAssets,
    motion: FlameMotion,
    capture: MultiCapture,
    kept: Sequence[int],
    front: int,
    landmarks: Float[np.ndarray, "T 478 2"],
    progress: Progress,
) -> None:
    rows = [t for t, timestep in enumerate(kept) if (front, timestep) in capture.frames]
    shown = motion.with_pose(motion.pose(rows))
    images = [folder / "images" / f"{t:05d}_{front:02d}.png" for t in rows]
    camera = capture.cameras[front]
    draw_preview(folder / PREVIEW_FILE, head, shown, camera, images, landmarks[rows], capture.fps, progress)
