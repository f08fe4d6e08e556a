"""Files and folders that are whole or not there."""

from __future__ import annotations

import os

import pytest

from edit3dgs_ns.files import folder_written_beside, write_atomically, write_durably


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


def test_a_folder_that_fails_half_way_leaves_the_former(tmp_path):
    folder = tmp_path / "folder"
    with folder_written_beside(folder) as new:
        (new / "a").write_text("old")
    with pytest.raises(RuntimeError), folder_written_beside(folder) as new:
        (new / "a").write_text("new")
        raise RuntimeError
    assert (folder / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
