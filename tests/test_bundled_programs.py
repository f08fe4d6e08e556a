"""ffmpeg and libusb of the set-up, on a machine that has neither."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edit3dgs_ns import bundled_programs


def run_python(code: str, path: Path) -> str:
    environment = {**os.environ, "PATH": str(path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nerfstudio_finds_an_ffmpeg_that_runs_where_the_path_has_none(tmp_path: Path) -> None:
    code = """
import subprocess
from edit3dgs_ns.bundled_programs import provide_bundled_programs
from nerfstudio.utils.install_checks import check_ffmpeg_installed
provide_bundled_programs()
check_ffmpeg_installed()  # exits with 1 where it finds none
print(subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout)
"""
    assert run_python(code, tmp_path).startswith("ffmpeg version")


def test_every_nerfstudio_command_gets_it(tmp_path: Path) -> None:
    code = "import shutil; import nerfstudio.configs.method_configs; print(shutil.which('ffmpeg'))"
    assert Path(run_python(code, tmp_path).strip().splitlines()[-1]).name == bundled_programs.FFMPEG


def test_the_systems_ffmpeg_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / bundled_programs.FFMPEG
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bundled_programs.provide_ffmpeg() == program
    assert os.environ["PATH"] == str(tmp_path)


def test_no_program_for_this_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "absent"))
    assert bundled_programs.provide_ffmpeg() is None
    assert os.environ["PATH"] == str(tmp_path)


def bundled(folder: Path) -> Path:
    """A program with a version in its name, as the wheel has it."""
    folder.mkdir()
    program = folder / "ffmpeg-linux-v9"
    program.touch(mode=0o755)
    return program


@pytest.fixture
def no_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    program = bundled(tmp_path / "wheel")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    return program


def test_a_link_of_an_older_version_is_replaced(no_ffmpeg: Path) -> None:
    link = no_ffmpeg.parent / bundled_programs.FFMPEG
    link.symlink_to("ffmpeg-that-was-uninstalled")
    assert bundled_programs.provide_ffmpeg() == link
    assert link.samefile(no_ffmpeg) and shutil.which("ffmpeg") == str(link)
    assert sorted(path.name for path in link.parent.iterdir()) == sorted([link.name, no_ffmpeg.name])


def test_an_environment_that_cannot_be_written(no_ffmpeg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def read_only(source: Path, target: Path) -> None:
        if Path(target).parent == no_ffmpeg.parent:
            Path(source).unlink()
            raise PermissionError(f"[Errno 13] Permission denied: {target}")
        replace(source, target)

    monkeypatch.setattr(bundled_programs.os, "replace", read_only)
    link = bundled_programs.provide_ffmpeg()
    assert link is not None and link.parent != no_ffmpeg.parent and link.samefile(no_ffmpeg)
    assert shutil.which("ffmpeg") == str(link)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="open3d brings libusb on other platforms")
def test_a_new_process_imports_open3d_first_as_ns_export_does(tmp_path: Path) -> None:
    """`make setup` and every command of ours leave the link that open3d's loader needs."""
    assert bundled_programs.provide_libusb() is not None
    code = "import nerfstudio.scripts.exporter as exporter; print(exporter.o3d.__version__)"
    assert run_python(code, tmp_path).strip().splitlines()[-1].startswith("0.")
