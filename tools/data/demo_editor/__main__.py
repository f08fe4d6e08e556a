"""Makes the embedded demo editors: a small InstructPix2Pix for synthetic heads (edit3dgs_ns/editing/demo_editor), and with
--editor demo-flow a small flow-matching transformer in the format of FLUX.2 klein (edit3dgs_ns/editing/demo_flow_editor).

    python -m tools.data.demo_editor all           # every stage below: five to six hours on two cores
    python -m tools.data.demo_editor data          # may run several times at once, and while the rest trains
    python -m tools.data.demo_editor vae
    python -m tools.data.demo_editor unet          # or, of the other editor: flow --editor demo-flow
    python -m tools.data.demo_editor decoder       # optional: the decoder learns to forgive the UNet
    python -m tools.data.demo_editor export
    python -m tools.data.demo_editor evaluate      # the table alone, on the embedded editor; --further 4 for the many other edits

Every stage can be stopped (Ctrl-C, kill) and goes on where it was when the same command is given again: rendered scenes, which
serve both editors, appear whole or not at all, training states are saved every two minutes. Budgets (--minutes) count the time of
all runs of a stage together. The work folder can be deleted afterwards.

New edits do not take all that again. Warm starts load the embedded editor, its autoencoder too, give new words new embeddings and
train what is new beside what is known:

    python -m tools.data.demo_editor data --scenes 400                       # 15 minutes on one core
    python -m tools.data.demo_editor flow --editor demo-flow --warm-start --minutes 40 --processes 1
    python -m tools.data.demo_editor export --editor demo-flow --out /tmp/candidate
    python -m tools.data.demo_editor evaluate --editor demo-flow --out /tmp/candidate --heldout 12 --further 4
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tools.data.demo_editor.settings import Settings, Workspace

ROOT = Path(__file__).resolve().parents[3]
EMBEDDED = ROOT / "edit3dgs_ns" / "editing"
FOLDERS = {"demo": "demo_editor", "demo-flow": "demo_flow_editor"}
"""Of the embedded editors by name."""
STAGES = ("data", "vae", "unet", "flow", "decoder", "export", "evaluate", "all")
MINUTES = {"data": 40.0, "vae": 20.0, "unet": 275.0, "flow": 90.0, "decoder": 5.0}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument(
        "--editor", choices=tuple(FOLDERS), default="demo", help="which of the two embedded editors"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "outputs" / "demo_editor", help="states, scenes, logs"
    )
    parser.add_argument(
        "--out", type=Path, help="the exported editor's folder; default: its own in the package"
    )
    parser.add_argument(
        "--warm-start",
        type=Path,
        nargs="?",
        const=Path(),
        help="unet, flow: begin with the weights of an exported editor (a folder; default: the embedded one)",
    )
    parser.add_argument("--minutes", type=float, help=f"time budget of the stage; default {MINUTES}")
    parser.add_argument(
        "--scenes", type=int, default=600, help="training scenes to render (seven pictures each)"
    )
    parser.add_argument("--heldout", type=int, default=32, help="held-out scenes to render and evaluate on")
    parser.add_argument(
        "--guidance", type=float, default=1.0, help="recommended text guidance, written at export"
    )
    parser.add_argument(
        "--image-guidance", type=float, default=1.0, help="recommended image guidance, written at export"
    )
    parser.add_argument(
        "--steps", type=int, help="recommended steps, written at export; default: 20 of DDIM, 4 of demo-flow"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=min(os.cpu_count() or 1, 4),
        help="training processes, one thread each",
    )
    parser.add_argument(
        "--sheet", type=Path, help="evaluate: also write a picture of inputs, edits and truths"
    )
    parser.add_argument(
        "--detail", type=float, default=1.0, help="evaluate: as --pipeline.editor.detail; 0 for none"
    )
    parser.add_argument(
        "--further",
        type=int,
        default=0,
        metavar="PEOPLE",
        help="evaluate: also score named colours, forms and expressions on so many people (one to two minutes each)",
    )
    parser.add_argument("--json", type=Path, help="evaluate: also write the scores")
    parser.add_argument("--tiny", action="store_true", help="a toy of a few seconds, to try the tool itself")
    options = parser.parse_args(arguments)
    other = "unet" if options.editor == "demo-flow" else "flow"
    if options.stage == other:
        parser.error(f"--editor {options.editor} has no stage {other}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run one stage, or all of them."""
    options = parse(arguments)
    import torch

    torch.set_num_threads(1 if options.stage == "data" else options.processes)
    network = "flow" if options.editor == "demo-flow" else "unet"
    everything = ("data", "vae", network, "decoder", "export", "evaluate")
    for stage in everything if options.stage == "all" else (options.stage,):
        run(stage, options)
    return 0


