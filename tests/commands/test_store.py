"""satdifuser store info | verify | merge | prune: what they print, write, refuse, and their exit codes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.cli import main
from satdifuser.data.base import Labels
from satdifuser.store import FeatureStore, Form, StorePlan, StoreWriter

IDS = {"train": ["a1", "a2", "a3", "a4", "a5"], "val": ["v1", "v2"]}
TAPS = (("mid", 5, 8), ("up", 3, 4))
USAGE = {
    "info": "satdifuser store info STORE",
    "verify": "satdifuser store verify STORE",
    "merge": "satdifuser store merge NEW STORE STORE ...",
    "prune": "satdifuser store prune STORE NEW",
}
Satdifuser = Callable[..., tuple[int, str, str]]


def write(
    path: Path | str, dtype: str = "float32", keep: str = "maps", prefix: str = "", steps: Any = (21, 161)
) -> None:
    taps = tuple(Tap(name, t, d, c, s) for t in steps for d, (name, c, s) in enumerate(TAPS))
    spec = BankSpec(taps, "toy", "abc", (16, 24), mode="inversion", settings=(("seed", 3),))
    form, count = Form(dtype, keep), sum(map(len, IDS.values()))
    ids = {split: [prefix + name for name in names] for split, names in IDS.items()}
    skipped = [{"id": "bad", "reason": "clouds"}]
    labels, data = Labels(("water", "forest"), ("#000000", "#ffffff")), {"train": {}, "val": {}}
    plan = StorePlan(form.spec(spec), form, ids, labels, data, skipped=skipped, shard_bytes=700)
    bank = FeatureBank(spec, {tap: torch.randn(count, *spec.shape(tap)) for tap in taps})
    batch = {"id": [name for names in ids.values() for name in names], "label": torch.arange(count) % 2}
    with StoreWriter(path, plan) as writer:
        writer.append(bank, {**batch, "target": torch.rand(count)})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write(tmp_path / "f.zarr")
    return tmp_path / "f.zarr"


@pytest.fixture
def satdifuser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Satdifuser:
    """Run `satdifuser store WORDS` in the test's folder; give the exit code, and what it printed and complained of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return main(["store", *words]), *capsys.readouterr()

    return run


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://satdifuser-commands"
    system = fsspec.filesystem("memory")
    if system.exists("/satdifuser-commands"):
        system.rm("/satdifuser-commands", recursive=True)


