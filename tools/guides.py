"""Runs the commands of README.md and of every guide in recipes/guides, each once and in order, on small pictures.

    python tools/guides.py                      # everything; the exit code is 1 if anything failed
    python tools/guides.py README.md clean.md   # these files
    python tools/guides.py clean.md --keep /tmp/guides    # leave what the commands wrote, for a look

Each file has a temporary folder of its own, where ``recipes`` and ``tools`` lie as in the repository.  ``/data`` of the
examples is a folder in it.  Trainings take two steps, and a YAML block is tried by the command that reads such a file.
Everything takes 250 seconds of processor time, so some two minutes on two free cores.
``guide_blocks.py`` says how blocks are found, marked and shortened.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml
from guide_blocks import BASES, Block, at_workplace, find_blocks, merged, shortened

ROOT = Path(__file__).resolve().parent.parent
GUIDES = ROOT / "recipes" / "guides"
#: Programs of the examples that run with this interpreter and this checkout, shortened.
PROGRAMS = {"synthpipe": ["-m", "synthpipe"], "python": [], "torchrun": ["-m", "torch.distributed.run"]}
#: Not run: ``synthpipe options`` writes it, and tests/config/reference reads each of its examples.
GENERATED = GUIDES / "options.md"
SECONDS = 300
SHOWN_LINES = 30
FIRST_BATCH = (
    "import sys, yaml; from synthpipe.pipeline import build_stream; "
    "stream = build_stream(yaml.safe_load(open(sys.argv[1]))); print(sorted(next(stream))); stream.close()"
)


@dataclass(frozen=True)
class Result:
    """What became of a block."""

    file: str
    block: Block
    outcome: str  # ok, FAILED or skipped
    seconds: float = 0.0
    said: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table; 1 if a block failed."""
    args = parse_arguments(arguments)
    files = [find_file(name) for name in args.files] or [
        ROOT / "README.md",
        *sorted({*GUIDES.glob("*.md")} - {GENERATED}),
    ]
    with tempfile.TemporaryDirectory(prefix="guides-") as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder)
        with ThreadPoolExecutor(args.jobs) as pool:
            results = [result for of_file in pool.map(partial(run_file, folder), files) for result in of_file]
    print_table(results)
    return int(any(result.outcome == "FAILED" for result in results))


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="guides, by name (default: README.md and all guides)")
    parser.add_argument("--jobs", type=int, default=2, help="files at once (default 2)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this folder, and leave it")
    return parser.parse_args(arguments)


def find_file(name: str) -> Path:
    """A guide by its name, or a path below the repository."""
    path = next((path for path in (ROOT / name, GUIDES / name) if path.is_file()), None)
    if path is None:
        raise SystemExit(f"guides.py: expected README.md or the name of a guide in {GUIDES}, got {name!r}")
    return path


def prepare(folder: Path) -> None:
    """What all files share: pictures, shards of them, and the programs."""
    from guide_pictures import write_pictures

    write_pictures(folder / "data")
    write_programs(folder)
    hr = folder / "data" / "hr"
    if not hr.exists():
        command = ["synthpipe", "shard", str(folder / "data" / "clean_photos"), str(hr), "--workers", "1"]
        subprocess.run(command, check=True, env=environment(folder), stdout=subprocess.DEVNULL)


def write_programs(folder: Path) -> None:
    """``bin/synthpipe`` and the others, which shorten their arguments and go on as the real ones."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in PROGRAMS:
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" --as {name} "$@"\n')
        program.chmod(0o755)


def environment(folder: Path) -> dict[str, str]:
    """Of every command: our programs first, this checkout, one thread, and a home of its own."""
    own = {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **own, "OMP_NUM_THREADS": "1", "HOME": str(folder / "home")}


def run_file(folder: Path, path: Path) -> list[Result]:
    """Every block of one file; the first that fails ends it, since later ones build on it."""
    name = path.relative_to(GUIDES).as_posix() if path.is_relative_to(GUIDES) else path.name
    blocks = find_blocks(path.read_text(encoding="utf-8"), name)
    workplace = folder / f"{'guide-' if path.is_relative_to(GUIDES) else ''}{path.stem}"
    make_workplace(folder, workplace, with_shards="/data/hr" not in shards_made(blocks))
    results: list[Result] = []
    for number, block in enumerate(blocks):
        if block.verb == "skip":
            results.append(Result(name, block, "skipped", said=block.rest))
        elif any(result.outcome == "FAILED" for result in results):
            results.append(Result(name, block, "FAILED", said="not run: a block before it failed"))
        else:
            following = next((later for later in blocks[number + 1 :] if later.verb == "run"), None)
            results.append(run_block(block, following, name, workplace, environment(folder)))
            print(f"{name}:{block.line}: {results[-1].outcome}", file=sys.stderr)
    return results


def shards_made(blocks: Sequence[Block]) -> set[str]:
    """Folders that the file's own ``synthpipe shard`` writes."""
    lines = [line.split() for block in blocks if block.verb == "run" for line in block.text.splitlines()]
    return {word for words in lines if words[:2] == ["synthpipe", "shard"] for word in words}


