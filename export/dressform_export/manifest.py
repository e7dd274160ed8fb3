"""``manifest.json``: what an export holds, where it came from, and how close it is to the original.

Frozen dataclasses, validated where they are made; the file's keys are the fields' names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from dressform_export.errors import ExportError

FORMAT = 1
FILE = "manifest.json"

Tryon = Literal["none", "concat"]
TRYON: tuple[Tryon, ...] = ("none", "concat")
"""How the garment enters: not at all, or with its latents concatenated below the person's."""

SOLVERS = ("ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm", "pndm")


def require(condition: bool, sentence: str) -> None:
    """Raise a ``ValueError`` that says ``sentence`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(sentence)


@dataclass(frozen=True)
class SourceRecord:
    """The pipeline that was exported. ``sha256`` is by file, relative to the pipeline's folder."""

    id: str
    revision: str | None
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class AttentionRecord:
    """The file whose self-attention the UNet got in place of its own: a CatVTON checkpoint."""

    id: str
    sha256: str


@dataclass(frozen=True)
class CalibrationRecord:
    """What int8 was calibrated on: ``samples`` UNet rows drawn by ``seed`` from ``data``, of this ``identity``."""

    data: str
    identity: str
    samples: int
    seed: int


@dataclass(frozen=True)
class UNetRecord:
    """The denoiser's channels and what it predicts."""

    in_channels: int
    out_channels: int
    prediction_type: str

    def __post_init__(self) -> None:
        allowed = ("epsilon", "v_prediction")
        require(
            self.prediction_type in allowed,
            f"prediction_type must be one of {', '.join(allowed)}, not {self.prediction_type!r}",
        )


@dataclass(frozen=True)
class VaeRecord:
    """``factor``: pixels per latent along a side; ``scaling_factor``: latents are multiplied by it after encoding."""

    factor: int
    latent_channels: int
    scaling_factor: float

    def __post_init__(self) -> None:
        require(self.factor >= 1, f"vae factor must be at least 1, not {self.factor}")
        require(self.scaling_factor > 0, f"scaling_factor must be above 0, not {self.scaling_factor}")


@dataclass(frozen=True)
class TextRecord:
    """``max_length``: tokens in a prompt, start and end included. The ids are the tokenizer's."""

    max_length: int
    hidden_size: int
    pad_token_id: int
    bos_token_id: int
    eos_token_id: int


@dataclass(frozen=True)
class SizeRecord:
    """Default picture size and the bounds of a side, in pixels: multiples of the VAE factor."""

    height: int
    width: int
    minimum: int
    maximum: int

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            require(
                self.minimum <= side <= self.maximum,
                f"{name} must be from {self.minimum} to {self.maximum} pixels, not {side}",
            )


@dataclass(frozen=True)
class DefaultsRecord:
    """Options of a request that names none."""

    num_inference_steps: int
    solver: str
    tryon_eta: float

    def __post_init__(self) -> None:
        require(
            1 <= self.num_inference_steps <= 150,
            f"num_inference_steps must be from 1 to 150, not {self.num_inference_steps}",
        )
        require(self.solver in SOLVERS, f"solver must be one of {', '.join(SOLVERS)}, not {self.solver!r}")
        require(0 <= self.tryon_eta <= 1, f"tryon_eta must be from 0 to 1, not {self.tryon_eta}")


@dataclass(frozen=True)
class ParserRecord:
    """The garment parser. Pictures are stretched to ``height`` × ``width`` by Pillow's filter number ``resample``."""

    id: str
    revision: str | None
    sha256: Mapping[str, str]
    height: int
    width: int
    resample: int

    def __post_init__(self) -> None:
        require(min(self.height, self.width) > 0, f"a parser's size must be above 0, not {self.height} × {self.width}")
        require(0 <= self.resample <= 5, f"resample must be one of Pillow's filters, 0 to 5, not {self.resample}")


