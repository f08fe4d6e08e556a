"""`make results`: what it says of pages that are right, wrong, or silent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.measure.results import __main__ as results
from tools.measure.results import pictures
from tools.measure.results.claims import Claim, Figure, check, read_pages, without_claim
from tools.measure.results.figures import CLAIMS, NOT_MEASURED, at
from tools.measure.results.parts import PARTS, Part, Place, run_part

ROOT = Path(__file__).parents[3]
CLAIM = Claim(
    "the avatar has {count} Gaussians and {psnr} dB",
    {"count": Figure("a.json", at("count")), "psnr": Figure("a.json", at("psnr"), tolerance=0.3)},
)
CONTENT = {"a.json": {"count": 87033, "psnr": 29.41}}


def verdicts(page: str, claim: Claim = CLAIM, content: dict = CONTENT) -> list[str]:
    return [figure.verdict for figure in check({"a.md": page}, [claim], content)]


def test_a_figure_holds_within_tolerance_and_rounding():
    assert verdicts("So the avatar has 87,033\n   Gaussians and 29.7 dB.") == ["holds", "holds"]
    assert verdicts("So the avatar has 87,034 Gaussians and 29.8 dB.") == ["differs", "differs"]
    assert verdicts("the avatar has 87,033 Gaussians and 29.05 dB") == ["holds", "differs"]


def test_a_bound_holds_on_its_side():
    for kind, written, verdict in [
        ("at least", 29.4, "holds"), ("at least", 29.5, "differs"), ("at most", 29.4, "differs"), ("at most", 29.5, "holds"),
    ]:  # fmt: skip
        claim = Claim("over {psnr} dB", {"psnr": Figure("a.json", at("psnr"), kind)})
        assert verdicts(f"over {written} dB", claim) == [verdict]


def test_what_is_not_measured_or_not_written_is_said():
    assert verdicts("the avatar has 1 Gaussians and 2 dB", content={}) == ["not measured"] * 2
    assert verdicts("nothing") == ["not written"] * 2
    assert (
        verdicts("the avatar has 1 Gaussians and 2 dB", content={"a.json": {"psnr": None}})
        == ["not measured"] * 2
    )


def test_a_claim_that_fits_twice_or_names_other_figures_is_refused():
    with pytest.raises(ValueError, match="2 places"):
        verdicts("the avatar has 1 Gaussians and 2 dB, the avatar has 1 Gaussians and 2 dB")
    with pytest.raises(ValueError, match="do not fit"):
        verdicts("", Claim("{a} dB", {"b": Figure("a.json", at("psnr"))}))


def test_a_claim_is_checked_on_every_page_that_has_it():
    pages = {"README.md": "", "a.md": "the avatar has 87,033 Gaussians and 29.4 dB", "b.md": "29.4 dB"}
    pages["c.md"] = "the avatar has 87,033 Gaussians and 39.4 dB"
    found = [(figure.page, figure.name, figure.verdict) for figure in check(pages, [CLAIM], CONTENT)]
    assert found == [
        ("a.md", "count", "holds"),
        ("a.md", "psnr", "holds"),
        ("c.md", "count", "holds"),
        ("c.md", "psnr", "differs"),
    ]


def test_figures_that_nobody_measures_are_found():
    page = "the avatar has 5 Gaussians and 29.1 dB, or 30.2 dB.\n```\n7 dB\n```\nIt needs 9 GB. | 12 |\n"
    found = without_claim(page, [CLAIM], ["It needs 9 GB"])
    assert len(found) == 2 and "30.2 dB" in found[0] and "12 |" in found[1]


def test_every_written_figure_is_measured_and_every_claim_is_written():
    pages = read_pages(ROOT)
    assert {name: without_claim(page, CLAIMS, NOT_MEASURED) for name, page in pages.items()} == {
        name: [] for name in pages
    }
    assert [figure.text for figure in check(pages, CLAIMS, {}) if figure.verdict == "not written"] == []
    whole = " ".join(" ".join(pages.values()).split())
    assert [text for text in NOT_MEASURED if " ".join(text.split()) not in whole] == []


def test_pictures_are_compared_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = Place(tmp_path / "project", tmp_path / "outputs")
    (place.root / "docs").mkdir(parents=True)
    place.out.mkdir()
    monkeypatch.setattr(pictures, "PICTURES", {"docs/a.png": "drawn.png"})
    old, new = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 9, np.uint8)
    Image.fromarray(old).save(place.root / "docs" / "a.png")
    assert "missing" in pictures.compare(place)["docs/a.png"]
    Image.fromarray(new).save(place.out / "drawn.png")
    assert "differs by 9.0" in pictures.compare(place)["docs/a.png"]
    pictures.update(place)
    assert pictures.compare(place) == {"docs/a.png": "as drawn"}
    Image.fromarray(new[:4]).save(place.out / "drawn.png")
    assert "pixels" in pictures.compare(place)["docs/a.png"]


def test_a_part_is_run_once_and_again_when_something_changed(tmp_path: Path):
    calls, version = tmp_path / "calls", ["1"]

    def command(place: Place) -> list[str]:
        return ["bash", "-c", f"echo x >> {calls}; touch {place.out / 'made'}"]

    place = Place(tmp_path, tmp_path)
    part = Part("part", "A part", command, ("made",), lambda _: version[0])
    run_part(part, place)
    run_part(part, place)
    assert calls.read_text() == "x\n"
    version[0] = "2"
    run_part(part, place)
    assert calls.read_text() == "x\nx\n"


def test_check_ends_with_one_where_nothing_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert results.main(["--check", "--out", str(tmp_path)]) == 1
    assert "not measured" in capsys.readouterr().out


def test_a_part_without_what_it_needs_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert results.main(["--only", "web", "--out", str(tmp_path)]) == 2
    assert "part web" in (said := capsys.readouterr().out) and "--only demo" in said


def test_a_time_may_differ_by_a_share():
    claim = Claim("in {time} seconds", {"time": Figure("a.json", at("psnr"), share=0.5)})
    assert [verdicts(f"in {time} seconds", claim) for time in (19, 20, 58)] == [
        ["differs"],
        ["holds"],
        ["holds"],
    ]


def test_commands_of_all_parts_are_there(tmp_path: Path):
    place = Place(ROOT, tmp_path)
    for part in PARTS:
        command = part.command(place)
        assert Path(command[0]).is_file(), command
        assert json.dumps(command)
