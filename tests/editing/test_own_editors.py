"""Editors of one's own: what a program gets, and every way in which it or a factory can be wrong."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edit3dgs_ns.editing.agreement.sharing import SharingOptions
from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.editors import check_editor_name, load_named_editor
from edit3dgs_ns.editing.own.agree_after import AgreeingEditor
from edit3dgs_ns.editing.own.command import CommandEditor
from edit3dgs_ns.errors import MissingFileError, UserError


def request(**options) -> EditRequest:
    """Three views of different greys."""
    images = np.stack([np.full((8, 12, 3), grey, np.float32) for grey in (0.2, 0.4, 0.6)])
    return EditRequest(prompt="Make it so", images=images, originals=1 - images, seed=7, noise=0.6, **options)


def program(tmp_path: Path, body: str) -> str:
    """A program in Python with some imports; `folder` is its argument."""
    path = tmp_path / "program.py"
    head = "import json, os, shutil, subprocess, sys, time\nfrom pathlib import Path\nfrom PIL import Image\n"
    head += "folder = Path(sys.argv[-1])\n"
    path.write_text(head + body)
    return f"command:{sys.executable} {path} --fast"


COPY = "for p in sorted((folder / 'originals').iterdir()):\n    shutil.copy(p, folder / 'edited' / p.name)\n"


def test_a_program_gets_views_masks_and_request_and_its_images_come_back(tmp_path):
    kept = tmp_path / "kept"
    name = program(
        tmp_path, f"assert sys.argv[1] == '--fast'\nshutil.copytree(folder, {str(kept)!r})\n" + COPY
    )
    mask = np.zeros((3, 8, 12), np.float32)
    mask[1, 2:4] = 1.0
    c2w = np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    asked = request(
        keep_mask=mask,
        c2w=c2w,
        view_ids=(4, 6, 8),
        timesteps=(0, 0, 2),
        anchors=(2,),
        shared_noise=False,
        guidance_scale=9.0,
    )
    given = []
    result = load_named_editor(name).edit(asked, finished=lambda view, image: given.append(view))
    np.testing.assert_allclose(result.images, asked.originals, atol=1 / 255)
    assert given == [0, 1, 2]
    said = json.loads((kept / "request.json").read_text())
    assert (said["version"], said["prompt"], said["width"], said["height"]) == (1, "Make it so", 12, 8)
    assert (said["seed"], said["noise"], said["guidance_scale"], said["steps"]) == (7, 0.6, 9.0, None)
    assert [view["id"] for view in said["views"]] == [4, 6, 8]
    assert [view["seed"] for view in said["views"]] == [11, 13, 15]
    assert [view["anchor"] for view in said["views"]] == [False, False, True]
    assert said["views"][2]["timestep"] == 2 and said["views"][0]["camera_to_world"] == np.eye(4).tolist()
    shown = np.asarray(Image.open(kept / said["views"][1]["keep"]))
    np.testing.assert_array_equal(shown, mask[1] * 255)
    image = np.asarray(Image.open(kept / said["views"][0]["image"]))
    assert image.shape == (8, 12, 3) and (image == 51).all()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('out of memory', file=sys.stderr)\nsys.exit(3)", r"(?s)ended with status 3.*out of memory"),
        ("os.kill(os.getpid(), 11)", "ended with signal 11"),
        (COPY + "(folder / 'edited' / '001.png').unlink()", r"left no edited/001.png.*3 views"),
        (COPY + "Image.new('RGB', (6, 4)).save(folder / 'edited/002.png')", r"edited/002.png with 6 x 4.*12 x 8"),
        (COPY + "(folder / 'edited/000.png').write_bytes(b'no')", r"edited/000.png, which cannot be read as an image"),
        (COPY + "p = folder / 'edited/000.png'\np.write_bytes(p.read_bytes()[:-30])", r"edited/000.png, which cannot be read"),
        (COPY + "Image.new('1', (30000, 30000)).save(folder / 'edited/000.png')", r"edited/000.png"),
    ],
)  # fmt: skip
def test_what_a_program_does_wrong_is_named(tmp_path, body, message):
    editor = load_named_editor(program(tmp_path, body))
    with pytest.raises((UserError, MissingFileError), match=message):
        editor.edit(request())


def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    body = (
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\ntime.sleep(600)\n"
    )
    editor = load_named_editor(program(tmp_path, body), timeout=4.0)
    with pytest.raises(UserError, match=r"longer than 4 seconds.*--pipeline.editor.timeout"):
        editor.edit(request())
    pid = int((tmp_path / "pid").read_text())
    limit = time.monotonic() + 20
    while _runs(pid) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_changed_program_has_other_settings(tmp_path):
    name = program(tmp_path, COPY)
    before = load_named_editor(name).settings
    assert before == load_named_editor(name).settings and before["editor"] == "command"
    program(tmp_path, COPY + "# another\n")
    assert load_named_editor(name).settings != before


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("command:", "command:PROGRAM"),
        ("command:/no/such/program --x", "/no/such/program: there is no such program"),
        (f"command:{__file__}", "not executable"),
        ('command:"open', "No closing quotation"),
        ("python:", "python:package.module:factory"),
        ("python:module", "python:package.module:factory"),
        ("python:a-b:make", "python:package.module:factory"),
    ],
)
def test_a_wrong_name_is_refused_at_once(model, message):
    with pytest.raises((UserError, MissingFileError), match=message):
        check_editor_name(model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("python:no_such_module_anywhere:make", "cannot be imported.*PYTHONPATH"),
        ("python:own_editors:nothing", "has no nothing"),
        ("python:own_editors:three", "has no function or class three"),
        ("python:own_editors:broken", r"broken\(\) raised OSError: no key"),
        ("python:syntax_editors:make", "cannot be imported.*SyntaxError"),
        (
            "python:own_editors:number",
            "a int, is no Editor: it lacks settings, views_depend, unknown_instruction, edit",
        ),
        ("python:own_editors:Odd", "settings are .*expected a dict of JSON values"),
    ],
)
def test_a_wrong_factory_is_named(tmp_path, monkeypatch, name, message):
    (tmp_path / "own_editors.py").write_text(
        "three = 3\ndef number():\n    return 3\ndef broken():\n    raise OSError('no key')\n"
        "class Odd:\n    settings = {'threshold': object()}\n    views_depend = False\n    unknown_instruction = edit = print\n"
    )
    (tmp_path / "syntax_editors.py").write_text("def make(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    check_editor_name(name)  # nothing is imported yet
    with pytest.raises(UserError, match=message):
        load_named_editor(name)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("None", r"edit\(\) returned NoneType; expected an edit3dgs_ns.editing.editor.EditResult"),
        ("EditResult(request.images[:2])", r"of shape \(2, 8, 12, 3\); expected \(3, 8, 12, 3\)"),
        ("EditResult(request.images[:, :4])", r"of shape \(3, 4, 12, 3\); expected \(3, 8, 12, 3\)"),
    ],
)
def test_what_an_object_returns_is_checked(tmp_path, monkeypatch, returned, message):
    (tmp_path / "returning.py").write_text(
        "from edit3dgs_ns.editing.editor import EditResult\nclass E:\n    settings = {}\n    views_depend = False\n"
        "    def unknown_instruction(self, p): ...\n"
        f"    def edit(self, request, progress=None, finished=None):\n        return {returned}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "returning", raising=False)
    with pytest.raises(UserError, match=message):
        load_named_editor("python:returning:E").edit(request())


def test_a_transparent_image_is_taken_on_white(tmp_path):
    body = COPY + "Image.new('RGBA', (12, 8), (10, 20, 30, 0)).save(folder / 'edited/000.png')"
    assert (load_named_editor(program(tmp_path, body)).edit(request()).images[0] == 1).all()


def test_views_of_an_editor_that_edits_them_apart_agree_afterwards(tmp_path, monkeypatch):
    own = "class E:\n    settings = {}\n    views_depend = %s\n    def unknown_instruction(self, p): ...\n"
    own += "    def edit(self, r): ...\n"
    (tmp_path / "apart.py").write_text(own % False)
    (tmp_path / "together.py").write_text(own % True)
    monkeypatch.syspath_prepend(str(tmp_path))
    rig, none = SharingOptions("rig"), SharingOptions("none")
    assert isinstance(load_named_editor("python:apart:E", sharing=rig), AgreeingEditor)
    assert not isinstance(load_named_editor("python:apart:E", sharing=none), AgreeingEditor)
    assert not isinstance(load_named_editor("python:together:E", sharing=rig), AgreeingEditor)
    assert isinstance(load_named_editor(program(tmp_path, COPY), sharing=none), CommandEditor)
