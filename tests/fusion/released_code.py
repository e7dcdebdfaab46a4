"""Stand-ins for the released heads and decoders, written anew from what is known of them: slow, plain, in float64.

They have the released names of weights, and get features as the released code does: for each timestep, from the least
noisy, a list of one tensor for each stride, from the finest, in which that stride's taps lie side by side.
"""

from __future__ import annotations

import torch
from torch import nn

EPS = 1e-5


class NormedConv(nn.Conv2d):
    """A convolution without bias that holds its GroupNorm(32)."""

    def __init__(self, inputs, outputs, size):
        super().__init__(inputs, outputs, size, padding=size // 2, bias=False)
        self.norm = nn.GroupNorm(32, outputs)

    def forward(self, x):
        return self.norm(super().forward(x))


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        middle = outputs // 4
        self.conv1 = NormedConv(inputs, middle, 1)
        self.conv2 = NormedConv(middle, middle, 3)
        self.conv3 = NormedConv(middle, outputs, 1)
        if inputs != outputs:
            self.shortcut = NormedConv(inputs, outputs, 1)

    def forward(self, x):
        y = self.conv3(self.conv2(self.conv1(x).relu()).relu())
        return (y + (self.shortcut(x) if hasattr(self, "shortcut") else x)).relu()


def bottleneck(inputs, outputs):
    return nn.Sequential(Block(inputs, outputs))


class Head(nn.Module):
    """`widths`: for each stride, from the finest, the channels of its taps."""

    def __init__(self, widths, timesteps, width):
        super().__init__()
        self.widths, self.timesteps, self.width = widths, timesteps, width


class Weighing(Head):
    def __init__(self, widths, timesteps, width):
        super().__init__(widths, timesteps, width)
        self.bottleneck_layers = nn.ModuleList(bottleneck(c, width) for row in widths for c in row)

    def number(self, stride, tap):
        return sum(len(row) for row in self.widths[:stride]) + tap


class GW(Weighing):
    def __init__(self, widths, timesteps, width):
        super().__init__(widths, timesteps, width)
        self.mixing_weights = nn.Parameter(torch.ones(timesteps * len(self.bottleneck_layers)))

    def fuse(self, features):
        exps = [float(w.exp()) for w in self.mixing_weights]
        maps = []
        for s, row in enumerate(self.widths):
            total = 0.0
            for t in range(self.timesteps):
                start = 0
                for tap, channels in enumerate(row):
                    number = self.number(s, tap)
                    share = exps[t * len(self.bottleneck_layers) + number] / sum(exps)
                    total = total + share * self.bottleneck_layers[number](features[t][s][:, start : start + channels])
                    start += channels
            maps.append(total)
        return maps


class Gate(nn.Module):
    def __init__(self, width, count):
        super().__init__()
        self.gate_conv = nn.Conv2d(width, count, 1)


class LW(Weighing):
    """`advanced`: what was meant; as released every tap's channels begin at the first."""

    def __init__(self, widths, timesteps, width, tau=1.0, advanced=False):
        super().__init__(widths, timesteps, width)
        self.tau, self.advanced = tau, advanced
        self.gate_modules = nn.ModuleList(Gate(width, timesteps * len(row)) for row in widths)

    def fuse(self, features):
        maps = []
        for s, row in enumerate(self.widths):
            projected = []
            for t in range(self.timesteps):
                start = 0
                for tap, channels in enumerate(row):
                    layer = self.bottleneck_layers[self.number(s, tap)]
                    projected.append(layer(features[t][s][:, start : start + channels]))
                    start += channels if self.advanced else 0
            exps = (self.gate_modules[s].gate_conv(sum(projected) / len(projected)) / self.tau).exp()
            total = 0.0
            for k, value in enumerate(projected):
                total = total + exps[:, k : k + 1] / exps.sum(1, keepdim=True) * value
            maps.append(total)
        return maps


class Mixture(nn.Module):
    def __init__(self, channels, width, experts):
        super().__init__()
        self.experts = nn.ModuleList(bottleneck(channels, width) for _ in range(experts))
        self.gate_network = nn.Sequential(nn.Conv2d(channels, experts, 3, padding=1))
        self.temperature = nn.Parameter(torch.ones(()))
        self.count = 0

    def mix(self, x, top_k, warmup):
        self.count += 1
        scores = self.gate_network(x).mean((2, 3)) / self.temperature
        rows = []
        for sample, score in enumerate(scores):
            listened = range(len(score))
            if self.count >= warmup:
                listened = sorted(listened, key=lambda e: -float(score[e]))[:top_k]
            exps = {e: float(score[e].exp()) for e in listened}
            one = x[sample : sample + 1]
            rows.append(sum(exps[e] / sum(exps.values()) * self.experts[e](one) for e in listened))
        return torch.cat(rows)


class MoE(Head):
    def __init__(self, widths, timesteps, width, experts=4, top_k=2, warmup=500):
        super().__init__(widths, timesteps, width)
        self.top_k, self.warmup = top_k, warmup
        self.scale_moes = nn.ModuleList(Mixture(sum(row), width, experts) for row in widths)

    def fuse(self, features):
        maps = []
        for s, mixture in enumerate(self.scale_moes):
            mixed = [mixture.mix(features[t][s], self.top_k, self.warmup) for t in range(self.timesteps)]
            maps.append(sum(mixed) / len(mixed))
        return maps


def with_classifier(head, classes):
    """The released classifier: strides summed at the finest's size, the average, a linear layer."""
    head.decoder_head = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(head.width, classes))

    def answer(features):
        maps = head.fuse(features)
        total = sum(resized(value, maps[0].shape[2:]) for value in maps)
        return head.decoder_head(total.mean((2, 3), keepdim=True))

    return head, answer


