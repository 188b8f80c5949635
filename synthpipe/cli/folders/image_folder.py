"""The loop of commands that turn each image of a folder into others: reading, writing, what is skipped, exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from synthpipe.cli.command import print_given_up, print_nothing_done, print_passed_over
from synthpipe.cli.folders.result_names import PageKey, ResultNames
from synthpipe.cli.page_options import PageReading
from synthpipe.errors import ImageError, OptionError, counted

if TYPE_CHECKING:
    from torch import Tensor

    from synthpipe.files.original import Original
    from synthpipe.files.output_place import OutputPlace
    from synthpipe.transforms.page_images import PageImage

__all__ = ["FolderJob", "Render", "Rendered", "Result", "convert_images", "written_back"]


class Result(NamedTuple):
    """A file of what was made of a page: in a folder below OUT (``""``: OUT itself), with what is added to its name."""

    folder: str
    suffix: str
    data: bytes


class Rendered(NamedTuple):
    """All that was made of a page, and what was given up of it."""

    results: list[Result]
    given_up: Mapping[str, int]


#: Of a page and its key.  It may raise ImageError, which skips the image.
Render = Callable[["Original", PageKey], Rendered]


@dataclass(frozen=True)
class FolderJob:
    """What :func:`convert_images` is to do.

    Args:
        command: ``"degrade"``, for messages.
        verb: what was done to an image, such as ``"degraded"``.
        source: a folder, searched to any depth, links to folders included, or one image.
        target: folder of the results, PNG files under the same relative names; two images that differ in suffix alone
            keep theirs.
        reading: how images are read.
        in_place: whether ``target`` may be ``source`` or lie inside it.
        suffixes: of the names of each page's results.
        folders: below ``target``, each with results of all pages under flat names; ``("",)``: under relative names.
    """

    command: str
    verb: str
    source: Path
    target: Path
    reading: PageReading
    in_place: bool = False
    suffixes: tuple[str, ...] = ("",)
    folders: tuple[str, ...] = ("",)

    @property
    def flat(self) -> bool:
        """Whether results lie under flat names."""
        return self.folders != ("",)


def written_back(
    convert: Callable[[PageImage, PageKey], Mapping[str, Tensor]], reduction: int = 1, *, whole: bool = False
) -> Render:
    """Results as the page came in: grey, with alpha and EXIF, of its depth and range.

    Args:
        convert: of a page and its key -> results by suffix, each ``(1, 3, h, w)``.
        reduction: of the image before that.
        whole: ``convert`` reduces by itself, and is given the whole page.
    """

    def render(page: Original, key: PageKey) -> Rendered:
        """See :data:`Render`."""
        from synthpipe.files.original import encode_original
        from synthpipe.transforms.page_images import page_arrays, page_image, whole_image

        given = page_image(page, reduction)
        results = [
            Result("", suffix, encode_original(*page_arrays(y, page, given), page.exif))
            for suffix, y in convert(whole_image(page, reduction) if whole else given, key).items()
        ]
        return Rendered(results, page.given_up)

    return render


def convert_images(job: FolderJob, render: Render) -> int:
    """Convert every image below the source; broken ones are skipped and listed on the error stream.

    Returns:
        The exit code: 0 if any image worked, 1 if none did.

    Raises:
        OptionError: ``source`` does not exist; ``target`` is ``source`` or lies inside it, and may not.
    """
    from tqdm import tqdm

    from synthpipe.files.folder_walk import expected_images
    from synthpipe.files.given_up import GivenUpCounts
    from synthpipe.files.image_files import list_images
    from synthpipe.files.whole_file import check_folder_is_writable

    passed_over: Counter[str] = Counter()
    place = _output_place(job)
    paths = list_images(job.source, passed_over, place)
    if not paths:
        print(f"synthpipe {job.command}: no images in {job.source}: {expected_images(passed_over)}", file=sys.stderr)
        return 1
    replaced = place.in_place and place.is_at(job.source)
    names = ResultNames(paths, job.source, job.suffixes, flat=job.flat, as_they_are=replaced)
    check_folder_is_writable(job.target)
    _check_results(names, job, place, replaced)
    failed: Counter[str] = Counter()
    given_up = GivenUpCounts()
    for path in tqdm(paths, unit="image", disable=None):
        try:
            lost = _convert_file(path, names, job, render, one_page=replaced)
            given_up.add(_relative_name(path, job.source), lost)
        except ImageError as error:
            failed[error.reason] += 1
            tqdm.write(f"skipped: {error}", file=sys.stderr)
    print_passed_over(passed_over)
    done = len(paths) - failed.total()
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(failed.items()))
    told = f"{job.target}: {done} of {counted(len(paths), 'image')} {job.verb}"
    print(told + (f"; skipped: {reasons}" if reasons else ""))
    print_given_up(given_up.counts, given_up.files)
    if done == 0:
        print_nothing_done(job.command, f"no image below {job.source} could be used", failed)
    return 0 if done else 1


def _relative_name(path: Path, source: Path) -> str:
    """What messages call an image: folders may hold many of one name."""
    return path.name if path == source else path.relative_to(source).as_posix()


def _output_place(job: FolderJob) -> OutputPlace:
    from synthpipe.files.output_place import OutputPlace

    cure = "name a folder beside it"
    if not job.flat:
        cure += ", or add --in-place, which replaces images of the same name"
    return OutputPlace(job.target, in_place=job.in_place, cure=cure)


def _check_results(names: ResultNames, job: FolderJob, place: OutputPlace, replaced: bool) -> None:
    """Refuse results that would lie among the images that are read, unless each takes the place of its image.

    Raises:
        OptionError: says which, and what to do.
    """
    if replaced:
        if job.flat:
            raise OptionError("--in-place: pairs cannot replace images; name another OUT")
        if len(job.suffixes) > 1:
            raise OptionError(f"--in-place: {len(job.suffixes)} results cannot replace one image; leave out --samples")
        _check_links(names.keys)
        strange = [str(path) for path, name in names.keys.items() if path.name != f"{Path(name).name}.png"]
        if strange:
            raise OptionError(
                f"--in-place: no .png: {counted(len(strange), 'image')}, such as {strange[0]!r}: results would lie "
                "beside them, and the next run would read both; name another OUT"
            )
    elif job.source.is_dir():
        written = {Path(folder) / below for folder in job.folders for below in names.folders}
        place.check_folders({path.parent for path in names.keys}, written)
    elif not place.in_place:
        for folder in job.folders:
            place.check_file(job.source, (Path(folder) / names.pages(job.source, 1)[0]).as_posix())


def _check_links(paths: Iterable[Path]) -> None:
    """Refuse one file at two places: by the time the second is read, it would hold the first one's result.

    Raises:
        OptionError: names both.
    """
    real: dict[str, Path] = {}
    for path in paths:
        first = real.setdefault(os.path.realpath(path), path)
        if first is not path:
            raise OptionError(
                f"--in-place: {str(first)!r} and {str(path)!r} are one file, by a link: it would be changed twice; "
                "remove the link, or name another OUT"
            )


def _convert_file(
    path: Path, names: ResultNames, job: FolderJob, render: Render, *, one_page: bool
) -> Mapping[str, int]:
    """Write the results of each page; what was given up of the file."""
    from synthpipe.files.decoding.srgb import FURTHER_PAGES

    given_up: dict[str, int] = {}
    done = 0
    try:
        for page, left in job.reading.pages_of(path):
            if page.pages > 1 and one_page and not left:
                text = f"{page.pages} pages cannot replace one file; add --pages first, or name another OUT"
                raise ImageError(f"{path}: {text}", "pages")
            if not done:
                results, keys = names.pages(path, page.pages - left), names.page_keys(path, page.pages - left)
            rendered = _rendered(render, page, keys[done], path)
            for result in rendered.results:
                _write_result(job.target / result.folder / f"{results[done]}{result.suffix}.png", result.data)
            given_up |= rendered.given_up
            if left:
                given_up[FURTHER_PAGES] = left
            done += 1
    except ImageError as error:
        if done:
            raise ImageError(f"{error}; pages before it were written ({done})", error.reason) from error
        raise
    return given_up


def _rendered(render: Render, page: Original, key: PageKey, path: Path) -> Rendered:
    try:
        return render(page, key)
    except ImageError as error:
        where = f", page {page.page + 1} of {page.pages}" if page.pages > 1 else ""
        raise ImageError(f"{path}{where}: {error}", error.reason) from error


def _write_result(path: Path, data: bytes) -> None:
    """Write one file whole; a name that is too long for the file system skips the image."""
    from synthpipe.files.whole_file import write_whole

    try:
        write_whole(path, data)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        name = f"{path.name[:40]}...{path.name[-30:]}"
        raise ImageError(
            f"{path.parent}: the name of the result, {name}, is too long; rename the image", "long_name"
        ) from error
