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
    """

    def __init__(self, *offered, opens=True, error=0.0, single=False):
        self.offered = [*offered, "CPUExecutionProvider"]
        self.opens, self.error, self.single = opens, error, single
        self.sessions = []
        self.preloaded = 0
        self.SessionOptions = onnxruntime.SessionOptions
        # Its converters are the real ones.
        self.__path__, self.__spec__ = onnxruntime.__path__, onnxruntime.__spec__
        self.InferenceSession = self.open

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

    def get_providers(self):
        return [self.provider, "CPUExecutionProvider"] if self.runtime.opens else ["CPUExecutionProvider"]

    def run(self, outputs, inputs):
        assert self.running.acquire(blocking=False), "two threads at once"
        try:
            time.sleep(self.delay_s)
            [pixels] = inputs.values()
            self.batches.append(len(pixels))
            if self.runtime.single and len(pixels) > 1:
                raise RuntimeError("Reshape: cannot")
            [values] = self.real.run(outputs, inputs)
            if self.runtime.error:
                noise = np.random.default_rng(3).standard_normal(values.shape[1:]).astype(np.float32)
                lengths = np.linalg.norm(values.reshape(len(values), -1), axis=1)
                noise *= self.runtime.error / np.linalg.norm(noise)
                values = values + noise * lengths.reshape(-1, *[1] * (values.ndim - 1))
            return [values]
        finally:
            self.running.release()
