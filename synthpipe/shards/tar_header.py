"""One header of a tar file, with all that may stand before it: pax records, long names of GNU tar, maps of holes.

The layouts are those of POSIX.1-2001 (ustar and pax) and of GNU tar's manual.  Python's own ``tarfile`` is not used: it
takes a header that is damaged for the end of the archive, so that the rest is lost in silence, it reads headers of any
size into memory, and it needs two to three times as long for each.
"""

from __future__ import annotations

from typing import IO, NamedTuple

__all__ = ["BLOCK", "LARGEST_FILE", "LONGEST_EXTENSION", "TarDamage", "TarHeader", "read_header"]

#: Everything in a tar is padded to whole blocks of so many bytes.
BLOCK = 512

#: Bytes of one extended header.  Long names and pax records take some kilobytes; what asks for more is damaged.
LONGEST_EXTENSION = 1 << 20
#: Bytes of a member, by its header; what lies within the file is looked at later.
LARGEST_FILE = 1 << 62

_PAX, _PAX_FOR_ALL, _LONG_NAME, _LONG_LINK, _GNU_SPARSE = b"xX", b"g", b"L", b"K", b"S"
_EXTENSIONS = _PAX + _PAX_FOR_ALL + _LONG_NAME + _LONG_LINK
_FILES = b"0\0007" + _GNU_SPARSE
# Links, devices, folders and pipes: their size is that of something else.
_WITHOUT_DATA = b"123456"
_FOLDER = b"5"
# What is taken from pax records; one record of sparse files stands for all, and none of the others is held.
_PATH, _SIZE, _SPARSE_NAME, _SPARSE = b"path", b"size", b"GNU.sparse.name", b"GNU.sparse."


class TarDamage(Exception):  # noqa: N818 - what is found at the end of some tars, no programming error
    """What keeps a tar from being read on.

    Args:
        offset: byte of the tar at which a header should begin.
        reason: what is there instead.
        unread: bytes from there to the end of the file; None where nobody has looked.
    """

    def __init__(self, offset: int, reason: str, unread: int | None = None) -> None:
        super().__init__(offset, reason, unread)
        self.offset = offset
        self.reason = reason
        self.unread = unread

    def __str__(self) -> str:
        unread = "" if self.unread is None else f"; {self.unread} bytes from there on are not read"
        return f"damaged at byte {self.offset}: {self.reason}{unread}"


class TarHeader(NamedTuple):
    """What a header says of one member.

    ``regular``: a file, neither folder nor link; ``folder``: one of those; ``sparse``: stored without its holes.
    ``begin`` is the first byte of its headers and ``data`` that of its contents, which take ``size`` bytes.
    """

    name: str
    regular: bool
    folder: bool
    sparse: bool
    begin: int
    data: int
    size: int

    @property
    def end(self) -> int:
        """First byte behind the contents and their padding."""
        return self.data + _padded(self.size)


def read_header(file: IO[bytes], position: int, shared: dict[bytes, bytes]) -> TarHeader | None:
    """The header at byte ``position``, or None where the empty block stands that ends the archive.

    Args:
        file: a seekable reader; it is left anywhere.
        position: a multiple of 512.
        shared: pax records that hold for all members to come, of those that matter here; taken from here and added to.

    Raises:
        TarDamage: there is neither a header nor an empty block.
    """
    begin = position
    long_name: bytes | None = None
    records: dict[bytes, bytes] = {}
    while True:
        block = _read_block(file, position)
        if not any(block):
            if position > begin:
                raise TarDamage(begin, "an extended header without the header that it belongs to")
            return None
        kind, size = block[156:157], _number(block[124:136], position)
        if kind not in _EXTENSIONS:
            break
        content = _extension(file, position, size)
        if kind == _LONG_NAME:
            long_name = _until_zero(content)
        elif kind == _PAX_FOR_ALL:
            shared |= _pax_records(content, position)
            # It belongs to the archive and not to the member behind it.
            begin = position + BLOCK + _padded(size) if position == begin else begin
        elif kind in _PAX:
            records |= _pax_records(content, position)
        position += BLOCK + _padded(size)
    return _header(file, block, begin, position, shared | records, long_name)


