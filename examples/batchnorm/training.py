"""Data, and the training of one net: plain SGD on cross-entropy, with a look at the test set now and then."""

import contextlib
import dataclasses

import numpy as np

import minigrad as mg
from minigrad import data as datasets

TEST_BATCH = 1000


@dataclasses.dataclass(frozen=True)
class Problem:
    """Images and labels, and the device on which they are learned.

    Attributes
    ----------
    name : str
    x_train, x_test : numpy.ndarray
        float32, (N, features) or (N, C, H, W).
    y_train, y_test : numpy.ndarray
        int64, (N,).
    image_shape : tuple of int
        (C, H, W), whatever the shape of the arrays.
    device : str
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    image_shape: tuple[int, ...]
    device: str = "cpu"

    def binary(self):
        """The paper's input: rows of zeros and ones, cut at half of the largest pixel."""
        middle = (self.x_train.min() + self.x_train.max()) / 2

        def rows(images):
            return (images.reshape(len(images), -1) > middle).astype(np.float32)

        return dataclasses.replace(self, x_train=rows(self.x_train), x_test=rows(self.x_test))

    def first_tests(self, count):
        """The same with only the first test images."""
        return dataclasses.replace(self, x_test=self.x_test[:count], y_test=self.y_test[:count])


def load(name, folder, device, say):
    """MNIST or, if that is asked for or MNIST can't be fetched, scikit-learn's digits; `say` is told which."""
    if name == "digits":
        data = datasets.load("digits", folder)
    else:
        try:
            data = datasets.mnist(folder)
        except datasets.DataError as error:
            if folder is not None:
                raise
            say(f"no MNIST: {error}. The experiments run on scikit-learn's digits of 8x8 pixels instead")
            data = datasets.digits()
    say(f"{data.name}: {len(data.x_train):,} training and {len(data.x_test):,} test images of {data.x_train.shape[1:]}")
    return Problem(data.name, data.x_train, data.y_train, data.x_test, data.y_test, data.x_train.shape[1:], device)


class Run:
    """A net in training.

    Parameters
    ----------
    make : callable
        Returns the net. It is called after seeding, so equal seeds give equal initial weights.
    problem : Problem
    rate : float
        SGD's learning rate: no momentum, no weight decay, no schedule.
    batch_size, seed : int
        Equal seeds also give equal mini-batches, with and without batch normalization.
    """

    def __init__(self, make, problem, rate, batch_size=60, seed=0):
        mg.manual_seed(seed)
        self.net, self.problem, self.done = make().to(problem.device), problem, 0
        self.optimizer = mg.optim.SGD(self.net.parameters(), lr=rate)
        self._batches = _batches(len(problem.y_train), batch_size, np.random.default_rng(seed))
        self._step, self._predict = mg.capture(self._train_step), mg.capture(self._test_step)
        self._before_last_sigmoid = mg.capture(self.net[:-2])

    def _train_step(self, images, labels):
        loss = mg.functional.cross_entropy(self.net(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _test_step(self, images, labels):
        logits = self.net(images)
        return mg.functional.cross_entropy(logits, labels), logits.argmax(1)

    def advance(self, steps):
        """Train for some more steps."""
        problem = self.problem
        self.net.train()
        for _ in range(steps):
            self._step(*self._tensors(problem.x_train, problem.y_train, next(self._batches)))
        self.done += steps

    def test(self, images=None, labels=None):
        """Cross-entropy and accuracy of the net as it is used (moving averages), over the test set or other images."""
        images, labels = (self.problem.x_test, self.problem.y_test) if images is None else (images, labels)
        loss, right = 0.0, 0
        with self._evaluation():
            for batch in _slices(len(labels)):
                mean, predicted = self._predict(*self._tensors(images, labels, batch))
                loss += mean.item() * len(labels[batch])
                right += int((predicted.numpy() == labels[batch]).sum())
        return loss / len(labels), right / len(labels)

    def sigmoid_inputs(self, images):
        """What the units of the last hidden layer get before their sigmoid, (images, units)."""
        with self._evaluation():
            return np.concatenate([self._before_last_sigmoid(mg.from_numpy(images[batch], self.problem.device)).numpy()
                                   for batch in _slices(len(images))])

    def _tensors(self, images, labels, batch):
        return tuple(mg.from_numpy(array[batch], self.problem.device) for array in (images, labels))

    @contextlib.contextmanager
    def _evaluation(self):
        self.net.eval()
        with mg.no_grad():
            yield
        self.net.train()


def _batches(count, size, rng):
    """Indices of mini-batches, without end: each pass is shuffled anew and leaves out what does not fill a batch."""
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start:start + size]


def _slices(count):
    return [slice(start, start + TEST_BATCH) for start in range(0, count, TEST_BATCH)]


def train(run, looks, bar, label):
    """Train up to each of the given steps in turn, and hand the run back there.

    Parameters
    ----------
    run : Run
    looks : sequence of int
        Rising step numbers; the last one is where the training ends.
    bar : Bar
    label : str
        Names the run in the progress bar.

    Yields
    ------
    int
        The number of steps done.
    """
    bar.start(label, looks[-1])
    for step in looks:
        while run.done < step:  # in small portions, so that the bar moves
            run.advance(min(100, step - run.done))
            bar.at(run.done)
        yield step


class Bar:
    """A progress bar for one run after the other; nothing where the output is no terminal."""

    def __init__(self, console):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(),
                                  TextColumn("steps"), TimeRemainingColumn(compact=True), console=console,
                                  transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=1)

    def start(self, label, total):
        """A new run."""
        self._progress.reset(self._task, description=label, total=total)

    def at(self, done):
        """The run has got this far."""
        self._progress.update(self._task, completed=done)

    def __enter__(self):
        self._progress.start()
        return self

    def __exit__(self, *error):
        self._progress.stop()