def refused(found: tuple[int, str, str]) -> str:
    code, out, err = found
    assert (code, out) == (2, "")
    assert err.startswith("satdifuser: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert "unexpected" not in err
    return err


def test_info_says_what_a_store_holds(store: Path, satdifuser: Satdifuser) -> None:
    code, out, err = satdifuser("info", str(store))
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == str(store)
    files = [file for file in store.rglob("*") if file.is_file() and file.name != "manifest.json"]
    size = sum(file.stat().st_size for file in files)
    sample = 2 * 4 * (5 * 2 * 3 + 3 * 4 * 6)
    for line in (
        "encoder toy, weights abc, mode inversion",
        "settings seed 3",
        "image size 16 x 24",
        "samples train 5, val 2",
        "labels label, target (2 classes)",
        "form store.dtype=float32",
        f"size {size / 1e3:.1f} kB in {len(files)} files, {sample} bytes of features a sample",
        "skipped 1 samples",
        "4 taps (timesteps 21, 161)",
    ):
        assert line in lines, out
    assert re.search(r"mid\W+8\W+5 x 2 x 3\W+21, 161", out)
    assert re.search(r"up\W+4\W+3 x 4 x 6\W+21, 161", out)


@pytest.mark.parametrize(
    ("dtype", "keep", "words"),
    [("int8", "maps", "store.dtype=int8"), ("float16", "mean", "store.keep=mean store.dtype=float16")],
)
def test_info_names_the_form_as_one_asks_for_it(
    tmp_path: Path, satdifuser: Satdifuser, dtype: str, keep: str, words: str
) -> None:
    write(tmp_path / "f.zarr", dtype, keep)
    code, out, _ = satdifuser("info", "f.zarr")
    assert code == 0
    assert re.search(rf"form +{words}\n", out)


def test_info_tells_timestep_0_from_none(tmp_path: Path, satdifuser: Satdifuser) -> None:
    write(tmp_path / "zero", steps=(0, 21))
    assert re.search(r"5 x 2 x 3\W+0, 21", satdifuser("info", "zero")[1])
    write(tmp_path / "none", steps=(None,))
    assert re.search(r"5 x 2 x 3 [^\d\n]*-", satdifuser("info", "none")[1])


def test_verify_says_that_all_is_well_or_what_is_damaged(store: Path, satdifuser: Satdifuser) -> None:
    files = len([file for file in store.rglob("*") if file.is_file()]) - 1
    code, out, _ = satdifuser("verify", "f.zarr")
    assert code == 0
    assert re.fullmatch(rf"f\.zarr: all {files} files are as they were written \(\d+ MB\)\n", out)
    shard = next((store / "up@161").glob("c.0.*"))
    data = bytearray(shard.read_bytes())
    data[11] ^= 64  # in the first row
    shard.write_bytes(data)
    (store / "label" / "zarr.json").unlink()
    code, out, err = satdifuser("verify", "f.zarr")
    assert (code, err) == (1, "")
    first, second, last = out.splitlines()
    assert first == "label/zarr.json is not there"
    assert re.fullmatch(rf"up@161/{shard.name} is damaged .*: tap up@161 of 1 of its \d samples \(a\d\)", second)
    assert last.startswith(f"f.zarr: 2 of {files} files are damaged: copy the store again")


def test_verify_without_a_whole_manifest_is_no_success(store: Path, satdifuser: Satdifuser) -> None:
    manifest = (store / "manifest.json").read_text()
    (store / "manifest.json").write_text(manifest[: len(manifest) // 2])
    assert "manifest.json is damaged" in refused(satdifuser("verify", "f.zarr"))
    (store / "manifest.json").unlink()
    assert "f.zarr has no manifest.json" in refused(satdifuser("verify", "f.zarr"))
    assert "f.zarr has no manifest.json" in refused(satdifuser("info", "f.zarr"))


def test_a_damaged_description_is_one_line_for_every_command(store: Path, satdifuser: Satdifuser) -> None:
    write(store.with_name("g.zarr"), prefix="other-")
    (store / "zarr.json").write_text('{"zarr_format": 3, "node_type": "gro')
    assert satdifuser("verify", "f.zarr")[0] == 1
    for words in (["info", "f.zarr"], ["merge", "new", "g.zarr", "f.zarr"], ["prune", "f.zarr", "new", "taps=up"]):
        assert "f.zarr" in refused(satdifuser(*words))


def test_merge_joins_stores_and_says_so(store: Path, satdifuser: Satdifuser) -> None:
    write(store.with_name("g.zarr"), prefix="other-")
    code, out, _ = satdifuser("merge", "new.zarr", "f.zarr", "g.zarr")
    assert (code, out) == (0, "wrote new.zarr: 14 samples of f.zarr, g.zarr\n")
    joined = FeatureStore(store.with_name("new.zarr"))
    assert joined.split("train").ids == [prefix + name for prefix in ("", "other-") for name in IDS["train"]]
    assert satdifuser("verify", "new.zarr")[0] == 0
    assert "new.zarr already exists" in refused(satdifuser("merge", "new.zarr", "f.zarr", "g.zarr"))
    assert "twice" in refused(satdifuser("merge", "again", "f.zarr", "f.zarr"))
    write(store.with_name("half.zarr"), "float16", prefix="half-")
    assert "cannot be joined" in refused(satdifuser("merge", "again", "f.zarr", "half.zarr"))
    assert {path.name for path in store.parent.iterdir()} == {"f.zarr", "g.zarr", "half.zarr", "new.zarr"}


def test_merge_and_prune_take_a_place_afar_for_what_it_is(store: Path, satdifuser: Satdifuser, memory: str) -> None:
    """Never for a folder that is called `memory:`."""
    write(store.with_name("g.zarr"), prefix="other-")
    code, _, err = satdifuser("merge", f"{memory}/new", "f.zarr", "g.zarr")
    assert code == 0 or "memory://" in err
    if code == 0:
        assert FeatureStore(f"{memory}/new").samples == 14
    assert "memory://" in refused(satdifuser("prune", "f.zarr", f"{memory}/small", "timesteps=21"))
    assert {path.name for path in store.parent.iterdir()} == {"f.zarr", "g.zarr"}


def test_prune_keeps_the_taps_asked_for_and_says_what_that_frees(store: Path, satdifuser: Satdifuser) -> None:
    code, out, _ = satdifuser("prune", "f.zarr", "small.zarr", "timesteps=161", "taps=up")
    freed = 7 * 4 * (2 * 5 * 2 * 3 + 3 * 4 * 6)
    assert (code, out) == (0, f"wrote small.zarr: 1 of 4 taps; removing f.zarr frees {freed / 1e3:.1f} kB\n")
    assert [str(tap) for tap in FeatureStore(store.with_name("small.zarr")).spec.taps] == ["up@161"]
    assert satdifuser("prune", "f.zarr", "brackets", "timesteps=[21, 161]", "taps=[mid]")[0] == 0
    assert [str(tap) for tap in FeatureStore(store.with_name("brackets")).spec.taps] == ["mid@21", "mid@161"]
    assert satdifuser("verify", "brackets")[0] == satdifuser("verify", "f.zarr")[0] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["timesteps=22"], r"no timestep 22.*\[21, 161\]"),
        (["taps=mid,upp"], r"no tap upp.*mid.*up"),
        (["timesteps=21,x"], r"timesteps=21,x are not whole numbers: satdifuser store prune STORE NEW"),
        (["timesteps="], r"no taps|which timesteps"),
        ([], r"say which timesteps or taps to keep: satdifuser store prune STORE NEW"),
    ],
)
def test_prune_refuses_what_there_is_not(store: Path, satdifuser: Satdifuser, words: list[str], says: str) -> None:
    assert re.search(says, refused(satdifuser("prune", "f.zarr", "small", *words)))
    assert [path.name for path in store.parent.iterdir()] == ["f.zarr"]


