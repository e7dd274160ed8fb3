"""`DressformInpaintPipeline`: diffusers' ``StableDiffusionInpaintPipeline.__call__``, answered by a server.

Moving from the pipeline in the process to the server is then one changed line. What the server cannot do is refused by
name. What differs: steps that pass between two looks at the server are told to ``callback_on_step_end`` together, and
without their timestep; a generator is only read, so that using it again gives the same picture again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from dressform.client import DEFAULT_URL, Client
from dressform.errors import DressformError, InvalidRequest
from dressform.handles import Handle
from dressform.results import Result

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True)
class InpaintOutput:
    """What diffusers' pipeline returns. ``nsfw_content_detected`` is None where the export has no safety checker."""

    images: list[Image.Image] | NDArray[Any]
    nsfw_content_detected: list[bool] | None = None


class DressformInpaintPipeline:
    """Inpainting with diffusers' signature, on a server.

    >>> pipeline = DressformInpaintPipeline("grpc://127.0.0.1:8001")
    >>> pipeline("a red coat", image, mask, generator=torch.Generator().manual_seed(7)).images[0].save("coat.png")

    Args:
        server: its address, or a `Client`.
    """

    def __init__(self, server: str | Client = DEFAULT_URL) -> None:
        self.client = server if isinstance(server, Client) else Client(server)

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: Any = None,
        mask_image: Any = None,
        masked_image_latents: Any = None,
        height: int | None = None,
        width: int | None = None,
        padding_mask_crop: int | None = None,
        strength: float = 1.0,
        num_inference_steps: int = 50,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float = 7.5,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: Any = None,
        latents: Any = None,
        prompt_embeds: Any = None,
        negative_prompt_embeds: Any = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Any]], Any] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        **kwargs: Any,
    ) -> InpaintOutput | tuple[list[Image.Image] | NDArray[Any], list[bool] | None]:
        """Repaints ``image`` where ``mask_image`` is white. Arguments as in diffusers 0.39.

        Pictures are PIL images, paths, or arrays: uint8, or float in [0, 1], ``[H, W(, C)]``. As in diffusers, the
        result has the processing size, but with ``padding_mask_crop`` that of ``image``.

        Args:
            generator: on the CPU, and not drawn from yet; for several pictures a list of one for each.
            output_type: "pil", or "np" for float32 ``[n, H, W, 3]`` in [0, 1].
            callback_on_step_end: called with (self, step, None, {}); of several prompts, with the first one's steps.

        Raises:
            InvalidRequest: at what cannot be honoured, by name.
            DressformError: as ``Client.inpaint`` does.
        """
        given = {name: value for name, value in locals().items() if name in _UNSUPPORTED} | kwargs
        for name, value in given.items():
            if value is not None:
                _refuse(name, _UNSUPPORTED.get(name, "no argument of this pipeline"))
        if output_type not in ("pil", "np"):
            _refuse("output_type", f"'pil' or 'np' here, not {output_type!r}")
        if any(name != "latents" for name in callback_on_step_end_tensor_inputs):
            _refuse("callback_on_step_end_tensor_inputs", "of no use: tensors stay on the server")
        if prompt is None or image is None or mask_image is None:
            _refuse("prompt, image and mask_image", "needed, all three")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        count = 1 if num_images_per_prompt is None else num_images_per_prompt
        negatives = _spread("negative_prompt", negative_prompt, len(prompts))
        images = _spread("image", image, len(prompts))
        masks = _spread("mask_image", mask_image, len(prompts))
        options: dict[str, Any] = {
            "height": height,
            "width": width,
            "padding_mask_crop": padding_mask_crop,
            "strength": strength,
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "eta": eta or None,
            "composite": "none" if padding_mask_crop is None else "hard",
        }
        seeds = _seeds(generator, len(prompts) * count)
        handles = []
        try:
            for i, text in enumerate(prompts):
                # With seeds of their own, pictures are requests of their own.
                for share in (
                    [{"num_images": count}] if seeds is None else [{"seed": s} for s in seeds[i * count :][:count]]
                ):
                    words: dict[str, Any] = {**options, **share, "negative_prompt": negatives[i]}
                    handles.append(self.client.submit_inpaint(_picture(images[i]), _picture(masks[i]), text, **words))
            if callback_on_step_end is not None:
                self._tell(handles[0], callback_on_step_end)
            results = [handle.result() for handle in handles]
        except BaseException:
            for handle in handles:
                with suppress(DressformError):
                    handle.cancel()
            raise
        pictures = [picture for result in results for picture in result.images]
        flagged = [bool(flag) for result in results for flag in result.info.get("flagged") or ()] or None
        shaped = _stacked(pictures) if output_type == "np" else pictures
        return InpaintOutput(shaped, flagged) if return_dict else (shaped, flagged)

    def _tell(self, handle: Handle[Result], callback: Callable[[Any, int, Any, dict[str, Any]], Any]) -> None:
        """Calls back once for each step, in order."""
        told = 0
        for news in handle.progress():
            while told < news.step:
                changed = callback(self, told, None, _NoTensors())
                if changed:
                    _refuse("callback_on_step_end", f"no way to change {', '.join(changed)} on the server")
                told += 1


