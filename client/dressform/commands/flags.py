"""Flags that commands share: which server, and the options of the contract."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dressform.client import DEFAULT_URL, Client
from dressform.retries import Retry
from dressform.transports import TLS
from dressform_contract import PARAMETERS, TASK_INPUTS, TASK_PARAMETERS, Parameter, Task, Value

_TIMEOUT = "seconds to wait; default as long as it takes"


def add_server(
    parser: argparse.ArgumentParser, needed: bool = True, *, retries: bool = True, timeout: str = _TIMEOUT
) -> None:
    """``--json``, and which server (by default none, where it is not ``needed``) and how to reach it.

    Args:
        retries: whether ``--retries`` is of use.
        timeout: what ``--timeout`` means here.
    """
    parser.add_argument("--json", action="store_true", help="answer one JSON document on stdout")
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server",
        metavar="URL",
        default=(os.environ.get("DRESSFORM_URL") or DEFAULT_URL) if needed else None,
        help="grpc://, grpcs://, http:// or https:// address; default "
        + (f"$DRESSFORM_URL or {DEFAULT_URL}" if needed else "none"),
    )
    group.add_argument("--timeout", metavar="S", type=_seconds, help=timeout)
    if retries:
        group.add_argument(
            "--retries",
            metavar="N",
            type=_count,
            help="tries after the first one. Default 3 where the server is full or went away, none where it was "
            "never there: a wrong address is told at once",
        )
    group.add_argument(
        "--header",
        metavar="'NAME: VALUE'",
        type=_header,
        action="append",
        default=[],
        help="HTTP header or gRPC metadata of every call, such as 'Authorization: Bearer TOKEN'",
    )
    group.add_argument("--ca-file", metavar="PEM", type=Path, help="whom to trust (https, grpcs)")
    group.add_argument("--certificate-file", metavar="PEM", type=Path, help="who we are (mutual TLS)")
    group.add_argument("--key-file", metavar="PEM", type=Path, help="the certificate's private key")


def connected(options: argparse.Namespace) -> Client:
    """A client as the flags of ``add_server`` say. It connects when first used."""
    retries = getattr(options, "retries", None)
    return Client(
        options.server,
        timeout=options.timeout,
        retries=Retry(first_contact=False) if retries is None else retries,
        tls=TLS(options.ca_file, options.certificate_file, options.key_file),
        headers=dict(options.header),
    )


def add_options(parser: argparse.ArgumentParser, task: Task, leave_out: Collection[str] = ()) -> None:
    """The options of ``task`` in the contract."""
    if "negative_prompt" in TASK_INPUTS[task]:
        parser.add_argument("--negative-prompt", metavar="TEXT", help="what the picture should not show")
    group = parser.add_argument_group("options")
    for name in TASK_PARAMETERS[task]:
        if name not in leave_out:
            _add_option(group, PARAMETERS[name], task)


def keywords(options: argparse.Namespace) -> dict[str, Any]:
    """Those options of a request that were given."""
    names = ("negative_prompt", "request_id", *PARAMETERS)
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


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


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds above 0")
    return seconds


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be an integer from 0 on")
    return number


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME: VALUE")
    return name.strip(), value.strip()


def _word(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