def with_upernet(head, classes, channels, scales=(1, 2, 3, 6)):
    """The released UPerNet in evaluation: biased convolutions, BatchNorm; strides from the finest side by side."""

    def layer(inputs, size):
        return [nn.Conv2d(inputs, channels, size, padding=size // 2), nn.BatchNorm2d(channels), nn.ReLU()]

    count, width = len(head.widths), head.width
    scales = scales[:count]
    head.psp_modules = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(n), *layer(width, 1)) for n in scales)
    head.bottleneck = nn.Sequential(*layer(width + len(scales) * channels, 3))
    head.lateral_convs = nn.ModuleList(nn.Sequential(*layer(width, 1)) for _ in range(count - 1))
    head.fpn_convs = nn.ModuleList(nn.Sequential(*layer(channels, 3)) for _ in range(count - 1))
    head.fpn_bottleneck = nn.Sequential(*layer(count * channels, 3))
    head.conv_seg = nn.Conv2d(channels, classes, 1)

    def answer(features, size):
        maps = head.fuse(features)
        pooled = [resized(part(maps[-1]), maps[-1].shape[2:]) for part in head.psp_modules]
        levels = [head.bottleneck(torch.cat([maps[-1], *pooled], 1))]
        for s in reversed(range(count - 1)):
            lateral = head.lateral_convs[s](maps[s])
            levels.insert(0, lateral + resized(levels[0], lateral.shape[2:]))
        smooth = [head.fpn_convs[s](levels[s]) for s in range(count - 1)] + [levels[-1]]
        joined = torch.cat([resized(value, smooth[0].shape[2:]) for value in smooth], 1)
        return resized(head.conv_seg(head.fpn_bottleneck(joined)), size)

    return head, answer


def resized(x, size):
    return nn.functional.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


def randomised(module, seed=0):
    """Random weights everywhere, in norms, biases, running statistics and temperatures too; float64, evaluation."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            continue
        fan_in = value[0].numel() if value.ndim > 1 else 1
        random = torch.randn(value.shape, generator=generator, dtype=torch.float64) / fan_in**0.5
        value.copy_(random.abs() + 0.5 if name.endswith(("running_var", "temperature")) else random)
    return module


def listed(bank, order):
    """A bank's maps as the released code has them; `order`: for each stride, from the finest, its taps by name."""
    return [[torch.cat([bank.map(name, t) for name in names], 1) for names in order] for t in bank.spec.timesteps]