@pytest.mark.parametrize(
    "words",
    [
        ["info"],
        ["info", "f.zarr", "g.zarr"],
        ["info", "f.zarr", "taps=up"],
        ["verify"],
        ["verify", "f.zarr", "timesteps=21"],
        ["merge"],
        ["merge", "new"],
        ["merge", "new", "f.zarr"],
        ["merge", "new", "f.zarr", "g.zarr", "taps=up"],
        ["prune", "f.zarr", "taps=up"],
        ["prune", "f.zarr", "small", "more", "taps=up"],
        ["prune", "f.zarr", "small", "tap=up"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_with_the_usage(store: Path, satdifuser: Satdifuser, words: list[str]) -> None:
    assert USAGE[words[0]] in refused(satdifuser(*words))
    assert [path.name for path in store.parent.iterdir()] == ["f.zarr"]


def test_an_unknown_word_is_refused_with_the_nearest_and_help_shows_examples(satdifuser: Satdifuser) -> None:
    said = refused(satdifuser("merg", "new", "a", "b"))
    assert "it has info, verify, merge, prune" in said
    assert "did you mean 'merge'" in said or "merge?" in said
    assert "it has info, verify, merge, prune" in refused(satdifuser())
    code, out, err = satdifuser("--help")
    assert (code, err) == (0, "")
    assert all(f"satdifuser store {word} " in out for word in USAGE)


def test_what_is_no_store_is_one_line(tmp_path: Path, satdifuser: Satdifuser) -> None:
    (tmp_path / "empty").mkdir()
    for path in ("nowhere", "empty", "abc://x/y"):
        for words in (
            ["info", path],
            ["verify", path],
            ["merge", "new", path, path],
            ["prune", path, "new", "taps=up"],
        ):
            assert path in refused(satdifuser(*words))
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_store_afar_is_described_and_verified(memory: str, satdifuser: Satdifuser) -> None:
    write(f"{memory}/f")
    code, out, _ = satdifuser("info", f"{memory}/f")
    assert (code, out.splitlines()[0]) == (0, f"{memory}/f")
    assert satdifuser("verify", f"{memory}/f")[0] == 0
    system: Any = fsspec.filesystem("memory")
    file = next(name for name in system.find("/satdifuser-commands") if "mid@21/c.0" in name)
    system.pipe(file, system.cat(file)[:-1])
    code, out, _ = satdifuser("verify", f"{memory}/f")
    assert code == 1
    assert re.match(r"mid@21/c\.0\.0\.0\.0 has \d+ bytes instead of \d+", out)
