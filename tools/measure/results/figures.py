"""The figures of the README and of docs/, and where each of them is measured.

Tolerances are what another machine may change: trainings on another number of threads end elsewhere by a few hundredths of a dB,
times by much more. They say how far a written figure may be off, not how well it was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import mean
from typing import Any, Literal

from tools.measure.ablation.summary import left_alone
from tools.measure.results.claims import Claim, Figure
from tools.measure.results.parts import MORE_EDITS

DEMO, ABLATION, AVATAR = "demo/report.json", "ablation.json", "avatar_experiments.json"
ABLATION_FLOW, FLOW_EDITOR = "ablation_flow.json", "demo_flow_editor.json"
BENCH, EDITOR, SHARE = "bench.json", "demo_editor.json", "share.json"
EVALUATION, CLIP, EDITS = "evaluation/report.json", "demo_clip.json", "evaluation_edits/report.json"
SMALL, LONG = "avatar_256.json", "avatar_long.json"
TRACKING = "tracking.json"
DECIBEL, SSIM, COLOUR, CHANGE = 0.3, 0.005, 0.004, 0.01
"""Tolerances: of PSNR (dB), of SSIM, of colour differences between views, and of changes by an edit."""
ANGLE, MILLIMETRES = 0.5, 0.3
"""Of errors of an expression: means of six frames."""
OF_A_TIME = 0.5
"""Tolerance of a time, as a share of it."""


def at(*keys: str | int) -> Callable[[Any], float]:
    """What stands under these keys, one inside the other."""

    def find(content: Any) -> float:
        for key in keys:
            content = content[key]
        return content

    return find


def _figure(
    file: str, *keys: str | int, within: float = 0.0, kind: Literal["about", "at least", "at most"] = "about"
) -> Figure:
    return Figure(file, at(*keys), kind, within)


def _time(file: str, *keys: str | int) -> Figure:
    return Figure(file, at(*keys), share=OF_A_TIME)


def _times_as_long(content: Any) -> float:
    """The edit of the long capture against that of the ordinary one."""
    length = content["length"]
    return length["long"]["wall_seconds"] / length["ordinary"]["wall_seconds"]


def _ablation_minutes(content: Any) -> float:
    """Two processes share the rows."""
    seconds = sum(row["training_seconds"] + row["measuring_seconds"] for row in content["details"])
    return seconds / 2 / 60


def _expression_error(retention: bool, content: Any) -> float:
    """Mean over the rows of the edits that leave eyes and teeth alone."""
    calm = left_alone(content["rows"], content["details"])
    return mean(row["expression_error"] for row in calm if row["retention"] == retention)


def _pass_ms(content: Any) -> float:
    return 1000 * content["machine"]["torch_ref"]["seconds"] / content["rasterizer"]["speedup_vs_torch_ref"]


def _speedup_of_tuned(content: Any) -> float:
    """Against the reference with small chunks, its fastest option."""
    return 1000 * content["machine"]["torch_ref"]["seconds_small_chunks"] / _pass_ms(content)


def _arm(correspondence: str, retention: bool, key: str, within: float, file: str = ABLATION) -> Figure:
    """Mean of all rows of an arm of an ablation."""

    def find(content: Any) -> float:
        arms = content["summary"]["arms"]
        (arm,) = (
            arm for arm in arms if (arm["correspondence"], arm["retention"]) == (correspondence, retention)
        )
        return arm[key]["mean"]

    return Figure(file, find, tolerance=within)


def _arm_claim(words: str, correspondence: str, file: str = ABLATION) -> Claim:
    arm = partial(_arm, correspondence, False, file=file)
    figures = {
        "views": arm("view_disagreement", COLOUR),
        "moments": arm("time_disagreement", COLOUR),
        "psnr": arm("psnr_unseen", DECIBEL),
        "ssim": arm("ssim_unseen", SSIM),
    }
    return Claim(f"| {words} | {{views}} | {{moments}} | {{psnr}} dB, {{ssim}} |", figures)


def _avatar_claim(words: str, variant: str, more: dict[str, Figure] | None = None) -> Claim:
    """A row of the table of avatars; `more` are figures among the words."""
    figures = {
        "psnr": _figure(AVATAR, "rows", variant, "held_out_camera", "psnr", within=DECIBEL),
        "ssim": _figure(AVATAR, "rows", variant, "held_out_camera", "ssim", within=SSIM),
        "psnr_unseen": _figure(AVATAR, "rows", variant, "unseen_sequence", "psnr", within=DECIBEL),
        "ssim_unseen": _figure(AVATAR, "rows", variant, "unseen_sequence", "ssim", within=SSIM),
    }
    text = f"| {words} | {{psnr}} dB, {{ssim}} | {{psnr_unseen}} dB, {{ssim_unseen}} |"
    return Claim(text, figures | (more or {}))


def _gain(edits: tuple[str, ...]) -> Callable[[Any], float]:
    """Mean gain (dB) of these edits of the demo's editor."""
    return lambda content: sum(content["scores"][edit]["gain"] for edit in edits) / len(edits)