class _NoTensors(dict[str, Any]):
    """What a callback gets instead of tensors: it refuses to be asked for one."""

    def __missing__(self, name: str) -> NoReturn:
        _refuse(f"callback_kwargs[{name!r}]", "not at hand: tensors stay on the server")


_UNSUPPORTED = {
    "masked_image_latents": "made on the server from image and mask_image",
    "timesteps": "chosen by the server's solver; send num_inference_steps",
    "sigmas": "chosen by the server's solver; send num_inference_steps",
    "latents": "drawn on the server; send a generator",
    "prompt_embeds": "made on the server; send prompt",
    "negative_prompt_embeds": "made on the server; send negative_prompt",
    "ip_adapter_image": "not served; for garments there is Client.tryon",
    "ip_adapter_image_embeds": "not served; for garments there is Client.tryon",
    "cross_attention_kwargs": "fixed when the pipeline is exported",
    "clip_skip": "fixed when the pipeline is exported",
    "callback": "gone from diffusers; use callback_on_step_end",
    "callback_steps": "gone from diffusers; use callback_on_step_end",
}


def _refuse(name: str, why: str) -> NoReturn:
    raise InvalidRequest(f"{name}: {why}")


def _spread(name: str, given: Any, count: int) -> list[Any]:
    """One of ``given`` for each of ``count`` prompts."""
    if not isinstance(given, (list, tuple)):
        return [given] * count
    if len(given) != count:
        _refuse(name, f"{len(given)} for {count} prompts; give one, or as many as prompts")
    return list(given)


def _seeds(generator: Any, count: int) -> list[int] | None:
    """The seed of each picture, None to leave them to the client."""
    if generator is None:
        return None
    generators = list(generator) if isinstance(generator, (list, tuple)) else [generator]
    if len(generators) != count:
        _refuse("generator", f"{len(generators)} for {count} pictures; give a list of one for each")
    for each in generators:
        if str(each.device) != "cpu":
            _refuse("generator", f"on the CPU, as the server's noise is, not on {each.device}")
        fresh = type(each)().manual_seed(each.initial_seed())
        if not bool((fresh.get_state() == each.get_state()).all()):
            _refuse(
                "generator", "drawn from already; give one fresh from manual_seed, whose seed is all there is to send"
            )
    return [int(each.initial_seed()) for each in generators]


def _picture(given: Any) -> Any:
    """``given`` as a ``Picture``: diffusers' float arrays become uint8."""
    if type(given).__module__.partition(".")[0] == "torch":
        _refuse("image and mask_image", "PIL images or arrays here, no tensors")
    kind = getattr(getattr(given, "dtype", None), "kind", "")
    return (given * 255).round().clip(0, 255).astype("uint8") if kind == "f" else given


def _stacked(pictures: list[Image.Image]) -> NDArray[Any]:
    import numpy as np

    return np.stack([np.asarray(picture.convert("RGB"), np.float32) / 255 for picture in pictures])