def settings_of(options: argparse.Namespace) -> Settings:
    """Sizes of the editor asked for."""
    from tools.data.demo_editor.settings import Settings

    if options.editor == "demo-flow":
        return Settings.tiny_flow() if options.tiny else Settings.flow()
    return Settings.tiny() if options.tiny else Settings()


def workspace_of(options: argparse.Namespace) -> Workspace:
    """Files of the editor asked for; the rendered scenes are common to both."""
    from tools.data.demo_editor.settings import Workspace

    return Workspace(options.work, "" if options.editor == "demo" else "_flow")


def sampling_of(options: argparse.Namespace) -> dict[str, Any]:
    """What `edit3dgs.json` recommends."""
    if options.editor == "demo-flow":
        return {"guidance_scale": None, "image_guidance_scale": None, "steps": options.steps or 4}
    return {
        "guidance_scale": options.guidance,
        "image_guidance_scale": options.image_guidance,
        "steps": options.steps or 20,
    }


def run(stage: str, options: argparse.Namespace) -> None:
    """Run one stage."""
    from rich.console import Console

    from tools.data.demo_editor import (
        data,
        decoder,
        evaluate,
        evaluate_further,
        export,
        further,
        models,
        training,
        vae,
        warm,
    )
    from tools.data.demo_editor.team import Team

    settings, work = settings_of(options), workspace_of(options)
    recipe, out = training.recipe_for(settings), options.out or EMBEDDED / FOLDERS[options.editor]
    minutes = MINUTES.get(stage, 0.0) if options.minutes is None else options.minutes
    if stage == "data":
        data.write_shards(work.heldout_shards, data.HELDOUT_SEED, options.heldout, settings, minutes)
        data.write_shards(work.train_shards, 0, options.scenes, settings, minutes)
        data.write_shards(work.open_shards, 0, options.scenes, settings, minutes, data.render_open)
        data.write_shards(work.further_shards, 0, options.scenes, settings, minutes, further.render_further)
    elif stage == "vae":
        count = sum(p.numel() for p in models.make_vae(settings, vae.load_basis(work, settings)).parameters())
        Team(options.processes, count).start(vae.train_vae, (work, settings, minutes))
    elif stage == recipe.name:
        if options.warm_start is not None:
            folder = options.warm_start if options.warm_start.parts else EMBEDDED / FOLDERS[options.editor]
            warm.warm_start(folder, work, settings, recipe)
        count = sum(p.numel() for p in recipe.make(work, settings)[1].parameters())
        Team(options.processes, count).start(training.train_editor, (work, settings, minutes, recipe))
    elif stage == "decoder":
        decoder.polish(work, settings, minutes)
    elif stage == "export":
        size = export.export(work, settings, out, sampling_of(options))
        print(f"export: {out}, {size:.1f} MB")
    elif stage == "evaluate":
        data.write_shards(work.heldout_shards, data.HELDOUT_SEED, options.heldout, settings, 60.0)
        pipeline, info = evaluate.load_pipeline(out)
        scenes = data.load_images(data.shards(work.heldout_shards))[: options.heldout]
        scores = evaluate.evaluate(pipeline, info, scenes, options.sheet, detail=options.detail)
        Console(width=110).print(evaluate.table(scores))
        if options.json:
            evaluate.write_json(options.json, scores)
        if options.further:
            more = evaluate_further.evaluate_further(pipeline, info, options.further, options.detail)
            Console(width=110).print(evaluate_further.further_table(more))


if __name__ == "__main__":
    raise SystemExit(main())
