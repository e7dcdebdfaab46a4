"""Training steps of the adapters: time and memory at ViT-B and ViT-L, 13 bands, as ratios to the frozen model.

Each method runs in a process of its own (its peak memory is its own), and the methods take turns, round after round,
so that a slow minute of the machine falls on all of them. The loss is a linear probe on the last block's mean token;
weights are random, which costs what trained ones cost. `saved` is what autograd keeps for the backward pass, counted
tensor by tensor without the weights: it does not depend on allocators. Peaks are of the process (CPU) or of the GPU.

    python tools/bench_deflect.py                       # ViT-B and ViT-L, 224 px
    python tools/bench_deflect.py --models vit_base_patch16_224 --methods lora deflect --rounds 5
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from measuring import Results, clock, device_here, machine

from deflect.adapters import BitFit, Deflect, Frozen, Full, Lora, NormTuning, ScaledLowRank, parameter_counts
from deflect.backbones import timm_vit
from deflect.vit import ViTEncoder
from satdifuser.data.inputs import RGB, ImageInput
from satdifuser.engine.memory import keep_memory

METHODS: dict[str, Any] = {
    "frozen": Frozen(),
    "norm": NormTuning(),
    "bitfit": BitFit(),
    "lora": Lora(),
    "slr": ScaledLowRank(),
    "deflect": Deflect(),
    "deflect+mlp": Deflect(mlp_on_auxiliary=True),
    "full": Full(),
}
COLUMNS = {
    **{"method": "", "trainable": ",d", "of the ViT": ".3%", "step (ms)": ".1f", "step": ".2f", "peak (MB)": ".0f"},
    **{"peak": ".2f", "saved (MB)": ".0f"},
}
TO_LORA = {"step": ".2f", "peak": ".2f", "saved": ".2f", "times fewer parameters": ".1f"}


class Run:
    """One method's model, batch and optimiser."""

    def __init__(self, model: str, method: str, size: int, batch: int, autocast: bool) -> None:
        keep_memory()
        torch.manual_seed(0)
        self.device = device_here()
        adapter = METHODS[method]
        prepare = ImageInput(RGB if adapter.spectra else None)  # the others take the 13 bands by repeated filters
        backbone = timm_vit(model, image_size=size)
        self.encoder = ViTEncoder(backbone, prepare=prepare, adapter=adapter, blocks="last").to(self.device)
        self.head = torch.nn.Linear(backbone.facts.width, 10).to(self.device)
        self.images = (torch.rand(batch, 13, size, size) * 0.3).to(self.device)
        self.labels = torch.arange(batch, device=self.device) % 10
        trained = [p for p in [*self.encoder.parameters(), *self.head.parameters()] if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4)
        self.autocast, self.live = autocast, any(p.requires_grad for p in self.encoder.parameters())

    def loss(self) -> torch.Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            with torch.set_grad_enabled(self.live):
                (tokens,) = self.encoder(self.images).values()
            return torch.nn.functional.cross_entropy(self.head(tokens.mean((2, 3))), self.labels)

    def step(self) -> float:
        began = clock(self.device)
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return clock(self.device) - began

    def saved(self) -> int:
        """Bytes that autograd keeps between forward and backward, each storage once, weights left out."""
        own = {p.untyped_storage().data_ptr() for p in self.encoder.parameters()}
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        self.autocast = False  # its copies of the weights are not what a method saves
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = self.loss()
        loss.backward()
        self.optimizer.zero_grad(set_to_none=True)
        return sum(kept.values())

    def peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve(args: argparse.Namespace) -> None:
    """A method's own process: a step for every line that comes, and at the end what it took."""
    torch.set_num_threads(args.threads)
    run = Run(args.models[0], args.methods[0], args.size, args.batch[0], args.autocast)
    run.step()
    counts = parameter_counts(run.encoder)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        print(min(run.step() for _ in range(args.steps)), flush=True)
    peak = run.peak()
    print(json.dumps({"trainable": counts[0], "total": counts[1], "peak": peak, "saved": run.saved()}), flush=True)


def start(args: argparse.Namespace, model: str, batch: int, method: str) -> subprocess.Popen[str]:
    words = [sys.executable, __file__, "--serve", "--models", model, "--methods", method, "--size", str(args.size)]
    words += ["--batch", str(batch), "--steps", str(args.steps), "--threads", str(args.threads)]
    words += ["--autocast"] if args.autocast else []
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(word + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return ""
    return process.stdout.readline()


def measure(args: argparse.Namespace, results: Results, model: str, batch: int) -> None:
    processes = {method: start(args, model, batch, method) for method in args.methods}
    times: dict[str, list[float]] = {method: [] for method in args.methods}
    for _ in range(args.rounds):
        for method, process in list(processes.items()):
            answer = ask(process, "step")
            if answer:
                times[method].append(float(answer))
            else:  # out of memory, say: the others go on
                print(f"{method}: its process ended with code {process.wait()}")
                processes.pop(method)
    answers = {method: ask(process, "end") for method, process in processes.items()}
    found = {method: json.loads(answer) for method, answer in answers.items() if answer}
    if not found:
        raise SystemExit(f"no method could be measured at {model}")
    base = next(iter(found))
    title = f"{model}, {args.size} px, batch {batch}: step and memory as ratios to {base}"
    add = results.table(title, COLUMNS)
    for method, row in found.items():
        ratio = statistics.median(a / b for a, b in zip(times[method], times[base], strict=True))
        peaks = row["peak"] / 1e6, row["peak"] / found[base]["peak"]
        share = row["trainable"] / row["total"]
        add(method, row["trainable"], share, min(times[method]) * 1e3, ratio, *peaks, row["saved"] / 1e6)
    if {"lora", "deflect"} <= found.keys():
        ratio = statistics.median(a / b for a, b in zip(times["deflect"], times["lora"], strict=True))
        memory = [found["deflect"][key] / found["lora"][key] for key in ("peak", "saved")]
        fewer = found["lora"]["trainable"] / found["deflect"]["trainable"]
        add = results.table(f"{model}: deflect to lora", TO_LORA)
        add(ratio, *memory, fewer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_base_patch16_224", "vit_large_patch16_224"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 2], help="for each model, or one for all")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each method")
    parser.add_argument("--steps", type=int, default=1, help="of a turn; the fastest counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--autocast", action="store_true", help="bfloat16")
    parser.add_argument("--json", type=Path, help="where the tables are kept")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args)
        return
    precision = "bfloat16 autocast" if args.autocast else "float32"
    results = Results(args.json, machine=machine(args.threads), precision=precision)
    for number, model in enumerate(args.models):
        measure(args, results, model, args.batch[min(number, len(args.batch) - 1)])


if __name__ == "__main__":
    main()
