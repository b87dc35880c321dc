"""What is understood of reconstructed recordings: STOI and PESQ, beside those of the vocoder."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from vqvae_lightning.config import EvaluateOptions
from vqvae_lightning.data.imageset import image_set
from vqvae_lightning.device import own_device
from vqvae_lightning.evaluation.evaluator import Evaluator
from vqvae_lightning.evaluation.samplers import reconstructed
from vqvae_lightning.evaluation.subject import Plan, Subject
from vqvae_lightning.metrics.hearing import RATES, hearing
from vqvae_lightning.signals.signal import Clip

NEEDED = ("pystoi", "pesq")


class Hearing(Evaluator):
    """STOI and PESQ of reconstructions, and of the originals after the same vocoder.

    The second pair is what a perfect model would reach: the loss of the latents is so told apart
    from that of the vocoder. A recording is judged up to the end of its window. A vocoder has the
    second pair, and beside it that of Griffin-Lim.
    """

    settings = ("hearing",)
    stages = (1, 2, 3)
    heard = ("stoi", "pesq", "stoi_vocoded", "pesq_vocoded")

    def is_for(self, plan: Plan) -> bool:
        return plan.kind.stage != 2

    def asked(self, options: EvaluateOptions) -> bool | None:
        return options.hearing

    def refuses(self, plan: Plan, options: EvaluateOptions) -> str | None:
        if plan.kind.stage == 2:
            return f"hearing: a {plan.kind.name} reconstructs nothing; evaluate its first stage"
        if not plan.signal.rate:
            return f"hearing: {plan.experiment.data.dataset} holds images, which nobody hears"
        if plan.experiment.data.path:
            return (
                "hearing: the store of own recordings holds windows, wanted waveforms, as fsdd has"
            )
        if plan.signal.rate not in RATES:
            wanted = " or ".join(map(str, RATES))
            return f"hearing: got {plan.signal.rate} samples per second, wanted {wanted} for PESQ"
        if missing := [name for name in NEEDED if find_spec(name) is None]:
            return (
                f"hearing: {' and '.join(missing)} not installed; run `pip install"
                " 'vqvae_lightning[speech]'`"
            )
        return None

    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        signal, data = subject.signal, subject.images
        whole = image_set(data.config).recordings(Path(data.config.root), options.split)
        originals = [recording[: signal.samples] / 32768 for recording in whole]
        clips: dict[str, list[Clip]] = {}
        for batch in data.batches(options.split, own_device()):
            made = {"_vocoded": signal.sounds(batch.x)}
            if subject.kind.is_vocoder:
                made["_griffin_lim"] = data.signal.sounds(batch.x)
            else:
                made[""] = signal.sounds(reconstructed(subject.net, batch))
            for of, found in made.items():
                clips.setdefault(of, []).extend(found)
        values: dict[str, float] = {}
        for of, some in clips.items():
            waveforms = [clip.samples.astype(np.float64) for clip in some]
            measured = hearing(originals, waveforms, signal.rate)
            values |= {f"{name}{of}": value for name, value in measured.items()}
        return values
