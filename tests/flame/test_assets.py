"""Reading FLAME's files: FLAME-like pickles are read, anything that is not an array is refused."""

import os
import pickle
import sys
import types

import numpy as np
import pytest

from edit3dgs_ns.flame import load_assets
from edit3dgs_ns.flame.regions import region_faces, with_flame_masks

from .flame_files import flame_table


@pytest.fixture
def chumpy():
    """A stand-in for chumpy, so that pickles name chumpy.ch.Ch; gone again before anything is read."""
    names = ("chumpy", "chumpy.ch")
    for name in names:
        sys.modules[name] = types.ModuleType(name)

    class Ch:
        def __init__(self, x):
            self.x = x

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    sys.modules["chumpy.ch"].Ch = Ch
    yield Ch
    for name in names:
        sys.modules.pop(name, None)


def write(path, table, protocol=2):
    path.write_bytes(pickle.dumps(table, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_flame_pickle_with_chumpy_and_scipy(tmp_path, chumpy, protocol):
    table = flame_table()
    disguised = dict(table, shapedirs=chumpy(table["shapedirs"]), v_template=chumpy(table["v_template"]))
    path = write(tmp_path / "generic_model.pkl", disguised, protocol)
    sys.modules.pop("chumpy.ch")
    sys.modules.pop("chumpy")
    assets = load_assets(path)
    assert "chumpy" not in sys.modules
    np.testing.assert_allclose(assets.v_template, table["v_template"].astype(np.float32))
    np.testing.assert_allclose(assets.shapedirs, table["shapedirs"][..., :300].astype(np.float32))
    np.testing.assert_allclose(assets.exprdirs, table["shapedirs"][..., 300:].astype(np.float32))
    np.testing.assert_allclose(assets.J_regressor, table["J_regressor"].toarray().astype(np.float32))
    assert assets.parents.tolist() == [-1, 0, 1, 1, 1]
    assert assets.name == "flame" and assets.faces.dtype == np.int64


def test_sparse_rows_too(tmp_path):
    table = flame_table()
    path = write(tmp_path / "m.pkl", dict(table, J_regressor=table["J_regressor"].tocsr()))
    np.testing.assert_allclose(
        load_assets(path).J_regressor, table["J_regressor"].toarray().astype(np.float32)
    )


def test_python2_latin1_strings(tmp_path):
    """A protocol 0 string with a byte above 127, as Python 2 wrote it."""
    path = tmp_path / "m.pkl"
    path.write_bytes(b"(dp0\nS'v_template'\np1\nS'\\xe9'\np2\ns.")
    with pytest.raises(ValueError, match="'v_template' is no numeric array"):
        load_assets(path)


class WritesAFile:
    """Unpickled carelessly, creates the file."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_would_write_a_file_is_refused(tmp_path, protocol):
    target = tmp_path / "written"
    path = write(tmp_path / "evil.pkl", dict(flame_table(), extra=WritesAFile(target)), protocol)
    with pytest.raises(ValueError, match=r"evil\.pkl: refused.*(posix|nt)\.system"):
        load_assets(path)
    assert not target.exists()
    pickle.loads(path.read_bytes())  # the test's own proof: the careless way does write it
    assert target.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\ngetattr\n(S'1'\nS'x'\ntR.",
        b"cnumpy\nload\n(S'/etc/passwd'\ntR.",
        b"cnumpy.core.multiarray\nfrombuffer\n.",
        b"c_codecs\ndecode\n.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        b"ccopy_reg\n_reconstructor\n(cnumpy\ndtype\nc__builtin__\nobject\nNtR.",
        b"\x80\x04\x8c\x0dscipy.sparse_\x8c\x0a_csc.sys.x\x93.",
        b"Pid\n.",
    ],
)
def test_other_globals_are_refused(tmp_path, payload):
    path = tmp_path / "evil.pkl"
    path.write_bytes(payload)
    with pytest.raises(ValueError, match=r"evil\.pkl"):
        load_assets(path)


def test_a_pickle_cannot_alter_the_reader(tmp_path):
    """BUILD with a (None, dict) state sets attributes; on our classes it must not."""
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"\x80\x02cchumpy.ch\nCh\n(N}X\x05\x00\x00\x00entryK\x01stb.")
    with pytest.raises(ValueError, match=r"evil\.pkl"):
        load_assets(path)
    from edit3dgs_ns.flame.safe_pickle import _Chumpy

    assert callable(_Chumpy.entry)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.ones((7, 5))}, "'weights' has shape"),
        ({"f": np.full((4, 3), 99)}, "'f' runs from 99 to 99"),
        ({"v_template": np.full((30, 3), np.nan)}, "not finite"),
        ({"shapedirs": np.ones((30, 3, 100))}, "expected more|Expected more"),
        ({"kintree_table": np.array([[0, 3, 1, 1, 1], [0, 1, 2, 3, 4]])}, "kintree_table"),
    ],
)
def test_wrong_contents_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_assets(write(tmp_path / "m.pkl", flame_table() | change))


def test_missing_keys_and_files(tmp_path, monkeypatch):
    table = flame_table()
    del table["weights"]
    with pytest.raises(ValueError, match="no 'weights'"):
        load_assets(write(tmp_path / "m.pkl", table))
    with pytest.raises(ValueError, match="expected a dictionary"):
        load_assets(write(tmp_path / "l.pkl", [1, 2]))
    monkeypatch.setenv("FLAME_MODEL_PATH", str(tmp_path / "gone.pkl"))
    with pytest.raises(FileNotFoundError, match=r"gone\.pkl.*FLAME_MODEL_PATH"):
        load_assets()
    monkeypatch.setenv("FLAME_MODEL_PATH", str(write(tmp_path / "there.pkl", flame_table())))
    assert load_assets().num_vertices == 30


def test_masks_become_regions(tmp_path):
    assets = load_assets(write(tmp_path / "m.pkl", flame_table()))
    with pytest.raises(ValueError, match=r"no region 'lips'.*FLAME_masks\.pkl"):
        region_faces(assets, "lips")
    masks = {"lips": np.arange(20), "left_eyeball": np.arange(3), "right_eyeball": np.arange(3, 6)}
    masked = with_flame_masks(assets, write(tmp_path / "FLAME_masks.pkl", masks))
    rows = region_faces(masked, "lips")
    assert (assets.faces[rows] < 20).all() and len(rows) == (assets.faces < 20).all(1).sum()
    assert masked.vertex_regions["eyes"].tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="names vertex 99"):
        with_flame_masks(assets, write(tmp_path / "bad.pkl", {"lips": np.array([99])}))
