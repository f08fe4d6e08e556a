"""Checks of an editor's folder before any weights are loaded: its class, its parts, its own defaults.

Needs neither PyTorch nor diffusers: a wrong option is answered at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edit3dgs_ns.capture.images import ImageProblem, read_header
from edit3dgs_ns.editing.diffusion.editor_defaults import EditorDefaults
from edit3dgs_ns.editing.diffusion.families import FAMILIES, Family, no_references, no_shared_attention
from edit3dgs_ns.errors import MissingFileError, UserError

DEMO, DEMO_FLOW = "demo", "demo-flow"
DEMO_FOLDER, DEMO_FLOW_FOLDER = (
    Path(__file__).parents[1] / name for name in ("demo_editor", "demo_flow_editor")
)
DEFAULTS_FILE = "edit3dgs.json"
INDEX_FILE = "model_index.json"
OPTION = "--pipeline.editor.model"
OTHERWISE = f"Or use the small embedded editor, which knows a few instructions: {OPTION} demo"

_LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
"""Libraries that parts may come from."""
_LARGEST_REFERENCE = 64_000_000
"""Pixels. Models scale references to about one million; Pillow takes larger ones for an attack."""
MOST, MOST_PIXELS = 1000, 8192
"""Of guidance scales and steps, and of a side of the images, in a folder's own defaults."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def check_model(
    model: str | Path, references: Sequence[Path] = (), ip_adapter: Path | None = None
) -> Path | str:
    """Returns the folder or hub id that `model` means, after checking all that can be known without weights or network.

    A folder has to be complete, of a class that is known, and without code of its own; of a hub id the class is checked if the
    cache knows it.

    Args:
        model: hub id, folder, `demo` or `demo-flow`.
        references: images that the prompt may speak of; they have to be there, and the model has to take them.
        ip_adapter: weights of an IP-Adapter, with which InstructPix2Pix takes one.

    Raises:
        FileNotFoundError, ValueError: it is not; the message says what was found and what to do.
    """
    source = find_model(model)
    if isinstance(source, Path):
        family: Family | None = _check_folder(source)
    else:
        index = _cached_index(source)
        family = check_index(read_json(index), source) if index is not None else None
    if ip_adapter is not None:
        _check_ip_adapter(ip_adapter, references, model, family)
    elif references and family is not None and not family.takes_references:
        raise no_references(str(model), family.title)
    for path in references:
        _check_reference(path)
    return source


def _check_reference(path: Path) -> None:
    option = f"--pipeline.editor.reference {path}"
    if not path.is_file():
        raise MissingFileError(f"{option}: there is no such file.")
    try:
        width, height = read_header(path).size
    except ImageProblem as problem:
        raise UserError(f"{option}: it {problem.what}.") from None
    if width * height > _LARGEST_REFERENCE or not 1 / 8 <= width / height <= 8:
        raise UserError(
            f"{option}: it has {width} x {height} pixels; expected at most {_LARGEST_REFERENCE // 10**6} million, and no side "
            "longer than 8 times the other."
        )


def check_use(model: str | Path, options: Any) -> None:
    """Refuse values that the family of a model has no use for; of a hub id that was never downloaded nothing is known yet.

    Args:
        model: hub id, folder, or `demo`.
        options: has `guidance_scale`, `image_guidance_scale`, `resolution` and `correspondence`.

    Raises:
        ValueError: the message names the option and the family.
    """
    source = find_model(model)
    index = source / INDEX_FILE if isinstance(source, Path) else _cached_index(source)
    if index is None:
        return
    content = read_json(index)
    family = check_index(content, source).fitted(content)
    defaults_of(source, None, family.defaults).check_scales(options, str(model), family.title)
    family.check_resolution(options.resolution)
    if options.correspondence == "epipolar" and not family.is_instruct_pix2pix:
        raise no_shared_attention(str(model), family.title)


