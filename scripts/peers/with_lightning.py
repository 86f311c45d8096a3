"""The same run with Lightning's Trainer and its TensorBoard logger, nothing else switched on."""

from __future__ import annotations

import argparse

import lightning
import torch.nn.functional as F
import usual
from lightning.pytorch.loggers import TensorBoardLogger


class Classifier(lightning.LightningModule):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.model = usual.network("batch")
        self.steps = steps

    def training_step(self, batch):
        x, y = batch
        loss = F.cross_entropy(self.model(x), y)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch):
        x, y = batch
        right = (self.model(x).argmax(1) == y).float().mean()
        self.log("val/accuracy", right, batch_size=len(y))

    def test_step(self, batch):
        x, y = batch
        right = (self.model(x).argmax(1) == y).float().mean()
        self.log("test/accuracy", right, batch_size=len(y))

    def configure_optimizers(self):
        optimizer, schedule = usual.sgd(self, 0.1, self.steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


parser = argparse.ArgumentParser()
parser.add_argument("root")
parser.add_argument("--in-memory", action="store_true")
parser.add_argument("--workers", type=int, default=0)
arguments = parser.parse_args()

lightning.seed_everything(0, verbose=False)
train, val, test = usual.loaders(
    arguments.root, 0, in_memory=arguments.in_memory, workers=arguments.workers
)
trainer = lightning.Trainer(
    max_epochs=3,
    accelerator="cpu",
    logger=TensorBoardLogger("."),
    log_every_n_steps=10,
    num_sanity_val_steps=0,
    enable_progress_bar=False,
    enable_model_summary=False,
)
classifier = Classifier(3 * len(train))
trainer.fit(classifier, train, val)
tested = trainer.test(classifier, test, verbose=False)
print({"steps": trainer.global_step, "accuracy": tested[0]["test/accuracy"]})
