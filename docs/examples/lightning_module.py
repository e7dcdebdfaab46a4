"""A fusion head and a decoder of satdifuser in a LightningModule (Lightning comes with torchgeo).

satdifuser extract encoder=small_vit store.path=features.zarr
python docs/examples/lightning_module.py features.zarr
"""

import sys

import lightning
import torch
from torch.utils.data import DataLoader

from satdifuser import BankSpec, FeatureStore
from satdifuser.decoders import LinearDecoder
from satdifuser.fusion import GlobalWeighted
from satdifuser.store import collate


class Classifier(lightning.LightningModule):
    """Banks in, classes out: learned weights for every tap, then one linear layer."""

    def __init__(self, spec: BankSpec, classes: int, lr: float = 1e-3) -> None:
        super().__init__()
        self.fusion = GlobalWeighted(spec, projection_dim=64)
        self.decoder = LinearDecoder(self.fusion.pyramid, outputs=classes, dense=False)
        self.lr = lr

    def forward(self, batch: dict) -> torch.Tensor:
        return self.decoder(self.fusion(batch["bank"].to(torch.float32)).maps)

    def training_step(self, batch: dict, number: int) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(self(batch), batch["label"])
        self.log("loss", loss, batch_size=len(batch["id"]))
        return loss

    def test_step(self, batch: dict, number: int) -> None:
        right = (self(batch).argmax(1) == batch["label"]).float().mean()
        self.log("accuracy", right, batch_size=len(batch["id"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


def main(path: str, epochs: int = 3) -> float:
    """Train on the split train, and give the accuracy on the split test."""
    store = FeatureStore(path)
    model = Classifier(store.spec, len(store.labels.classes))
    trainer = lightning.Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False)
    trainer.fit(model, DataLoader(store.split("train"), batch_size=32, shuffle=True, collate_fn=collate))
    (scores,) = trainer.test(model, DataLoader(store.split("test"), batch_size=32, collate_fn=collate))
    return scores["accuracy"]


if __name__ == "__main__":
    main(sys.argv[1])
