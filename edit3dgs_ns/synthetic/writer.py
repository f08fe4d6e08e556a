"""`edit3dgs capture`: a synthetic multi-view capture on disk.

    OUT/capture.json                                     what was asked for
    OUT/<id>_EMO-1/ <id>_EXP-5/ <id>_SEN-01/ <id>_EMO-4/  one folder per sequence:
        images/{t:05d}_{cam:02d}.png  fg_masks/...  labels/...  flame_param/{t:05d}.npz
        canonical_flame_param.npz  labels.json  transforms_{train,val,test}.json
    OUT/UNION10_<id>_.../transforms_{train,val,test}.json  all of them, the last sequence held out

The same settings give the same bytes. Images are written whole, and those that are there are kept: a
broken- off capture goes on with the same command.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edit3dgs_ns.capture.layout import (
    SPLITS,
    first_held_out,
    flame_param_bytes,
    frame_entry,
    png_bytes,
    split_of,
    transforms_text,
)
from edit3dgs_ns.errors import ExistingFileError, UserError
from edit3dgs_ns.files import write_atomically
from edit3dgs_ns.synthetic.canonical import LABELS
from edit3dgs_ns.synthetic.identity import Identity
from edit3dgs_ns.synthetic.motion import SEQUENCES
from edit3dgs_ns.synthetic.replay import Replay, folder_name
from edit3dgs_ns.synthetic.scene import Frame
from edit3dgs_ns.synthetic.settings import (
    SETTINGS_FILE,
    CaptureSettings,
    check_capture_folder,
    read_settings,
    settings_text,
)

CaptureProgress = Callable[[int, int], None]
"""Is told how many images are rendered, and how many there are to render."""
KINDS = ("images", "fg_masks", "labels")
SMALL_JOB = 64 * 128 * 128
"""Pixels of a whole capture below which starting worker processes takes longer than rendering."""


@dataclass(frozen=True)
class _Task:
    """All cameras of one timestep."""

    out: Path
    sequence: str
    timestep: int


def write_capture(
    out: str | Path,
    *,
    seed: int = 0,
    width: int = 256,
    height: int = 256,
    cameras: int = 16,
    frames: int = 24,
    samples: int = 6,
    workers: int | None = None,
    overwrite: bool = False,
    progress: CaptureProgress | None = None,
) -> Path:
    """Write a capture of the open head.

    Args:
        out: folder; made if it is missing.
        seed: which person.
        width, height: of the images, pixels.
        cameras: 1 to 16.
        frames: timesteps of each of the four sequences.
        samples: rays through each pixel.
        workers: processes; default one per core.
        overwrite: replace a capture of other settings that is there.
        progress: is told how many images are rendered, and how many there are to render.

    Returns:
        The folder of the combined set.

    Raises:
        ValueError: an option is out of range.
        FileExistsError: `out` holds something else, or a capture of other settings and `overwrite` is False.
    """
    settings = CaptureSettings(seed, width, height, cameras, frames, samples)
    settings.validate()
    if workers is not None and workers < 1:
        raise UserError(f"workers: found {workers}, expected at least 1.")
    out = Path(out)
    _prepare_folder(out, settings, overwrite)

    tasks = [
        _Task(out, folder_name(settings, plan.name), timestep)
        for plan in SEQUENCES
        for timestep in range(settings.frames)
    ]
    numbers = list(settings.rig())
    missing = [task for task in tasks if any(not path.is_file() for path in _files(task, numbers))]
    if missing:
        _render_all(settings, missing, workers or os.cpu_count() or 1, progress)
    return _write_index(out, settings)


def _prepare_folder(out: Path, settings: CaptureSettings, overwrite: bool) -> None:
    """Claim the folder: empty, or ours with the same settings (goes on), or ours with others (replaced on
    request).
    """
    check_capture_folder(out, settings, overwrite)
    text = settings_text(settings, None)
    record = out / SETTINGS_FILE
    if record.is_file() and record.read_text() == text:
        return
    if record.is_file():
        if not overwrite:
            raise ExistingFileError(
                f"{out} holds a capture of other settings or of another version. "
                "Name another folder, or add --overwrite to replace it."
            )
        _remove_capture(out)
    write_atomically(record, text.encode())


def _remove_capture(out: Path) -> None:
    """Delete the folders of an old capture, and nothing else."""
    try:
        old = read_settings(out)
    except ValueError as error:
        raise ExistingFileError(f"{error} Delete {out} yourself if nothing in it is needed.") from error
    for name in (*(folder_name(old, plan.name) for plan in SEQUENCES), _union_name(old)):
        folder = out / name
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
    (out / SETTINGS_FILE).unlink()


def _files(task: _Task, numbers: list[int]) -> list[Path]:
    folder = task.out / task.sequence
    images = [folder / kind / f"{task.timestep:05d}_{number:02d}.png" for number in numbers for kind in KINDS]
    return [*images, folder / "flame_param" / f"{task.timestep:05d}.npz"]


# --- rendering, in worker processes -------------------------------------------------------------------------

_WORKER: Replay | None = None


def _start_worker(settings: CaptureSettings) -> None:
    import torch

    global _WORKER
    torch.set_num_threads(1)
    _WORKER = Replay(settings)


def _render_in_worker(task: _Task) -> int:
    assert _WORKER is not None
    return _render_timestep(_WORKER, task)


def _render_timestep(replay: Replay, task: _Task) -> int:
    """Write the missing images of one timestep; returns how many cameras that took."""
    rendered = 0
    folder = task.out / task.sequence
    for number in replay.cameras:
        paths = {kind: folder / kind / f"{task.timestep:05d}_{number:02d}.png" for kind in KINDS}
        if all(path.is_file() for path in paths.values()):
            continue
        render = replay.render(task.sequence, task.timestep, number)
        for kind, image in (("images", render.rgb), ("fg_masks", render.mask), ("labels", render.labels)):
            write_atomically(paths[kind], png_bytes(image))
        rendered += 1
    frame = replay.motion[task.sequence][task.timestep]
    write_atomically(
        folder / "flame_param" / f"{task.timestep:05d}.npz", _flame_param_bytes(replay.identity, frame)
    )
    return rendered


def _render_all(
    settings: CaptureSettings, tasks: list[_Task], workers: int, progress: CaptureProgress | None
) -> None:
    total = len(tasks) * settings.cameras
    small = total * settings.width * settings.height < SMALL_JOB
    in_this_process = small or min(workers, len(tasks)) == 1
    finished = _in_this_process(settings, tasks) if in_this_process else _in_workers(settings, tasks, workers)
    tell = progress or (lambda done, total: None)
    tell(0, total)
    for number, _ in enumerate(finished, start=1):
        tell(number * settings.cameras, total)


def _in_this_process(settings: CaptureSettings, tasks: list[_Task]) -> Iterator[int]:
    replay = Replay(settings)
    for task in tasks:
        yield _render_timestep(replay, task)


def _in_workers(settings: CaptureSettings, tasks: list[_Task], workers: int) -> Iterator[int]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, _start_worker, (settings,))
    try:
        for future in as_completed([pool.submit(_render_in_worker, task) for task in tasks]):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _flame_param_bytes(identity: Identity, frame: Frame) -> bytes:
    return flame_param_bytes(vars(frame), identity.shape, identity.static_offset)


def _canonical_frame(identity: Identity) -> Frame:
    """The canonical pose: neutral, mouth a little open (0.3 rad, as VHAP's export has it)."""
    zero = np.zeros(3, np.float32)
    expr = np.zeros(identity.head.model.num_expr, np.float32)
    return Frame(expr, zero, zero, np.array([0.3, 0, 0], np.float32), np.zeros(6, np.float32), zero)


# --- the JSON files -----------------------------------------------------------------------------------------


def _union_name(settings: CaptureSettings) -> str:
    return f"UNION10_{settings.seed:03d}_" + "".join(plan.name.replace("-", "") for plan in SEQUENCES)


def _write_index(out: Path, settings: CaptureSettings) -> Path:
    """Transforms of each sequence and of the combined set; its timestep_index counts through all
    sequences.
    """
    replay = Replay(settings)
    cameras = replay.cameras
    head = replay.identity.head.assets.name
    canonical = _flame_param_bytes(replay.identity, _canonical_frame(replay.identity))
    union = out / _union_name(settings)
    combined: dict[str, list] = {split: [] for split in SPLITS}
    first = 0
    for plan in SEQUENCES:
        folder = folder_name(settings, plan.name)
        own: dict[str, list] = {split: [] for split in SPLITS}
        held_out_from = first_held_out(settings.frames)
        for t in range(settings.frames):
            for number, camera in cameras.items():
                own[split_of(number, t >= held_out_from, len(cameras))].append(
                    frame_entry("", folder, t, t, number, camera, single=True)
                )
                split = split_of(number, plan is SEQUENCES[-1], len(cameras))
                combined[split].append(frame_entry("../", folder, t, first + t, number, camera, single=False))
        first += settings.frames
        _write_set(out / folder, own, cameras, head, canonical)
        write_atomically(out / folder / "labels.json", (json.dumps(LABELS, indent=1) + "\n").encode())
    _write_set(union, combined, cameras, head, canonical)
    return union


def _write_set(folder: Path, entries: dict[str, list], cameras: dict, head: str, canonical: bytes) -> None:
    for split in SPLITS:
        write_atomically(
            folder / f"transforms_{split}.json", transforms_text(entries[split], cameras, head).encode()
        )
    write_atomically(folder / "canonical_flame_param.npz", canonical)
