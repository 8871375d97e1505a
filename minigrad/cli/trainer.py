"""The training loop: epochs of mini-batches, each followed by a look at the test set."""

import math
import time

import numpy as np

import minigrad as mg


class Trainer:
    """A model with all that its training needs.

    Parameters
    ----------
    model : Module
        Gets images (N, C, H, W), returns logits (N, classes).
    loss : callable
        ``loss(logits, labels)``, a mean over the batch.
    optimizer : Optimizer
    scheduler : scheduler
        Stepped after every batch.
    train_loader, test_loader : DataLoader
        Of images and labels. The epochs trained so far are ``train_loader.epoch``.

    Attributes
    ----------
    history : list of dict
        One per epoch: ``loss`` and ``accuracy`` over the training batches as they went by, ``test_loss``,
        ``test_accuracy``, and ``images_per_second`` of the training.
    """

    def __init__(self, model, loss, optimizer, scheduler, train_loader, test_loader):
        self.model, self.loss = model, loss
        self.optimizer, self.scheduler = optimizer, scheduler
        self.train_loader, self.test_loader = train_loader, test_loader
        self.history = []
        # Recorded once, then replayed: the same bits without the engine's Python.
        self._step, self._predict = mg.capture(self._train_step), mg.capture(self._test_step)

    def _train_step(self, images, labels):
        logits = self.model(images)
        loss = self.loss(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss, logits

    def _test_step(self, images, labels):
        logits = self.model(images)
        return self.loss(logits, labels), logits.argmax(1)

    def train_epoch(self, on_batch=None):
        """Go through the training set once, then through the test set, and return the new row of the history.

        Parameters
        ----------
        on_batch : callable, optional
            ``on_batch(images, loss, accuracy)`` is called after every training batch with its number of images and
            the means so far.

        Raises
        ------
        FloatingPointError
            If the loss is no longer a finite number.
        """
        seen, loss_sum, correct = 0, 0.0, 0
        start, untimed = time.perf_counter(), 0
        self.model.train()
        for images, labels in self.train_loader:
            loss, logits = self._step(images, labels)
            self.scheduler.step()

            value = loss.item()
            if not math.isfinite(value):
                raise FloatingPointError(f"train: expected a finite loss, got {value} in epoch "
                                         f"{self.train_loader.epoch}; a smaller learning rate may help")
            count = len(labels)
            seen += count
            loss_sum += count * value
            correct += _count_correct(logits, labels)
            if on_batch is not None:
                on_batch(count, loss_sum / seen, correct / seen)
            if untimed == 0 and len(self.train_loader) > 1:  # the first step may have compiled kernels for seconds
                start, untimed = time.perf_counter(), seen
        rate = (seen - untimed) / (time.perf_counter() - start)
        test_loss, predictions, truth = self.evaluate()
        self.history.append({
            "loss": loss_sum / seen, "accuracy": correct / seen, "test_loss": test_loss,
            "test_accuracy": float((predictions == truth).mean()), "images_per_second": rate,
        })
        return self.history[-1]

    def evaluate(self):
        """The mean loss over the test set, and predictions and labels as int64 arrays of shape (N,)."""
        loss_sum, predictions, truth = 0.0, [], []
        self.model.eval()
        with mg.no_grad():
            for images, labels in self.test_loader:
                loss, predicted = self._predict(images, labels)
                loss_sum += len(labels) * loss.item()
                predictions.append(predicted.numpy())
                truth.append(labels.numpy())
        predictions, truth = np.concatenate(predictions), np.concatenate(truth)
        return loss_sum / len(truth), predictions, truth


def _count_correct(logits, labels):
    return int((logits.numpy().argmax(1) == labels.numpy()).sum())
