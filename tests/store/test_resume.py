"""Going on after an error, a full disk or a kill: the finished store is byte for byte that of an unbroken run."""

from __future__ import annotations

import errno
import gc
import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

import satdifuser.store
from satdifuser.bank import BankSpec
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore, StoreWriter

STORE = str(Path(satdifuser.store.__file__).parent)
Files = Callable[[Path], dict[str, bytes]]
Place = tuple[str, int]


def outcome(work: Callable[[], None]) -> str:
    """What was raised, by name; nothing of the error stays alive, as it would not in another process."""
    found = ""
    try:
        work()
    except BaseException as error:
        found = f"{type(error).__name__}: {error}"
        error.__traceback__ = error.__context__ = error.__cause__ = None
    return found


class Interrupter:
    """Raises as the nth line of the store's code is about to run; without n, it only notes the lines."""

    def __init__(self, at: int = -1, error: BaseException | None = None) -> None:
        self.at, self.error = at, error
        self.lines: list[Place] = []

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(STORE):
            return None
        if event == "line":
            self.lines.append((Path(frame.f_code.co_filename).name, frame.f_lineno))
            if len(self.lines) - 1 == self.at:
                assert self.error is not None
                raise self.error
        return self

    def run(self, work: Callable[[], None]) -> str:
        before = sys.gettrace()
        sys.settrace(self)
        try:
            return outcome(work)
        finally:
            sys.settrace(before)


@pytest.fixture
def few(make: Any, small_spec: BankSpec) -> Any:
    return make({"train": 5, "val": 2}, small_spec)


def plan_of(few: Any, **options: Any) -> Any:
    return few.plan("int8", **{"shard_bytes": 25, **options})


KEPT: dict[str, bytes] = {}


@pytest.fixture
def unbroken(tmp_path: Path, few: Any, files_of: Files) -> dict[str, bytes]:
    """The samples are the same in every test, so that it is written once."""
    if not KEPT:
        plan = plan_of(few)
        assert len(plan.units) >= 3
        few.write(tmp_path / "unbroken", plan)
        KEPT.update(files_of(tmp_path / "unbroken"))
        shutil.rmtree(tmp_path / "unbroken")
    return KEPT


def begin(path: Path, few: Any) -> None:
    """Always in the same steps."""
    with StoreWriter(path, plan_of(few)) as writer:
        for first in range(0, 7, 3):
            writer.append(*few.batch(slice(first, min(first + 3, 7))))


def go_on(path: Path, few: Any, **options: Any) -> None:
    """As a user would start it again; nothing where it was all but done."""
    if not path.exists():
        few.write(path, plan_of(few), most=random.randint(1, 4), **options)


@pytest.mark.parametrize("share", [30, pytest.param(12, marks=pytest.mark.slow)])
def test_an_interruption_at_any_line_costs_nothing(
    tmp_path: Path, few: Any, files_of: Files, unbroken: dict[str, bytes], share: int
) -> None:
    """A run is interrupted at a line, half of them once more elsewhere, and the last is left to finish."""
    whole = Interrupter()
    assert whole.run(lambda: begin(tmp_path / "traced", few)) == ""
    times: dict[Place, list[int]] = {}
    for number, place in enumerate(whole.lines):
        times.setdefault(place, []).append(number)
    chosen = [random.choice(numbers) for numbers in times.values()]
    faults = []
    for at in chosen[random.randrange(share) :: share]:
        path = tmp_path / f"store{at}"
        first = Interrupter(at, KeyboardInterrupt("mine"))
        found = [first.run(lambda path=path: begin(path, few))]
        second = Interrupter(random.randrange(len(whole.lines)), KeyboardInterrupt("mine"))
        found.append(second.run(lambda path=path: go_on(path, few)) if random.random() < 0.5 else "")
        found.append(outcome(lambda path=path: go_on(path, few)))
        if found[0] != "KeyboardInterrupt: mine" or found[1] not in ("", found[0]) or found[2]:
            faults.append((first.lines[-1], second.lines[-1:], found))
        elif files_of(path) != unbroken:
            mine = files_of(path)
            differ = [key for key in mine.keys() | unbroken.keys() if mine.get(key) != unbroken.get(key)]
            faults.append((first.lines[-1], second.lines[-1:], [f"differs in {sorted(differ)[:6]}"]))
    assert faults == [], "\n".join(map(str, faults))


