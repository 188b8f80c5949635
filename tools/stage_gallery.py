"""The picture of all stages in the guide to chains: ``python tools/stage_gallery.py recipes/guides/stages.png``.

Each cell is one photograph of scikit-image after one stage at settings that show, at scale 1; the settings stand under
it.  Stages whose library is missing are left out, and named.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from demo_photos import photograph
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from synthpipe.config.chain import ChainOptions
from synthpipe.config.reader import parse_options
from synthpipe.errors import OptionError
from synthpipe.images import to_uint8
from synthpipe.transforms.build import build_degrade

#: What is shown, as it stands in an option file.
STAGES = """
- {type: blur, kinds: {anisotropic: 1}, size: 21, sigma: 4, sigma_y: 1, angle: 30}
- {type: blur, kinds: {plateau_isotropic: 1}, size: 21, sigma: 2, beta_plateau: 2}
- {type: blur, kinds: {sinc: 1}, size: 21, cutoff: 1.0}
- {type: blur, kinds: {lens: 1}, radius: 4, blades: 6}
- {type: blur, kinds: {motion: 1}, length: 14, shake: 90}
- {type: blur, kinds: {median: 1}, window: 7}
- {type: resize, factor: 0.4, filter: nearest, antialias: false}
- {type: resize, factor: 0.4, filter: lanczos}
- {type: noise, kinds: {gaussian: 1}, sigma: 0.08}
- {type: noise, kinds: {gaussian: 1}, channels: {grey: 1}, sigma: 0.08}
- {type: noise, kinds: {gaussian: 1}, channels: {chroma: 1}, sigma: 0.08}
- {type: noise, kinds: {poisson: 1}, scale: 1.5}
- {type: noise, kinds: {correlated: 1}, sigma: 0.08, width: 1.2}
- {type: noise, kinds: {film: 1}, channels: {grey: 1}, sigma: 0.08, width: 0.8}
- {type: noise, kinds: {salt_and_pepper: 1}, channels: {grey: 1}, share: 0.04}
- {type: sensor, sigma: 0.1, luma_width: 0.6, chroma_width: 1.2}
- {type: jpeg, quality: 12}
- {type: jpeg, quality: 12, times: 3}
- {type: webp, quality: 5}
- {type: video, codecs: {h264: 1}, h264_crf: 40}
- {type: video, codecs: {mpeg2: 1}, mpeg2_quantiser: 20}
- {type: halo, amount: 3, sigma: 2, threshold: null}
- {type: denoise}
- {type: channel_shift, x: 2, y: -1}
- {type: channel_shift, kinds: {chroma: 1}, x: 5, y: 0}
- {type: levels, in_black: 0.2, in_white: 0.8}
- {type: levels, gamma: [0.6, 1.6], per_channel: true}
- {type: saturation, factor: 0.2}
- {type: quantise, levels: 6}
- {type: dither, colours: 27}
- {type: dither, kinds: {floyd_steinberg: 1}, palettes: {median_cut: 1}, colours: 12}
- {type: screentone, period: 4}
- {type: screentone, kinds: {cmyk: 1}, period: 4, angle: 20}
- {type: pixelate, block: 4}
- {type: interlace, shift: 3}
- {type: kernels, weights: kernels_city100, strength: 2}
- {type: deflow, weights: deflow_small, strength: 2}
"""
_SIDE, _ZOOM, _COLUMNS, _CAPTION = 84, 2, 6, 46
_FACE = (60, 185)


def degraded(crop: np.ndarray, stage: dict[str, Any]) -> np.ndarray:
    """The crop after one stage: uint8 ``(h, w, 3)``."""
    back = {"type": "resize", "to": "lr", "filter": "nearest"}
    chain = build_degrade(parse_options({"stages": [stage, back]}, ChainOptions), 1)
    x = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 255
    made = chain({"gt": x, "seed": torch.tensor([3])})["lq"]
    return np.asarray(to_uint8(made)[0].permute(1, 2, 0).numpy())


def caption(stage: dict[str, Any]) -> str:
    """The type on the first line, its settings on the next."""
    rest = {key: value for key, value in stage.items() if key != "type"}
    text = yaml.safe_dump(rest, default_flow_style=True, width=1000).strip()[1:-1] if rest else ""
    lines, line = [str(stage["type"])], ""
    for word in text.replace(": 1}", "}").split(" "):
        if len(line) + len(word) > 26:
            lines, line = [*lines, line], ""
        line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description="The picture of all stages in the guide to chains.")
    parser.add_argument("target", type=Path, metavar="PNG")
    target = parser.parse_args().target
    top, left = _FACE
    crop = photograph("astronaut")[top : top + _SIDE, left : left + _SIDE]
    cells: list[tuple[str, np.ndarray]] = [("as it was", crop)]
    shown: list[dict[str, Any]] = []
    for stage in yaml.safe_load(STAGES):
        try:
            cells.append((caption(stage), degraded(crop, stage)))
            shown.append(stage)
        except OptionError as error:
            print(f"left out: {error}", file=sys.stderr)
    side = _SIDE * _ZOOM
    rows = -(-len(cells) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * (side + 6), rows * (side + _CAPTION + 6)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, (text, pixels) in enumerate(cells):
        x, y = number % _COLUMNS * (side + 6), number // _COLUMNS * (side + _CAPTION + 6)
        sheet.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST), (x, y))
        draw.multiline_text((x + 2, y + side + 2), text, fill=(40, 40, 40), font=font, spacing=1)
    # A test compares the kept picture's list with the one above.
    note = PngInfo()
    note.add_text("stages", yaml.safe_dump(shown))
    sheet.save(target, optimize=True, pnginfo=note)


if __name__ == "__main__":
    main()
