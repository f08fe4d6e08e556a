"""Edits on disk survive a crash, and none is ever half-written."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from edit3dgs_ns.editing.store import EditKey, EditStore, settings_hash
from edit3dgs_ns.errors import UserError

SETTINGS = {"prompt": "make him look older", "model": "demo", "seed": 0}


def _image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((16, 12, 3), dtype=np.float32)


def test_put_and_get(tmp_path):
    store = EditStore(tmp_path / "edits", SETTINGS)
    store.put(EditKey(0, 7), _image(), {"timestep": 3, "noise": 0.98})
    reopened = EditStore(tmp_path / "edits", SETTINGS)
    assert len(reopened) == 1 and EditKey(0, 7) in reopened and EditKey(1, 7) not in reopened
    np.testing.assert_allclose(reopened.get(EditKey(0, 7)) / 255, _image(), atol=0.5 / 255 + 1e-6)
    assert reopened.record(EditKey(0, 7))["noise"] == 0.98
    with pytest.raises(KeyError):
        reopened.get(EditKey(9, 9))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_stored(tmp_path, value):
    store = EditStore(tmp_path, SETTINGS)
    image = _image()
    image[3, 4, 1] = value
    with pytest.raises(UserError, match=r"view 7\D.* 1 of 576 values .*dtype float32"):
        store.put(EditKey(2, 7), image)
    with pytest.raises(UserError, match="00002_00007"):
        store.put(EditKey(2, 7), _image(), {"correction": value})
    assert len(store) == 0 and EditKey(2, 7) not in store
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert len(EditStore(tmp_path, SETTINGS)) == 0


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8), np.float32), "expected an image"),
        (np.zeros((0, 8, 3), np.float32), "expected an image"),
        (np.zeros((8, 8, 4), np.float32), "expected an image"),
        (np.full((8, 8, 3), 200, np.uint8), "found uint8"),
        (np.full((8, 8, 3), 200, np.float32), "found 200 to 200"),
        (np.full((8, 8, 3), -1, np.float32), "found -1 to -1"),
    ],
)
def test_what_is_no_image_is_never_stored(tmp_path, image, message):
    store = EditStore(tmp_path, SETTINGS)
    with pytest.raises(UserError, match=message):
        store.put(EditKey(0, 7), image)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("damage", ["other image", "one bit", "delete"])
def test_an_edit_that_is_damaged_while_the_store_is_open_is_never_given_out(tmp_path, damage):
    store, key = EditStore(tmp_path / "a", SETTINGS), EditKey(0, 1)
    store.put(key, _image())
    store.put(EditKey(0, 2), _image(2))
    path = tmp_path / "a" / "00000_00001.png"
    data = path.read_bytes()
    if damage == "other image":
        path.write_bytes(path.with_name("00000_00002.png").read_bytes())
    elif damage == "one bit":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        path.unlink()
    with pytest.raises(UserError, match=r"00000_00001\.png .* --load-dir"):
        store.get(key)
    with pytest.raises(UserError, match=r"00000_00001\.png"):
        EditStore(tmp_path / "b", SETTINGS).copy_from(store)
    assert EditStore(tmp_path / "b", SETTINGS).edits() == []
    assert EditStore(tmp_path / "a", SETTINGS).edits() == [EditKey(0, 2)], "it is due again"


@pytest.mark.parametrize("full_from", ["png", "json"])
def test_a_full_disk_is_said_and_leaves_no_edit(tmp_path, monkeypatch, full_from):
    from edit3dgs_ns import files

    store = EditStore(tmp_path, SETTINGS)
    store.put(EditKey(0, 1), _image(1))
    opened = files.Path.open

    def full(self, *args, **kwargs):
        if f".{full_from}." in self.name:
            raise OSError(28, "No space left on device", str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(files.Path, "open", full)
    with pytest.raises(UserError, match=r"00000_00002\.png.*No space left.*--load-dir"):
        store.put(EditKey(0, 2), _image(2))
    monkeypatch.undo()
    assert EditKey(0, 2) not in store
    assert EditStore(tmp_path, SETTINGS).edits() == [EditKey(0, 1)]


def test_what_a_disk_gives_back_is_looked_at(tmp_path, monkeypatch):
    from edit3dgs_ns.editing import store as module

    write = module.write_durably
    store = EditStore(tmp_path, SETTINGS)
    monkeypatch.setattr(module, "write_durably", lambda path, data: write(path, data[:-1]))
    with pytest.raises(UserError, match="was changed since it was written"):
        store.put(EditKey(0, 2), _image(2))
    assert EditKey(0, 2) not in store and EditStore(tmp_path, SETTINGS).edits() == []


def test_latest_edit_of_each_view(tmp_path):
    store = EditStore(tmp_path, SETTINGS)
    for round_, view in [(0, 1), (0, 2), (1, 2), (3, 1)]:
        store.put(EditKey(round_, view), _image())
    assert store.latest() == {1: EditKey(3, 1), 2: EditKey(1, 2)}
    assert store.latest(before_round=1) == {1: EditKey(0, 1), 2: EditKey(0, 2)}
    assert store.edits() == [EditKey(0, 1), EditKey(0, 2), EditKey(1, 2), EditKey(3, 1)]


@pytest.mark.parametrize("survives", [0, 1])
def test_a_write_that_stops_at_a_rename_leaves_no_edit(tmp_path, monkeypatch, survives):
    store = EditStore(tmp_path, SETTINGS)
    store.put(EditKey(0, 1), _image(1))
    replace, calls = os.replace, []

    def stop(source, target):
        calls.append(target)
        if len(calls) > survives:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        store.put(EditKey(0, 2), _image(2))
    monkeypatch.undo()
    (tmp_path / ".00000_00002.png.1.part").write_bytes(b"what kill -9 leaves")
    reopened = EditStore(tmp_path, SETTINGS)
    assert reopened.edits() == [EditKey(0, 1)]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "00000_00001.json",
        "00000_00001.png",
        "manifest.json",
    ]
    reopened.put(EditKey(0, 2), _image(2))
    assert len(EditStore(tmp_path, SETTINGS)) == 2


def test_overwriting_an_edit_is_all_or_nothing(tmp_path, monkeypatch):
    store = EditStore(tmp_path, SETTINGS)
    store.put(EditKey(0, 1), _image(1))
    replace, calls = os.replace, []

    def stop_at_second(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        store.put(EditKey(0, 1), _image(2))
    monkeypatch.undo()
    # New picture, old record: the pair does not fit, so the edit does not count.
    assert EditStore(tmp_path, SETTINGS).edits() == []


def test_kill_9_while_writing(tmp_path):
    script = textwrap.dedent(
        """
        import sys, numpy as np
        from pathlib import Path
        from edit3dgs_ns.editing.store import EditKey, EditStore
        store = EditStore(Path(sys.argv[1]), {"prompt": "p"})
        image = np.random.default_rng(0).random((128, 128, 3), dtype=np.float32)
        number = 0
        while True:
            store.put(EditKey(0, number), image)
            print(number, flush=True)
            number += 1
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    confirmed = [int(process.stdout.readline()) for _ in range(5)]
    process.send_signal(signal.SIGKILL)
    confirmed += [int(line) for line in process.stdout.read().split()]
    process.wait()
    store = EditStore(tmp_path, {"prompt": "p"})
    expected = np.round(np.random.default_rng(0).random((128, 128, 3), dtype=np.float32) * 255)
    assert {EditKey(0, number) for number in confirmed} <= set(store.edits())
    for key in store.edits():
        np.testing.assert_array_equal(store.get(key), expected)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("damage", ["truncate", "delete", "bad_json"])
