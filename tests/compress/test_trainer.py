# SPDX-License-Identifier: Apache-2.0
"""The training loop: exact seeds, exact resume, and clear ends."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from compress.checkpoint import read_weights
from compress.trainer import EpochLog, Training, cosine, train
from edge_contract.errors import DataError, ModelError

TRAINING = Training(epochs=5, batch=16, learning_rate=0.02, ema=0.9, seed=4)


def task(n=80):
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 3
    x = torch.randn(n, 3, generator=generator) + 3 * nn.functional.one_hot(y, 3)
    return x, y


def net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


def jitter(x, generator):
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


class Stop(Exception):
    pass


def stop_at(epoch, error=Stop):
    def progress(log):
        if log.epoch == epoch:
            raise error

    return progress


def test_training_learns_and_reports_every_epoch():
    model, (x, y) = net(), task()
    logs = train(model, x, y, TRAINING)
    assert [log.epoch for log in logs] == [1, 2, 3, 4, 5]
    assert logs[-1].loss < logs[0].loss / 2
    assert (model(x).argmax(1) == y).float().mean() > 0.9
    assert not model.training


def test_same_seed_gives_the_same_weights_and_another_seed_others():
    results = []
    for seed in (4, 4, 5):
        model = net()
        train(model, *task(), replace(TRAINING, seed=seed), augment=jitter)
        results.append(state(model))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_global_random_state_is_not_touched():
    before = torch.random.get_rng_state()
    train(net(), *task(), TRAINING, augment=jitter)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_resumed_training_ends_in_the_same_bits(tmp_path, epoch):
    straight = net()
    logs = train(straight, *task(), TRAINING, augment=jitter)
    checkpoint = tmp_path / "c.pt"
    with pytest.raises(Stop):
        train(net(), *task(), TRAINING, augment=jitter, checkpoint=checkpoint, progress=stop_at(epoch))
    heard = []
    resumed = net(seed=9)  # its own start is forgotten
    again = train(resumed, *task(), TRAINING, augment=jitter, checkpoint=checkpoint, progress=heard.append)
    assert same(state(straight), state(resumed))
    assert again == logs
    assert [log.epoch for log in heard] == list(range(epoch + 1, 6))


def test_interruption_in_the_middle_of_an_epoch_costs_that_epoch_only(tmp_path):
    calls, checkpoint = [], tmp_path / "c.pt"

    def interrupted(x, generator):
        calls.append(1)
        if len(calls) == 13:  # five batches an epoch: in the third epoch
            raise KeyboardInterrupt
        return jitter(x, generator)

    with pytest.raises(KeyboardInterrupt):
        train(net(), *task(), TRAINING, augment=interrupted, checkpoint=checkpoint)
    heard = []
    resumed, straight = net(), net()
    train(resumed, *task(), TRAINING, augment=jitter, checkpoint=checkpoint, progress=heard.append)
    assert [log.epoch for log in heard] == [3, 4, 5]
    train(straight, *task(), TRAINING, augment=jitter)
    assert same(state(straight), state(resumed))


def test_checkpoint_of_another_training_is_not_continued(tmp_path):
    checkpoint = tmp_path / "c.pt"
    train(net(), *task(), TRAINING, checkpoint=checkpoint)
    heard = []
    train(net(), *task(), replace(TRAINING, learning_rate=0.01), checkpoint=checkpoint, progress=heard.append)
    assert len(heard) == 5


def test_damaged_checkpoint_is_named(tmp_path):
    checkpoint = tmp_path / "c.pt"
    train(net(), *task(), TRAINING, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:200])
    with pytest.raises(DataError, match=r"c\.pt: not a checkpoint: .*; delete it; the step starts again"):
        train(net(), *task(), TRAINING, checkpoint=checkpoint)


def test_checkpoint_serves_as_weights(tmp_path):
    model = net()
    train(model, *task(), replace(TRAINING, ema=0.0), checkpoint=tmp_path / "c.pt")
    assert same(state(model), read_weights(tmp_path / "c.pt"))


def test_half_written_checkpoint_is_never_seen(tmp_path, monkeypatch):
    checkpoint = tmp_path / "c.pt"
    train(net(), *task(), TRAINING, checkpoint=checkpoint)
    before = checkpoint.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("compress.checkpoint.os.fsync", full)
    with pytest.raises(DataError, match=r"cannot be written: .*No space left on device; free some space"):
        train(net(), *task(), replace(TRAINING, seed=8), checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_no_epochs_change_nothing():
    model = net()
    before = state(model)
    assert train(model, *task(), replace(TRAINING, epochs=0, ema=0.0)) == ()
    assert same(before, state(model))


def test_last_batch_of_one_is_left_out():
    x, y = task(33)  # 16 + 16 + 1: batch normalisation cannot normalise one sample
    logs = train(net(), x, y, TRAINING)
    assert all(isinstance(log, EpochLog) for log in logs)


def test_biases_and_scales_do_not_decay():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = state(model)

    def nothing(model, x, y):
        return 0.0 * sum(parameter.sum() for parameter in model.parameters())

    train(model, *task(), replace(TRAINING, weight_decay=0.5, ema=0.0), loss=nothing)
    after = state(model)
    assert torch.equal(before["0.bias"], after["0.bias"])
    assert torch.equal(before["1.weight"], after["1.weight"])
    assert after["0.weight"].abs().sum() < before["0.weight"].abs().sum()


def test_extra_module_is_trained_and_resumed(tmp_path):
    def loss(model, x, y):
        return nn.functional.cross_entropy(extra(model(x)), y)

    results = []
    for stop in (None, 2):
        model, extra = net(), nn.Linear(3, 3)
        nn.init.eye_(extra.weight), nn.init.zeros_(extra.bias)
        words = {"loss": loss, "extra": extra}
        if stop:
            with pytest.raises(Stop):
                train(model, *task(), TRAINING, checkpoint=tmp_path / "c.pt", progress=stop_at(stop), **words)
            nn.init.zeros_(extra.weight)
        train(model, *task(), TRAINING, checkpoint=tmp_path / "c.pt" if stop else None, **words)
        assert not torch.equal(extra.weight, torch.eye(3))
        results.append(state(extra))
    assert same(*results)


def test_loss_that_runs_away_is_refused():
    x, y = task()
    with pytest.raises(ModelError, match=r"the loss became .* in epoch .*; lower learning_rate or set clip_norm"):
        train(nn.Linear(3, 3), x * 1e20, y, replace(TRAINING, learning_rate=1e18, clip_norm=0.0, ema=0.0, epochs=30))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x[:5], y), "5 inputs and 80 labels"),
        (lambda x, y: (torch.where(x > 2, torch.inf, x), y), "the inputs hold NaN or Inf"),
        (lambda x, y: (x[:1], y[:1]), "1 inputs and 1 labels"),
    ],
)
def test_faulty_data_is_refused(spoil, message):
    with pytest.raises(DataError, match=message):
        train(net(), *spoil(*task()), TRAINING)


def test_learning_rate_rises_then_falls_to_nothing():
    rates = [cosine(step, 200) for step in range(200)]
    peak = rates.index(max(rates))
    assert max(rates) == 1.0 and 5 <= peak <= 10
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.001
