"""A head of your own on stored features, in a plain torch loop.

satdifuser extract encoder=small_vit store.path=features.zarr
python docs/examples/plain_loop.py features.zarr
"""

import sys

import torch
from torch import nn

from satdifuser import FeatureBank, FeatureStore

EPOCHS = 5


class Head(nn.Module):
    """The mean of every map, side by side, and one linear layer."""

    def __init__(self, store: FeatureStore) -> None:
        super().__init__()
        width = sum(tap.channels for tap in store.spec.taps)
        self.norm, self.classify = nn.BatchNorm1d(width), nn.Linear(width, len(store.labels.classes))

    def forward(self, bank: FeatureBank) -> torch.Tensor:
        means = [maps.float().mean((2, 3)) for maps in bank.values()]
        return self.classify(self.norm(torch.cat(means, dim=1)))


def main(path: str) -> float:
    """Train on the split train, and give the share of the split test that is right."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store = FeatureStore(path)
    train = store.loader("train", batch_size=32, shuffle=True, drop_last=True, device=device)
    test = store.loader("test", batch_size=32, device=device)
    head = Head(store).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    for epoch in range(EPOCHS):
        head.train()
        for batch in train:
            loss = nn.functional.cross_entropy(head(batch["bank"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}  loss {loss.item():.3f}")
    head.eval()
    with torch.no_grad():
        right = sum(int((head(batch["bank"]).argmax(1) == batch["label"]).sum()) for batch in test)
    accuracy = right / len(store.split("test"))
    print(f"accuracy {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main(sys.argv[1])
