"""What learners ask most, each with the page, the panel and the cell that shows the answer."""

from typing import Any, NamedTuple

CONVOLUTIONS = ("conv2d", "true_conv2d", "block", "network")


class Question(NamedTuple):
    question: str
    answer: str
    page: str
    panel: str
    cell: int
    kinds: tuple[str, ...]  # whose pages have it


QUESTIONS = (
    Question(
        "Why is the kernel rotated?",
        "Look at x22, the pixel in the middle. y11 sees it through w22, y12 through w21, y21 through w12 and y22 "
        "through w11: the further right and down the window stands, the further left and up is the tap over the "
        "pixel. So dx22 = d11 w22 + d12 w21 + d21 w12 + d22 w11, in which delta and w are read in opposite "
        "directions.\n\n"
        "A window that slides reads both in the same direction. To have the sum made by sliding, one of the two "
        "must be turned by 180 degrees first: the kernel. The rotation is no extra step; it is the order of the "
        "sum.",
        *("conv2d", "local-gradient", 4, CONVOLUTIONS),
    ),
    Question(
        'Why is it "full", and how much padding does it need?',
        "The pixel in the corner, x11, is in one window only, at its first tap: dx11 = d11 w11. For the rotated "
        "kernel to meet d11 with that tap alone, it must hang over the edge, and what it hangs over is 0.\n\n"
        "A kernel of P rows needs P - 1 rows of zeros on each side of delta. With dilation d it needs d (P - 1), "
        "and padding of the forward pass is taken off: d (P - 1) - padding. dx then has the size of x, and every "
        'overlap of delta and kernel is in it: that is what "full" means.',
        *("conv2d", "local-gradient", 0, CONVOLUTIONS),
    ),
    Question(
        "What happens at stride 2?",
        "Forwards the window moves by two pixels, so neighbouring outputs see pixels two apart. Backwards the "
        "deltas stand two apart: one zero is put between each two of them, s - 1 zeros at stride s. Over this "
        "wider delta the rotated kernel slides as before, by one pixel, since every pixel needs its gradient.\n\n"
        "In the kernel gradient the same spread delta lies on the input. It moves by one pixel for each tap.",
        *("conv2d-stride", "local-gradient", 12, CONVOLUTIONS),
    ),
    Question(
        "Several channels: over which depths is summed?",
        "Forwards over the input maps: y of map o is the sum over all input maps c of x[c] under w[o, c].\n\n"
        "Backwards over the output maps: x of map c is seen by every output map, so dx of map c is the sum over o "
        "of delta[o] under the rotated w[o, c].\n\n"
        "The kernel gradient is summed over neither: dw[o, c] has delta of map o and x of map c alone. It is "
        "summed over positions and images. With groups, only the maps of the same group see each other.",
        *("conv2d-channels", "local-gradient", 0, CONVOLUTIONS),
    ),
    Question(
        "Why is a shared weight's gradient a sum?",
        "w11 stands in y11, in y12, in y21 and in y22. If it grows a little, each of them changes, by the pixel "
        "that w11 is over there, and the loss changes by delta times that. Small changes add up, so dw11 = d11 "
        "x11 + d12 x12 + d21 x21 + d22 x22.\n\n"
        "It would be a mean only if the loss were divided by the number of positions. It is not.",
        *("conv2d", "kernel-gradient", 0, CONVOLUTIONS),
    ),
    Question(
        "Bias: a sum or a mean?",
        "A sum. The bias of a map stands once in every output of the map, with the factor 1, in every image. So "
        "db is the sum of all its deltas.\n\n"
        "Where the loss is a mean over N images, the 1/N is in every delta already. To divide again would be "
        "wrong.",
        *("conv2d", "bias-gradient", 0, (*CONVOLUTIONS, "linear")),
    ),
    Question(
        "Where does max pooling send the gradient? What about ties and windows that overlap?",
        "The output is a copy of one pixel, the largest of its window. That pixel gets delta, as a copy changes "
        "as much as what it copies; the other pixels of the window get 0, as the output does not change with "
        "them.\n\n"
        "Overlap: x12 is the largest in two windows. It gets both deltas, and they add up: dx12 = d11 + d12.\n\n"
        "Tie: x13 is as large as x12, in the second window. The first of equals in the order of reading is taken, "
        "and it alone gets delta. To give it to each of them would count the same change twice.",
        *("max_pool2d", "local-gradient", 1, ("max_pool2d", "block", "network")),
    ),
    Question(
        "What if pooling comes before the convolution?",
        "Then the convolution's dx is the pooling's delta. Here g2 reads what pool1 gives: its local gradient, "
        "the rotated kernels over the padded delta, ends at the output of pool1. Pooling sends each of these "
        "numbers on to the pixel that it had copied; all others get 0.\n\n"
        "Neither rule changes with its neighbours. The chain rule hands one number an output from each layer to "
        "the one before.",
        *("network", "layer3-local-gradient", 1, ("max_pool2d", "block", "network")),
    ),
    Question(
        "Why 1/m^2 in average pooling?",
        "The output is the sum of the m x m pixels of a window, divided by m^2. If one pixel grows by 1, the "
        "output grows by 1/m^2. So each pixel gets delta/m^2: 0.5/9 here. The divisor is the one of the forward "
        "pass, and a window that overhangs the image may have a smaller one (the next example).",
        *("avg_pool2d", "local-gradient", 0, ("avg_pool2d",)),
    ),
    Question(
        "What does a window get that overhangs the image?",
        "With ceil_mode the last windows begin in the image and end beyond it. They are divided by the pixels "
        "that they have, 2 or 1 here, so these pixels get delta/2 or all of delta. Zeros that were put there by "
        "`padding` count as pixels, unless count_include_pad is False.",
        *("avg_pool2d-overhang", "local-gradient", 8, ("avg_pool2d",)),
    ),
    Question(
        "Why is the gradient yhat - y?",
        "L = -log yhat of the true class t, and log yhat_t = z_t - log sum exp(z). The first part gives -1 at the "
        "true class alone: that is -y. The second one's derivative by z_k is exp(z_k) / sum exp(z), which is "
        "yhat_k. Together: dL/dz_k = yhat_k - y_k.\n\n"
        "The exponentials of softmax and the logarithm of the loss cancel, so no slope is left that could vanish. "
        "The numbers add up to 0: what the true class is to gain the others are to lose.",
        *("cross_entropy", "local-gradient", 0, ("cross_entropy", "network")),
    ),
    Question(
        "Where does 1/m come from?",
        "From a mean in the forward pass, and from nothing else. Here the loss is the mean of two samples, L = "
        "1/2 (L1 + L2), so each sample's yhat - y is multiplied by 1/2. All gradients before it have this factor, "
        "through delta; no layer divides again.\n\n"
        'With reduction="sum" there is no 1/m. Average pooling and batch norm have one of their own, as they take '
        "means, too.",
        *("cross_entropy-batch", "local-gradient", 0, ("cross_entropy", "network", "batch_norm", "linear")),
    ),
    Question(
        "How does batch norm go back through the mean and the variance?",
        "An x reaches y in three ways. Directly: dx = delta w r. Through the mean: if one x grows by 1, the mean "
        "grows by 1/m, and every output of the map falls; so each x gets the same, -1/m db w r. Through the "
        "variance: if x moves away from the mean, r shrinks, and every output moves towards 0; so each x gets "
        "-1/m xhat dw w r, by how far it is from the mean.\n\n"
        "The three add up. What is left of delta has no mean, and no part along xhat: adding the same to all x, "
        "or scaling them all, would not change y.",
        *("batch_norm", "local-gradient", 0, ("batch_norm",)),
    ),
    Question(
        "Is it convolution or correlation?",
        "The lectures' forward pass is a true convolution: the kernel is rotated, then slid, h11 = x11 w22 + x12 "
        "w21 + x21 w12 + x22 w11 (y11 on this page). PyTorch's conv2d, and that of nearly all libraries, slides "
        "it as it stands: a cross-correlation. A network learns either kernel, so both work.\n\n"
        "The rotation is in one of the two passes: with a true convolution forwards, the kernel slides over delta "
        "as it stands; with a correlation forwards, it is rotated backwards.",
        *("true_conv2d", "forward", 0, CONVOLUTIONS),
    ),
    Question(
        'What is "same" padding?',
        "As many zeros as are needed for y to have the size of x: d (P - 1) in all, half of them on each side. "
        "Where that number is odd, as for a kernel of 2 x 2, PyTorch adds the odd one below and on the right. The "
        "padding of delta is then uneven as well, on the other sides: the zeros above and on the left are the "
        "more.",
        *("conv2d-same", "local-gradient", 0, CONVOLUTIONS),
    ),
    Question(
        "What if the kernel were NOT rotated?",
        "Then each delta would be weighted by a tap that its output does not have over the pixel. The gradient "
        "has the right size and looks plausible, and only a kernel that is the same when turned by 180 degrees "
        "has it right. Both stand here side by side.\n\n"
        "A step along each shows it: the loss is 1/2 sum (y - target)^2 with target = y - delta, and x is moved "
        "against the gradient by the same rate. This layer and those behind it would still learn, so the mistake "
        "can hide; those before are told the wrong thing.",
        *("conv2d", "wrong", 0, CONVOLUTIONS),
    ),
)


def asked_of(kind: str | None) -> list[dict[str, Any]]:
    """The questions on the pages of a kind, or all, as the page has them."""
    return [
        {key: value for key, value in q._asdict().items() if key != "kinds"}
        for q in QUESTIONS
        if kind is None or kind in q.kinds
    ]
