"""The measurement of the judge, at its smallest."""

from __future__ import annotations

import json

from tools.measure.judge.__main__ import main


def test_planted_faults_are_found_and_true_edits_accepted(tmp_path):
    out = tmp_path / "judge.json"
    assert main(["--tiny", "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    kinds = {"not finite", "black", "unchanged", "shifted 6 px", "scaled 1.02", "scaled 1.1", "other hue"}
    assert set(content["planted"]) == kinds
    assert content["planted"] == {kind: {"views": 5, "found": 5} for kind in kinds}
    assert content["good_views"] == 45 and content["good_refused"] == 0


def test_planted_colours_of_views_go_when_they_agree_afterwards():
    from tools.measure.ablation.afterwards import EDITS, measure_afterwards

    rows = measure_afterwards(1, 128)
    assert [row["edit"] for row in rows] == list(EDITS)
    for row in rows:
        assert row["view_disagreement_agreed"] < 0.25 * row["view_disagreement_planted"]
