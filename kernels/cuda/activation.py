"""Activations and their gradients."""

from minigrad.kernels.cuda.language import T, device_function, math
from minigrad.kernels.cuda.maps import map_one, map_two

WIDE = ("LDG.E.128", "STG.E.128")


def unary(name, f):
    """The kernel out[i] = f(x[i])."""
    run = map_one(name, f, promises=WIDE)

    def launch(x, out):
        run(x, out)

    return launch


def of_input(name, f):
    """The kernel out[i] = f(x[i], grad[i])."""
    run = map_two(name, f, promises=WIDE)

    def launch(x, grad, out):
        run(x, grad, out)

    return launch


def of_output(name, f):
    """The kernel out[i] = f(y[i], grad[i]), y being the output of the activation."""
    run = map_two(name, f, promises=WIDE)

    def launch(y, grad, out):
        run(y, grad, out)

    return launch


@device_function
def _logistic(x):
    return T(1) / (T(1) + math.exp(-x))


@device_function
def _normal_cdf(x):
    """Φ(x), exact to a few units in the last place in its tail too: 1 + erf would lose them all."""
    return T(0.5) * math.erfc(x * T(-0.7071067811865476))


@device_function
def _gelu_tanh(x):
    """tanh(√(2/π) (x + 0.044715 x³))."""
    return math.tanh(T(0.7978845608028654) * (x + T(0.044715) * x * x * x))


def _gelu_grad(x, grad):
    density = T(0.3989422804014327) * math.exp(T(-0.5) * x * x)
    return grad * (_normal_cdf(x) + x * density)


def _gelu_tanh_grad(x, grad):
    t = _gelu_tanh(x)
    inner = T(0.7978845608028654) * (T(1) + T(0.134145) * x * x)
    return grad * T(0.5) * (T(1) + t + x * (T(1) - t * t) * inner)


def _silu_grad(x, grad):
    s = _logistic(x)
    return grad * s * (T(1) + x * (T(1) - s))


relu = unary("relu", lambda x: T(0) if x <= T(0) else x)
sigmoid = unary("sigmoid", lambda x: _logistic(x))
tanh = unary("tanh", lambda x: math.tanh(x))
gelu = unary("gelu", lambda x: x * _normal_cdf(x))
gelu_tanh = unary("gelu_tanh", lambda x: T(0.5) * x * (T(1) + _gelu_tanh(x)))
silu = unary("silu", lambda x: x * _logistic(x))

relu_grad = of_output("relu_grad", lambda y, grad: T(0) if y <= T(0) else grad)
sigmoid_grad = of_output("sigmoid_grad", lambda y, grad: grad * y * (T(1) - y))
tanh_grad = of_output("tanh_grad", lambda y, grad: grad * (T(1) - y * y))
gelu_grad = of_input("gelu_grad", _gelu_grad)
gelu_tanh_grad = of_input("gelu_tanh_grad", _gelu_tanh_grad)
silu_grad = of_input("silu_grad", _silu_grad)


# -- with numbers ------------------------------------------------------------------------------------------------


def _softplus(x, beta, threshold):
    z = x * beta
    smooth = (max(z, T(0)) + math.log1p(math.exp(-abs(z)))) / beta
    return smooth if z <= threshold else x  # NaN goes through x


def _clip(x, low, high):
    bounded = low if x < low else x
    return high if bounded > high else bounded


_leaky_relu = map_one("leaky_relu", lambda x, slope, _: x if x > T(0) else x * slope, promises=WIDE)
_leaky_relu_grad = map_two("leaky_relu_grad", lambda x, g, slope, _: g if x > T(0) else g * slope, promises=WIDE)
_softplus = map_one("softplus", _softplus, promises=WIDE)
_softplus_grad = map_two(
    "softplus_grad", lambda x, g, beta, threshold: g if x * beta > threshold else g * _logistic(x * beta),
    promises=WIDE)  # fmt: skip
_clip = map_one("clip", _clip, promises=WIDE)
_clip_grad = map_two("clip_grad", lambda x, g, low, high: g if (x >= low) & (x <= high) else T(0), promises=WIDE)


def leaky_relu(x, out, slope):
    """out = x where x > 0, else slope * x."""
    _leaky_relu(x, out, slope)


def leaky_relu_grad(x, grad, out, slope):
    """out = grad where x > 0, else slope * grad."""
    _leaky_relu_grad(x, grad, out, slope)


def softplus(x, out, beta, threshold):
    """out = log(1 + exp(beta x)) / beta, and x itself where beta x > threshold."""
    _softplus(x, out, beta, threshold)


def softplus_grad(x, grad, out, beta, threshold):
    """out = grad * sigmoid(beta x), and grad itself where beta x > threshold."""
    _softplus_grad(x, grad, out, beta, threshold)


def clip(x, out, low, high):
    """out = min(max(x, low), high); NaN stays NaN."""
    _clip(x, out, low, high)


def clip_grad(x, grad, out, low, high):
    """out = grad where low <= x <= high, else 0."""
    _clip_grad(x, grad, out, low, high)
