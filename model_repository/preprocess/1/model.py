"""Triton stage ``preprocess``: encoded pictures, prompts and parameters in; tensors for the graphs out."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository's root: stages import one another from there

import json

import numpy as np

import wire
from preprocess.preparation import Export, Prepared, RawRequest, RequestError, UnsupportedError, prepare, timed
from preprocess.prompts import PromptTokenizer


class TritonPythonModel:
    """See the module."""

    def initialize(self, args):
        """Read the manifest, the scheduler configuration and the tokenizer."""
        manifest = wire.manifest()
        scheduler = json.loads((wire.ROOT / "denoise" / "scheduler_config.json").read_text())
        self.export = Export.from_manifest(manifest, scheduler)
        text = manifest["text"]
        tokenizer_file = wire.ROOT / "preprocess" / "tokenizer.json"
        self.tokenizer = PromptTokenizer(tokenizer_file, text["max_length"], text["pad_token_id"])

    def execute(self, requests):
        """Each request on its own: a bad one leaves its neighbours alone."""
        return [self.prepared(request) for request in requests]

    def prepared(self, request):
        """The stage's outputs for one request, or its coded error."""
        started = time.monotonic_ns()
        try:
            raw = read(request)
            prepared = prepare(raw, self.export, self.tokenizer)
        except wire.Refusal as refusal:
            return wire.refuse(refusal.fault)
        except RequestError as error:
            return wire.refuse(wire.Fault("INVALID_ARGUMENT", str(error)))
        except UnsupportedError as error:
            return wire.refuse(wire.Fault("UNSUPPORTED", str(error)))
        except Exception as error:
            return wire.internal(error)
        return wire.answer(tensors(timed(prepared, started, time.monotonic_ns())))


def read(request) -> RawRequest:
    """The request's inputs. The client's own sequences are refused: they would collide with the denoiser's."""
    if request.correlation_id() or request.flags():
        raise wire.Refusal("INVALID_ARGUMENT", "sequence_id, sequence_start and sequence_end are not allowed")
    names = ("image", "mask", "prompt", "negative_prompt", "garment")
    return RawRequest(**{name: wire.blob(request, name) for name in names}, parameters=wire.parameters(request))


def tensors(prepared: Prepared) -> dict:
    """The stage's outputs by name."""
    return {
        "input_ids": prepared.input_ids,
        "canvases": prepared.canvases,
        "keep": prepared.keep,
        "latent_mask": prepared.latent_mask,
        "options": wire.text(prepared.options),
        "original": prepared.original,
        "mask_used": np.ascontiguousarray(prepared.mask),
        "frame": wire.text(prepared.frame),
    }
