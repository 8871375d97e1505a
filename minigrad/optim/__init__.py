"""Optimizers and learning-rate schedules, number for number those of ``torch.optim``.

>>> optimizer = mg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
>>> schedule = mg.optim.CosineAnnealingLR(optimizer, T_max=10)
"""

from minigrad.optim import lr_scheduler
from minigrad.optim.adam import Adam, AdamW
from minigrad.optim.clip import clip_grad_norm_, clip_grad_value_
from minigrad.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
    StepLR,
)
from minigrad.optim.optimizer import Optimizer
from minigrad.optim.plateau import ReduceLROnPlateau
from minigrad.optim.rmsprop import RMSprop
from minigrad.optim.sgd import SGD

__all__ = [
    "SGD", "Adam", "AdamW", "CosineAnnealingLR", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR",
    "OneCycleLR", "Optimizer", "RMSprop", "ReduceLROnPlateau", "SequentialLR", "StepLR", "clip_grad_norm_",
    "clip_grad_value_", "lr_scheduler",
]
