"""Edits in Ray actors: the images of one process, also when an actor is killed in the middle of an edit."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edit3dgs_ns.editing import ray_cluster
from edit3dgs_ns.editing.agreement.sharing import SharingOptions
from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.editors import load_named_editor
from edit3dgs_ns.editing.worker_names import Workers, parse_workers
from edit3dgs_ns.errors import MissingFileError, UserError
from tests.edit_runs import same_run, train
from tests.tiny_editor import save_tiny_editor

with_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra `ray`)"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", None),
        ("4", Workers(4, None)),
        ("ray://head.lab:10001", Workers(0, "ray://head.lab:10001")),
        ("8@ray://10.0.0.1:10001", Workers(8, "ray://10.0.0.1:10001")),
    ],
)
def test_workers_are_a_number_or_a_cluster(text, expected, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert parse_workers(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "two", "8@", "0@ray://h:1", "@ray://h:1", "http://h:1", "8ray://h:1", "ray://h"]
)
def test_anything_else_is_refused(text):
    with pytest.raises(UserError, match=r"--pipeline\.editor\.workers .*8@ray://HEAD:10001"):
        parse_workers(text)


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingFileError, match=r"edit3dgs-ns\[ray\]"):
        parse_workers("2")


def request(views: int = 3, **options) -> EditRequest:
    images = np.random.default_rng(0).random((views, 16, 16, 3), dtype=np.float32)
    options = {"steps": 3, "shared_noise": False, **options}
    return EditRequest(prompt="make him look older", images=images, originals=images, seed=4, **options)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads a random editor that edits each view alone, two at a time."""
    folder = save_tiny_editor(tmp_path_factory.mktemp("editor"))
    torch.set_num_threads(1)
    return partial(load_named_editor, str(folder), sharing=SharingOptions("none"), views_per_forward=2)


@pytest.fixture(scope="module")
def pool(load):
    """Two actors."""
    pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    import ray

    from edit3dgs_ns.editing.workers import RayEditor

    before, handler = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    torch.set_num_threads(1)
    editor = RayEditor(Workers(2, None), load, views_per_task=2)
    assert signal.getsignal(signal.SIGTERM) == handler, "Ray's ends a training without its checkpoint"
    yield editor
    editor.close()
    ray.shutdown()
    torch.set_num_threads(before)


@with_ray
@pytest.mark.slow
def test_a_request_in_several_actors_gives_the_images_of_one_process(load, pool):
    alone, told, given = load(), [], {}
    result = pool.edit(request(5), lambda *p: told.append(p), lambda view, image: given.update({view: image}))
    expected = alone.edit(request(5))
    assert len(set(pool.process_ids)) == 2
    np.testing.assert_array_equal(result.images, expected.images)
    np.testing.assert_array_equal(np.stack([given[view] for view in range(5)]), expected.images)
    assert result.unet_evaluations == expected.unet_evaluations
    assert pool.settings == alone.settings and pool.views_depend is False and told[-1][0] == told[-1][1] > 0
    assert pool.unknown_instruction("x") == alone.unknown_instruction("x")
    assert pool.weight_bytes == alone.weight_bytes > 0
    values = (0.6, None, 7.5, None)
    assert pool.evaluations_per_view(*values) == alone.evaluations_per_view(*values) > 0


@with_ray
@pytest.mark.slow
def test_an_actor_that_is_killed_in_mid_edit_is_started_again_and_nothing_is_lost(load, pool):
    victims = pool.process_ids
    killed = threading.Event()

    def kill(done, total):
        if 0 < done < total and not killed.is_set():
            killed.set()
            os.kill(victims[0], signal.SIGKILL)

    asked = request(4, steps=400)
    result = pool.edit(asked, kill)
    assert killed.is_set() and victims[0] not in pool.process_ids
    np.testing.assert_array_equal(result.images, load().edit(asked).images)


@with_ray
@pytest.mark.slow
def test_rounds_in_flight_in_a_run_one_of_whose_actors_is_killed_are_those_of_one_process(
    make_config, pool, monkeypatch
):
    from edit3dgs_ns.editing.workers import RayEditor

    edit, killed = RayEditor.edit, threading.Event()

    def edit_and_kill(self, request, progress=None, finished=None):
        def told(done, total):
            if 0 < done < total and not killed.is_set():
                killed.set()
                os.kill(self.process_ids[0], signal.SIGKILL)
            progress(done, total)

        return edit(self, request, told, finished)

    monkeypatch.setattr(RayEditor, "edit", edit_and_kill)
    options = {"rounds": 2, "rounds_at_once": 2, "correspondence": "rig", "steps": 150}
    several = train(make_config(workers="2", **options))
    several.pipeline._editor.inner.close()
    assert killed.is_set()
    same_run(several.base_dir, train(make_config(**options)).base_dir)


@with_ray
@pytest.mark.slow
def test_weights_that_are_missing_where_an_actor_runs_are_named(pool):
    from edit3dgs_ns.editing.workers import RayEditor

    with pytest.raises(MissingFileError, match="/no/such/model"):
        RayEditor(Workers(1, None), partial(load_named_editor, "/no/such/model"))


@pytest.mark.parametrize(
    ("there", "free", "reason"),
    [
        ({"GPU": 2.0}, {}, "of the cluster's 2 GPUs 0 are free, and a worker needs 1"),
        ({"CPU": 8.0}, {"CPU": 8.0}, "the cluster has no GPUs"),
        ({"GPU": 2.0}, {"GPU": 2.0}, "none has answered yet"),
    ],
)
def test_what_a_pool_waits_for_is_said_and_not_waited_for_forever(monkeypatch, there, free, reason):
    """A cluster of which no actor gets what it asks for."""
    cluster = SimpleNamespace(
        wait=lambda answers, timeout: (time.sleep(timeout), ([], answers))[1],
        cluster_resources=lambda: there,
        available_resources=lambda: free,
    )
    monkeypatch.setattr(ray_cluster, "_SPEAK_AFTER", 0.02)
    told = []
    with pytest.raises(UserError, match=rf"(?s)within 0.06 seconds: {reason}.*--pipeline.editor.workers 1"):
        ray_cluster.await_first(cluster, ["answer"], {"num_cpus": 0, "num_gpus": 1}, told.append, 0.06)
    assert len(told) == 1 and reason in told[0]
    cluster.wait = lambda answers, timeout: ([answers[1]], answers[:1])
    assert ray_cluster.await_first(cluster, ["a", "b"], {}, told.append, 9.0) == 1 and len(told) == 1