@pytest.mark.parametrize("number", range(12))
def test_a_full_disk_is_one_line_and_after_room_is_made_the_run_goes_on(
    tmp_path: Path, few: Any, files_of: Files, unbroken: dict[str, bytes], disk: SimpleNamespace, number: int
) -> None:
    few.write(tmp_path / "measured", plan_of(few))
    most = disk.written
    room = (
        [random.randrange(most) for _ in range(12)][number] if number else most - 1
    )  # the last byte is the manifest's
    disk.room, disk.written = room, 0
    with pytest.raises(
        UserError, match=r"the disk filled up while writing .*store: free space and start again"
    ) as full:
        few.write(tmp_path / "store", plan_of(few), most=2)
    assert "\n" not in str(full.value)
    assert isinstance(full.value.__cause__, OSError)
    assert full.value.__cause__.errno == errno.ENOSPC
    assert not (tmp_path / "store").exists()
    del full
    gc.collect()
    disk.room = 2**62
    few.write(tmp_path / "store", plan_of(few), most=3)
    assert files_of(tmp_path / "store") == unbroken


@pytest.mark.skipif(sys.platform == "win32", reason="no limits there")
def test_a_journal_that_does_not_fit_is_an_error_of_the_disk_too(
    tmp_path: Path, few: Any, files_of: Files, unbroken: dict[str, bytes]
) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = StoreWriter(tmp_path / "store", plan_of(few))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))  # a shard fits, and the masks in a journal do not
    try:
        with pytest.raises(UserError, match=r"could not write .*goes on from there") as caught, writer:
            writer.append(*few.batch(slice(0, 7)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    few.write(tmp_path / "store", plan_of(few))
    assert files_of(tmp_path / "store") == unbroken


def test_another_error_of_the_disk_is_one_line_with_its_reason(tmp_path: Path, few: Any, disk: SimpleNamespace) -> None:
    disk.fault, disk.room = errno.EIO, 600
    with pytest.raises(UserError, match=r"could not write .*store.*Input/output error.*goes on from there") as caught:
        few.write(tmp_path / "store", plan_of(few))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("after", "error"),
    [(0, UserError("mine")), (1, SystemExit(3)), (3, KeyboardInterrupt()), (4, KeyError()), (7, RuntimeError("mine"))],
)
def test_an_error_of_the_caller_is_passed_on_and_no_row_is_computed_twice(
    tmp_path: Path, few: Any, files_of: Files, unbroken: dict[str, bytes], error: BaseException, after: int
) -> None:
    def fail_midway() -> None:
        with StoreWriter(tmp_path / "store", plan_of(few)) as writer:
            for row in range(after):
                writer.append(*few.batch(slice(row, row + 1)))
            raise error

    with pytest.raises(type(error)) as caught:
        fail_midway()
    assert caught.value is error
    with StoreWriter(tmp_path / "store", plan_of(few)) as writer:
        assert writer.rows_done == after
        assert [row for rows in writer.todo for row in rows] == list(range(after, 7))
        for bank, batch in few.batches(writer.todo):
            writer.append(bank, batch)
    assert files_of(tmp_path / "store") == unbroken


@pytest.mark.parametrize("damage", ["cut", "longer", "lost", "journal cut", "journal lost", "journal junk"])
@pytest.mark.parametrize("rows", [2, 3, 7])
def test_what_is_not_as_the_journal_says_is_written_again(
    tmp_path: Path, few: Any, files_of: Files, unbroken: dict[str, bytes], damage: str, rows: int
) -> None:
    few.begin(tmp_path / "store", rows, plan_of(few))
    partial = tmp_path / "store.partial"
    kind = partial / "progress" if "journal" in damage else partial / "store"
    files = [path for path in kind.rglob("*") if path.is_file() and path.name != "plan.json"]
    for path in random.sample(files, min(2, len(files))):
        data = path.read_bytes()
        if damage.endswith("cut"):
            path.write_bytes(data[: random.randrange(len(data))])
        elif damage == "longer":
            path.write_bytes(data + b"junk")
        elif damage.endswith("lost"):
            path.unlink()
        elif damage == "journal junk":
            path.write_bytes(b"junk" * 100)
    few.write(tmp_path / "store", plan_of(few))
    assert files_of(tmp_path / "store") == unbroken


@pytest.mark.parametrize("text", ["", "{", '{"spec": 3', "[]"])
def test_a_plan_cut_short_by_a_power_failure_is_begun_anew(
    tmp_path: Path, few: Any, files_of: Files, unbroken: dict[str, bytes], text: str
) -> None:
    few.begin(tmp_path / "store", 4, plan_of(few))
    (tmp_path / "store.partial" / "progress" / "plan.json").write_text(text)
    few.write(tmp_path / "store", plan_of(few))
    assert files_of(tmp_path / "store") == unbroken


@pytest.mark.parametrize("left", ["store/manifest.json.partial", "store/zarr.json.abc.partial", "progress/0.partial"])
def test_what_a_kill_left_aside_is_not_taken_into_the_store(
    tmp_path: Path, few: Any, files_of: Files, unbroken: dict[str, bytes], left: str
) -> None:
    few.begin(tmp_path / "store", 7, plan_of(few))
    (tmp_path / "store.partial" / left).write_text("half of")
    few.write(tmp_path / "store", plan_of(few))
    assert files_of(tmp_path / "store") == unbroken
    assert FeatureStore(tmp_path / "store").split("train").batch([0])["id"] == [few.names[0]]


@pytest.mark.parametrize("at", [0, 1])
def test_a_replacement_that_was_stopped_between_its_renames_goes_on(
    tmp_path: Path, few: Any, make: Any, files_of: Files, unbroken: dict[str, bytes], at: int
) -> None:
    make({"train": 2}, few.spec).write(tmp_path / "store")
    rename, calls = Path.rename, []

    def stopped(self: Path, target: Path) -> Path:
        if tmp_path / "store" in (self, target):
            calls.append(target)
            if len(calls) - 1 == at:
                raise KeyboardInterrupt
        return rename(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", stopped)
        assert outcome(lambda: few.write(tmp_path / "store", plan_of(few), overwrite=True)) == "KeyboardInterrupt: "
    few.write(tmp_path / "store", plan_of(few), overwrite=True)
    assert files_of(tmp_path / "store") == unbroken
    assert not (tmp_path / "store.partial").exists()


def test_a_replacement_killed_after_its_renames_can_be_replaced_again(
    tmp_path: Path, few: Any, files_of: Files, unbroken: dict[str, bytes]
) -> None:
    (tmp_path / "store.partial" / "replaced").mkdir(parents=True)
    (tmp_path / "store.partial" / "replaced" / "zarr.json").write_text("of an older store")
    for _ in range(2):
        few.write(tmp_path / "store", plan_of(few), overwrite=True)
        assert files_of(tmp_path / "store") == unbroken
        (tmp_path / "store.partial" / "replaced").mkdir(parents=True)
        (tmp_path / "store.partial" / "replaced" / "zarr.json").write_text("of an older store")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "float16"}, ["mid@21.scale"]),
        ({"keep": "grid2"}, ["maps", "grid2"]),
        ({"ids": True}, ["ids"]),
        ({"weights": "other"}, ["weights", "'abc'", "'other'"]),
    ],
)
def test_another_plan_is_refused_with_what_differs_and_overwrite_begins_anew(
    tmp_path: Path, few: Any, make: Any, files_of: Files, change: dict[str, Any], words: list[str]
) -> None:
    few.begin(tmp_path / "store", 4, plan_of(few))
    kept = files_of(tmp_path / "store.partial")
    other = few
    if "weights" in change or "ids" in change:
        spec = BankSpec(few.spec.taps, "toy", change.get("weights", "abc"), few.spec.image_size)
        other = make(few.counts, spec)
        if "weights" in change:
            other.names, other.ids = few.names, few.ids
    options = {"shard_bytes": 25, "dtype": "int8"}
    options |= {key: value for key, value in change.items() if key not in ("weights", "ids")}
    with pytest.raises(UserError, match=r"begun with other settings.*store\.overwrite=true") as caught:
        StoreWriter(tmp_path / "store", other.plan(**options))
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files_of(tmp_path / "store.partial") == kept
    few_again = StoreWriter(tmp_path / "store", plan_of(few))  # though the error above is still being looked at
    assert few_again.rows_done == 4
    del few_again
    gc.collect()
    other.write(tmp_path / "store", other.plan(**options), overwrite=True)
    other.write(tmp_path / "fresh", other.plan(**options))
    assert files_of(tmp_path / "store") == files_of(tmp_path / "fresh")


def test_the_configuration_is_a_record_and_may_change_where_the_features_do_not(tmp_path: Path, few: Any) -> None:
    few.begin(tmp_path / "store", 4, plan_of(few))
    few.write(tmp_path / "store", plan_of(few, config={"encoder": {"batch": 2}}))
    attributes = json.loads((tmp_path / "store" / "zarr.json").read_text())["attributes"]
    assert attributes["configuration"] == {"encoder": {"batch": 2}}
