"""`satdifuser store info | verify | merge | prune`: look after feature stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from satdifuser.errors import UserError, nearest

OPTIONS = ("timesteps=", "taps=")
USAGE = {
    "info": "satdifuser store info STORE",
    "verify": "satdifuser store verify STORE",
    "merge": "satdifuser store merge NEW STORE STORE ...",
    "prune": "satdifuser store prune STORE NEW [timesteps=21,61] [taps=NAME,NAME]",
}


def run(words: Sequence[str]) -> int:
    """Give the exit code: 1 where a store is damaged."""
    name = words[0] if words else ""
    if name not in USAGE:
        raise UserError(f"satdifuser store has no {name!r}: it has {', '.join(USAGE)}{nearest(name, USAGE)}")
    options = dict(word.split("=", 1) for word in words[1:] if word.startswith(OPTIONS))
    paths = [word for word in words[1:] if not word.startswith(OPTIONS)]  # a path may hold = too
    odd = options and name != "prune"
    counts = {"info": len(paths) == 1, "verify": len(paths) == 1, "merge": len(paths) >= 3, "prune": len(paths) == 2}
    if odd or not counts[name]:
        hint = f" (a path that begins with {min(options)}= as ./{min(options)}=...)" if odd else ""
        raise UserError(f"use it as: {USAGE[name]}{hint}")
    commands: dict[str, Callable[[], int]] = {
        "info": lambda: _info(paths[0]),
        "verify": lambda: _verify(paths[0]),
        "merge": lambda: _merge(paths[0], paths[1:]),
        "prune": lambda: _prune(paths[0], paths[1], options),
    }
    return commands[name]()


def _info(path: str) -> int:
    from satdifuser.report.tables import show
    from satdifuser.store import FeatureStore
    from satdifuser.store.forms import bytes_text

    store = FeatureStore(path)
    spec, files = store.spec, store.manifest.files
    ids = store.column("split")
    counts = Counter(store.splits[number] for number in (ids if ids is not None else ()))
    labels = [name for name in ("mask", "label", "multilabel", "target", "metadata", "dates") if store.has(name)]
    lines = {
        "encoder": f"{spec.encoder}, weights {spec.weights}, mode {spec.mode}",
        "settings": ", ".join(f"{key} {value}" for key, value in spec.settings),
        "image size": f"{spec.image_size[0]} x {spec.image_size[1]}",
        "samples": ", ".join(f"{name} {counts[name]}" for name in store.splits),
        "labels": f"{', '.join(labels) or 'none'} ({len(store.labels.classes)} classes)",
        "form": store.form.words,
        "size": f"{bytes_text(sum(size for size, _ in files.values()))} in {len(files)} files,"
        f" {bytes_text(store.form.bytes_per_sample(spec))} of features a sample",
        "skipped": f"{len(store.attributes.get('skipped', ()))} samples",
    }
    print(store.path)
    for name, text in lines.items():
        print(f"  {name:<10}  {text}")
    timesteps = ", ".join("-" if step is None else str(step) for step in spec.timesteps)
    rows = []
    for name in spec.names():
        taps = [tap for tap in spec.taps if tap.name == name]
        shape = " x ".join(map(str, spec.shape(taps[0])))
        rows.append(
            [name, str(taps[0].stride), shape, ", ".join("-" if t.timestep is None else str(t.timestep) for t in taps)]
        )
    show(f"{len(spec.taps)} taps (timesteps {timesteps})", ["tap", "stride", "map", "timesteps"], rows)
    return 0


def _verify(path: str) -> int:
    from satdifuser.engine.progress import bar
    from satdifuser.store.files import read_manifest
    from satdifuser.store.opened import open_files
    from satdifuser.store.verify import verify

    manifest = read_manifest(open_files(path))
    total = sum(size for size, _ in manifest.files.values())
    with bar("MB") as progress:
        task = progress.add_task("verifying", total=total / 1e6)
        faults = verify(path, lambda count: progress.advance(task, count / 1e6))
    for fault in faults:
        print(fault)
    if faults:
        print(f"{path}: {len(faults)} of {len(manifest.files)} files are damaged: copy the store again, or extract it")
        return 1
    print(f"{path}: all {len(manifest.files)} files are as they were written ({total / 1e6:.0f} MB)")
    return 0


def _merge(out: str, paths: Sequence[str]) -> int:
    from satdifuser.store.merge import merge

    plan = merge(out, paths)
    print(f"wrote {out}: {plan.samples} samples of {', '.join(paths)}")
    return 0


def _prune(path: str, out: str, options: dict[str, str]) -> int:
    from satdifuser.store import FeatureStore
    from satdifuser.store.forms import bytes_text
    from satdifuser.store.merge import prune

    if "://" in out:
        raise UserError(f"{out}: prune writes to a folder of this machine: give one")
    if not options:
        raise UserError(f"say which timesteps or taps to keep: {USAGE['prune']}")
    try:
        timesteps = [int(word) for word in _list(options["timesteps"])] if "timesteps" in options else None
    except ValueError:
        raise UserError(f"timesteps={options['timesteps']} are not whole numbers: {USAGE['prune']}") from None
    spec = prune(path, out, timesteps, _list(options["taps"]) if "taps" in options else None)
    store = FeatureStore(path)
    freed = store.samples * (store.form.bytes_per_sample(store.spec) - store.form.bytes_per_sample(spec))
    print(f"wrote {out}: {len(spec.taps)} of {len(store.spec.taps)} taps; removing {path} frees {bytes_text(freed)}")
    return 0


def _list(text: str) -> list[str]:
    return [word.strip() for word in text.strip("[]").split(",") if word.strip()]
