"""Layers: modules with parameters, under PyTorch's names and arguments.

>>> from minigrad import layers as nn
>>> model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
"""

from minigrad.layers import init
from minigrad.layers.activation import ELU, GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, SiLU, Softmax, Softplus, Tanh
from minigrad.layers.blocks import ConvBlock, LinearBlock
from minigrad.layers.container import ModuleDict, ModuleList, Sequential
from minigrad.layers.conv import Conv2d
from minigrad.layers.dropout import Dropout
from minigrad.layers.fold import fold_batchnorm
from minigrad.layers.linear import Embedding, Flatten, Identity, Linear, Unflatten
from minigrad.layers.loss import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from minigrad.layers.module import Buffer, Module, Parameter
from minigrad.layers.norm import BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm
from minigrad.layers.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from minigrad.layers.summary import Summary

__all__ = [
    "ELU", "GELU", "AdaptiveAvgPool2d", "AvgPool2d", "BCEWithLogitsLoss", "BatchNorm1d", "BatchNorm2d", "Buffer",
    "Conv2d", "ConvBlock", "CrossEntropyLoss", "Dropout", "Embedding", "Flatten", "GroupNorm", "HuberLoss",
    "Identity", "L1Loss", "LayerNorm", "LeakyReLU", "Linear", "LinearBlock", "LogSoftmax", "MSELoss", "MaxPool2d",
    "Module", "ModuleDict", "ModuleList", "NLLLoss", "Parameter", "ReLU", "Sequential", "SiLU", "Sigmoid",
    "SmoothL1Loss", "Softmax", "Softplus", "Summary", "Tanh", "Unflatten", "fold_batchnorm", "init",
]