def _check_ip_adapter(
    path: Path, references: Sequence[Path], model: str | Path, family: Family | None
) -> None:
    option = "--pipeline.editor.ip-adapter"
    if family is not None and not family.is_instruct_pix2pix:
        raise UserError(
            f"{option} {path}: it is for InstructPix2Pix, and {model} is {family.title}. Leave it out."
        )
    if path.suffix != ".safetensors" or not path.is_file():
        raise MissingFileError(
            f"{option} {path}: expected a file of safetensors, such as IP-Adapter/models/ip-adapter_sd15.safetensors."
        )
    encoder = path.parent / "image_encoder"
    if not encoder.is_dir():
        raise MissingFileError(f"{option} {path}: its image encoder, the folder {encoder}, is missing.")
    if len(references) != 1:
        raise UserError(f"{option} {path} takes one --pipeline.editor.reference; found {len(references)}.")


def find_model(model: str | Path) -> Path | str:
    """The folder that `model` means, or else the hub id that it is.

    Raises:
        FileNotFoundError: it looks like a folder, and there is none.
        ValueError: it looks like nothing.
    """
    text = str(model).strip()
    if text in (DEMO, DEMO_FLOW):
        return DEMO_FOLDER if text == DEMO else DEMO_FLOW_FOLDER
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if isinstance(model, str) and _HUB_ID.fullmatch(text) and not text.startswith("."):
        return text
    if not text:
        raise UserError(
            f"{OPTION} is empty. Give a hub id such as timbrooks/instruct-pix2pix or a folder. {OTHERWISE}"
        )
    raise MissingFileError(
        f"{OPTION} {text}: there is no such folder, and it is no hub id (owner/name). Give a folder in diffusers' "
        f"format or a hub id such as timbrooks/instruct-pix2pix. {OTHERWISE}"
    )


def _shown(found: Any) -> str:
    """A value of a file as text that can be printed whatever it is."""
    return str(found)[:100].encode("utf-8", "backslashreplace").decode()


def check_index(index: Mapping[str, Any], model: str | Path) -> Family:
    """Returns the family of a `model_index.json`; refuses other pipelines, and classes from outside diffusers and transformers.

    Args:
        index: its content.
        model: the folder or hub id, for the message.

    Raises:
        ValueError: the message names the class or the part.
    """
    found = index.get("_class_name")
    family = FAMILIES.get(str(found))
    if family is None:
        said = f"names the class {_shown(found)}" if found else "names no class (_class_name)"
        listing = "\n".join(
            f"  {name}: {known.title}, such as {known.example}" for name, known in FAMILIES.items()
        )
        raise UserError(
            f"{OPTION} {model}: its {INDEX_FILE} {said}. Give a model of one of these classes:\n{listing}\n{OTHERWISE}"
        )
    for part, entry in index.items():
        library = entry[0] if isinstance(entry, list) and entry else None
        if library not in (None, *_LIBRARIES):
            raise UserError(
                f"{OPTION} {model}: in its {INDEX_FILE} the part {part!r} wants code from {library!r}; only diffusers and "
                "transformers are accepted."
            )
    return family