@dataclass(frozen=True)
class Verification:
    """One comparison with torch: largest absolute difference and relative one (the norm of the difference by that of
    what torch gave; of labels both are the share that differs), and the largest value torch gave."""

    shapes: Mapping[str, int]
    difference: float
    relative: float
    reference_max: float
    tolerance: float


@dataclass(frozen=True)
class GraphRecord:
    """One ONNX graph.

    ``sha256`` is that of ``file``, ``data_sha256`` that of its external data, where it has some; ``bytes`` counts both.
    """

    file: str
    sha256: str
    data_sha256: str | None
    bytes: int
    opset: int
    verification: tuple[Verification, ...]


@dataclass(frozen=True)
class PictureRecord:
    """The picture at the end of a whole trajectory beside torch's in FP32.

    ``psnr`` in dB (100: equal), the least that its precision is allowed, ``gate``, and the seconds it took.
    """

    psnr: float
    gate: float
    seconds: float


@dataclass(frozen=True)
class CapacityRecord:
    """What one machine does with an engine at ``height`` × ``width`` pixels, as ``verify`` measured it there.

    ``memory``: bytes that were free; ``fixed``: those of all graphs, loaded and used once; ``per_row``: those of each
    row of a UNet call beyond; ``step_seconds``: time of a call by its rows; ``max_rows``: rows that fit.
    """

    machine: str
    height: int
    width: int
    memory: int
    fixed: int
    per_row: int
    step_seconds: Mapping[str, float]
    max_rows: int


@dataclass(frozen=True)
class EngineRecord:
    """One engine that the export can be served with: Triton's ``backend``, its ``precision``, and its graph by leaf.

    ``executed`` is whether its graphs were run on the engine itself when they were verified; where it is False (an
    engine that needs a GPU), they were run by ONNX Runtime on the CPU.
    """

    backend: str
    precision: str
    executed: bool
    graphs: Mapping[str, GraphRecord]
    picture: PictureRecord | None = None
    capacity: CapacityRecord | None = None


