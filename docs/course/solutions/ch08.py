"""Answers to the exercises of chapter 8: what a kernel's time cannot fall below, and a product by tiles."""


def floor(nbytes, operations, bandwidth, peak):
    """The longer of the times for memory and for arithmetic."""
    memory, compute = nbytes / bandwidth, operations / peak
    return (compute, "compute") if compute > memory else (memory, "memory")


def linear_cost(n, inputs, outputs):
    """x, weight, bias and the result, four bytes each; a product and a sum per weight and row, one sum for the bias."""
    numbers = n * inputs + outputs * inputs + outputs + n * outputs
    return 4 * numbers, 2 * n * inputs * outputs + n * outputs


def gram(x, out, tile):
    """Two tiles of rows stay in the cache while all of their products are formed."""
    n = x.shape[0]
    for i0 in range(0, n, tile):
        for j0 in range(0, n, tile):
            for i in range(i0, min(i0 + tile, n)):
                for j in range(j0, min(j0 + tile, n)):
                    total = x.dtype.type(0)
                    for k in range(x.shape[1]):
                        total += x[i, k] * x[j, k]
                    out[i, j] = total