def _cached_index(hub_id: str) -> Path | None:
    """The `model_index.json` of a hub id in Hugging Face's cache; None if it was never downloaded."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(hub_id, INDEX_FILE)
    return Path(path) if isinstance(path, str) else None


def _check_folder(folder: Path) -> Family:
    """Refuse a folder without index, of another class, or with parts missing."""
    index = folder / INDEX_FILE
    if not index.is_file():
        if folder in (DEMO_FOLDER, DEMO_FLOW_FOLDER):
            name = DEMO if folder == DEMO_FOLDER else DEMO_FLOW
            raise MissingFileError(
                f"{OPTION} {name}: {index} is missing: the package was installed without its data. Install it again."
            )
        raise MissingFileError(
            f"{OPTION} {folder}: {INDEX_FILE} is missing. Expected a folder in diffusers' format. {OTHERWISE}"
        )
    family = check_index(read_json(index), folder)
    missing = [f"{part}/" for part in (*family.weights, *family.others) if not (folder / part).is_dir()]
    missing += [
        f"{part}/*.safetensors"
        for part in family.weights
        if (folder / part).is_dir() and not any((folder / part).glob("*.safetensors"))
    ]
    if missing:
        raise MissingFileError(
            f"{OPTION} {folder}: {', '.join(missing)} missing. Expected the folders {', '.join(family.weights)} (with "
            f"safetensors), {' and '.join(family.others)}, as diffusers' save_pretrained writes them. {OTHERWISE}"
        )
    if family.denoiser == "unet":
        _check_channels(folder)
    return family


def _check_channels(folder: Path) -> None:
    """Refuse a UNet without input channels for the image to edit, also where the index names the right class."""
    unet, vae = (
        read_json(path) if path.is_file() else {}
        for path in (folder / part / "config.json" for part in ("unet", "vae"))
    )
    channels, latent = unet.get("in_channels"), vae.get("latent_channels")
    if isinstance(channels, int) and isinstance(latent, int) and channels != 2 * latent:
        raise UserError(
            f"{OPTION} {folder}: this is no InstructPix2Pix: its UNet takes {channels} channels, expected {2 * latent} (the "
            f"latent and the image to edit, {latent} each). {OTHERWISE}"
        )


def editor_version(model: str | Path) -> str:
    """Version of the weights from the folder's `edit3dgs.json`; empty where none is given.

    Raises:
        ValueError, FileNotFoundError: as `check_model`.
    """
    return str(_own_defaults(find_model(model)).get("version", ""))


def taught_edits(model: str | Path) -> tuple[str, ...]:
    """The edits that the `edit3dgs.json` of a folder lists; none where the model takes any prompt.

    Raises:
        ValueError, FileNotFoundError: as `check_model`.
    """
    return tuple(_own_defaults(find_model(model)).get("instructions", {}))


def _own_defaults(source: Path | str) -> dict[str, Any]:
    """The content of a folder's `edit3dgs.json`; empty where there is none."""
    path = source / DEFAULTS_FILE if isinstance(source, Path) else None
    return read_json(path) if path is not None and path.is_file() else {}


def defaults_of(source: Path | str, resolution: int | None, usual: EditorDefaults) -> EditorDefaults:
    """Defaults from the folder's `edit3dgs.json`, completed by the usual ones of the model's family."""
    given = _own_defaults(source)

    def number(name: str) -> float | None:
        value = given.get(name, getattr(usual, name))
        return None if value is None else float(value)

    try:
        found = EditorDefaults(
            guidance_scale=number("guidance_scale"),
            image_guidance_scale=number("image_guidance_scale"),
            steps=int(given.get("steps", usual.steps)),
            resolution=resolution or int(given.get("resolution") or 0) or usual.resolution,
            share_prediction_until=float(given.get("share_prediction_until", usual.share_prediction_until)),
            text_options=_text_options(given.get("text_options", {})),
            instructions={
                str(edit): tuple(map(str, wordings))
                for edit, wordings in given.get("instructions", {}).items()
            },
            examples={str(kind): str(example) for kind, example in given.get("examples", {}).items()},
        )
        scales = (found.guidance_scale, found.image_guidance_scale)
        if not all(scale is None or 0 <= scale <= MOST for scale in scales) or not 1 <= found.steps <= MOST:
            raise ValueError(f"scales {scales} and {found.steps} steps")
        if not 0 <= found.share_prediction_until <= 1:
            raise ValueError(f"share_prediction_until {found.share_prediction_until}")
        if found.resolution is not None and not 1 <= found.resolution <= MOST_PIXELS:
            raise ValueError(f"resolution {found.resolution}")
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{source}/{DEFAULTS_FILE}: {error}. Expected 0 to {MOST} for guidance_scale and image_guidance_scale, 1 to {MOST} "
            f"steps, a resolution of 1 to {MOST_PIXELS}, 0 to 1 for share_prediction_until, instructions as "
            "{edit: [wordings]} and examples as {kind: wording}."
        ) from error
    return found


def _text_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a small model's pipeline has to be told of its text encoder.

    Raises:
        ValueError: there are others.
    """
    known: dict[str, Callable[[Any], Any]] = {
        "max_sequence_length": int,
        "text_encoder_out_layers": lambda layers: tuple(map(int, layers)),
    }
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"text_options names {', '.join(unknown)}; expected some of {', '.join(known)}")
    return {name: known[name](value) for name, value in given.items()}


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model.

    Raises:
        ValueError: it holds something else, or cannot be read; the message names the option and the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{OPTION}: {path} is not valid JSON: {error}. Download or save the model again."
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"{OPTION}: {path}: expected a JSON object, found a {type(content).__name__}. Download or save the model again."
        )
    return content