def make_workplace(folder: Path, workplace: Path, with_shards: bool) -> None:
    """The folder in which a file's blocks run."""
    if workplace.exists():
        shutil.rmtree(workplace)
    workplace.mkdir()
    left_out = shutil.ignore_patterns(*([] if with_shards else ["hr"]))
    shutil.copytree(folder / "data", workplace / "data", ignore=left_out)
    (workplace / "home").mkdir()
    for name in ("recipes", "tools"):
        (workplace / name).symlink_to(ROOT / name)


def run_block(block: Block, following: Block | None, file: str, workplace: Path, env: dict[str, str]) -> Result:
    """Write and run one block."""
    started = time.monotonic()
    command = command_of(block, following, workplace)
    if command is None:
        return Result(file, block, "ok", said=f"{block.rest} is written; a later block uses it")
    log = workplace / f"line{block.line}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=workplace, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
            code = process.wait()
            out.write(f"\nended after {SECONDS} s")
    outcome = "FAILED" if code else "ok"
    return Result(file, block, outcome, time.monotonic() - started, log.read_text(errors="replace"))


def command_of(block: Block, following: Block | None, workplace: Path) -> list[str] | None:
    """What runs a block, whose files are written first; None where the block after it uses the file it wrote."""
    text = at_workplace(block.text, str(workplace))
    if block.verb == "run" and block.language == "bash":
        return ["bash", "-euo", "pipefail", "-c", text]
    if block.verb == "run":
        return ["python", "-c", text]
    name = block.rest
    if block.verb == "into":
        base = yaml.safe_load((ROOT / name).read_text()) if (ROOT / name).is_file() else BASES[name]
        base = yaml.safe_load(at_workplace(yaml.safe_dump(base), str(workplace)))
        text = yaml.safe_dump(merged(base, yaml.safe_load(text)), sort_keys=False)
        name = Path(name).name
    (workplace / name).write_text(text)
    return None if block.language != "yaml" or uses(following, name) else command_for_file(name, text)


def uses(block: Block | None, name: str) -> bool:
    """Whether a block runs with the file ``name`` of the workplace."""
    return block is not None and re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w./-])", block.text) is not None


def command_for_file(name: str, text: str) -> list[str]:
    """What tries an option file that the block after it does not use."""
    options = yaml.safe_load(text)
    if "kind" in options:
        return ["synthpipe", "train", name]
    if "model_type" in options:
        return ["python", "-m", "synthpipe.basicsr_plugin.train", "-opt", name]
    return ["python", "-c", FIRST_BATCH, name]


def print_table(results: Sequence[Result]) -> None:
    """One line for each block, and what failed blocks said."""
    for result in results:
        if result.outcome == "FAILED":
            print(f"--- {result.file}:{result.block.line}\n{result.block.text}---")
            print("\n".join(result.said.rstrip().splitlines()[-SHOWN_LINES:]) + "\n")
    for result in results:
        place = f"{result.file}:{result.block.line}"
        note = f" ({result.said})" if result.outcome == "skipped" else ""
        print(f"{place:22} {result.outcome:8} {result.seconds:5.1f} s  {result.block.title[:80]}{note}")
    outcomes = [result.outcome for result in results]
    print(", ".join(f"{outcomes.count(kind)} {kind}" for kind in ("ok", "skipped", "FAILED")))


def become(name: str, arguments: Sequence[str]) -> None:
    """Replace this process by the program ``name``, shortened."""
    words = shortened([name, *arguments])
    os.execv(sys.executable, [sys.executable, *PROGRAMS[name], *words[1:]])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as"]:
        become(sys.argv[2], sys.argv[3:])
    sys.exit(main())