def _evaluated(
    file: str, places: list[tuple[int, str]], words: str, name: str, within: float, *cells: str
) -> Claim:
    """A row of figures of one name in a report of `edit3dgs evaluate`.

    Args:
        file: the report.
        places: number of the run and setting of each column.
        words: the row's heading.
        name: of the figure.
        within: tolerance.
        cells: one for each column, with {value} and {beside}; one for all. Columns beyond them hold no figures.
    """
    texts, figures = [], {}
    for number, ((run, setting), cell) in enumerate(
        zip(places, cells if cells[1:] else cells * len(places), strict=False)
    ):
        for part in ("value", "beside"):
            if f"{{{part}}}" in cell:
                cell = cell.replace(f"{{{part}}}", f"{{{part}{number}}}")
                keys = ("runs", run, "settings", setting, "figures", name, part)
                figures[f"{part}{number}"] = _figure(file, *keys, within=within)
        texts.append(cell)
    return Claim(f"| {words} | {' | '.join(texts)} |", figures)


_edit = partial(
    _evaluated, EVALUATION, [(0, "novel_view"), (0, "self_reenactment"), (0, "cross_reenactment")]
)
_edits = partial(_evaluated, EDITS, [(run, "self_reenactment") for run in range(1 + len(MORE_EDITS))])


def _expression(words: str, name: str, unit: str, within: float) -> Claim:
    """There are no true edits of another actor's motion."""
    true, unedited = (f"{{value}}{unit} ({of} {{beside}})" for of in ("true edit", "unedited"))
    return _edit(words, name, within, true, true, unedited)


AVATARS = {
    "`rigged-splatfacto-fast`": "default",
    "without densification": "no_densify",
    "without fine-tuning of expressions and poses": "no_tuning",
    "without relighting": "no_relighting",
    "started with opacity 0.1, not 0.5": "faint_start",
    "anti-aliasing": "antialiased",
    "a loss that draws opacities towards 1": "opaque",
    "3DGS-MCMC densification, as many Gaussians": "mcmc",
    "offsets that follow the expression": "expression_8",
    "tracked badly (1 degree, expressions 0.1), fine-tuned": "noisy",
    "tracked badly, not fine-tuned": "noisy_no_tuning",
}
"""Rows of the table of avatars, and the variant of `tools/measure/avatar_experiments` that each of them is."""
KNOWN = ("older", "green_skin", "blond_hair", "red_lips", "bronze_statue", "pale_vampire")
"""Edits of the demo's editor that have one true look."""


