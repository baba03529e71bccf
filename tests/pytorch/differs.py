"""The tests of PyTorch that pass plainly and not by hand: way, reason, tests.

Made with the files of 2.6 on torch 2.14.1; another release has other tests. A test that differs no more is taken off.
"""

REFUSAL = """The test expects a RuntimeError, or an error of PyTorch's wording, where manualbp refuses by a ValueError
or TypeError in its own words."""

COMPLEX = """Complex numbers are refused by name: the backward passes are derived for real ones."""

ANSWERED = """The test expects PyTorch to refuse the backward pass (an output of no numbers, ELU and LeakyReLU in place
with a negative slope). The rule has the derivative."""

WARNING = """The test expects the words of PyTorch's warning about shapes that are broadcast; the rule has its own."""

ROUNDING = """The test expects the gradient of the kernel to equal torch.nn.grad's within 1.3e-6, in float32: two runs
of one kernel. The rule adds the terms in another order; in float64 the two agree to 1e-14."""

FAST_PATH = """Inside any TorchFunctionMode PyTorch leaves the fast path of its transformer layers, where alone a nested
tensor is taken, and a row that is masked as a whole is NaN."""

SPARSE = """A sparse weight is refused by name."""

ANOTHER_PRECISION = """An input of another precision than the running statistics is refused, also where the batch is
empty."""

REFUSED_SETTINGS = """`dir` names the attribute `qconfig`, by which a layer refuses quantisation-aware training."""

DIFFERS = {
    "by_hand": {
        ANSWERED: """
            TestPoolingNNDeviceTypeCPU.test_adaptive_pooling_empty_output_size_cpu_float32
            TestPoolingNNDeviceTypeCPU.test_adaptive_pooling_empty_output_size_cpu_float64
            TestNNDeviceTypeCPU.test_elu_inplace_with_neg_alpha_cpu
            TestNNDeviceTypeCPU.test_leaky_relu_inplace_with_neg_slope_cpu
        """,
        ROUNDING: """
            TestConvolutionNN.test_functional_grad_conv2d TestConvolutionNN.test_grad_conv3d_weight
        """,
        WARNING: "TestNN.test_mse_loss_size_warning",
        FAST_PATH: """
            TestNNDeviceTypeCPU.test_TransformerEncoderLayer_empty_cpu
            TestNNDeviceTypeCPU.test_transformerencoderlayer_cpu_float32
        """,
    },
    "modules": {
        REFUSAL: """
            TestConvolutionNN.test_conv_modules_raise_error_on_incorrect_input_size
            TestConvolutionNN.test_conv_shapecheck TestConvolutionNN.test_invalid_conv1d
            TestConvolutionNN.test_invalid_conv2d TestConvolutionNN.test_invalid_conv3d
            TestPoolingNN.test_MaxUnpool2d_output_size
            TestPoolingNNDeviceTypeCPU.test_AdaptiveMaxPool_zero_batch_dim_cpu
            TestPoolingNNDeviceTypeCPU.test_AvgPool2d_empty_cpu
            TestPoolingNNDeviceTypeCPU.test_MaxPool_zero_batch_dim_cpu
            TestPoolingNNDeviceTypeCPU.test_adaptive_pooling_no_suppot_input_cpu_int16
            TestPoolingNNDeviceTypeCPU.test_adaptive_pooling_no_suppot_input_cpu_int32
            TestPoolingNNDeviceTypeCPU.test_adaptive_pooling_no_suppot_input_cpu_int64
            TestPoolingNNDeviceTypeCPU.test_adaptive_pooling_no_suppot_input_cpu_int8
            TestPoolingNNDeviceTypeCPU.test_adaptive_pooling_no_suppot_input_cpu_uint8
            TestPoolingNNDeviceTypeCPU.test_pooling_zero_stride_cpu
            TestConvolutionNNDeviceTypeCPU.test_conv_empty_channel_cpu_float32
            TestNN.test_linear_raise_on_scalar_input
            TestNNDeviceTypeCPU.test_LayerNorm_general_cpu
            TestNNDeviceTypeCPU.test_ReflectionPad_empty_cpu_float32
            TestNNDeviceTypeCPU.test_ReplicationPad_empty_cpu_float64
            TestNNDeviceTypeCPU.test_cross_entropy_label_smoothing_errors_cpu
        """,
        COMPLEX: """
            TestConvolutionNNDeviceTypeCPU.test_conv_empty_channel_cpu_complex64
            TestNN.test_l1_loss_correct
            TestNNDeviceTypeCPU.test_ReflectionPad_empty_cpu_complex64
            TestNNDeviceTypeCPU.test_ReplicationPad_empty_cpu_complex128
            TestNNDeviceTypeCPU.test_conv_empty_input_cpu_complex128
        """,
        SPARSE: """
            TestNN.test_linear_autograd_device_cpu_bias_weightCOO TestNN.test_linear_autograd_device_cpu_bias_weightCSC
            TestNN.test_linear_autograd_device_cpu_bias_weightCSR
            TestNN.test_linear_autograd_device_cpu_nobias_weightCOO
            TestNN.test_linear_autograd_device_cpu_nobias_weightCSC
            TestNN.test_linear_autograd_device_cpu_nobias_weightCSR
        """,
        ANOTHER_PRECISION: "TestNNDeviceTypeCPU.test_BatchNorm_empty_cpu_float64",
        REFUSED_SETTINGS: "TestNN.test_dir",
    },
}
