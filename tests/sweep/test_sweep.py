"""`edit3dgs sweep`: which commands a plan stands for, what is done again and what is not, and the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.sweep.plan import read_plan
from edit3dgs_ns.sweep.run import run_sweep

PLAN = """
output = "out"
workers = 2
seeds = [0, 1]
editors = ["demo"]
clip = "demo"
source_caption = "a man"

[train]
flags = ["--max-num-iterations", "5"]

[edit]
flags = ["--pipeline.rounds", "3"]

[[subjects]]
name = "anna"
data = "anna"

[[subjects]]
name = "ben"
data = "ben"
avatar = "ben_avatar"

[[prompts]]
prompt = "Make him look older"
target_caption = "an old man"

[[prompts]]
prompt = "Turn him into a bronze statue"
target_caption = "a statue"
"""


def name_of(plan, subject: str, prompt: int = 0, seed: int = 0) -> str:
    """Of a cell's folders."""
    (cell,) = (
        cell
        for cell in plan.cells()
        if (cell.subject.name, cell.prompt, cell.seed) == (subject, plan.prompts[prompt], seed)
    )
    return cell.name


@pytest.fixture
def plan_file(tmp_path) -> Path:
    for name in ("anna", "ben", "ben_avatar"):
        (tmp_path / name).mkdir()
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


class Commands:
    """Stands in for the commands: notes them, and leaves what they would."""

    def __init__(self, fails=()):
        self.ran, self.fails = [], set(fails)

    def __call__(self, words, log):
        words = list(words)
        self.ran.append(words)
        if "evaluate" in words:
            output = Path(words[words.index("--output") + 1])
            output.mkdir(parents=True, exist_ok=True)
            seed = 1.0 if "seed1" in output.name else 0.0
            figures = {"clip_s": {"value": 0.1 + 0.2 * seed}, "clip_c": {"value": None}}
            report = {"runs": [{"settings": {"novel_view": {"figures": figures}}}]}
            (output / "report.json").write_text(json.dumps(report))
            return 0
        folder = Path(words[words.index("--output-dir") + 1]) / words[words.index("--experiment-name") + 1]
        (folder / words[1] / "run").mkdir(parents=True, exist_ok=True)
        return 1 if folder.name in self.fails else 0

    def kinds(self):
        """How many trained, edited and evaluated."""
        kinds = ["evaluate" if "evaluate" in words else words[1] for words in self.ran]
        return [kinds.count(kind) for kind in ("rigged-splatfacto-fast", "edit3dgs", "evaluate")]


def test_every_cell_is_edited_and_evaluated_and_an_avatar_trained_once(plan_file):
    plan, commands = read_plan(plan_file), Commands()
    assert run_sweep(plan, commands) == 0
    assert commands.kinds() == [1, 8, 8]
    (training,) = (words for words in commands.ran if words[1] == "rigged-splatfacto-fast")
    assert training[training.index("--data") + 1] == str(plan_file.parent / "anna")
    assert training[training.index("--max-num-iterations") + 1] == "5"
    edits = [words for words in commands.ran if words[1] == "edit3dgs"]
    avatars = {words[words.index("--pipeline.avatar") + 1] for words in edits}
    own = str(plan.output / "avatars" / "anna" / "rigged-splatfacto-fast" / "run")
    assert avatars == {own, str(plan_file.parent / "ben_avatar")}
    assert all(words.index("--pipeline.rounds") < words.index("nersemble-data") for words in edits)
    assert {words[words.index("--pipeline.seed") + 1] for words in edits} == {"0", "1"}
    captions = {words[words.index("--target-caption") + 1] for words in commands.ran if "evaluate" in words}
    assert captions == {"an old man", "a statue"}


def test_the_same_command_does_only_what_is_missing(plan_file):
    plan = read_plan(plan_file)
    broken = Commands(fails={name_of(plan, "anna", seed=1)})
    assert run_sweep(plan, broken) == 1
    table = json.loads((plan.output / "table.json").read_text())
    assert [bool(row["figures"]) for row in table["rows"]].count(False) == 1
    again = Commands()
    assert run_sweep(plan, again) == 0
    assert again.kinds() == [0, 1, 1]
    nothing = Commands()
    assert run_sweep(plan, nothing) == 0 and nothing.ran == []


def rows_of(plan) -> list[dict]:
    return json.loads((plan.output / "table.json").read_text())["rows"]


@pytest.mark.parametrize(
    ("old", "new", "done"),
    [
        ('"3"]', '"4"]', [0, 8, 8]),  # an option of the edits: the avatars stay
        ('"5"]', '"6"]', [1, 4, 4]),  # of Anna's avatar: what is made of it, and nothing of Ben's
        ('"a statue"', '"a bronze bust"', [0, 0, 4]),
        ('"demo"]', '"demo", "demo-flow"]', [0, 8, 8]),  # more columns: those that are there stay
        ('[[prompts]]', '[[prompts]]\nprompt = "Give her red lips"\ntarget_caption = "lips"\n[[prompts]]', [0, 4, 4]),
    ],
)  # fmt: skip
def test_another_plan_does_again_what_it_changes_and_nothing_else(plan_file, old, new, done):
    run_sweep(read_plan(plan_file), Commands())
    plan_file.write_text(PLAN.replace(old, new, 1))
    plan, changed, again = read_plan(plan_file), Commands(), Commands()
    assert run_sweep(plan, changed) == 0 and changed.kinds() == done
    assert all(row["figures"] for row in rows_of(plan))
    assert run_sweep(plan, again) == 0 and again.ran == []


