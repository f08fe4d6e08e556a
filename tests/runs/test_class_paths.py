"""config.yml of runs from before the package was divided into rooms: every class it names is found, and the run is the same."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

import edit3dgs_ns.method_configs  # noqa: F401  (this is what Nerfstudio imports, and with it the table is in force)
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.runs.class_paths import MOVED, unknown_classes_named

FORMER = {
    "ExponentialScheduler": "schedulers",
    "ExponentialSchedulerConfig": "schedulers",
    "AvatarDatamanager": "datamanager",
    "AvatarDatamanagerConfig": "datamanager",
    "AvatarPipeline": "avatar_pipeline",
    "AvatarPipelineConfig": "avatar_pipeline",
    "AvatarTrainerConfig": "trainer",
    "EditorConfig": "edit_options",
    "EditPipeline": "pipeline",
    "EditPipelineConfig": "pipeline",
    "GroundedSamOptions": "editing.grounded_sam_options",
    "ResumableTrainer": "checkpoints",
    "RiggedSplatfactoModel": "model",
    "RiggedSplatfactoModelConfig": "avatar_options",
}
"""The modules of the classes in a config.yml, as they were called when all modules lay side by side."""
STAYED = {"NersembleDataParser", "NersembleDataParserConfig"}
INSTEAD = {"FusedAdamConfig": "nerfstudio.engine.optimizers.AdamOptimizerConfig"}
"""Classes of ours that later took the place of Nerfstudio's, which older runs name."""
CLASS_PATH = re.compile(r"edit3dgs_ns\.([a-z_.0-9]+)\.([A-Z]\w+)")


def as_it_was(text: str) -> str:
    """A config.yml with the class paths of that time."""

    def former(found: re.Match) -> str:
        name = found[2]
        if name in INSTEAD:
            return INSTEAD[name]
        return found[0] if name in STAYED else f"edit3dgs_ns.{FORMER[name]}.{name}"

    return CLASS_PATH.sub(former, text)


@pytest.mark.parametrize(
    ("module", "name", "now"),
    [(module, name, now) for module, classes in MOVED.items() for name, now in classes.items()],
)
def test_every_former_path_leads_to_the_class_where_it_stands_now(module, name, now):
    found = getattr(import_module(f"edit3dgs_ns.{module}"), name)
    assert isinstance(found, type) and found.__name__ == name
    assert found.__module__ == f"edit3dgs_ns.{now}", "the table names the module that defines the class"


def test_the_table_has_all_classes_that_configs_named(make_config, small_avatar):
    texts = [yaml.dump(make_config()), (small_avatar / "config.yml").read_text()]
    named = {name for text in texts for _, name in CLASS_PATH.findall(text)}
    assert named == set(FORMER) | STAYED | set(INSTEAD)
    assert all(name in MOVED[module] for name, module in FORMER.items())


def test_an_older_run_opens_and_renders_the_same(small_avatar, tmp_path):
    from edit3dgs_ns.runs.trained_run import TrainedRun

    text = (small_avatar / "config.yml").read_text()
    older = small_avatar / "older.yml"  # beside the checkpoints that it names
    older.write_text(as_it_was(text))
    assert "edit3dgs_ns.training" not in older.read_text() and "edit3dgs_ns.checkpoints" in older.read_text()
    one, other = TrainedRun(small_avatar / "config.yml"), TrainedRun(older)
    assert type(other.pipeline) is type(one.pipeline) and other.step == one.step
    states = [run.pipeline.state_dict() for run in (one, other)]
    assert states[0].keys() == states[1].keys()
    camera = one.split("val").cameras[0:1]
    assert torch.equal(torch.from_numpy(one.render(camera).rgb), torch.from_numpy(other.render(camera).rgb))
    older.unlink()


def test_a_config_of_an_edit_is_the_same_by_either_name(make_config):
    config = make_config()
    text = yaml.dump(config)
    assert yaml.load(as_it_was(text), Loader=yaml.Loader) == yaml.load(text, Loader=yaml.Loader) == config


@pytest.mark.parametrize("path", ["nowhere.AvatarTrainerConfig", "trainer.NoSuchConfig"])
def test_a_class_that_is_nowhere_is_named_with_the_file(small_avatar, tmp_path, path):
    from edit3dgs_ns.runs.trained_run import TrainedRun

    config = tmp_path / "config.yml"
    text = (small_avatar / "config.yml").read_text()
    config.write_text(
        text.replace("edit3dgs_ns.training.trainer_config.AvatarTrainerConfig", f"edit3dgs_ns.{path}")
    )
    module, _, name = path.rpartition(".")
    with pytest.raises(
        UserError, match=rf"(?s)config\.yml names a class that is not there.*edit3dgs_ns\.{module}"
    ) as error:
        TrainedRun(config)
    assert str(tmp_path) in str(error.value)
    assert module != "trainer" or name in str(error.value)


def test_what_is_no_class_path_passes_through():
    with pytest.raises(KeyError), unknown_classes_named(Path("config.yml")):
        raise KeyError("x")
    assert "edit3dgs_ns.nowhere" not in sys.modules