def _header(
    file: IO[bytes], block: bytes, begin: int, position: int, records: dict[bytes, bytes], long_name: bytes | None
) -> TarHeader:
    """The member's header proper, ``block``, under what the headers before it have said."""
    kind, data = block[156:157], position + BLOCK
    name = records.get(_SPARSE_NAME) or records.get(_PATH) or long_name or _short_name(block)
    size = _decimal(records[_SIZE], position) if records.get(_SIZE) else _number(block[124:136], position)
    # Archives older than POSIX mark a folder by its name alone.
    folder = kind == _FOLDER or (kind == b"\0" and name.endswith(b"/"))
    if kind in _WITHOUT_DATA or folder:
        size = 0
    if kind == _GNU_SPARSE and block[482]:
        data = _behind_map(file, data)
    sparse = kind == _GNU_SPARSE or _SPARSE in records or _SPARSE_NAME in records
    text = name.decode("utf-8", "surrogateescape")
    return TarHeader(text, kind in _FILES and not folder, folder, sparse, begin, data, size)


def _read_block(file: IO[bytes], position: int) -> bytes:
    """A header or an empty block."""
    file.seek(position)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise TarDamage(position, "the file ends where a header or the empty block at the end should be")
    if block[0] or any(block):
        _check_sum(block, position)
    return block


def _check_sum(block: bytes, position: int) -> None:
    """The sum of the header's bytes, its own field taken as blanks; some old systems added them as signed numbers."""
    given = _octal(block[148:156])
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if given != total:
        negative = sum(byte > 127 for byte in block[:148] + block[156:])
        if given != total - 256 * negative:
            raise TarDamage(position, "no tar header (its checksum does not fit)")


def _extension(file: IO[bytes], position: int, size: int) -> bytes:
    if size > LONGEST_EXTENSION:
        raise TarDamage(
            position, f"an extended header of {size} bytes, more than LONGEST_EXTENSION ({LONGEST_EXTENSION})"
        )
    content = file.read(size)
    if len(content) < size:
        raise TarDamage(position, "the file ends within an extended header")
    return content


def _pax_records(content: bytes, position: int) -> dict[bytes, bytes]:
    """Those that matter of ``LENGTH NAME=VALUE`` and a line end, where LENGTH counts all of it; zeros may follow."""
    records: dict[bytes, bytes] = {}
    begin = 0
    while begin < len(content) and content[begin]:
        digits, _, _ = content[begin : begin + 20].partition(b" ")
        end = begin + (int(digits) if digits.isdigit() else 0)
        name, equals, value = content[begin + len(digits) + 1 : max(end - 1, 0)].partition(b"=")
        if not equals or content[end - 1 : end] != b"\n":
            raise TarDamage(position, "an extended header that is damaged")
        if name in (_PATH, _SIZE, _SPARSE_NAME):
            records[name] = value
        elif name.startswith(_SPARSE):
            records[_SPARSE] = b""
        begin = end
    return records


def _behind_map(file: IO[bytes], position: int) -> int:
    """Where the contents of a sparse file of GNU tar begin: behind the blocks that go on with its map of holes."""
    goes_on = True
    while goes_on:
        file.seek(position)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise TarDamage(position, "the file ends within the map of a sparse file")
        goes_on = bool(block[504])
        position += BLOCK
    return position


def _short_name(block: bytes) -> bytes:
    name = _until_zero(block[:100])
    # GNU tar has other things where ustar has the folder.
    folder = _until_zero(block[345:500]) if block[257:263] == b"ustar\0" else b""
    return folder + b"/" + name if folder else name


def _number(field: bytes, position: int) -> int:
    """A size: octal digits, or by GNU's extension a binary number behind a byte 0x80; 0xFF begins negative ones."""
    size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)
    return _checked_size(size, position)


def _decimal(text: bytes, position: int) -> int:
    return _checked_size(int(text) if text.isdigit() and len(text) < 20 else -1, position)


def _checked_size(size: int, position: int) -> int:
    if size < 0:
        raise TarDamage(position, "a header without a valid size")
    if size > LARGEST_FILE:
        raise TarDamage(position, f"a header that says {size} bytes, more than LARGEST_FILE ({LARGEST_FILE})")
    return size


def _octal(field: bytes) -> int:
    """Octal digits, with blanks around them and anything behind a zero byte; -1 for what is none."""
    digits = _until_zero(field).strip()
    try:
        return int(digits or b"0", 8)
    except ValueError:
        return -1


def _until_zero(text: bytes) -> bytes:
    return text.partition(b"\0")[0]


def _padded(size: int) -> int:
    return size + -size % BLOCK
