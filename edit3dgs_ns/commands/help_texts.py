"""Help of options from the strings under them, each as one paragraph: tyro keeps the line breaks of the source."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from typing import Annotated, Any

import tyro


def with_help(command: type) -> type:
    """The dataclass, whose options carry their help; those of a dataclass in it too."""
    hints = typing.get_type_hints(command, include_extras=True)
    texts = option_texts(command)
    for field in dataclasses.fields(command):
        kind: Any = hints[field.name]
        inner = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
        if dataclasses.is_dataclass(inner):
            with_help(typing.cast(type, inner))
        elif field.name in texts:
            command.__annotations__[field.name] = Annotated[kind, tyro.conf.arg(help=texts[field.name])]
    return command


def option_texts(command: type) -> dict[str, str]:
    """The string under each attribute of a class, without its line breaks."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(command))).body
    assert isinstance(tree, ast.ClassDef)
    texts = {}
    for attribute, below in zip(tree.body, tree.body[1:], strict=False):
        if not isinstance(attribute, ast.AnnAssign) or not isinstance(attribute.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            texts[attribute.target.id] = " ".join(str(below.value.value).split())
    return texts