def _tracked(name: str, within: float) -> Figure:
    """Mean over the synthetic people at 256 x 256."""
    return _figure(TRACKING, "synthetic", name, within=within)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "| head rotation / vertices of the face | {rotation}° / {vertices} mm |",
        {"rotation": _tracked("rotation_deg", ANGLE), "vertices": _tracked("vertices_mm", MILLIMETRES)},
    ),
    Claim(
        "| jaw / gaze / eyelids | {jaw}° / {gaze}° / {lids} mm |",
        {
            "jaw": _tracked("jaw_deg", ANGLE),
            "gaze": _tracked("gaze_deg", ANGLE),
            "lids": _tracked("lids_mm", MILLIMETRES),
        },
    ),
    Claim(
        "| focal length / PSNR that the avatar loses by being tracked | {share} % / {loss} dB |",
        {"share": _tracked("focal_percent", 2.0), "loss": _tracked("psnr_loss_db", DECIBEL)},
    ),
    Claim("| speed, everything counted | {fps} frames a second |", {"fps": _time(TRACKING, "synthetic", "frames_per_second")}),
    Claim(
        "`make demo` takes about {minutes} minutes on two CPU cores",
        {"minutes": Figure(DEMO, lambda demo: sum(demo["seconds"].values()) / 60, share=OF_A_TIME)},
    ),
    Claim(
        "| avatar, held-out camera | PSNR {psnr} dB, SSIM {ssim} |",
        {
            "psnr": _figure(DEMO, "base", "novel_view", "psnr", within=DECIBEL),
            "ssim": _figure(DEMO, "base", "novel_view", "ssim", within=SSIM),
        },
    ),
    Claim(
        "| avatar, sequence not trained on | PSNR {psnr} dB, SSIM {ssim} |",
        {
            "psnr": _figure(DEMO, "base", "self_reenactment", "psnr", within=DECIBEL),
            "ssim": _figure(DEMO, "base", "self_reenactment", "ssim", within=SSIM),
        },
    ),
    Claim(
        "mean change on the head / of the background (0 to 1) | {head} / {background} |",
        {
            "head": _figure(DEMO, "edit", "change_on_head", within=CHANGE),
            "background": _figure(DEMO, "edit", "change_on_background", within=0.001),
        },
    ),
    Claim(
        "its edits are {mean} dB (PSNR) closer to the true edited image than the unedited image is, averaged over the first "
        "six edits; from {least} dB for red lips, where little is to change, to {most} dB for \"older\".",
        {
            "mean": Figure(EDITOR, _gain(KNOWN), tolerance=DECIBEL),
            "least": Figure(EDITOR, _gain(("red_lips",)), tolerance=DECIBEL),
            "most": Figure(EDITOR, _gain(("older",)), tolerance=DECIBEL),
        },
    ),
    Claim(
        "its edits of unseen people are {mean} dB closer to the truth on average, from {least} dB for red lips to {most} dB for "
        "\"older\".",
        {
            "mean": Figure(FLOW_EDITOR, _gain(KNOWN), tolerance=DECIBEL),
            "least": Figure(FLOW_EDITOR, _gain(("red_lips",)), tolerance=DECIBEL),
            "most": Figure(FLOW_EDITOR, _gain(("older",)), tolerance=DECIBEL),
        },
    ),
    Claim(
        "it chooses the right one for {right} % of 640 images of 64 people",
        {"right": Figure(CLIP, lambda content: 100 * content["accuracy"], tolerance=1)},
    ),
    _edit("CLIP-S (demo CLIP)", "clip_s", 0.02, "{value}"),
    _edit("CLIP-C (demo CLIP)", "clip_c", 0.01, "{value}"),
    _edit("PSNR to the true edit (unedited avatar)", "truth_psnr", DECIBEL, *["{value} dB ({beside})"] * 2),
    _edit("flicker (unedited avatar)", "flicker", 0.001, "{value} ({beside})"),
    _expression("jaw off by", "jaw_degrees", "°", ANGLE),
    _expression("lips off by", "lips_mm", " mm", MILLIMETRES),
    _expression("lids off by", "lids_mm", " mm", MILLIMETRES),
    _expression("gaze off by", "gaze_degrees", "°", ANGLE),
    _edits("CLIP-S, demo CLIP", "clip_s", 0.02, "{value}"),
    _edits("PSNR to the true edit (unedited)", "truth_psnr", DECIBEL, "{value} dB ({beside})"),
    _edits("SSIM to the true edit (unedited)", "truth_ssim", SSIM, "{value} ({beside})"),
    _edits("change of the background", "change_on_background", 0.001, "{value}"),
    _arm_claim("each alone", "none"),
    _arm_claim("together, `epipolar`", "epipolar"),
    _arm_claim("together, `rig`", "rig"),
    _arm_claim("each alone, `demo-flow`", "none", ABLATION_FLOW),
    _arm_claim("together, `rig`, `demo-flow`", "rig", ABLATION_FLOW),
    Claim(
        "the same edit of a capture four times as long took {ratio} times as long ({long} and {ordinary} seconds on two CPU "
        "cores) and came as near to the true edit ({psnr_long} and {psnr} dB on the unseen sequence;",
        {
            "ratio": Figure(ABLATION, _times_as_long, tolerance=0.1),
            "long": _time(ABLATION, "length", "long", "wall_seconds"),
            "ordinary": _time(ABLATION, "length", "ordinary", "wall_seconds"),
            "psnr_long": _figure(ABLATION, "length", "long", "psnr_unseen", within=DECIBEL),
            "psnr": _figure(ABLATION, "length", "ordinary", "psnr_unseen", within=DECIBEL),
        },
    ),
    Claim(
        "with 12,000 steps the demo's avatar reaches {psnr} dB (held-out camera) and {psnr_unseen} dB (sequence not trained on), "
        "with 3,000 it has {demo} and {demo_unseen} |",
        {
            "psnr": _figure(LONG, "rows", "default", "held_out_camera", "psnr", within=DECIBEL),
            "psnr_unseen": _figure(LONG, "rows", "default", "unseen_sequence", "psnr", within=DECIBEL),
            "demo": _figure(DEMO, "base", "novel_view", "psnr", within=DECIBEL),
            "demo_unseen": _figure(DEMO, "base", "self_reenactment", "psnr", within=DECIBEL),
        },
    ),
    *(_avatar_claim(words, variant) for words, variant in AVATARS.items()),
    _avatar_claim(
        "started with a Gaussian every 5 mm (`--pipeline.model.initial-spacing 0.005`): {gaussians}, not {usual}",
        "even_start_5",
        {
            "gaussians": _figure(AVATAR, "rows", "even_start_5", "gaussians", within=1000),
            "usual": _figure(AVATAR, "rows", "default", "gaussians", within=1000),
        },
    ),
    _avatar_claim(
        "every 3 mm: {gaussians}",
        "even_start",
        {"gaussians": _figure(AVATAR, "rows", "even_start", "gaussians", within=2000)},
    ),
    Claim(
        "Where tracking errs it brings back {share} % of the loss",
        {"share": Figure(AVATAR, lambda content: 100 * content["recovered_share_of_psnr"], tolerance=5)},
    ),
    Claim(
        "3,000 steps from one every 5 mm end at {psnr} and {psnr_unseen} dB, below the default's",
        {
            "psnr": _figure(SMALL, "rows", "even_start_5", "held_out_camera", "psnr", within=DECIBEL),
            "psnr_unseen": _figure(SMALL, "rows", "even_start_5", "unseen_sequence", "psnr", within=DECIBEL),
        },
    ),
    Claim(
        "`make ablation` ({minutes} minutes on two CPU cores)",
        {"minutes": Figure(ABLATION, _ablation_minutes, share=OF_A_TIME)},
    ),
    Claim(
        "halves the error there, {without} to {kept}, in the two prompts that leave them alone",
        {
            "without": Figure(ABLATION, partial(_expression_error, False), tolerance=0.01),
            "kept": Figure(ABLATION, partial(_expression_error, True), tolerance=0.01),
        },
    ),
    Claim(
        "an avatar of {gaussians} Gaussians shows at over {fps} frames a second at 802 x 550",
        {
            "gaussians": _figure(BENCH, "avatar_frame", "gaussians"),
            "fps": _figure(BENCH, "avatar_frame", "fps", kind="at least"),
        },
    ),
    Claim(
        "A forward and backward pass over 50,000 Gaussians at 512 x 512 takes {ms} ms, more than {times} times as fast as a "
        "reference in plain PyTorch (more than {tuned} times with that reference's options tuned)",
        {
            "ms": Figure(BENCH, _pass_ms, share=OF_A_TIME),
            "times": _figure(BENCH, "rasterizer", "speedup_vs_torch_ref", kind="at least"),
            "tuned": Figure(BENCH, _speedup_of_tuned, "at least"),
        },
    ),
    Claim(
        "`ns-viewer` answers a move of a slider after {seconds} seconds (256 x 256).",
        {"seconds": _time(BENCH, "viewer", "slider_response_s")},
    ),
    Claim(
        "of those 86,000 Gaussians is written at {share} times the rate at which rasterizing alone would go",
        {"share": _figure(BENCH, "reenactment", "fps_ratio", within=0.1)},
    ),
    Claim(
        "A training step of 40,000 Gaussians (256 x 256) takes {ratio} times as long as rasterizing it forward and backward alone",
        {"ratio": _figure(BENCH, "training_step", "ratio_to_rasterizer", within=0.2)},
    ),
    Claim(
        "With 20,000 images a training takes {gb} GB more memory than with 100, begins its first step after {seconds} seconds",
        {
            "gb": _figure(BENCH, "streaming", "extra_peak_gb", within=0.3),
            "seconds": _time(BENCH, "streaming", "seconds_to_first_step"),
        },
    ),
    Claim(
        "The demo's has at most {megabytes} MB and agrees with our rasterizer to {worst} dB or more in every one of 30 poses.",
        {
            "megabytes": _figure(SHARE, "page", "megabytes", kind="at most"),
            "worst": _figure(SHARE, "page", "worst_db", kind="at least"),
        },
    ),
)  # fmt: skip

