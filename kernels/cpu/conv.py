"""Convolution (first version)."""

from minigrad.kernels.cpu.compile import kernel


@kernel
def conv2d_forward(x, weight, bias, out, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups):
    og, cg = out.shape[1] // groups, x.shape[1] // groups
    for n in range(out.shape[0]):
        for o in range(out.shape[1]):
            out[n, o] = bias[o] if bias.size else out.dtype.type(0)
            for c in range(cg):
                for kh in range(weight.shape[2]):
                    for kw in range(weight.shape[3]):
                        for i in range(out.shape[2]):
                            h = i * stride_h + kh * dilation_h - pad_top
                            for j in range(out.shape[3]):
                                w = j * stride_w + kw * dilation_w - pad_left
                                if 0 <= h < x.shape[2] and 0 <= w < x.shape[3]:
                                    out[n, o, i, j] += weight[o, c, kh, kw] * x[n, o // og * cg + c, h, w]


@kernel
def conv2d_grad_input(grad, weight, out, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups):
    og, cg = grad.shape[1] // groups, out.shape[1] // groups
    out[...] = 0
    for n in range(out.shape[0]):
        for o in range(grad.shape[1]):
            for c in range(cg):
                for kh in range(weight.shape[2]):
                    for kw in range(weight.shape[3]):
                        for i in range(grad.shape[2]):
                            h = i * stride_h + kh * dilation_h - pad_top
                            for j in range(grad.shape[3]):
                                w = j * stride_w + kw * dilation_w - pad_left
                                if 0 <= h < out.shape[2] and 0 <= w < out.shape[3]:
                                    out[n, o // og * cg + c, h, w] += weight[o, c, kh, kw] * grad[n, o, i, j]


@kernel
def conv2d_grad_weight(grad, x, out, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups):
    og, cg = grad.shape[1] // groups, x.shape[1] // groups
    out[...] = 0
    for n in range(x.shape[0]):
        for o in range(grad.shape[1]):
            for c in range(cg):
                for kh in range(out.shape[2]):
                    for kw in range(out.shape[3]):
                        for i in range(grad.shape[2]):
                            h = i * stride_h + kh * dilation_h - pad_top
                            for j in range(grad.shape[3]):
                                w = j * stride_w + kw * dilation_w - pad_left
                                if 0 <= h < x.shape[2] and 0 <= w < x.shape[3]:
                                    out[o, c, kh, kw] += grad[n, o, i, j] * x[n, o // og * cg + c, h, w]


def conv2d_forward_workspace(
    x, weight, bias, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    return 0


def conv2d_grad_input_workspace(
    grad, weight, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    return 0


def conv2d_grad_weight_workspace(
    grad, x, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    return 0
