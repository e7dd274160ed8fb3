"""The command ``dressform``: serve, inpaint, tryon, mask, health.

Exit codes: 0 done, 1 the server (or this machine) failed, 2 the request or the command line is wrong.
Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dressform.client import DEFAULT_URL, Client
from dressform.errors import DressformError, InvalidRequest, ServerUnavailable
from dressform.results import Result
from dressform_contract import PARAMETERS, TASK_INPUTS, TASK_PARAMETERS, Parameter, Task, Value

_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".npy": "npy"}
_EXAMPLES = """examples:
  dressform serve repository/
  dressform inpaint photo.jpg mask.png "a red woollen coat" --seed 7 -o coat.png
  dressform tryon person.jpg shirt.jpg trousers.jpg --num-inference-steps 20
  dressform mask person.jpg --category lower -o mask.png
  dressform health --server http://127.0.0.1:8000
"""


def main(arguments: Sequence[str] | None = None, client: Client | None = None) -> int:
    """Runs the command and returns its exit code. ``client`` is used instead of one for ``--server``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # The server's arguments are the server package's to define; it is heavy, so it is imported for this alone.
    if words[:1] == ["serve"]:
        return _serve(words[1:])
    options = _parser().parse_args(words)
    try:
        with client or Client(options.server, timeout=options.timeout) as connected:
            code: int = options.run(connected, options)
            return code
    except DressformError as error:
        return _failed(str(error), 2 if isinstance(error, InvalidRequest) else 1)
    except OSError as error:
        return _failed(f"cannot write {error.filename}: {error.strerror}" if error.filename else str(error), 1)
    except KeyboardInterrupt:
        return _failed("interrupted", 130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dressform",
        description="Virtual try-on and inpainting on a Triton server.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    commands.add_parser("serve", help="serve an exported model repository (needs the extra 'serve')", add_help=False)

    inpaint = commands.add_parser("inpaint", help="repaint a picture where a mask is white", allow_abbrev=False)
    inpaint.add_argument("image", help="picture")
    inpaint.add_argument("mask", help="mask of the same size; white is repainted")
    inpaint.add_argument("prompt", help="what to paint")
    _add_request_flags(inpaint, "inpaint")
    inpaint.set_defaults(run=_inpaint)

    tryon = commands.add_parser("tryon", help="dress a person in garments", allow_abbrev=False)
    tryon.add_argument("person", help="photo of a person")
    tryon.add_argument("garment", nargs="+", help="photo of a garment; several are put on one after the other")
    tryon.add_argument(
        "--mask",
        action="append",
        help="what to repaint (white): once for all, or once for each garment; default what the garment may cover",
    )
    tryon.add_argument("--prompt", help="words that help, where the model takes any")
    _add_request_flags(tryon, "tryon")
    tryon.set_defaults(run=_tryon)

    mask = commands.add_parser("mask", help="show what a garment may cover on a person", allow_abbrev=False)
    mask.add_argument("person", help="photo of a person")
    _add_request_flags(mask, "mask")
    mask.set_defaults(run=_mask)

    health = commands.add_parser("health", help="is the server ready, and for what?")
    _add_server_flags(health)
    health.set_defaults(run=_health)
    return parser


def _add_server_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server",
        metavar="URL",
        default=os.environ.get("DRESSFORM_URL") or DEFAULT_URL,
        help=f"grpc://, grpcs://, http:// or https:// address; default $DRESSFORM_URL or {DEFAULT_URL}",
    )
    parser.add_argument("--timeout", metavar="S", type=float, help="seconds to wait; default as long as it takes")


def _add_request_flags(parser: argparse.ArgumentParser, task: Task) -> None:
    _add_server_flags(parser)
    if "negative_prompt" in TASK_INPUTS[task]:
        parser.add_argument("--negative-prompt", help="what the picture should not show")
    parser.add_argument("--request-id", metavar="ID", help="default: a new UUID")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=_output_path,
        help=f"where to write ({', '.join(_FORMATS)}); several pictures get -1, -2, …; default NAME-{task}.png",
    )
    group = parser.add_argument_group("options")
    for name in TASK_PARAMETERS[task]:
        _add_option(group, PARAMETERS[name], task)


