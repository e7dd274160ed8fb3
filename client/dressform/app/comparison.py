"""Before and after, with a slider between them: a small component of our own, without anything from elsewhere.

(streamlit-image-comparison loads its script from a host of its own, and is blank where that cannot be reached.)
"""

from __future__ import annotations

from typing import Any

import streamlit as st
from PIL import Image

from dressform.app.photos import data_url

_HTML = """
<figure>
  <img class="before" draggable="false"><img class="after" draggable="false">
  <span class="line"></span><span class="tag left">before</span><span class="tag right">after</span>
  <input type="range" min="0" max="100" value="50" step="0.5" aria-label="before and after">
</figure>
"""
_CSS = """
figure { --cut: 50%; position: relative; margin: 0; border-radius: .5rem; overflow: hidden; line-height: 0; }
img { width: 100%; height: 100%; user-select: none; }
.after { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--cut)); }
.line { position: absolute; top: 0; bottom: 0; left: var(--cut); width: 2px; margin-left: -1px; background: #fff;
  box-shadow: 0 0 3px #0008; pointer-events: none; }
.line::after { content: "◂ ▸"; position: absolute; top: 50%; left: 50%; translate: -50% -50%; width: 2.4rem;
  text-align: center; font: 600 .8rem/2rem sans-serif; color: #333; background: #fff; border-radius: 1rem; }
.tag { position: absolute; top: .5rem; padding: 0 .5rem; font: .8rem/1.6 sans-serif; color: #fff; background: #0007;
  border-radius: .3rem; pointer-events: none; }
.left { left: .5rem; } .right { right: .5rem; }
input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize;
  touch-action: pan-y; }
figure:has(input:focus-visible) { outline: 2px solid #f0468a; }
"""
_JS = """
export default function ({ parentElement, data }) {
  const part = (name) => parentElement.querySelector(name);
  part(".before").src = data.before;
  part(".after").src = data.after;
  part("figure").style.width = `min(100%, calc(min(70vh, 560px) * ${data.width} / ${data.height}))`;
  part("figure").style.aspectRatio = `${data.width} / ${data.height}`;
  const move = () => part("figure").style.setProperty("--cut", part("input").value + "%");
  part("input").oninput = move;
  move();
}
"""
_mounted: Any = st.components.v2.component("dressform_comparison", html=_HTML, css=_CSS, js=_JS)


def comparison(before: Image.Image, after: Image.Image, key: str) -> None:
    """``after`` over ``before`` (both RGB), as far as a slider says."""
    pictures = {"before": data_url(before), "after": data_url(after)}
    _mounted(key=key, data={**pictures, "width": after.width, "height": after.height})
