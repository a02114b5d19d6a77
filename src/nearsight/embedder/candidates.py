"""The pipelines that a job may use, and the rule which of them are tried."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from nearsight.embedder.batch import Known, ReadOptions
from nearsight.embedder.gpu_pipeline import GpuPipeline
from nearsight.embedder.pipelines import DevicePipeline, Pipeline, ProcessPipeline, ThreadPipeline
from nearsight.embedder.plan import MAX_CORES_OF_THREADS, Plan, choose_plan
from nearsight.embedder.rates import Rates
from nearsight.embedder.schedule import Measurement, PipelineCandidate, Schedule
from nearsight.models import Backend, SeparableBackend
from nearsight.models.runtimes import openvino
from nearsight.models.runtimes.gpu_decode import GpuDecoder
from nearsight.process_memory import free_bytes
from nearsight.processor import n_cores

# A processor that nothing was measured on yet: the default model on small images.
_USUAL_SECONDS = 0.015


@dataclass(frozen=True, slots=True)
class Pipelines:
    """The pipelines of one job.

    Attributes
    ----------
    backend : Backend
    options : ReadOptions
    known : callable or None
    n_threads : int
        Workers in all.
    batch_size : int
        Images of a batch.
    gpu_decoder : GpuDecoder, optional
        What decodes on the GPU that runs the model.
    """

    backend: Backend
    options: ReadOptions
    known: Known | None
    n_threads: int
    batch_size: int
    gpu_decoder: GpuDecoder | None = None

    def threads(self) -> PipelineCandidate:
        """Return threads of this process; where a GPU decodes, they send files to it."""
        n = self.n_threads
        if self.gpu_decoder is not None:
            return PipelineCandidate(
                f"{self._name(Plan(0, n))}, decoding on the GPU",
                partial(GpuPipeline, self.backend, self.gpu_decoder, self.options, self.known, n_threads=n),
                n,
            )
        return PipelineCandidate(
            self._name(Plan(0, n)),
            partial(ThreadPipeline, self.backend, self.options, self.known, n_threads=n),
            n,
        )

    def processes(self, plan: Plan) -> PipelineCandidate:
        """Return worker processes: with the model where it runs on the processor, else without."""
        counts = {"n_processes": plan.n_processes, "n_threads": plan.n_threads}
        if runs_on_processor(self.backend) or not isinstance(self.backend, SeparableBackend):
            opened: Callable[[], Pipeline] = partial(
                ProcessPipeline, self.backend, self.options, self.known, **counts
            )
        else:
            opened = partial(
                DevicePipeline,
                self.backend,
                self.backend.preparation,
                self.options,
                self.known,
                batch_size=self.batch_size,
                input_bytes=_input_bytes(self.backend),
                **counts,
            )
        return PipelineCandidate(self._name(plan), opened, plan.n_processes * plan.n_threads)

    def chosen(self, rates: Rates, on_processor: Backend | None) -> Pipeline:
        """Return threads, or a schedule that begins with threads and changes to the fastest.

        Parameters
        ----------
        rates : Rates
            What was measured in earlier runs.
        on_processor : Backend, optional
            The same model on the processor, if the job may change to it.
        """
        if self.n_threads <= MAX_CORES_OF_THREADS and on_processor is None:
            return self.threads().open()
        following = partial(self._following, on_processor=on_processor)
        named = partial(self._named, on_processor=on_processor)
        return Schedule(self.threads(), following, named, rates, model=self.backend.spec.id)

    def _following(self, measured: Measurement, on_processor: Backend | None) -> Sequence[PipelineCandidate]:
        if runs_on_processor(self.backend):
            return self._processes(measured.cpu_seconds, measured.busy / self.n_threads)
        candidates = []
        cores = n_cores()
        if isinstance(self.backend, SeparableBackend) and cores > MAX_CORES_OF_THREADS:
            candidates.append(self.processes(Plan(cores, 1)))
        if on_processor is not None:
            other = replace(self, backend=on_processor, n_threads=cores, gpu_decoder=None)
            candidates += other._processes(_USUAL_SECONDS, 0.0) or [other.threads()]
        return candidates

    def _named(self, name: str, on_processor: Backend | None) -> PipelineCandidate | None:
        device, _, text = name.partition(", ")
        plan = Plan.parse(text)
        for backend in (self.backend, on_processor):
            if plan is None or backend is None or device != _device(backend):
                continue
            # What decodes on a GPU has a name that is no plan.
            other = replace(self, backend=backend, gpu_decoder=None)
            if not plan.n_processes:
                return replace(other, n_threads=plan.n_threads).threads()
            if plan.fits(backend.spec.size_bytes or 0, free_bytes()):
                return other.processes(plan)
        return None

    def _processes(self, seconds_per_image: float, busy_share: float) -> list[PipelineCandidate]:
        plan = choose_plan(
            self.n_threads,
            seconds_per_image=seconds_per_image,
            busy_share=busy_share,
            model_bytes=self.backend.spec.size_bytes or 0,
            memory_bytes=free_bytes(),
        )
        return [self.processes(plan)] if plan.n_processes else []

    def _name(self, plan: Plan) -> str:
        return f"{_device(self.backend)}, {plan}"


def _device(backend: Backend) -> str:
    return str(getattr(backend, "device", "cpu"))


def runs_on_processor(backend: Backend) -> bool:
    """Whether the network runs on the cores that decode."""
    device = _device(backend)
    return device == "cpu" or (device == "openvino" and not openvino.has_gpu())


def _input_bytes(backend: Backend) -> int:
    height, width = backend.spec.input_px
    return 3 * height * width