def test_figures_of_a_former_plan_never_stand_for_an_edit_that_failed(plan_file):
    run_sweep(read_plan(plan_file), Commands())
    plan_file.write_text(PLAN.replace('"3"]', '"4"]'))
    plan = read_plan(plan_file)
    assert run_sweep(plan, Commands(fails={cell.name for cell in plan.cells()})) == 8
    assert not any(row["figures"] for row in rows_of(plan))


@pytest.mark.parametrize("damage", ["", "{bro", "[1]"])
def test_what_damaged_files_speak_of_is_done_again(plan_file, damage):
    plan, commands = read_plan(plan_file), Commands()
    run_sweep(plan, Commands())
    name = name_of(plan, "ben")
    (plan.output / ".done" / f"edit-{name}.json").write_text(damage)
    (plan.output / "evaluation" / name / "report.json").write_text(damage)
    assert run_sweep(plan, commands) == 0 and commands.kinds() == [0, 1, 0]
    assert [bool(row["figures"]) for row in rows_of(plan)].count(False) == 1


def test_an_edit_that_was_stopped_is_not_started_again(plan_file):
    plan = read_plan(plan_file)

    class Stopped(Commands):
        def __call__(self, words, log):
            super().__call__(words, log)
            return 130 if words[1] == "edit3dgs" else 0

    commands = Stopped()
    assert run_sweep(plan, commands) == 8 and commands.kinds() == [1, 8, 0]


def test_an_output_that_is_a_file_is_refused(plan_file):
    (plan_file.parent / "out").write_text("")
    with pytest.raises(UserError, match="no folder can be made there"):
        run_sweep(read_plan(plan_file), Commands())


def test_an_avatar_that_cannot_be_trained_is_tried_once(plan_file):
    plan, commands = read_plan(plan_file), Commands(fails={"anna"})
    assert run_sweep(plan, commands) == 4
    assert commands.kinds() == [1, 4, 4]


def test_an_edit_that_broke_off_goes_on_from_its_checkpoint(plan_file):
    plan = read_plan(plan_file)
    calls, name = [], name_of(read_plan(plan_file), "ben")

    class Breaking(Commands):
        def __call__(self, words, log):
            status = super().__call__(words, log)
            if words[1] == "edit3dgs" and name in words:
                calls.append(list(words))
                checkpoints = (
                    Path(words[words.index("--output-dir") + 1]) / name / "edit3dgs/run/nerfstudio_models"
                )
                checkpoints.mkdir(exist_ok=True)
                _write_zip(checkpoints / "step-000000004.ckpt")
                return 1 if len(calls) == 1 else 0
            return status

    assert run_sweep(plan, Breaking()) == 0
    first, second = calls
    assert "--load-dir" not in first
    assert second[second.index("--load-dir") + 1].endswith(f"{name}/edit3dgs/run/nerfstudio_models")
    assert second.index("--load-dir") < second.index("nersemble-data")


def _write_zip(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data", "x")


def test_the_table_has_means_over_subjects_and_seeds(plan_file):
    plan = read_plan(plan_file)
    run_sweep(plan, Commands())
    table = json.loads((plan.output / "table.json").read_text())
    assert table["columns"] == ["novel_view clip_s"] and len(table["rows"]) == 8
    older, statue, everything = table["means"]
    assert (older["prompt"], statue["prompt"], everything["prompt"]) == (
        "Make him look older", "Turn him into a bronze statue", "all",
    )  # fmt: skip
    assert older["edits"] == 4 and everything["edits"] == 8
    assert everything["figures"]["novel_view clip_s"] == pytest.approx(0.2)
    assert older["spread"]["novel_view clip_s"] == pytest.approx(0.11547, abs=1e-4)
    text = (plan.output / "table.md").read_text()
    assert "| anna | Make him look older | 1 | demo | 0.3 | 1 |" in text and "0.2 ± 0.12" in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [0, 1]", 'seeds = ["a"]', r"seeds = \['a'\]; expected a list of whole numbers"),
        ("seeds = [0, 1]", "sedes = [0]", "sedes; expected one of .*seeds"),
        ('name = "ben"', 'name = "anna"', "anna, anna; expected different names"),
        ('name = "ben"', 'name = "a/b"', "'a/b'; expected letters"),
        ('target_caption = "a statue"', "", "target_caption is missing"),
        ('data = "ben"', 'data = "no"', "subject ben: .*no is not there"),
        ("workers = 2", 'workers = "two"', "--pipeline.editor.workers two"),
        ('editors = ["demo"]', 'editors = ["command:/no/program"]', "there is no such program"),
        ("seeds = [0, 1]", "seeds = [0,", "is no TOML file"),
        ("seeds = [0, 1]", "seeds = [1, 1]", "seeds: 1 twice; expected different ones"),
        ("Turn him into a bronze statue", "Make him look older", "prompts: 'Make him look older' twice"),
        ('name = "ben"', 'name = ".."', "'..'; expected letters"),
    ],
)
def test_a_mistake_in_a_plan_is_named(plan_file, old, new, message):
    assert old in PLAN
    plan_file.write_text(PLAN.replace(old, new))
    with pytest.raises((UserError, MissingFileError), match=message):
        read_plan(plan_file)


def test_a_plan_that_is_missing_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="no such plan"):
        read_plan(tmp_path / "plan.toml")
