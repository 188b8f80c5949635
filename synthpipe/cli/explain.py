"""``synthpipe explain``: what a stream did to one of its samples, and its pair once more."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthpipe.cli.command import add_command
from synthpipe.cli.device import add_device_argument, find_device
from synthpipe.cli.page_options import check_places
from synthpipe.cli.places import local_path

if TYPE_CHECKING:
    from torch import Tensor

    from synthpipe.preview.explain import Explanation, TileNote

__all__ = ["add_parser", "run"]

#: Letters of a place in the name of a file.
_LONGEST = 100

_EXAMPLE = """\
  synthpipe explain train_esrgan.yml 0001.png --epoch 3
  synthpipe explain stream.yml 0001 --epoch 3 --out runs/look/0001

KEY is the last part of gt_path in batches, all of gt_path, or the sample's key in its shard; behind a key, #2 is the
third tile of crops_per_image. With --device cpu the pair has the bits that a stream on the CPU gives.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "explain",
        help="say what a stream did to one sample",
        description="Print a sample's seed, where its tile was cut, and what each place of the degradation drew; with "
        "--out make the pair again, with an image behind each stage. OPTIONS.yml is the file that the pair was made "
        "with: a stream option file, or a BasicSR option file with a SynthPipeDataset.",
        example=_EXAMPLE,
    )
    parser.add_argument(
        "options", type=local_path, metavar="OPTIONS.yml", help="stream options, or a BasicSR option file"
    )
    parser.add_argument("key", metavar="KEY", help="which sample")
    parser.add_argument("--epoch", type=int, required=True, help="in which pass over the corpus; the first is 0")
    parser.add_argument("--world-size", type=int, default=1, help="processes that shared the corpus (default 1)")
    parser.add_argument(
        "--seen",
        type=int,
        help="samples read before it, for schedules (default: by the plan, readers equally fast)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--out",
        type=local_path,
        metavar="DIR",
        help="folder for gt.png and lq.png, the whole tile, and one PNG behind each stage; several tiles have a "
        "folder each",
    )
    add_device_argument(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Explain; 0 when the sample is there."""
    from synthpipe.config.reader import read_yaml
    from synthpipe.files.whole_file import check_folder_is_writable
    from synthpipe.preview.explain import explain_sample
    from synthpipe.preview.option_files import pair_options

    check_places(args)
    options, of_model = pair_options(read_yaml(args.options), str(args.options))
    device = find_device(args)
    if args.out is not None:
        check_folder_is_writable(args.out)
    found = explain_sample(
        options,
        args.key,
        args.epoch,
        of_model=of_model,
        world_size=args.world_size,
        seen=args.seen,
        device=device,
    )
    files = [{} if args.out is None else _written(tile, _folder(args.out, found, tile)) for tile in found.tiles]
    for path in _left_over(files):
        print(f"synthpipe explain: {path} was there before and is not of this pair", file=sys.stderr)
    described = _described(found, files)
    print(json.dumps(described, indent=1) if args.json else "\n".join(_lines(described)))
    return 0


def _described(found: Explanation, files: list[dict[str, str]]) -> dict[str, Any]:
    """All of it in plain types."""
    return {
        "key": found.sample.key,
        "gt_path": found.sample.path,
        "epoch": found.epoch,
        "rank": found.reading.rank,
        "worker": found.reading.worker,
        "position": found.reading.position,
        "seen": found.reading.seen,
        "image": list(found.image),
        "tiles": [_tile(tile, written) for tile, written in zip(found.tiles, files, strict=True)],
    }


def _tile(tile: TileNote, files: dict[str, str]) -> dict[str, Any]:
    return {
        "key": tile.key,
        "seed": tile.seed,
        "top": tile.top,
        "left": tile.left,
        "side": tile.side,
        "mirrored": tile.mirror,
        "turned": 90 * tile.turns,
        "dropped": tile.dropped,
        "degrade": [
            {
                "place": note.place,
                "applied": note.applied,
                "settings": note.settings,
                "size": None if note.size is None else list(note.size),
            }
            for note in tile.places
        ],
        "patches": tile.patches,
        "files": files,
    }


def _lines(found: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    height, width = found["image"]
    lines = [
        f"key      {found['key']}",
        f"gt_path  {found['gt_path']}",
        f"epoch    {found['epoch']}: image {found['position']} (from 0) of worker {found['worker']}, rank "
        f"{found['rank']}; {found['seen']} seen before",
    ]
    for tile in found["tiles"]:
        turned = f", turned by {tile['turned']} degrees anticlockwise" if tile["turned"] else ""
        mirrored = ", mirrored" if tile["mirrored"] else ""
        lines += ["", f"tile     {tile['key']}", f"seed     {tile['seed']}"]
        lines += [
            f"cut      {tile['side']}x{tile['side']} at row {tile['top']}, column {tile['left']} of {height}x{width}"
            f"{mirrored}{turned}"
        ]
        width_of_names = max((len(note["place"]) for note in tile["degrade"]), default=0)
        lines += [f"  {note['place']:{width_of_names}}  {_drawn(note)}" for note in tile["degrade"]]
        if tile["dropped"] is not None:
            lines.append(f"dropped  the stream counts it as {tile['dropped']} and emits nothing of it")
        for number, corners in enumerate(tile["patches"] or (), 1):
            which = f" of lq {number}" if len(tile["patches"]) > 1 else ""
            places = ", ".join(f"({row}, {column})" for row, column in corners)
            lines.append(f"patches  row and column in LR pixels{which}: {places}")
        lines += [f"wrote    {path}" for path in tile["files"].values()]
    return lines


def _drawn(note: Mapping[str, Any]) -> str:
    if not note["applied"]:
        return "not applied"
    words = [f"{name} {_number(value)}" for name, value in note["settings"].items()]
    if note["size"] is not None:
        words.append("-> {}x{}".format(*note["size"]))
    return ", ".join(words)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return f"[{', '.join(map(_number, value))}]" if isinstance(value, list | tuple) else str(value)


def _folder(out: Path, found: Explanation, tile: TileNote) -> Path:
    return out if len(found.tiles) == 1 else out / tile.key.rsplit("#", 1)[-1]


def _written(tile: TileNote, folder: Path) -> dict[str, str]:
    """Write the images of a tile; their paths by what they show."""
    images: dict[str, Tensor] = {} if tile.gt is None else {"gt": tile.gt}
    numbered = [(f"lq_{number}" if len(tile.lq) > 1 else "lq", lq) for number, lq in enumerate(tile.lq, 1)]
    images.update(numbered)
    made = [(note.place, note.image[0]) for note in tile.places if note.image is not None]
    for number, (place, image) in enumerate(made, 1):
        images[f"{number:02d}_{re.sub(r'[^A-Za-z0-9]+', '_', place)[:_LONGEST]}"] = image
    return {name: str(_write_image(folder / f"{name}.png", image)) for name, image in images.items()}


def _left_over(files: Sequence[Mapping[str, str]]) -> list[Path]:
    """Images in the same folders that an earlier call wrote, of other stages or tiles."""
    written = {Path(path) for tile in files for path in tile.values()}
    beside = {path for folder in {path.parent for path in written} for path in folder.glob("*.png")}
    return sorted(path for path in beside - written if re.fullmatch(r"\d+_.+|gt|lq(_\d+)?", path.stem))


def _write_image(path: Path, image: Tensor) -> Path:
    from synthpipe.files.decode import encode_png
    from synthpipe.files.whole_file import write_whole
    from synthpipe.images import to_uint8

    write_whole(path, encode_png(to_uint8(image).permute(1, 2, 0).contiguous().cpu().numpy()))
    return path
