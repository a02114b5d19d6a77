"""A stand-in for the `onnxruntime` module of a machine with accelerators: there is none in most."""

import threading
import time

import numpy as np
import onnxruntime


class FakeRuntime:
    """What `nearsight.models.runtimes.onnx` uses of onnxruntime; the real one computes.

    Parameters
    ----------
    *offered : str
        Providers that this build lists.
    opens : bool or str
        Whether a session really gets one; an error's text if it is refused aloud.
    error : float
        Length of what is added to each vector of length 1.
    single : bool
        Whether networks fail on more than one image.
    largest : int or None
        Images for which the device has memory.
    """

    def __init__(self, *offered, opens=True, error=0.0, single=False, largest=None):
        self.offered = [*offered, "CPUExecutionProvider"]
        self.opens, self.error, self.single = opens, error, single
        self.largest = largest
        self.sessions = []
        self.preloaded = 0
        self.SessionOptions = onnxruntime.SessionOptions
        # Its converters are the real ones.
        self.__path__, self.__spec__ = onnxruntime.__path__, onnxruntime.__spec__
        self.InferenceSession = self.open
        self.OrtValue = FakeOrtValue

    def get_available_providers(self):
        return self.offered

    def preload_dlls(self):
        self.preloaded += 1
        print("what would spoil stdout")

    def open(self, source, options, *, providers, enable_fallback=1):
        if providers == ["CPUExecutionProvider"]:
            return onnxruntime.InferenceSession(source, options, providers=providers)
        assert not enable_fallback
        if isinstance(self.opens, str):
            raise RuntimeError(self.opens)
        session = FakeSession(self, source, options, providers)
        if not session.is_helper:
            self.sessions.append(session)
        return session


class FakeSession:
    def __init__(self, runtime, source, options, providers):
        self.runtime, self.options = runtime, options
        [(self.provider, self.provider_options)] = providers
        self.real = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self.get_inputs, self.get_outputs = self.real.get_inputs, self.real.get_outputs
        self.batches = []
        self.running = threading.Lock()
        self.delay_s = 0.0
        # Normalizes or resizes, so it does what the processor does.
        self.is_helper = self.get_inputs()[0].name in ("levels", "image0")

    def get_providers(self):
        return [self.provider, "CPUExecutionProvider"] if self.runtime.opens else ["CPUExecutionProvider"]

    def io_binding(self):
        return FakeBinding(self.real.io_binding())

    def run_with_iobinding(self, binding):
        if self.is_helper:
            self.real.run_with_iobinding(binding.real)
            return
        time.sleep(self.delay_s)
        self.batches.append(binding.lengths[0])
        if self.runtime.single and self.batches[-1] > 1:
            raise RuntimeError("Reshape: cannot")
        if self.runtime.largest and self.batches[-1] > self.runtime.largest:
            raise RuntimeError("out of memory")
        self.real.run_with_iobinding(binding.real)
        binding.outputs = [self.noisy(value.numpy()) for value in binding.real.get_outputs()]

    def noisy(self, values):
        if not self.runtime.error:
            return values
        noise = np.random.default_rng(3).standard_normal(values.shape[1:]).astype(np.float32)
        lengths = np.linalg.norm(values.reshape(len(values), -1), axis=1)
        noise *= self.runtime.error / np.linalg.norm(noise)
        return values + noise * lengths.reshape(-1, *[1] * (values.ndim - 1))

    def run(self, outputs, inputs):
        assert self.running.acquire(blocking=False), "two threads at once"
        try:
            time.sleep(self.delay_s)
            [pixels] = inputs.values()
            self.batches.append(len(pixels))
            if self.runtime.single and len(pixels) > 1:
                raise RuntimeError("Reshape: cannot")
            [values] = self.real.run(outputs, inputs)
            return [self.noisy(values)]
        finally:
            self.running.release()


class FakeOrtValue:
    """Memory of a device that is the processor's."""

    @staticmethod
    def ortvalue_from_shape_and_type(shape, dtype, device, number):
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cpu", 0)

    @staticmethod
    def ortvalue_from_numpy(values, device, number):
        # The real one shares the processor's memory, a device's does not.
        return onnxruntime.OrtValue.ortvalue_from_numpy(values.copy(), "cpu", 0)


class FakeBinding:
    def __init__(self, real):
        self.real = real
        self.lengths = []
        self.outputs = None

    def bind_input(self, name, device, number, dtype, shape, pointer):
        assert device == "cuda"
        self.lengths.append(shape[0])
        self.real.bind_input(name, "cpu", 0, dtype, shape, pointer)

    def bind_output(self, name, device, number=0, dtype=None, shape=None, pointer=None):
        if device == "cpu":
            self.real.bind_output(name, "cpu")
        else:
            self.real.bind_output(name, "cpu", 0, dtype, shape, pointer)

    def synchronize_inputs(self):
        pass

    def get_outputs(self):
        values = self.real.get_outputs()
        if self.outputs is None:
            return values
        return [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in self.outputs]