def test_damaged_edits_do_not_count_and_are_reported(tmp_path, caplog, damage):
    store = EditStore(tmp_path, SETTINGS)
    store.put(EditKey(0, 1), _image())
    picture, record = tmp_path / "00000_00001.png", tmp_path / "00000_00001.json"
    if damage == "truncate":
        picture.write_bytes(picture.read_bytes()[:50])
    elif damage == "delete":
        picture.unlink()
    else:
        record.write_text("{")
    assert len(EditStore(tmp_path, SETTINGS)) == 0
    assert "made again" in caplog.text


def test_other_settings_are_refused_by_name_or_get_their_own_folder(tmp_path):
    EditStore(tmp_path / "one", SETTINGS)
    with pytest.raises(ValueError, match="prompt was 'make him look older' and is now 'turn him green'"):
        EditStore(tmp_path / "one", SETTINGS | {"prompt": "turn him green"})
    a = EditStore.for_settings(tmp_path / "many", SETTINGS)
    b = EditStore.for_settings(tmp_path / "many", SETTINGS | {"prompt": "turn him green"})
    assert a.folder != b.folder and EditStore.for_settings(tmp_path / "many", SETTINGS).folder == a.folder


def test_hash_does_not_depend_on_order():
    assert (
        settings_hash({"a": 1, "b": 2}) == settings_hash({"b": 2, "a": 1}) != settings_hash({"a": 1, "b": 3})
    )


def test_copy_from_takes_what_is_missing(tmp_path):
    old, new = EditStore(tmp_path / "old", SETTINGS), EditStore(tmp_path / "new", SETTINGS)
    old.put(EditKey(0, 1), _image(1))
    old.put(EditKey(0, 2), _image(2))
    new.put(EditKey(0, 2), _image(3))
    assert new.copy_from(old) == 1
    np.testing.assert_array_equal(new.get(EditKey(0, 1)), old.get(EditKey(0, 1)))
    assert not np.array_equal(new.get(EditKey(0, 2)), old.get(EditKey(0, 2)))
    assert len(EditStore(tmp_path / "new", SETTINGS)) == 2
    with pytest.raises(ValueError, match="seed"):
        new.copy_from(EditStore(tmp_path / "other", SETTINGS | {"seed": 1}))


def test_names_in_files_lead_nowhere(tmp_path):
    """A record with paths or foreign numbers in it, and files with odd names, change nothing."""
    store = EditStore(tmp_path / "edits", SETTINGS)
    store.put(EditKey(0, 1), _image())
    record = tmp_path / "edits" / "00000_00001.json"
    entry = json.loads(record.read_text()) | {"view": "../../x", "path": "/etc/passwd", "round": 99}
    record.write_text(json.dumps(entry))
    (tmp_path / "edits" / "notes.json").write_text("{}")
    reopened = EditStore(tmp_path / "edits", SETTINGS)
    assert reopened.edits() == [EditKey(0, 1)] and reopened.get(EditKey(0, 1)).shape == (16, 12, 3)
    with pytest.raises(ValueError):
        store.put(EditKey(-1, 0), _image())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["edits"]


def test_the_store_of_another_run_is_read_and_not_changed(tmp_path):
    other = tmp_path / "other"
    EditStore(other, SETTINGS).put(EditKey(0, 1), _image(1))
    # What a process that is writing there has, for a moment.
    (other / ".00000_00002.png.1.part").write_bytes(b"half")
    (other / "00000_00003.png").write_bytes(b"its record comes next")
    before = sorted(path.name for path in other.iterdir())
    store = EditStore(tmp_path / "own", SETTINGS)
    assert store.copy_from(EditStore(other, SETTINGS, is_own=False)) == 1
    assert store.edits() == [EditKey(0, 1)] and sorted(path.name for path in other.iterdir()) == before