@dataclass(frozen=True)
class ProofRecord:
    """The request whose picture every engine paints, and the seconds that torch took for it in FP32."""

    task: str
    height: int
    width: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Manifest:
    """Everything the stages need to know about the pipeline, and everything an operator wants to."""

    source: SourceRecord
    created: str
    versions: Mapping[str, str]
    tryon: Tryon
    unet: UNetRecord
    vae: VaeRecord
    text: TextRecord | None
    """None: no text encoder, and a UNet that takes no prompt."""
    size: SizeRecord
    defaults: DefaultsRecord
    engines: Mapping[str, EngineRecord]
    """By name, which is that of their configs too."""
    latent_to_rgb: tuple[tuple[float, ...], ...]
    """For previews: colours 0 to 255 by scaled latents, [C + 1][3], the last row an offset."""
    parser: ParserRecord | None = None
    """None: no automatic masks."""
    safety_checker: bool = False
    """Whether pictures are checked, and flagged ones blanked."""
    flops: Mapping[str, int] = field(default_factory=dict)
    """Floating-point operations of one call by leaf: one row, or one picture, of the default size."""
    proof: ProofRecord | None = None
    accepted: tuple[str, ...] = ()
    """Gates that were failed, and accepted by the one who exported."""
    attention: AttentionRecord | None = None
    """None: the pipeline's own UNet."""
    calibration: CalibrationRecord | None = None
    """None: no int8."""
    warnings: tuple[str, ...] = ()
    engine: str = "onnxruntime"
    """The one that ``config.pbtxt`` is for."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        require(self.format == FORMAT, f"manifest format must be {FORMAT}, not {self.format}")
        require(self.tryon in TRYON, f"tryon must be one of {', '.join(TRYON)}, not {self.tryon!r}")
        require(self.engine in self.engines, f"engine must be one of {', '.join(self.engines)}, not {self.engine!r}")
        for name, side in (("height", self.size.height), ("width", self.size.width)):
            require(
                side % self.vae.factor == 0,
                f"{name} must be a multiple of the VAE factor {self.vae.factor}, not {side}",
            )
        allowed = (2 * self.vae.latent_channels + 1, self.vae.latent_channels)
        require(
            self.unet.in_channels in allowed,
            f"unet in_channels must be {allowed[0]} or {allowed[1]}, not {self.unet.in_channels}",
        )
        rows, widths = self.vae.latent_channels + 1, {len(row) for row in self.latent_to_rgb}
        require(
            len(self.latent_to_rgb) == rows and widths == {3},
            f"latent_to_rgb must have {rows} rows of 3, not {len(self.latent_to_rgb)} of {sorted(widths)}",
        )

    @property
    def graphs(self) -> Mapping[str, GraphRecord]:
        """The graph of each leaf on ``engine``."""
        return self.engines[self.engine].graphs

    @property
    def precision(self) -> str:
        """The precision of ``engine``."""
        return self.engines[self.engine].precision

    def require_engines(self, repository: Path, names: Iterable[str]) -> None:
        """Raise an `ExportError` unless the export in ``repository`` holds every engine that a user ``names``."""
        absent = [name for name in names if name not in self.engines]
        if absent:
            raise ExportError(f"{repository} was exported for {', '.join(self.engines)}, not for {', '.join(absent)}")

    def write(self, repository: Path) -> None:
        """Write ``manifest.json`` into ``repository``."""
        text = json.dumps({"format": self.format} | asdict(self), indent=2, ensure_ascii=False)
        (repository / FILE).write_text(text + "\n", encoding="utf-8")


def read_manifest(repository: Path) -> Manifest:
    """The manifest of an exported repository.

    Raises:
        ValueError: if a key is unknown or missing, or a value is not allowed.
    """
    record: dict[str, Any] = json.loads((repository / FILE).read_text(encoding="utf-8"))
    try:
        engines = {name: _engine(engine) for name, engine in record.pop("engines").items()}
        parser, text, attention = (record.pop(key) for key in ("parser", "text", "attention"))
        calibration, proof = record.pop("calibration"), record.pop("proof")
        return Manifest(
            parser=None if parser is None else ParserRecord(**parser),
            attention=None if attention is None else AttentionRecord(**attention),
            calibration=None if calibration is None else CalibrationRecord(**calibration),
            proof=None if proof is None else ProofRecord(**proof),
            source=SourceRecord(**record.pop("source")),
            unet=UNetRecord(**record.pop("unet")),
            vae=VaeRecord(**record.pop("vae")),
            text=None if text is None else TextRecord(**text),
            size=SizeRecord(**record.pop("size")),
            defaults=DefaultsRecord(**record.pop("defaults")),
            latent_to_rgb=tuple(tuple(row) for row in record.pop("latent_to_rgb")),
            warnings=tuple(record.pop("warnings")),
            accepted=tuple(record.pop("accepted")),
            engines=engines,
            **record,
        )
    except (TypeError, KeyError) as error:
        raise ValueError(f"{repository / FILE} is not a manifest of format {FORMAT}: {error}") from error


def open_manifest(repository: Path) -> Manifest:
    """The manifest of the export that a user named.

    Raises:
        ExportError: if it is no export, or one of another format.
    """
    try:
        return read_manifest(repository)
    except OSError as error:
        raise ExportError(f"{repository} is no export: it has no {FILE} that can be read") from error
    except ValueError as error:
        raise ExportError(str(error)) from error


def _engine(record: Mapping[str, Any]) -> EngineRecord:
    picture, capacity = record["picture"], record["capacity"]
    return EngineRecord(
        **{
            **record,
            "graphs": {leaf: _graph(graph) for leaf, graph in record["graphs"].items()},
            "picture": None if picture is None else PictureRecord(**picture),
            "capacity": None if capacity is None else CapacityRecord(**capacity),
        }
    )


def _graph(record: Mapping[str, Any]) -> GraphRecord:
    return GraphRecord(**{**record, "verification": tuple(Verification(**v) for v in record["verification"])})
