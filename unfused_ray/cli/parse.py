"""Reads the arguments of a command: a recipe, then any field of its configuration."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
from pydantic import ValidationError

from unfused_ray import paths
from unfused_ray.cli import COMMANDS, columns, wants_help
from unfused_ray.config import Config, explain
from unfused_ray.recipes import find, noun

T = TypeVar("T", bound=Config)

_FLAGS = {
    "--print-config": "Print the full configuration as JSON and end.",
    "--dry-run": "Check configuration, data and resources, describe the planned work, and end.",
}


def parse(
    command: str,
    arguments: Sequence[str],
    recipes: Mapping[str, tuple[str, T]],
    examples: Sequence[str],
    default: str = "",
    positional: Sequence[str] = (),
) -> tuple[T, bool]:
    """Read a recipe's name and the fields that differ from it; return the configuration and True for a dry run.

    ``--help`` and ``--print-config`` end the process with code 0; a flag that does not exist, or whose value is of
    another type, ends it with code 2.

    Args:
        command: name of the command.
        arguments: arguments of the command line after that name.
        recipes: by name, a line of help and a full configuration.
        examples: valid arguments, which ``--help`` shows.
        default: recipe to use if none is named; '' requires a name.
        positional: fields that arguments without a flag set, in this order, except those given by their flags. Such a
            command takes no recipe.

    Raises:
        ValueError: no recipe is named, or the configuration is refused; names field, value and rule. This is raised
            before the job's own imports, which take seconds.
    """
    given = [argument for argument in arguments if argument not in _FLAGS]
    if positional:
        name = default
    elif given and not given[0].startswith("-"):
        name = given.pop(0)
    elif default or wants_help(given):
        name = default or next(iter(recipes))
    else:
        first = f"the {noun(recipes)} comes first, before {given[0]}" if given else f"no {noun(recipes)} is named"
        raise ValueError(f"{first}: start with one of {', '.join(recipes)} (--help says more)")
    config = find(recipes, name)
    flags = {argument.partition("=")[0] for argument in given}
    values = tyro.cli(
        type(config),
        default=config,
        prog=f"unfused-ray {command}" + ("" if positional else f" {name}"),
        description=_description(command, {} if positional else recipes, examples, name, default),
        args=given,
        registry=_unvalidated([field for field in positional if f"--{field}" not in flags]),
    )
    try:
        config = type(config).model_validate(values)
    except ValidationError as error:
        raise ValueError(explain(error)) from error
    if "--print-config" in arguments:
        # In ASCII, so that it can be read as a recipe whatever the encoding of standard output.
        sys.stdout.write(json.dumps(paths.resolve(config).model_dump(mode="json"), indent=2) + "\n")
        sys.exit(0)
    return paths.check(config), "--dry-run" in arguments


def parse_function(
    command: str, arguments: Sequence[str], function: Callable[..., int], examples: Sequence[str]
) -> int:
    """Call a function with the arguments of a command that has no configuration; return what it returns.

    Args:
        command: name of the command.
        arguments: arguments of the command line after that name.
        function: does the work; ``--help`` shows the paragraphs of its docstring after the first.
        examples: valid arguments, which ``--help`` shows.
    """
    _, *details = _unwrapped(inspect.getdoc(function) or "").split("\n\n")
    description = "\n\n".join([COMMANDS[command], *details, _examples(command, examples)])
    return tyro.cli(function, prog=f"unfused-ray {command}", description=description, args=list(arguments))


def _description(
    command: str, recipes: Mapping[str, tuple[str, Config]], examples: Sequence[str], name: str, default: str
) -> str:
    otherwise = f"{default} if none is named" if default else "one must be named"
    lines = [COMMANDS[command], "", _examples(command, examples), ""]
    if recipes:
        files = "a TOML file" if noun(recipes) == "plan" else "a JSON file of --print-config"
        lines += [f"{noun(recipes)}s ({otherwise}; {files} is one, too):"]
        lines += [*columns({recipe: text for recipe, (text, _) in recipes.items()}), ""]
    values = f", with the values of {name}" if recipes else ""
    lines += ["everywhere:", *columns(_FLAGS), "", f"The options are the fields of the configuration{values}."]
    return "\n".join(lines)


def _examples(command: str, examples: Sequence[str]) -> str:
    return "\n".join(["examples:", *(f"  unfused-ray {command} {example}".rstrip() for example in examples)])


def _unvalidated(positional: Sequence[str]) -> tyro.constructors.ConstructorRegistry:
    """Read configurations as plain dictionaries, so that each is validated at once, with the project's own messages."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.struct_rule
    def rule(info: tyro.constructors.StructTypeInfo) -> tyro.constructors.StructConstructorSpec | None:
        if not (isinstance(info.type, type) and issubclass(info.type, Config)):
            return None
        types = get_type_hints(info.type)
        annotated: Any = Annotated  # for types that are known only at run time

        def field_type(name: str) -> Any:
            value = getattr(info.default, name)
            if name in positional:
                return annotated[types[name], tyro.conf.Positional, tyro.conf.arg(metavar=f"[{name.upper()}]")]
            return type(value) if isinstance(value, Config) else types[name]  # the recipe has chosen its method

        fields = tuple(
            tyro.constructors.StructFieldSpec(
                field.alias or name,
                field_type(name),
                default=getattr(info.default, name),
                helptext=_unwrapped(field.description or ""),
            )
            for name, field in info.type.model_fields.items()
        )
        return tyro.constructors.StructConstructorSpec(instantiate=dict, fields=fields)

    return registry


def _unwrapped(docstring: str) -> str:
    """Join each paragraph of a docstring into one line, because tyro wraps lines to the terminal."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))
