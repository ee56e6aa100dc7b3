"""Make an episode's animation small enough for a page: `python docs/film.py EPISODE.gif OUT.gif`.

The animation is what `omad render RUN --noise-free --max-steps 120` wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageSequence

WIDTH, COLORS = 200, 48
"""Of the result: pixels, and colours that all frames share."""


def shrink(source: Path, target: Path) -> None:
    """Every second frame at twice its duration."""
    with Image.open(source) as film:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)][::2]
        duration = 2 * film.info["duration"]
    height = round(WIDTH * frames[0].height / frames[0].width)
    small = [frame.resize((WIDTH, height), Image.Resampling.LANCZOS) for frame in frames]
    palette = small[0].quantize(COLORS, dither=Image.Dither.NONE)
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in small]
    first.save(target, save_all=True, append_images=rest, duration=duration, loop=0, optimize=True)


if __name__ == "__main__":
    shrink(Path(sys.argv[1]), Path(sys.argv[2]))
