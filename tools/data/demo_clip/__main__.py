"""Makes the embedded demo CLIP (edit3dgs_ns/evaluation/demo_clip): a small CLIP for synthetic heads.

    python -m tools.data.demo_clip all           # every stage below: an hour and a quarter on two cores
    python -m tools.data.demo_clip data          # renders people with every look, training and held out
    python -m tools.data.demo_clip train
    python -m tools.data.demo_clip export
    python -m tools.data.demo_clip evaluate      # the right caption out of twelve, on people never trained on

Every stage can be stopped (Ctrl-C, kill) and goes on where it was when the same command is given again. The budget of
training (--minutes) counts the time of all runs together. The work folder can be deleted afterwards.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
EMBEDDED = ROOT / "edit3dgs_ns" / "evaluation" / "demo_clip"
STAGES = ("data", "train", "export", "evaluate")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=(*STAGES, "all"))
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "demo_clip", help="scenes, states")
    parser.add_argument("--out", type=Path, default=EMBEDDED, help="the exported CLIP's folder")
    parser.add_argument("--minutes", type=float, default=60.0, help="time budget of training")
    parser.add_argument("--steps", type=int, default=1_000_000, help="at most so many steps of training")
    parser.add_argument("--scenes", type=int, default=2400, help="training people, each with every look")
    parser.add_argument("--heldout", type=int, default=64, help="people that are only evaluated on")
    parser.add_argument(
        "--processes", type=int, default=min(os.cpu_count() or 1, 4), help="processes, one thread each"
    )
    parser.add_argument("--json", type=Path, help="evaluate: also write the scores")
    parser.add_argument("--tiny", action="store_true", help="a toy of a few seconds, to try the tool itself")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run one stage, or all of them; evaluation ends with 1 where the goal is missed."""
    options = parse(arguments)
    import torch

    torch.set_num_threads(max(1, options.processes))
    code = 0
    for stage in STAGES if options.stage == "all" else (options.stage,):
        code = run(stage, options)
    return code


def run(stage: str, options: argparse.Namespace) -> int:
    """Run one stage."""
    from tools.data.demo_clip.settings import Settings, Workspace

    settings = Settings.tiny() if options.tiny else Settings()
    work = Workspace(options.work)
    if stage == "data":
        _render_heldout(options, settings, work)
        _render(work.train_shards, 0, options.scenes, settings, options.processes)
    elif stage == "train":
        _train(options, settings, work)
    elif stage == "export":
        from tools.data.demo_clip.export import export

        print(f"export: {options.out}, {export(work, settings, options.out):.1f} MB")
    elif stage == "evaluate":
        return _evaluate(options, settings, work)
    return 0


def _render_heldout(options: argparse.Namespace, settings, work) -> None:  # type: ignore[no-untyped-def]
    from tools.data.demo_clip import data

    _render(work.heldout_shards, data.HELDOUT_SEED, options.heldout, settings, options.processes)


def _render(folder: Path, seed: int, count: int, settings, processes: int) -> None:  # type: ignore[no-untyped-def]
    import torch.multiprocessing as mp

    from tools.data.demo_clip import data

    jobs = [(folder, seed, count, settings, part, processes) for part in range(processes)]
    if len(jobs) == 1:
        data.write_shards(*jobs[0])
        return
    with mp.get_context("spawn").Pool(len(jobs)) as pool:
        pool.starmap(data.write_shards, jobs)


def _train(options: argparse.Namespace, settings, work) -> None:  # type: ignore[no-untyped-def]
    from tools.data.demo_clip import train
    from tools.data.demo_editor.team import Team

    count = sum(p.numel() for p in train.new_trainee(settings)[1].parameters())
    Team(options.processes, count).start(train.train, (work, settings, options.minutes, options.steps))


def _evaluate(options: argparse.Namespace, settings, work) -> int:  # type: ignore[no-untyped-def]
    from rich.console import Console

    from edit3dgs_ns.evaluation.clip import Clip
    from tools.data.demo_clip import data, evaluate, export

    _render_heldout(options, settings, work)
    images, facts = data.load(data.shards(work.heldout_shards))
    scores = evaluate.evaluate(Clip(options.out, batch=64), images, facts)
    Console(width=110).print(evaluate.table(scores))
    if options.json:
        evaluate.write_json(options.json, scores)
    found = evaluate.accuracy(scores)
    export.write_note(options.out, export.NOTE, found)
    people = len(images) // len(scores)
    print(
        f"evaluate: {100 * found:.1f} % of {len(images)} pictures of {people} people, goal {100 * evaluate.GOAL:.0f} %"
    )
    return 0 if found >= evaluate.GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
