"""What the state of a stream must be for the stream to go on from it: every value checked before any is used.

A state comes from a file, through JSON, pickle or torch, and a value that is wrong must not become a wrong resume.
The fields of the readers' loader are those of torchdata's ``StatefulDataLoader``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from synthpipe.errors import StreamError, excerpt

__all__ = ["MAX_COUNT", "MAX_RECORDS", "StateBounds", "check_state"]

#: Of anything that a state counts.
MAX_COUNT = 1 << 53
#: Of the loader's records since its first epoch, which torchdata counts through one by one when it goes on.
MAX_RECORDS = 10**8
#: Reasons in one table of counts.
MAX_REASONS = 1000
#: Ways of all choices of a degradation: more than the values that an option file can have.
MAX_WAYS = 100_000

_TOP = ("version", "identity", "pass", "nodes", "tally", "counts", "given_up", "ways", "epoch")


@dataclass(frozen=True)
class StateBounds:
    """What positions a stream has.

    Args:
        parts: images of each reader in an epoch; one for the stream itself where it has no readers of its own.
        crops: tiles of one image, at most.
        workers: reader processes.
        epochs: of a pass; None: without end.
        limit: batches of a pass, where ranks agree on it.
    """

    parts: tuple[int, ...]
    crops: int
    workers: int
    epochs: int | None
    limit: int | None


def check_state(state: Mapping[str, Any], bounds: StateBounds) -> None:
    """Refuse a state that no such stream has had.

    Args:
        state: of a known version and of this stream, by its identity.
        bounds: of the stream.

    Raises:
        StreamError: names the key, what was expected, and what came.
    """
    unknown = [key for key in state if key not in _TOP]
    if unknown:
        _refuse("state", f"known keys ({', '.join(_TOP)})", unknown)
    number = _count(state, "pass", "")
    _count(state, "epoch", "")
    _counts(_get(state, "counts", ""), "counts")
    _counts(state.get("given_up", {}), "given_up")
    _counts(state.get("ways", {}), "ways", MAX_WAYS)
    if "used" not in state["counts"]:
        _refuse("counts", "a number of 'used' images", state["counts"])
    if bounds.epochs is None and number:
        _refuse("pass", "0 in a stream without end", number)
    if _get(state, "tally", "") is not None:
        _tally(state["tally"], "tally")
    if _get(state, "nodes", "") is not None:
        _nodes(state["nodes"], number, bounds)


def _nodes(nodes: Any, number: int, bounds: StateBounds) -> None:
    _mapping(nodes, "nodes")
    for key in ("block", "taken"):
        _count(nodes, key, "nodes")
    _count(nodes, "batches", "nodes", most=bounds.limit)
    if _get(nodes, "tally", "nodes") is not None:
        _tally(nodes["tally"], "nodes.tally")
    source = _get(nodes, "source", "nodes")
    if source is None:
        return
    _mapping(source, "nodes.source")
    first = number * (bounds.epochs or 0)
    # Ranks that agree on a number of batches may need a few images of the epochs that follow.
    last = first if bounds.limit is None else None
    epoch = _count(source, "epoch", "nodes.source", least=first, most=last)
    if not isinstance(_get(source, "ended", "nodes.source"), bool):
        _refuse("nodes.source.ended", "true or false", source["ended"])
    if _get(source, "loader", "nodes.source") is not None:
        stop = None if bounds.epochs is None else epoch + bounds.epochs
        _loader(source["loader"], epoch, stop, bounds)


def _loader(loader: Any, first: int, stop: int | None, bounds: StateBounds) -> None:
    at = "nodes.source.loader"
    _mapping(loader, at)
    if _get(loader, "_iterator_finished", at) is not False:
        _refuse(f"{at}._iterator_finished", "False, as at every batch", loader["_iterator_finished"])
    if not bounds.workers:
        if "_snapshot" in loader:
            _refuse(at, "that of a stream without reader processes", list(loader))
        yielded = _count(loader, "_num_yielded", at, most=MAX_RECORDS)
        _count(loader, "_sampler_iter_yielded", at, least=yielded, most=yielded)
        _unused(loader, at)
        _reader(loader, at, 0, first, stop, bounds)
        return
    snapshot = _mapping(_get(loader, "_snapshot", at), f"{at}._snapshot")
    _count(loader, "_steps_since_snapshot", at, most=0)
    at = f"{at}._snapshot"
    _count(snapshot, "_snapshot_step", at, most=MAX_RECORDS)
    _count(snapshot, "_last_yielded_worker_id", at, most=bounds.workers - 1)
    main = _mapping(_get(snapshot, "_main_snapshot", at), f"{at}._main_snapshot")
    _count(main, "_num_workers", f"{at}._main_snapshot", least=bounds.workers, most=bounds.workers)
    _count(main, "_sampler_iter_yielded", f"{at}._main_snapshot", most=MAX_RECORDS)
    _unused(main, f"{at}._main_snapshot")
    workers = _mapping(_get(snapshot, "_worker_snapshots", at), f"{at}._worker_snapshots")
    names = {f"worker_{worker}" for worker in range(bounds.workers)}
    if set(workers) != names:
        _refuse(f"{at}._worker_snapshots", f"those of {len(names)} readers", list(workers))
    for worker in range(bounds.workers):
        name = f"{at}._worker_snapshots.worker_{worker}"
        found = _mapping(workers[f"worker_{worker}"], name)
        _count(found, "worker_id", name, least=worker, most=worker)
        _reader(found, name, worker, first, stop, bounds)


def _reader(holder: Mapping[str, Any], at: str, worker: int, first: int, stop: int | None, bounds: StateBounds) -> None:
    """Where one reader stands."""
    if holder.get("dataset_state") is not None:
        _refuse(f"{at}.dataset_state", "none", holder["dataset_state"])
    fetcher = _mapping(_get(holder, "fetcher_state", at), f"{at}.fetcher_state")
    at = f"{at}.fetcher_state"
    if not isinstance(_get(fetcher, "fetcher_ended", at), bool):
        _refuse(f"{at}.fetcher_ended", "true or false", fetcher["fetcher_ended"])
    reader = _mapping(_get(fetcher, "dataset_iter_state", at), f"{at}.dataset_iter_state")
    at = f"{at}.dataset_iter_state"
    _count(reader, "epoch", at, least=first, most=None if stop is None else stop - 1)
    position = _count(reader, "position", at, most=bounds.parts[worker])
    _count(reader, "crop", at, most=bounds.crops if position else 0)
    _count(reader, "reported", at)
    _counts(_get(reader, "counts", at), f"{at}.counts")
    _counts(reader.get("given_up", {}), f"{at}.given_up")


def _unused(holder: Mapping[str, Any], at: str) -> None:
    """What torchdata keeps of samplers, of which a stream has none."""
    for key in ("_index_sampler_state", "_sampler_iter_state", "_shared_seed"):
        if holder.get(key) is not None:
            _refuse(f"{at}.{key}", "none", holder[key])
    for key in ("_IterableDataset_len_called", "_base_seed"):
        if holder.get(key) is not None and type(holder[key]) is not int:
            _refuse(f"{at}.{key}", "none or a number", holder[key])


def _tally(tally: Any, at: str) -> None:
    _mapping(tally, at)
    if _get(tally, "source", at) is not None:
        _count(tally, "source", at)
    _by_reader(_get(tally, "readers", at), f"{at}.readers", _counts)
    _by_reader(_get(tally, "epochs", at), f"{at}.epochs", _plain_count)
    for key in ("device", "earlier"):
        _counts(_get(tally, key, at), f"{at}.{key}")
    _plain_count(tally.get("kept", 0), f"{at}.kept")
    _counts(tally.get("ways", {}), f"{at}.ways", MAX_WAYS)
    if "given_up" in tally:
        given_up = _mapping(tally["given_up"], f"{at}.given_up")
        _by_reader(_get(given_up, "readers", f"{at}.given_up"), f"{at}.given_up.readers", _counts)
        _counts(_get(given_up, "earlier", f"{at}.given_up"), f"{at}.given_up.earlier")


def _by_reader(table: Any, at: str, check: Callable[[Any, str], object]) -> None:
    """Keys are numbers of readers, which JSON turns into texts."""
    numbers = set()
    for key, value in _mapping(table, at).items():
        is_number = type(key) is int or (isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 7)
        if not is_number or not 0 <= int(key) < 10**6 or int(key) in numbers:
            _refuse(at, "numbers of readers as keys", key)
        numbers.add(int(key))
        check(value, f"{at}.{key}")


def _counts(table: Any, at: str, most: int = MAX_REASONS) -> None:
    _mapping(table, at)
    if len(table) > most:
        _refuse(at, f"at most {most} reasons", f"{len(table)} of them")
    for reason, count in table.items():
        if not isinstance(reason, str):
            _refuse(at, "reasons as keys", reason)
        _plain_count(count, f"{at}.{excerpt(reason)}")


def _plain_count(value: Any, at: str) -> int:
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        _refuse(at, "a whole number from 0", value)
    return value


def _count(holder: Mapping[str, Any], key: str, at: str, least: int = 0, most: int | None = None) -> int:
    value = _get(holder, key, at)
    most = MAX_COUNT if most is None else most
    if type(value) is not int or not least <= value <= most:
        upper = "" if most == MAX_COUNT else f" to {most}"
        _refuse(f"{at}.{key}".removeprefix("."), f"a whole number from {least}{upper}", value)
    return value


def _mapping(value: Any, at: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        _refuse(at, "keys with values", value)
    return value


def _get(holder: Mapping[str, Any], key: str, at: str) -> Any:
    if key not in holder:
        name = f"{at}.{key}".removeprefix(".")
        raise StreamError(f"not the state of a stream: it lacks {name!r}; use another state, or start a new stream")
    return holder[key]


def _refuse(at: str, expected: str, got: Any) -> NoReturn:
    raise StreamError(
        f"not a state that this stream can go on from: {at}: expected {expected}, got {excerpt(got)}; use another "
        "state, or start a new stream"
    )
