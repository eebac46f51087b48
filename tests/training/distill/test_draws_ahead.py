"""The next iteration's random numbers are drawn beside the training, and are the same ones."""

import threading

import torch

from training.config import load_recipe
from training.distill.draws_ahead import DrawsAhead
from training.distill.rng import draw


def test_they_are_the_same_in_any_order():
    recipe = load_recipe("shapes", ["loop.batch_size=2"])

    def direct(iteration):
        return draw(recipe, iteration, channels=4, num_train_timesteps=1000)

    ahead = DrawsAhead(direct, iterations=9)
    for iteration in (0, 1, 2, 2, 7, 8, 3):  # twice, as with loop.compile; after a checkpoint was loaded
        got, expected = ahead.of(iteration), direct(iteration)
        assert torch.equal(got.z, expected.z) and torch.equal(got.lora[0].eps, expected.lora[0].eps)


def test_each_is_drawn_once_and_all_but_the_first_beside_the_training():
    drawn = []

    def record(iteration):
        drawn.append((iteration, threading.current_thread() is threading.main_thread()))
        return iteration

    ahead = DrawsAhead(record, iterations=3)
    assert [ahead.of(iteration) for iteration in range(3)] == [0, 1, 2]
    assert drawn == [(0, True), (1, False), (2, False)]
