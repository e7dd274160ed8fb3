"""The OpenAPI 3.1 description of the server's JSON endpoints, from the contract: ``python -m dressform.openapi``.

They are Triton's ``generate`` extension, so every option is a member of the body beside the inputs, every output a
member of the answer, and a list of one is that one. Pictures travel as ``data:`` URLs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from dressform_contract import (
    CLIENT_HEADER,
    CLIENT_NAME,
    ERRORS,
    MAX_ENCODED_BYTES,
    MIN_WATCHABLE_ID,
    OPTIONAL_INPUTS,
    PARAMETERS,
    ROUTE_HEADER,
    TASK_INPUTS,
    TASK_OUTPUTS,
    TASK_PARAMETERS,
    TRACE_HEADER,
    TRACEPARENT_HEADER,
    Parameter,
    Task,
)

Schema = dict[str, Any]

_TYPES = {"integer": "integer", "number": "number", "boolean": "boolean", "choice": "string"}
_DONE = {
    "inpaint": "Repaint a picture where a mask is white",
    "tryon": "Dress a person in a garment",
    "mask": "Show what a garment may cover on a person",
}
_INPUTS: Mapping[str, Schema] = {
    "image": {"$ref": "#/components/schemas/Picture"},
    "person": {"$ref": "#/components/schemas/Picture"},
    "garment": {"$ref": "#/components/schemas/Picture"},
    "mask": {"$ref": "#/components/schemas/Picture", "description": "White is repainted."},
    "prompt": {"type": "string", "description": "What to paint."},
    "negative_prompt": {"type": "string", "description": "What the picture should not show."},
}
_OUTPUTS: Mapping[str, Schema] = {
    "images": {"$ref": "#/components/schemas/OneOrMorePictures"},
    "seeds": {
        "description": "The seed of each picture; sent as `seed` it makes that picture again.",
        "oneOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}],
    },
    "mask_used": {"$ref": "#/components/schemas/Picture", "description": "What was repainted: 8-bit grey, a PNG."},
    "info": {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "JSON: size, solver, steps, batch sizes, milliseconds of each stage, warnings.",
    },
}
_ID = {
    "type": "string",
    "minLength": MIN_WATCHABLE_ID,
    "description": "The request's id. Whoever knows it may watch and cancel the request.",
}
_ROUTE = {"$ref": "#/components/parameters/Route"}
_TOLD = [{"$ref": f"#/components/parameters/{name}"} for name in ("Client", "Traceparent", "Trace")]


def description() -> Schema:
    """The whole description."""
    tasks: tuple[Task, ...] = ("inpaint", "tryon", "mask")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Dressform",
            "version": version("dressform"),
            "description": "Virtual try-on and inpainting on NVIDIA Triton, as JSON. A request that fails is "
            "answered with a sentence that has a stable code in it (see `Error`); a flagged picture is black, and said "
            "to be in `info`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:8000"}],
        "paths": {
            **{f"/v2/models/{task}/generate": {"post": _task_operation(task)} for task in tasks},
            "/v2/models/watch/generate_stream": {"post": _watch_operation()},
            "/v2/models/jobs/generate": {"post": _jobs_operation()},
            "/v2/health/ready": {"get": _readiness("ready", "Whether every model is loaded and requests are taken")},
            "/v2/models/{model}/ready": {
                "get": {
                    **_readiness("model_ready", "Whether the server serves `inpaint`, `tryon` or `mask`"),
                    "parameters": [
                        {
                            "name": "model",
                            "in": "path",
                            "required": True,
                            "schema": {"type": "string", "enum": list(tasks)},
                        }
                    ],
                }
            },
        },
        "components": {
            "schemas": _schemas(),
            "responses": {"Refused": _refused()},
            "parameters": {
                "Route": {
                    "name": ROUTE_HEADER,
                    "in": "header",
                    "schema": {"type": "string"},
                    "description": "Before several servers: the id of the request that the call is about, so that a "
                    "balancer sends all of them to one server.",
                },
                "Client": {
                    "name": CLIENT_HEADER,
                    "in": "header",
                    "schema": {"type": "string", "pattern": f"^{CLIENT_NAME.pattern}$"},
                    "description": "The name of the service that asks, for the server's counts of usage.",
                },
                "Traceparent": {
                    "name": TRACEPARENT_HEADER,
                    "in": "header",
                    "schema": {"type": "string"},
                    "description": "The caller's span (W3C Trace Context), of which the request's trace is a child.",
                },
                "Trace": {
                    "name": TRACE_HEADER,
                    "in": "header",
                    "schema": {"type": "string", "enum": ["steps"]},
                    "description": "The request's trace has a span for each denoising step.",
                },
            },
        },
    }


def _task_operation(task: Task) -> Schema:
    return {
        "operationId": task,
        "parameters": [_ROUTE, *_TOLD],
        "summary": _DONE[task],
        "requestBody": _body(
            {
                "type": "object",
                "required": [name for name in TASK_INPUTS[task] if name not in OPTIONAL_INPUTS[task]],
                "properties": {
                    "id": _ID,
                    **{name: _INPUTS[name] for name in TASK_INPUTS[task]},
                    **{name: _option(PARAMETERS[name], task) for name in TASK_PARAMETERS[task]},
                },
                "additionalProperties": False,
            }
        ),
        "responses": _responses({name: _OUTPUTS[name] for name in TASK_OUTPUTS[task]}),
    }


def _option(parameter: Parameter, task: Task) -> Schema:
    """A parameter of the contract."""
    schema: Schema = {"type": _TYPES[parameter.kind], "description": parameter.doc}
    if parameter.choices:
        # Other encodings are bytes, which JSON cannot hold.
        schema["enum"] = ["data_url"] if parameter.name == "output_format" else list(parameter.choices)
    if parameter.kind in ("integer", "number"):
        schema["exclusiveMinimum" if parameter.minimum_excluded else "minimum"] = parameter.minimum
        schema["maximum"] = parameter.maximum
    default = parameter.default_for(task)
    return schema if default is None else {**schema, "default": default}


def _watch_operation() -> Schema:
    return {
        "operationId": "watch",
        "parameters": [_ROUTE],
        "summary": "Follow a request, step by step, until it has ended",
        "requestBody": _body({"type": "object", "required": ["id"], "properties": {"id": _ID}}),
        "responses": {
            "200": {
                "description": "Server-sent events. The data of each is an `Event`.",
                "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/Event"}}},
            },
        },
    }


def _jobs_operation() -> Schema:
    words = {
        "action": {"type": "string", "enum": ["cancel", "list", "health", "about", "feedback"]},
        "id": _ID,
        "rating": {"type": "string", "enum": ["up", "down"], "description": "For feedback."},
        "comment": {"type": "string", "maxLength": 500, "description": "For feedback."},
    }
    answer = {"type": "string", "contentMediaType": "application/json", "description": "JSON, by the action."}
    return {
        "operationId": "jobs",
        "parameters": [_ROUTE],
        "summary": "Cancel a request, list those in flight, ask how the server is, rate a picture",
        "requestBody": _body({"type": "object", "required": ["action"], "properties": words}),
        "responses": _responses({"jobs": answer}),
    }


def _readiness(identity: str, summary: str) -> Schema:
    return {
        "operationId": identity,
        "summary": summary,
        "responses": {"200": {"description": "Yes."}, "400": {"description": "No."}},
    }


def _body(schema: Schema) -> Schema:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _responses(outputs: Mapping[str, Schema]) -> Schema:
    names = {"model_name": {"type": "string"}, "model_version": {"type": "string"}}
    schema = {"type": "object", "required": list(outputs), "properties": {**names, **outputs}}
    return {
        "200": {"description": "Done.", "content": {"application/json": {"schema": schema}}},
        "4XX": {"$ref": "#/components/responses/Refused"},
        "5XX": {"$ref": "#/components/responses/Refused"},
    }


def _refused() -> Schema:
    return {
        "description": "Refused or failed. The code in the sentence tells why, where the status does not.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


def _schemas() -> Schema:
    codes = "\n".join(f"- `{error.code}`: {error.meaning}" for error in ERRORS.values())
    return {
        "Picture": {
            "type": "string",
            "pattern": "^data:image/",
            "maxLength": MAX_ENCODED_BYTES,
            "description": "A PNG, JPEG or WebP as `data:image/png;base64,…`.",
        },
        "OneOrMorePictures": {
            "oneOf": [
                {"$ref": "#/components/schemas/Picture"},
                {"type": "array", "items": {"$ref": "#/components/schemas/Picture"}},
            ]
        },
        "Event": {
            "type": "object",
            "properties": {
                "event": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "description": "JSON: state, step, total, position, eta_ms; preview where there is a new one.",
                },
                "error": {"type": "string"},
            },
        },
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "string",
                    "description": "… `DRESSFORM_CODE field=value: sentence`, where CODE is one of\n\n" + codes,
                }
            },
        },
    }


if __name__ == "__main__":
    print(json.dumps(description(), indent=1, ensure_ascii=False))