def _add_option(group: argparse._ArgumentGroup, parameter: Parameter, task: Task) -> None:
    flag = "--" + parameter.name.replace("_", "-")
    default = parameter.default_for(task)
    text = parameter.doc.replace("%", "%%") + ("" if default is None else f" Default {_word(default)}.")
    if parameter.kind == "boolean":
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif parameter.kind == "choice":
        group.add_argument(flag, choices=parameter.choices, help=text)
    elif parameter.kind == "integer":
        group.add_argument(flag, type=int, metavar="N", help=f"{text} {_capitalised(parameter.allowed)}.")
    else:
        group.add_argument(flag, type=float, metavar="X", help=f"{text} {_capitalised(parameter.allowed)}.")


def _inpaint(client: Client, options: argparse.Namespace) -> int:
    result = client.inpaint(options.image, options.mask, options.prompt, **_keywords(options))
    return _written(result, options, Path(options.image), "inpaint")


def _tryon(client: Client, options: argparse.Namespace) -> int:
    mask = options.mask[0] if options.mask and len(options.mask) == 1 else options.mask
    result = client.tryon(options.person, options.garment, mask=mask, prompt=options.prompt, **_keywords(options))
    return _written(result, options, Path(options.person), "tryon")


def _mask(client: Client, options: argparse.Namespace) -> int:
    result = client.mask(options.person, **_keywords(options))
    path = _output(options, Path(options.person), "mask")
    path.write_bytes(result.encoded)
    print(f"{path}  {result.category}")
    return 0


def _health(client: Client, options: argparse.Namespace) -> int:  # noqa: ARG001
    health = client.health()
    if not health:
        raise ServerUnavailable(health.reason)
    print(f"{client.url} is ready: {', '.join(health.tasks)}")
    return 0


def _serve(arguments: Sequence[str]) -> int:
    try:
        from dressform_server.launcher import add_arguments, run
    except ImportError as error:
        return _failed(f"serving needs more packages ({error}): pip install 'dressform[serve]'", 1)
    parser = argparse.ArgumentParser(prog="dressform serve", description="Serve an exported repository with Triton.")
    add_arguments(parser)
    return int(run(parser.parse_args(arguments)))


def _keywords(options: argparse.Namespace) -> dict[str, Any]:
    names = ("negative_prompt", "request_id", *PARAMETERS)
    given = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    if options.output is not None:
        given.setdefault("output_format", _FORMATS[options.output.suffix.lower()])
    return given


def _written(result: Result, options: argparse.Namespace, source: Path, task: Task) -> int:
    """Writes the pictures as the server encoded them, and prints the path and seed of each."""
    output = _output(options, source, task)
    for i, (data, seed) in enumerate(zip(result.encoded, result.seeds, strict=True)):
        path = output if len(result.encoded) == 1 else output.with_stem(f"{output.stem}-{i + 1}")
        path.write_bytes(data)
        print(f"{path}  seed {seed}")
    for warning in result.warnings:
        print(f"dressform: warning: {warning}", file=sys.stderr)
    return 0


def _output(options: argparse.Namespace, source: Path, task: Task) -> Path:
    """Where to write: as asked, else by the source's name and the task."""
    if options.output is not None:
        return Path(options.output)
    endings = {"jpeg": ".jpg", "webp": ".webp", "npy": ".npy", "data_url": ".txt"}
    return Path(f"{source.stem}-{task}{endings.get(options.output_format, '.png')}")


def _output_path(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in _FORMATS:
        raise argparse.ArgumentTypeError(f"{text!r} must end in one of {', '.join(_FORMATS)}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    return path


def _word(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _failed(sentence: str, code: int) -> int:
    print(f"dressform: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
