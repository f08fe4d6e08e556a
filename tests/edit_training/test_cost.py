"""What is said of an edit's cost, before and after."""

from dataclasses import replace
from types import SimpleNamespace

from edit3dgs_ns.edit_training.cost import actual_cost, planned_cost
from edit3dgs_ns.edit_training.options import EditorConfig
from edit3dgs_ns.editing.schedule import EditSchedule


class _Priced:
    """Three evaluations a step; as many steps as the noise leaves."""

    weight_bytes = 2_500_000_000

    def evaluations_per_view(self, noise, steps, guidance_scale, image_guidance_scale):
        assert (guidance_scale, image_guidance_scale) == (7.0, None)
        return 3 * round(noise * steps)


def test_the_planned_cost_counts_the_rounds_to_come_with_their_noise():
    schedule = EditSchedule({0: range(4)}, rounds=3, views_per_edit=2, noise_first=1.0, noise_last=0.5)
    options = EditorConfig(steps=20, guidance_scale=7.0)
    expected = 3 * 2 * (20 + 15 + 10)
    assert planned_cost(_Priced(), options, schedule) == (
        f"3 rounds edit 6 views: about {expected} evaluations of the network. Its weights take 2.5 GB."
    )
    wrapped = SimpleNamespace(inner=SimpleNamespace(inner=_Priced()))
    in_workers = planned_cost(wrapped, replace(options, workers="4"), schedule)
    assert in_workers.endswith("Its weights take 2.5 GB in every worker.")
    schedule.advance()
    assert "2 rounds edit 4 views: about 150 evaluations" in planned_cost(_Priced(), options, schedule)
    assert planned_cost(object(), options, schedule) == ""


def test_the_actual_cost_sums_the_rounds_of_the_history():
    batches = [
        {"views": [1, 2], "unet_evaluations": 120, "seconds": 20.0, "peak_memory_gb": 3.0},
        {"views": [3], "unet_evaluations": 60, "seconds": 10.0, "peak_memory_gb": 3.5},
    ]
    text = actual_cost(batches)
    assert text == "2 rounds edited 3 views: 180 evaluations of the network, 30 s, 3.5 GB of memory at most."
    assert actual_cost([]) == ""
