"""Files and folders that are whole or not there."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from edit3dgs_ns.errors import MissingFileError, message_of
from edit3dgs_ns.files import folder_written_beside, write_atomically, write_durably, written_beside
from edit3dgs_ns.splats.checkpoints import write_checkpoint


@pytest.mark.parametrize("write", [write_durably, write_atomically])
def test_a_file_that_cannot_be_finished_keeps_its_old_content(tmp_path, monkeypatch, write):
    path = tmp_path / "new_folder" / "file"
    write(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["file"], "what was half written is gone"


class _NamedByALibrary(OSError):
    """As PyAV's errors: its `filename` cannot be set."""

    def __init__(self, code, message, name):
        super().__init__(code, message)
        self._name = name

    filename = property(lambda self: self._name)


@pytest.mark.parametrize("library", [False, True])
@pytest.mark.parametrize("name", [None, "partial"])
def test_a_full_disk_is_said_of_the_file_that_was_to_be_written(tmp_path, library, name):
    path = tmp_path / "video.mp4"
    with pytest.raises(OSError) as raised, written_beside(path) as partial:
        partial.write_bytes(b"half")
        kind = _NamedByALibrary if library else OSError
        raise kind(28, "No space left on device", str(partial) if name else None)
    assert message_of(raised.value) == f"{path}: No space left on device."
    assert not any(tmp_path.iterdir())
    folder = tmp_path / "run"
    with pytest.raises(OSError) as raised, folder_written_beside(folder) as unfinished:
        raise OSError(28, "No space left on device", str(unfinished / "a" / "b"))
    assert message_of(raised.value) == f"{folder}: No space left on device."
    assert not any(tmp_path.iterdir())


def test_other_errors_go_through_as_they_are(tmp_path):
    mine = MissingFileError("--motion x: no such file")
    with pytest.raises(MissingFileError) as raised, written_beside(tmp_path / "a"):
        raise mine
    assert raised.value is mine and message_of(mine) == "--motion x: no such file"
    with pytest.raises(OSError) as raised, written_beside(tmp_path / "a"):
        raise OSError(5, "Input/output error", "another")
    assert raised.value.filename == "another" and message_of(raised.value) is None


def test_a_checkpoint_on_a_full_disk_is_said_too(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")

    def full(content, path):
        raise RuntimeError("[enforce fail at inline_container.cc:665] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OSError) as raised, written_beside(tmp_path / "a.ckpt") as partial:
        write_checkpoint({"a": torch.zeros(3)}, partial)
    assert message_of(raised.value) == f"{tmp_path / 'a.ckpt'}: No space left on device."


def test_a_folder_that_fails_half_way_leaves_the_former(tmp_path):
    folder = tmp_path / "folder"
    with folder_written_beside(folder) as new:
        (new / "a").write_text("old")
    with pytest.raises(RuntimeError), folder_written_beside(folder) as new:
        (new / "a").write_text("new")
        raise RuntimeError
    assert (folder / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
