"""A convolutional net with batch normalization learns handwritten digits, in thirty lines."""

import argparse

import minigrad as mg
from minigrad import layers as nn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", help="where the MNIST files are (default: the digits of scikit-learn)")
parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
options = parser.parse_args()

mg.manual_seed(0)
data = mg.data.mnist(options.folder) if options.folder else mg.data.digits()
size = data.x_train.shape[-1] // 4

model = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Dropout(0.25), nn.Linear(64 * size * size, 10),
).to(options.device)
loss_of = nn.CrossEntropyLoss()
optimizer = mg.optim.Adam(model.parameters(), lr=2e-3)

for epoch in range(3 if size == 7 else 15):
    model.train()
    for images, labels in mg.data.batches(data.x_train, data.y_train, batch_size=64, seed=epoch,
                                          device=options.device):
        loss = loss_of(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    model.eval()
    with mg.no_grad():
        predictions = model(mg.from_numpy(data.x_test, options.device)).argmax(1)
    print(f"epoch {epoch + 1}: test accuracy {(predictions.numpy() == data.y_test).mean():.2%}")
