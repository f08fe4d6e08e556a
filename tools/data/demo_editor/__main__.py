"""Makes the embedded demo editor (edit3dgs_ns/editing/demo_editor): a small InstructPix2Pix for synthetic heads.

    python -m tools.data.demo_editor all           # every stage below: five to six hours on two cores
    python -m tools.data.demo_editor data          # may run several times at once, and while the rest trains
    python -m tools.data.demo_editor vae
    python -m tools.data.demo_editor unet
    python -m tools.data.demo_editor decoder       # optional: the decoder learns to forgive the UNet
    python -m tools.data.demo_editor export
    python -m tools.data.demo_editor evaluate      # the table alone, on the embedded editor

Every stage can be stopped (Ctrl-C, kill) and goes on where it was when the same command is given again: rendered
scenes appear whole or not at all, training states are saved every two minutes. Budgets (--minutes) count the time
of all runs of a stage together. The work folder can be deleted afterwards.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
EMBEDDED = ROOT / "edit3dgs_ns" / "editing" / "demo_editor"
STAGES = ("data", "vae", "unet", "decoder", "export", "evaluate", "all")
MINUTES = {"data": 40.0, "vae": 20.0, "unet": 275.0, "decoder": 5.0}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument(
        "--work", type=Path, default=ROOT / "outputs" / "demo_editor", help="states, scenes, logs"
    )
    parser.add_argument("--out", type=Path, default=EMBEDDED, help="the exported editor's folder")
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
    parser.add_argument("--steps", type=int, default=20, help="recommended DDIM steps, written at export")
    parser.add_argument(
        "--processes",
        type=int,
        default=min(os.cpu_count() or 1, 4),
        help="training processes, one thread each",
    )
    parser.add_argument(
        "--sheet", type=Path, help="evaluate: also write a picture of inputs, edits and truths"
    )
    parser.add_argument("--json", type=Path, help="evaluate: also write the scores")
    parser.add_argument("--tiny", action="store_true", help="a toy of a few seconds, to try the tool itself")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run one stage, or all of them."""
    options = parse(arguments)
    import torch

    torch.set_num_threads(1 if options.stage == "data" else options.processes)
    for stage in (
        ("data", "vae", "unet", "decoder", "export", "evaluate")
        if options.stage == "all"
        else (options.stage,)
    ):
        run(stage, options)
    return 0


def run(stage: str, options: argparse.Namespace) -> None:
    """Run one stage."""
    from rich.console import Console

    from tools.data.demo_editor import data, decoder, evaluate, export, models, unet, vae
    from tools.data.demo_editor.settings import Settings, Workspace
    from tools.data.demo_editor.team import Team

    settings = Settings.tiny() if options.tiny else Settings()
    work = Workspace(options.work)
    minutes = MINUTES.get(stage, 0.0) if options.minutes is None else options.minutes
    if stage == "data":
        data.write_shards(work.heldout_shards, data.HELDOUT_SEED, options.heldout, settings, minutes)
        data.write_shards(work.train_shards, 0, options.scenes, settings, minutes)
        data.write_shards(work.open_shards, 0, options.scenes, settings, minutes, data.render_open)
    elif stage == "vae":
        count = sum(p.numel() for p in models.make_vae(settings, vae.load_basis(work, settings)).parameters())
        Team(options.processes, count).start(vae.train_vae, (work, settings, minutes))
    elif stage == "unet":
        tokenizer = models.write_tokenizer(
            work.root / "tokenizer", models.instruction_words(), settings.max_tokens
        )
        count = sum(p.numel() for p in unet.Editor(tokenizer, settings).parameters())
        Team(options.processes, count).start(unet.train_unet, (work, settings, minutes))
    elif stage == "decoder":
        decoder.polish(work, settings, minutes)
    elif stage == "export":
        size = export.export(
            work, settings, options.out, options.guidance, options.image_guidance, options.steps
        )
        print(f"export: {options.out}, {size:.1f} MB")
    elif stage == "evaluate":
        data.write_shards(work.heldout_shards, data.HELDOUT_SEED, options.heldout, settings, 60.0)
        pipeline, info = evaluate.load_pipeline(options.out)
        scenes = data.load_images(data.shards(work.heldout_shards))[: options.heldout]
        scores = evaluate.evaluate(pipeline, info, scenes, options.sheet)
        Console(width=110).print(evaluate.table(scores))
        if options.json:
            evaluate.write_json(options.json, scores)


if __name__ == "__main__":
    raise SystemExit(main())