NOT_MEASURED: tuple[str, ...] = (
    "about 9 GB of disk",
    "weights of 17 MB",
    "an InstructPix2Pix of 17 MB",
    "is a transformer of 24 MB",
    "(9 M parameters, 24 MB with all it needs)",
    "| 9 M + 0.2 M | 24 MB | 256 | 4, none | 4 |",
    "a CLIP of 6 MB",
    "| 6 MB, trained by us",
    "about 5 GB",
    "`--pipeline.datamanager.cache-gb` (1 GB)",
    "needs 22.5 GB of memory",
    "| FLAME 2023 |",
    "FLAME 2020 |",
    "| Apache 2.0 |",
    "SIGGRAPH 2023",
    "3DV 2025",
    "amounts 0 to 1",
    "more than 3 % of the distance between the eyes",
    "the video's own, at most 30",
    "zoom by up to 20 %",
    "| 8.2 M + 0.4 M | 17 MB | 256 | 20, 1 and 1 | 20 |",
    "| 0.9 B + 0.1 B | 2 GB | as rendered | 20, 7.5 and 1.5 | 60 |",
    "| 2.6 B + 0.8 B | 7 GB | 768 | 30, 3 and 1.5 | 90 |",
    "| 2.6 B + 0.8 B | 7 GB | 1024 | 20, 5 and 1.5 | 60 |",
    "| Apache 2.0 | 4 B + 4 B | 16 GB | 1024 | 4, none | 4 |",
    "| Apache 2.0 | 4 B + 4 B | 16 GB | 1024 | 50, 4 | 100 |",
    "| 12 B + 5 B | 34 GB | 1024 | 28, 2.5 | 28 |",
    "| 32 B + 24 B | 112 GB | 1024 | 50, 4 | 50 |",
    "| Apache 2.0 | 6 B + 8 B | 28 GB | one megapixel | 50, 4.5 | 100 |",
    "| Apache 2.0 | 20 B + 8 B | 56 GB | one megapixel | 50, 4 | 100 |",
    "| Apache 2.0 | 20 B + 8 B | 56 GB | one megapixel | 40, 4 | 80 |",
)
"""Pieces of text with figures that are no results of ours."""
