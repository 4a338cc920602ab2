# SPDX-License-Identifier: Apache-2.0
"""Train the two Fashion-MNIST members: ``python -m tests.zoo.train mobilenet-v2`` (about ten minutes on one core).

AdamW, one cycle, label smoothing .05, horizontal flips; the checkpoint is the last epoch's, so that no test image
chose it.
"""

import sys

import numpy as np
import torch
from torch import nn

from tests.zoo import data
from tests.zoo.models import CHECKPOINTS, MEMBERS

EPOCHS = {"mobilenet-v2": 7, "mobilenet-v3": 6}


def main(name: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = MEMBERS[name].build()
    images, classes = data.load("train")
    inputs, targets = data.scaled(images), torch.from_numpy(classes)
    steps = EPOCHS[name] * (len(inputs) // 128)
    optimizer = torch.optim.AdamW(net.parameters(), lr=6e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    loss = nn.CrossEntropyLoss(label_smoothing=0.05)
    net.train()
    for epoch in range(EPOCHS[name]):
        order = torch.randperm(len(inputs))
        for i in range(len(inputs) // 128):
            rows = order[i * 128 : (i + 1) * 128]
            x = inputs[rows]
            x = torch.where(torch.rand(128, 1, 1, 1) < 0.5, x.flip(3), x)
            optimizer.zero_grad()
            loss(net(x), targets[rows]).backward()
            optimizer.step()
            schedule.step()
        print(f"{name}: epoch {epoch + 1} of {EPOCHS[name]}", flush=True)
    torch.save(net.state_dict(), CHECKPOINTS / f"{name}.pt")
    net.eval()
    images, classes = data.load("t10k")
    with torch.no_grad():
        answers = torch.cat([net(batch).argmax(1) for batch in data.scaled(images).split(500)]).numpy()
    print(f"{name}: {100 * np.mean(answers == classes):.2f} % of 10 000 test images")


if __name__ == "__main__":
    main(sys.argv[1])
